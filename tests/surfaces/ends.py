"""Ends of streams and of connections."""
import errno
import os
import select
import signal
import socket
import struct
import threading

from .cases import CASES, Case, all_of, becomes, c, case, moves, moving, pair, session, told
from .data import Message, Vector, messages, unread

# The process ends with its last thread, which is not the main one: tests/last_thread.c.
for _name in ("last-thread", "last-thread-forks"):
    CASES[_name] = Case(_name, None, program="last_thread")


@case(NAMESOCKET_PARK="200ms")
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


@case(NAMESOCKET_PARK="200ms")
def linger_resets():
    """SO_LINGER with no time: close is a reset."""
    a, b = session()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    print(told(b.recv, 10), told(b.recv, 10))


@moving
def half_closes():
    """Either end closes its half first; what the other sends still arrives."""
    a, b = session()
    a.send(b"last of a")
    a.shutdown(socket.SHUT_WR)
    moves(a)
    print(all_of(b, 9), b.recv(10), b.recv(10))
    b.send(b"from b")
    moves(a)
    print(all_of(a, 6))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    print(told(a.send, b"x"), told(a.send, b"x", socket.MSG_NOSIGNAL), told(a.shutdown, socket.SHUT_WR))
    p = select.poll()
    p.register(b, select.POLLIN | select.POLLRDHUP | select.POLLOUT)
    print(p.poll(0)[0][1])
    b.shutdown(socket.SHUT_WR)
    print(a.recv(10), a.recv(10))
    p = select.poll()
    p.register(a, select.POLLIN | select.POLLRDHUP | select.POLLOUT)
    print(p.poll(0)[0][1])


@moving
def broken_pipe_signal():
    """SIGPIPE comes once a write, and not with MSG_NOSIGNAL."""
    a, b = session()
    caught = []
    signal.signal(signal.SIGPIPE, lambda *_: caught.append(1))
    moves(a)
    a.shutdown(socket.SHUT_WR)
    print(told(a.send, b"x"), len(caught), told(a.send, b"x", socket.MSG_NOSIGNAL), len(caught))
    print(told(os.write, a.fileno(), b"x"), len(caught), told(a.sendmsg, [b"x", b"y"]), len(caught))


@moving
def reading_side_shut():
    """SHUT_RD: what is here is read, then the end; poll says so."""
    a, b = session()
    a.send(b"here")
    becomes("unread", lambda: unread(b) == 4)
    b.shutdown(socket.SHUT_RD)
    p = select.poll()
    p.register(b, select.POLLIN | select.POLLRDHUP | select.POLLOUT)
    print(p.poll(0)[0][1], b.recv(10), b.recv(10), p.poll(0)[0][1])
    moves(a)
    print(p.poll(0)[0][1], b.recv(10))
    b.send(b"still")
    print(all_of(a, 5))
    a.send(b"late")
    print(p.poll(0)[0][1])


@moving
def both_sides_shut():
    a, b = session()
    moves(a)
    a.shutdown(socket.SHUT_RDWR)
    print(b.recv(10), a.recv(10), told(a.shutdown, 7))
    b.shutdown(socket.SHUT_WR)
    p = select.poll()
    p.register(a, select.POLLIN | select.POLLRDHUP | select.POLLOUT)
    becomes("hung up", lambda: p.poll(0)[0][1])


@case(NAMESOCKET_PARK="2s")
def bytes_for_a_shut_end():
    """Both directions are shut at one end, and the other goes on sending: a reset at both, from whichever side."""
    for swap in (False, True):
        shut, other = reversed(session()) if swap else session()
        p, q = select.poll(), select.poll()
        p.register(shut, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
        q.register(other, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
        shut.shutdown(socket.SHUT_RDWR)
        other.send(b"more")
        becomes("reset", lambda: all(x.poll(0) and x.poll(0)[0][1] & select.POLLERR for x in (p, q)))
        print(p.poll(0)[0][1], q.poll(0)[0][1])
        with_end = Message(b"....")
        print(c("recvmsg", other.fileno(), with_end.header, 0), with_end.filled())
        print(told(other.send, b""), told(other.send, b"", socket.MSG_NOSIGNAL), told(shut.recv, 10), told(shut.recv, 10))


@moving
def nothing_sent():
    """Sending no bytes at all: nothing, until the stream has ended."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    a, b = session()

    def nothing():
        return [told(a.send, b""), told(a.sendto, b"", b.getsockname()), told(a.sendmsg, [b"", b""]), told(a.sendmsg, []),
                told(os.write, a.fileno(), b""), told(os.writev, a.fileno(), [b"", b""])]
    print(nothing())
    moves(a)
    print(nothing())
    a.shutdown(socket.SHUT_WR)
    print(nothing(), b.recv(1))
    moves(a)
    print(nothing())


@moving
def closing_with_bytes_on_the_way():
    a, b = session()
    whole = os.urandom(200_000)
    moves(a)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    a.sendall(whole)
    a.close()
    print(all_of(b, len(whole)) == whole, b.recv(10))


@moving
def closing_a_copy():
    """The connection ends with its last descriptor."""
    a, b = session()
    copy = os.dup(a.fileno())
    moves(a)
    a.close()
    os.write(copy, b"still here")
    print(all_of(b, 10))
    b.send(b"yes")
    print(os.read(copy, 10))
    os.close(copy)
    print(b.recv(10), told(os.write, copy, b"x"))


@moving
def put_elsewhere():
    """dup2 and dup3 onto and over sessions."""
    a, b = session()
    c, d = session(2)
    os.dup2(a.fileno(), c.fileno())
    print(d.recv(10))
    moves(a)
    c.send(b"as a")
    print(all_of(b, 4))
    os.dup2(0, a.fileno())
    c.send(b"as c")
    print(all_of(b, 4))
    os.dup2(0, c.fileno())
    print(b.recv(10))


def hung_up(client, server):
    """The server closes with bytes unread, so that its end is a reset. What the client waits for, level and edge
    triggered, once it has come."""
    client.setblocking(False)
    client.send(b"unread")
    becomes("unread", lambda: unread(server) == 6)
    everything = select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLPRI
    p, level, edge = select.poll(), select.epoll(), select.epoll()
    p.register(client, everything)
    level.register(client, everything)
    edge.register(client, everything | select.EPOLLET)
    server.close()
    becomes("hung up", lambda: p.poll(100)[0][1] & select.POLLHUP)
    print(p.poll(0)[0][1], level.poll(0)[0][1], edge.poll(0)[0][1])
    print(select.select([client], [client], [client], 0) == ([client], [client], []))
    return p


def dead(sock):
    """Its connection has had the reset."""
    becomes("dead", lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07")


@case()
def hung_up_at_once():
    """The server has hung up: calls that must not block say so as soon as the reset is here."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    everything = select.POLLIN | select.POLLOUT | select.POLLRDHUP

    def write(a):
        return told(a.send, b"x")

    def read(a):
        return told(a.recv, 10)

    def poll(a):
        p = select.poll()
        p.register(a, everything)
        return p.poll(0)[0][1]

    def selected(a):
        return [len(x) for x in select.select([a], [a], [a], 0)]

    def epoll(a):
        with select.epoll() as p:
            p.register(a, everything)
            return p.poll(0)[0][1]

    for call in (write, read, poll, selected, epoll):
        a, b = session()
        a.setblocking(False)
        b.close()
        becomes("ended", lambda: bool(select.select([a], [], [], 0)[0]))
        print(a.send(b"to nobody"))
        dead(a)
        print(call.__name__, call(a), told(a.recv, 10), told(a.send, b"x"))
        a, b = session()
        a.setblocking(False)
        a.send(b"unread")
        becomes("unread", lambda: unread(b) == 6)
        b.close()
        dead(a)
        print(call.__name__, call(a), told(a.recv, 10), told(a.send, b"x"))


@case(protects=False)
def ended_before_the_first_word():
    """The server turns its client away before that has said anything: a first write is taken all the same."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for _ in range(2):
        listener, client, server = pair()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        print(select.select([client], [], [], 5)[0] == [client], select.select([], [client], [], 5)[1] == [client])
        print(told(client.send, b"x"))
        dead(client)
        print(told(client.send, b"x"), told(client.recv, 1))


@case(NAMESOCKET_PARK="200ms")
def answer_before_the_end():
    """The server answers, ends its stream and hangs up: the client reads the answer, then the end."""
    a, b = session()
    b.send(b"too much")
    b.shutdown(socket.SHUT_WR)
    becomes("answered", lambda: unread(a) == 8)
    p = hung_up(a, b)
    print(told(a.recv, 4, socket.MSG_PEEK), told(a.recv, 5), told(a.recv, 100), told(a.recv, 100), p.poll(0)[0][1])
    print(errno.errorcode.get(a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)), told(a.send, b"x"), p.poll(0)[0][1])


@case(NAMESOCKET_PARK="200ms")
def answer_before_a_reset():
    """The server answers and hangs up: the client reads the answer, then the error, once."""
    a, b = session()
    b.send(b"too much")
    becomes("answered", lambda: unread(a) == 8)
    p = hung_up(a, b)
    print(told(a.recv, 4, socket.MSG_PEEK), told(a.recv, 5), told(a.recv, 100), p.poll(0)[0][1])
    print(told(a.recv, 100), told(a.recv, 100), p.poll(0)[0][1], told(a.send, b"x"))


@case(NAMESOCKET_PARK="200ms")
def answer_shorter_than_wanted():
    """MSG_WAITALL: what came before the reset is the result, and the error the next call's."""
    a, b = session()
    b.send(b"too much")
    becomes("answered", lambda: unread(a) == 8)
    hung_up(a, b)
    a.setblocking(True)
    print(told(a.recv, 100, socket.MSG_WAITALL), told(a.recv, 100, socket.MSG_WAITALL), told(a.recv, 100))


@case(NAMESOCKET_PARK="200ms")
def answer_after_a_refused_write():
    """A write is refused first; the answer can be read all the same."""
    a, b = session()
    b.send(b"too much")
    becomes("answered", lambda: unread(a) == 8)
    p = hung_up(a, b)
    print(told(a.send, b"x"), told(a.send, b"x"), p.poll(0)[0][1], told(a.recv, 100), told(a.recv, 100))


@case(NAMESOCKET_PARK="200ms")
def messages_before_a_reset():
    """recvmmsg tells an error that is there before it reads, and one that comes after the first message with the next
    call; getsockopt has the same error to tell."""
    for ask in (lambda s: told(s.recv, 100)), (lambda s: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
        for first in (5, 100):
            a, b = session()
            b.send(b"too much")
            becomes("answered", lambda: unread(a) == 8)
            hung_up(a, b)
            into, got = messages(Vector(first), Vector(100), Vector(100))
            print(c("recvmmsg", a.fileno(), into, 3, 0, None), got())
            print(c("recvmmsg", a.fileno(), into, 3, 0, None), got(), ask(a), told(a.recv, 100))
        a, b = session()
        b.send(b"too much")
        a.send(b"unread")
        becomes("answered", lambda: unread(a) == 8 and unread(b) == 6)
        into, got = messages(Vector(100), Vector(100))
        counts = []
        reader = threading.Thread(target=lambda: counts.append(c("recvmmsg", a.fileno(), into, 2, 0, None)))
        reader.start()
        becomes("first message read", lambda: unread(a) == 0)
        b.close()
        reader.join()
        print(counts, got()[0], ask(a), told(a.recv, 100))
