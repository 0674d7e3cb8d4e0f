"""held.py WHAT ADDRESS PORT [ELSEWHERE]: a client whose connects are looked at closely, for a host of its own.

Says "waiting" where its test is to let the connection through. Nothing here depends on how long anything takes.
"""
import errno
import select
import signal
import socket
import struct
import sys

WHAT, ADDRESS, PORTS = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]
LIMIT_S = 60


def expect(what, is_so, should):
    if is_so != should:
        sys.exit(f"{what}: {is_so!r}, not {should!r}")


def name(code):
    return errno.errorcode.get(code, code)


def connect(s, port=PORTS[0]):
    return name(s.connect_ex((ADDRESS, port)))


def so_error(s):
    return name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def writable(s, timeout_s=0):
    return bool(select.select([], [s], [], timeout_s)[1])


def talks(s):
    expect("the peer's name", s.getpeername()[:2], (ADDRESS, PORTS[-1]))
    s.setblocking(True)
    s.sendall(b"and back")
    expect("the echo", s.recv(100), b"and back")
    s.close()


def let_through(s):
    """Begins a non-blocking connect, which cannot stand before "waiting" is said."""
    s.setblocking(False)
    expect("the connect", connect(s), "EINPROGRESS")
    expect("another", connect(s), "EALREADY")
    expect("writable", writable(s), False)
    expect("SO_ERROR", so_error(s), 0)
    print("waiting", flush=True)
    expect("writable at last", writable(s, LIMIT_S), True)


def non_blocking():
    with socket.socket() as s:
        let_through(s)
        expect("SO_ERROR of what stands", so_error(s), 0)
        expect("the connect that ends it", connect(s), 0)
        expect("one after that", connect(s), "EISCONN")
        talks(s)


def refused():
    """PORT refuses, ELSEWHERE does not: for the same socket."""
    with socket.socket() as s:
        let_through(s)
        expect("SO_ERROR", so_error(s), "ECONNREFUSED")
        expect("SO_ERROR once more", so_error(s), 0)
    with socket.socket() as s:
        expect("a blocking connect", connect(s), "ECONNREFUSED")
        expect("to elsewhere", connect(s, PORTS[1]), 0)
        talks(s)


class Rang(Exception):
    pass


def ring(*_):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)             # it rings again until the connect has been reached
    raise Rang


def interrupted():
    signal.signal(signal.SIGALRM, ring)
    with socket.socket() as s:
        signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
        try:
            sys.exit(f"the connect returned: {connect(s)}")
        except Rang:
            signal.setitimer(signal.ITIMER_REAL, 0)
        print("waiting", flush=True)
        expect("writable at last", writable(s, LIMIT_S), True)
        expect("the connect that ends it", connect(s), 0)
        talks(s)


def limited():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
        expect("the connect", connect(s), "EINPROGRESS")
        expect("another", connect(s), "EALREADY")
        print("waiting", flush=True)
        expect("writable at last", writable(s, LIMIT_S), True)
        talks(s)


def blocking():
    with socket.socket() as s:
        expect("the connect", connect(s), 0)
        expect("another", connect(s), "EISCONN")
        talks(s)


{"non-blocking": non_blocking, "refused": refused, "interrupted": interrupted, "limited": limited,
 "blocking": blocking}[WHAT]()
