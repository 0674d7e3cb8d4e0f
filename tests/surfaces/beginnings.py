"""The beginning of a connection: who speaks first, NEW, fast open."""
import ctypes
import os
import select
import socket
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
