"""The beginning of a connection: who speaks first, NEW, fast open."""
import ctypes
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from .cases import all_of, case, libc, moves, moving, pair, protected, session, told


@case()
def speaks_first_and_closes():
    """The server has written and closes while a NEW that it never read is in its queue."""
    listener, client, server = pair()
    payload = os.urandom(300_000)
    sent = server.send(payload, socket.MSG_DONTWAIT)          # what its buffer takes; not all reaches the client
    protected(1)                                              # the client has sent NEW by itself
    server.close()
    got = bytearray()
    while piece := client.recv(65536):
        got += piece
    print("the same bytes:", bytes(got) == payload[:sent])


@case()
def speaks_first_and_is_gone():
    """The same, closed before the client can know whether to send NEW."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    payload = os.urandom(300_000)
    sent = server.send(payload, socket.MSG_DONTWAIT)
    server.close()
    protected(1)
    got = bytearray()
    while piece := client.recv(65536):
        got += piece
    print("the same bytes:", bytes(got) == payload[:sent])


@case()
def commands():
    """What the shell is given reads what the client has said, and no NEW: system, popen, and wordexp's $( )."""
    class Words(ctypes.Structure):
        _fields_ = [("count", ctypes.c_size_t), ("words", ctypes.POINTER(ctypes.c_char_p)), ("offs", ctypes.c_size_t)]

    libc.popen.restype = ctypes.c_void_p

    def by_system(server):
        print(libc.system(b"head -n1 <&%d >&%d" % (server.fileno(), server.fileno())))

    def by_popen(server):
        stream = libc.popen(b"head -n1 <&%d >&%d" % (server.fileno(), server.fileno()), b"r")
        print(libc.pclose(ctypes.c_void_p(stream)))

    def by_wordexp(server):
        words = Words()
        print(libc.wordexp(b"$(head -n1 <&%d)" % server.fileno(), ctypes.byref(words), 0))
        server.send(b" ".join(words.words[:words.count]) + b"\n")

    print(libc.system(None) != 0)
    for give in by_system, by_popen, by_wordexp:
        listener, client, server = pair()
        client.send(b"give me the file\n")
        os.set_inheritable(server.fileno(), True)
        give(server)
        print(all_of(client, 17))


@case(stays=True)
def commands_beside_a_session():
    """system(3): what a command returns, and whose the signals are while it runs."""
    client, server = session()
    session.listeners.pop().close()
    for sock in client, server:
        os.set_inheritable(sock.fileno(), True)
    got = []
    for n in signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1:
        signal.signal(n, lambda n, _: got.append(signal.Signals(n).name))
    for command in ("exit 3", "kill -INT $PPID; kill -QUIT $PPID; kill -USR1 $PPID; exit 0", "kill -INT $$", "kill -USR1 $$",
                    "trap '' USR1; kill -USR1 $$", "no-such-command 2>/dev/null", "grep ^Sig[BI] /proc/$$/status >/dev/null",
                    f"echo from a command >&{server.fileno()}"):
        print(command[:20], libc.system(command.encode()), got)
        got.clear()
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(all_of(client, 15))
    for n in signal.SIGINT, signal.SIGQUIT:
        os.kill(os.getpid(), n)
    print(got, libc.system(None) != 0, libc.system(b"true"))
    client.send(b"and after")
    print(all_of(server, 9))


@case()
def edge_of_new():
    """NEW is no edge of the application's."""
    listener, client, server = pair()
    ep = select.epoll()
    ep.register(server, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    print("first:", [event for _, event in ep.poll(5)])
    protected(1)
    print("second:", [event for _, event in ep.poll(0.05)])
    client.send(b"x")
    print("third:", [event for _, event in ep.poll(5)])


@case(protects=False)
def fast_open():
    """sendto with MSG_FASTOPEN connects and writes; the second time with the cookie, so that the SYN has the bytes."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w") as f:
        f.write("3")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    for n in range(3):
        client = socket.socket()
        sent = told(client.sendto, b"early %d" % n, socket.MSG_FASTOPEN, listener.getsockname())
        server, _ = listener.accept()
        print(sent, all_of(server, 7))
        server.send(b"answer")
        print(all_of(client, 6))
        client.send(b"more")
        print(all_of(server, 4))
        client.close()
        print(server.recv(10))
        server.close()


@case(protects=False)
def fast_open_connect():
    """TCP_FASTOPEN_CONNECT: connect sends nothing, the first write does."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w") as f:
        f.write("3")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    for n in range(3):
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_TCP, 30, 1)                             # TCP_FASTOPEN_CONNECT
        print(told(client.connect, listener.getsockname()), told(client.send, b"early %d" % n))
        server, _ = listener.accept()
        print(all_of(server, 7))
        server.send(b"answer")
        print(all_of(client, 6))
        client.close()
        server.close()


@moving
def many_descriptors():
    """Sessions whose numbers are beyond FD_SETSIZE: read, written, polled, in epoll, and resumed."""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, 3000))
    padding = [os.dup(0) for _ in range(1100)]
    a, b = session()
    print(a.fileno() > 1024, b.fileno() > 1024)
    ep = select.epoll()
    ep.register(b, select.EPOLLIN)
    moves(a)
    p = select.poll()
    p.register(b, select.POLLIN)
    for fd in padding:
        p.register(fd, select.POLLERR)
    print(p.poll(0))
    a.send(b"far")
    print([e for _, e in p.poll(5000)], [e for _, e in ep.poll(5)])
    print(all_of(b, 3))


@moving
def names_of_both_ends():
    a, b = session()
    names = a.getsockname(), a.getpeername()
    moves(a)
    print(names == (b.getpeername(), b.getsockname()) == (a.getsockname(), a.getpeername()))


@case(asked=True)                                             # a plain client's urgent N is a HELLO (docs/protocol.md)
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


def another_process():
    """One that accepts a client and reads a byte. Returns its address."""
    r, w = os.pipe()
    if os.fork() == 0:
        listener = socket.create_server(("127.0.0.1", 0))
        os.write(w, b"%d" % listener.getsockname()[1])
        os.close(w)
        listener.accept()[0].recv(1)
        os._exit(0)
    os.close(w)
    with open(r) as f:
        return "127.0.0.1", int(f.read())


def says_at_once(address):
    """A client that writes as soon as it has called connect, and must not block."""
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)
    print(told(client.send, b"x"))
    return client


@case(protects=False, NAMESOCKET_HOLD="2s")                   # less than an answer may take
def to_oneself():
    """A worker connects to the listener that it has from its parent: it cannot wait for its own answer to HELLO, and
    the next peer's it has to wait for all the same."""
    other = another_process()
    listener = socket.create_server(("127.0.0.1", 0))
    worker = os.fork()
    if worker:
        print(os.waitpid(worker, 0)[1])
        return
    kept = says_at_once(listener.getsockname()), says_at_once(other)
    print(listener.accept()[0].recv(1), len(kept))
    sys.stdout.flush()
    os._exit(0)


@case(protects=False)
def one_byte_and_the_end():
    """All that a client says is one byte, which may be a HELLO's; it is here before the server accepts, or after."""
    for byte in (b"x", b"N"):
        for late in (False, True):
            listener = socket.create_server(("127.0.0.1", 0))
            client = socket.create_connection(listener.getsockname())
            if late:
                server, _ = listener.accept()
            client.send(byte)
            client.shutdown(socket.SHUT_WR)
            if not late:
                server, _ = listener.accept()
            print(all_of(server, 2), server.send(b"answer"), all_of(client, 6))


@case()
def accept_after_a_pause():
    """A server that comes back to accept just when the helper takes over what waits there: nothing is left waiting."""
    pauses = 400
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for i in range(pauses):
            listener.accept()[0].close()
            time.sleep(0.0018 + i % 40 * 0.00002)             # about as long as the helper leaves it to the application

    server = threading.Thread(target=serve)
    server.start()
    for _ in range(pauses):
        client = socket.create_connection(listener.getsockname())
        while client.recv(1):
            pass
        client.close()
    server.join()
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.send(b"x")
    print("served:", server.recv(1))


def connecting():
    """A listener, a client that has not waited for its connection, and the server's end of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    print(told(client.connect, listener.getsockname()))
    return listener, client, listener.accept()[0]


@case()
def written_at_once():
    """A connection takes bytes as soon as it stands, and by a call that does not wait."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    print(told(client.send, b"now", socket.MSG_DONTWAIT), all_of(listener.accept()[0], 3))
    listener, client, server = connecting()
    print(told(client.send, b"now"), all_of(server, 3))


@case()
def writable_at_once():
    """The first look says so, of connections that have just been found to stand and of others."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    print(select.select([client], [client], [], 0) == ([], [client], []))
    listener, client, server = connecting()
    print([event for _, event in polled(client).poll(0)])
    listener, client, server = connecting()
    print(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), [event for _, event in polled(client).poll(0)])


def polled(sock):
    p = select.poll()
    p.register(sock, select.POLLIN | select.POLLOUT)
    return p


@case()
def one_edge_at_once():
    """Both ends are reported by the first look, and once, where edges are."""
    for kind in (select.EPOLLET, 0):
        listener, client, server = connecting()
        ep = select.epoll()
        for sock in (server, client):
            ep.register(sock, select.EPOLLIN | select.EPOLLOUT | kind)
        print([event for _, event in ep.poll(0)], [event for _, event in ep.poll(0)])


@case()
def registered_before():
    """In epoll before it connects, and reported beside the listener in one look."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    ep = select.epoll()
    ep.register(listener, select.EPOLLIN)
    ep.register(client, select.EPOLLOUT | select.EPOLLONESHOT)
    print(told(client.connect, listener.getsockname()), sorted(event for _, event in ep.poll(0)))
    server, _ = listener.accept()
    print(told(client.send, b"now"), all_of(server, 3), [event for _, event in ep.poll(0)])


@contextlib.contextmanager
def silent_peer():
    """A connection to a plain program that listens and never accepts, so that no HELLO is answered; signals come."""
    program = ("import socket, sys; l = socket.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True); "
               "sys.stdin.read()")
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as peer:
        address = "127.0.0.1", int(peer.stdout.readline())
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        with socket.socket() as client:
            client.setblocking(False)
            print(told(client.connect, address))
            yield client
        signal.setitimer(signal.ITIMER_REAL, 0)
        peer.stdin.close()


@case(protects=False, NAMESOCKET_HOLD="50ms")
def silent_peer_written_to():
    """An answer that does not come is waited for once, and the bytes are taken."""
    with silent_peer() as client:
        print(told(client.send, b"now"))


@case(protects=False, NAMESOCKET_HOLD="50ms")
def silent_peer_in_epoll():
    for kind in (0, select.EPOLLET, select.EPOLLONESHOT):
        with silent_peer() as client, select.epoll() as ep:
            ep.register(client, select.EPOLLOUT | kind)
            print([event for _, event in ep.poll()], told(client.send, b"now"))


@case(protects=False, NAMESOCKET_HOLD="30s", NAMESOCKET_NEAR="0ms")
def refusing_peer_in_epoll():
    """A server that says no while the client, which has been found to be too far to wait for, waits in epoll."""
    program = ("import socket; l = socket.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True); "
               "first = l.accept(); l.accept()[0].close(); l.accept()")
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    for kind in (0, select.EPOLLET, select.EPOLLONESHOT):
        with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE) as peer, \
                socket.socket() as client, select.epoll() as ep:
            client.setblocking(False)
            print(told(client.connect, ("127.0.0.1", int(peer.stdout.readline()))))
            ep.register(client, select.EPOLLOUT | kind)
            print([event for _, event in ep.poll(20)], told(client.send, b"now"))
            peer.kill()


@case(protects=False, NAMESOCKET_HOLD="50ms")
def silent_peer_in_poll():
    for wait in (lambda s: polled(s).poll(), lambda s: select.select([s], [s], [s], 60)):
        with silent_peer() as client:
            print(len(wait(client)), told(client.send, b"now"))


@case(protects=False)
def few_descriptors():
    """Each number below a small limit is the application's (RLIMIT_NOFILE)."""
    import resource
    lowest = os.dup(0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 6, before[1]))
    os.close(lowest)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setblocking(False)
    opened = []
    while len(opened) < 100 and isinstance(one := told(os.dup, 0), int):
        opened.append(one)
    print(len(opened), one, told(client.connect, listener.getsockname()), told(listener.accept))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    select.select([listener], [], [], 5)
    server, _ = listener.accept()
    print(client.send(b"now"), all_of(server, 3))
