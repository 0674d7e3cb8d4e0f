#!/usr/bin/env python3
"""What a program sees of its sockets under the shim is what it sees without: each case runs plain and with the
connection protected, over the loopback interface of a network namespace of its own, and says the same.

A case is a function of this file, run in a process of its own (`--case NAME`), that prints what it saw.
"""
import argparse
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from rig import become_root                                                   # noqa: E402
from rig.netns import die_with_parent                                         # noqa: E402
from rig.pair import ESTABLISHED, shim_env                                    # noqa: E402
from rig.procs import Log                                                     # noqa: E402

CASE_LIMIT_S = 10
PAUSES = 400


def protected(ends=1):
    """Under the shim: wait until so many ends of sessions are established."""
    if "NAMESOCKET_LOG_FILE" in os.environ:
        Log(os.environ["NAMESOCKET_LOG_FILE"]).wait(ESTABLISHED, ends)


def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    return listener, client, server


def speaks_first_and_closes():
    """The server has written and closes while a NEW that it never read is in its queue."""
    listener, client, server = pair()
    payload = os.urandom(300_000)
    sent = server.send(payload, socket.MSG_DONTWAIT)          # what its buffer takes; not all reaches the client
    protected()                                               # the client has sent NEW by itself
    server.close()
    got = bytearray()
    while piece := client.recv(65536):
        got += piece
    print("the same bytes:", bytes(got) == payload[:sent])


def speaks_first_and_is_gone():
    """The same, closed before the client can know whether to send NEW."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    payload = os.urandom(300_000)
    sent = server.send(payload, socket.MSG_DONTWAIT)
    server.close()
    protected()
    got = bytearray()
    while piece := client.recv(65536):
        got += piece
    print("the same bytes:", bytes(got) == payload[:sent])


def edge_of_new():
    """NEW is no edge of the application's."""
    listener, client, server = pair()
    ep = select.epoll()
    ep.register(server, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    print("first:", [event for _, event in ep.poll(5)])
    protected()
    print("second:", [event for _, event in ep.poll(0.05)])
    client.send(b"x")
    print("third:", [event for _, event in ep.poll(5)])


def reset_while_reading():
    """The client resets its connection; the server is told, as soon as NAMESOCKET_PARK allows."""
    listener, client, server = pair()
    client.send(b"x")
    server.recv(1)
    server.send(b"unread")
    select.select([client], [], [], 5)
    client.close()
    try:
        print("read:", server.recv(100))
    except OSError as e:
        print("read:", e.errno)


def urgent_first():
    """The first thing that a client says is an urgent byte, and it is here before the server accepts."""
    for byte in (b"x", b"N"):
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        client.send(byte, socket.MSG_OOB)
        select.select([listener], [], [], 5)
        server, _ = listener.accept()
        select.select([], [], [server], 5)
        print("urgent:", server.recv(1, socket.MSG_OOB))
        client.send(b"behind it")
        print("then:", server.recv(100))


def accept_after_a_pause():
    """A server that comes back to accept just when the helper takes over what waits there: nothing is left waiting."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for i in range(PAUSES):
            listener.accept()[0].close()
            time.sleep(0.0018 + i % 40 * 0.00002)             # about as long as the helper leaves it to the application

    server = threading.Thread(target=serve)
    server.start()
    for _ in range(PAUSES):
        client = socket.create_connection(listener.getsockname())
        while client.recv(1):
            pass
        client.close()
    server.join()
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.send(b"x")
    print("served:", server.recv(1))


CASES = (speaks_first_and_closes, speaks_first_and_is_gone, edge_of_new, reset_while_reading, urgent_first,
         accept_after_a_pause)


def run(name, shim, top):
    env = dict(os.environ)
    log = os.path.join(top, name + ".log")
    if shim:
        env.update(shim_env(shim, log), NAMESOCKET_KNOWN="127.0.0.1:*", NAMESOCKET_PARK="200ms")
        preload = ["env", "LD_PRELOAD=" + env.pop("LD_PRELOAD")]
    argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *(preload if shim else []),
            sys.executable, os.path.abspath(__file__), "--case", name]
    try:
        done = subprocess.run(argv, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=CASE_LIMIT_S, preexec_fn=die_with_parent)
        said = done.stdout + (f"exit status {done.returncode}\n" if done.returncode else "")
    except subprocess.TimeoutExpired as e:
        said = (e.stdout or b"").decode() + f"did not end in {CASE_LIMIT_S} s\n"
    if shim and not Log(log).count(ESTABLISHED):
        said += "the connection was not protected\n"
    return said


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--builddir", default=os.path.join(os.path.dirname(here), "build"))
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--list", action="store_true")
    p.add_argument("-k", metavar="PART", help="only cases whose name contains this")
    return p.parse_args()


def main():
    o = options()
    cases = [c.__name__ for c in CASES if not o.k or o.k in c.__name__]
    if o.case:
        globals()[o.case]()
        return 0
    if o.list:
        print("\n".join(cases))
        return 0
    become_root()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="namesocket-surface-") as top:
        for name in cases:
            plain = run(name, None, top)
            shim = run(name, os.path.abspath(os.path.join(o.builddir, "src/preload/libnsshim.so")), top)
            bad = plain != shim or "Traceback" in plain
            failed += bad
            print(f"{'not ok' if bad else 'ok'} {name}")
            if bad:
                for way, said in (("plain", plain), ("shim", shim)):
                    print(f"    {way}: " + said.strip().replace("\n", "\n        "))
    print(f"{len(cases) - failed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
