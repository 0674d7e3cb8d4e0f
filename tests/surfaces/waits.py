"""Waiting for readiness."""
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import threading

from .cases import WAY, all_of, becomes, c, case, libc, moves, moving, session, told
from .data import unread

EPOLLEXCLUSIVE = 1 << 28


def events(ep, timeout=0.0, names=None):
    return sorted((names.get(fd, "?") if names else 0, event) for fd, event in ep.poll(timeout))


@moving
def epoll_in_epoll():
    """An epoll descriptor watched by another, by poll and by select."""
    a, b = session()
    inner, outer = select.epoll(), select.epoll()
    inner.register(b, select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN)
    for _ in range(2):
        print(events(outer), select.select([inner], [], [], 0)[0])
        moves(a)
        print(events(outer), select.select([inner], [], [], 0)[0])
        a.send(b"x")
        print([e for _, e in outer.poll(5)], [e for _, e in inner.poll(5)], select.select([inner], [], [], 5)[0] == [inner])
        moves(a)
        print([e for _, e in outer.poll(5)], [e for _, e in inner.poll(5)])
        print(b.recv(10), events(outer), events(inner))


@moving
def epoll_twice():
    """One descriptor in two epolls, and its copy in one of them."""
    a, b = session()
    one, two = select.epoll(), select.epoll()
    copy = os.dup(b.fileno())
    one.register(b, select.EPOLLIN)
    two.register(b, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    two.register(copy, select.EPOLLIN)
    names = {b.fileno(): "b", copy: "copy"}
    print(events(one, 0, names), events(two, 5, names), events(two, 0, names))
    a.send(b"x")
    becomes("unread", lambda: unread(b) == 1)
    moves(a)
    print(events(one, 5, names), sorted(dict(events(two, 5, names))))
    print(b.recv(10), events(one, 0, names))
    b2 = told(two.register, b, select.EPOLLIN), told(one.unregister, copy)
    print(b2)
    two.unregister(b)
    moves(a)
    a.send(b"y")
    becomes("unread", lambda: unread(b) == 1)
    print(events(one, 5, names), events(two, 5, names))
    b.recv(10)
    os.close(copy)
    a.send(b"z")
    print(events(one, 5, names), b.recv(1))


@moving
def epoll_copy_closed():
    """A registration is the socket's, and stays when the number it was made under is closed, and becomes another's
    (epoll(7), questions and answers, 6)."""
    a, b = session()
    r, w = os.pipe()
    ep = select.epoll()
    copy = fcntl.fcntl(b.fileno(), fcntl.F_DUPFD, 50)
    ep.register(copy, select.EPOLLIN)
    os.close(copy)
    os.dup2(r, copy)
    ep.register(copy, select.EPOLLIN | select.EPOLLET)
    for _ in range(2):
        moves(a)
        os.write(w, b"x")
        print(ep.poll(5) == [(copy, select.EPOLLIN)], os.read(r, 1), events(ep))
        a.send(b"y")
        print(ep.poll(5) == [(copy, select.EPOLLIN)], b.recv(1), events(ep))
    print(told(ep.modify, b, select.EPOLLIN), told(ep.unregister, b))
    print(told(ep.register, b, select.EPOLLIN), told(ep.register, b, select.EPOLLIN), told(ep.modify, b, select.EPOLLIN))
    a.send(b"z")
    becomes("told", lambda: (b.fileno(), select.EPOLLIN) in ep.poll(1))
    moves(a)
    print((b.fileno(), select.EPOLLIN) in ep.poll(5), b.recv(1), told(ep.unregister, copy), told(ep.unregister, b))


@moving
def epoll_once():
    """EPOLLONESHOT: disarmed after one report, a move does not arm it."""
    a, b = session()
    ep = select.epoll()
    ep.register(b, select.EPOLLIN | select.EPOLLONESHOT)
    a.send(b"x")
    print(events(ep, 5), events(ep))
    moves(a)
    print(events(ep, 0.05))
    ep.modify(b, select.EPOLLIN | select.EPOLLONESHOT)
    print(events(ep, 5), events(ep), b.recv(1))
    ep.modify(b, select.EPOLLIN | select.EPOLLONESHOT)
    moves(a)
    print(events(ep))
    a.send(b"y")
    print(events(ep, 5), events(ep), b.recv(1))


@moving
def epoll_exclusive():
    a, b = session()
    ep = select.epoll()
    ep.register(b, select.EPOLLIN | EPOLLEXCLUSIVE)
    print(told(ep.modify, b, select.EPOLLIN))
    moves(a)
    a.send(b"x")
    print(events(ep, 5), b.recv(1), told(ep.modify, b, select.EPOLLIN))
    other = select.epoll()
    print(told(other.register, b, select.EPOLLIN | EPOLLEXCLUSIVE | select.EPOLLONESHOT))


@moving
def epoll_edges():
    """Edge triggered: one report an arrival."""
    a, b = session()
    ep = select.epoll()
    ep.register(b, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
    for _ in range(2):
        a.send(b"x")
        print(events(ep, 5), events(ep))
        a.send(b"y")
        print(events(ep, 5), all_of(b, 2))
        moves(a)
        while events(ep):                                     # a move may report what was there, as any edge may repeat
            pass
    a.shutdown(socket.SHUT_WR)
    print(events(ep, 5), b.recv(1))


@moving
def epoll_finely():
    """epoll_pwait2."""
    a, b = session()
    ep = select.epoll()
    ep.register(b, select.EPOLLIN)
    got = ctypes.create_string_buffer(24)

    def wait(seconds, ns):
        return c("epoll_pwait2", ep.fileno(), got, 2, struct.pack("ll", seconds, ns), None)
    print(wait(0, 0), wait(0, 100_000), wait(0, 2_000_000_000))
    moves(a)
    a.send(b"x")
    print(wait(5, 0), wait(0, 0), b.recv(1), c("epoll_pwait2", ep.fileno(), got, 0, None, None))


@moving
def epoll_waits_through_a_move():
    """Threads wait in each of the calls while the connection goes; the bytes come after."""
    a, b = session()
    ep = select.epoll()
    ep.register(b, select.EPOLLIN)
    p = select.poll()
    p.register(b, select.POLLIN)
    got = {}
    waits = {"epoll": lambda: [e for _, e in ep.poll(10)], "poll": lambda: [e for _, e in p.poll(10_000)],
             "select": lambda: select.select([b], [], [], 10)[0] == [b], "peek": lambda: b.recv(1, socket.MSG_PEEK)}
    threads = [threading.Thread(target=lambda k=k, w=w: got.update({k: w()})) for k, w in waits.items()]
    for t in threads:
        t.start()
    moves(a)
    a.send(b"x")
    for t in threads:
        t.join()
    print(sorted(got.items()), b.recv(1))


@moving
def poll_kinds():
    """poll and select: what is asked and what is not, bad numbers, no descriptors at all."""
    a, b = session()
    gone = os.dup(0)                                          # the kernel's select looks no further than its table
    os.close(gone)
    for _ in range(2):
        p = select.poll()
        p.register(b, 0)
        print(p.poll(0))
        p.modify(b, select.POLLIN | select.POLLOUT | select.POLLPRI | 0x40 | 0x100)            # POLLRDNORM, POLLWRNORM
        print([e for _, e in p.poll(0)])
        a.send(b"x")
        becomes("unread", lambda: unread(b) == 1)
        print([e for _, e in p.poll(0)])
        moves(a)
        print([e for _, e in p.poll(0)], b.recv(1))
        p.register(gone, select.POLLIN)
        print(sorted(e for _, e in p.poll(0)))
        print(told(select.select, [b, gone], [], [], 0), [len(x) for x in select.select([a, b], [a, b], [a, b], 0)])
    print(c("poll", None, 0, 0), c("poll", None, 1, 0), c("poll", ctypes.create_string_buffer(8), -1, 0))


@moving
def poll_of_a_hang_up():
    """Both directions are shut here, and none there: POLLHUP for as long as the descriptor is open."""
    a, b = session()
    p, ep = select.poll(), select.epoll()
    p.register(a, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    ep.register(a, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
    a.shutdown(socket.SHUT_RDWR)
    for _ in range(2):
        print([e for _, e in p.poll(0)], [e for _, e in p.poll(5000)], events(ep),
              [len(x) for x in select.select([a], [a], [a], 0)])
        moves(a)
    print(b.recv(1), a.recv(1), told(a.send, b"x"))


@case(stays=True)
def poll_of_the_error_queue():
    """A time stamp of what was sent waits there: POLLERR on a connection that lives."""
    a, b = session()
    p = select.poll()
    p.register(a, select.POLLIN | select.POLLOUT)
    a.setsockopt(socket.SOL_SOCKET, 37, 1 << 1 | 1 << 4 | 1 << 7)                 # SO_TIMESTAMPING: TX_SOFTWARE, OPT_ID
    a.send(b"x")
    becomes("stamped", lambda: bool(p.poll(0)[0][1] & select.POLLERR))
    print([e for _, e in p.poll(0)], [e for _, e in p.poll(5000)], [len(x) for x in select.select([a], [a], [a], 0)])
    print([kind for _, kind, _ in a.recvmsg(10, 500, socket.MSG_ERRQUEUE)[1]], [e for _, e in p.poll(0)], b.recv(1))


@moving
def many_at_once():
    """poll of more descriptors than fit on its stack, select beyond FD_SETSIZE."""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    a, b = session()
    padding = [os.dup(0) for _ in range(1500)]
    far = os.dup(b.fileno())
    fds = [(fd, select.POLLPRI) for fd in padding] + [(b.fileno(), select.POLLIN)]
    raw = ctypes.create_string_buffer(b"".join(struct.pack("ihh", fd, e, 0) for fd, e in fds))
    bits = ctypes.create_string_buffer(512)

    def selects(timeout=None):
        set_ = bytearray(512)
        set_[far // 8] |= 1 << far % 8
        ctypes.memmove(bits, bytes(set_), 512)
        return c("select", far + 1, bits, None, None, timeout), bits.raw[far // 8] >> far % 8 & 1
    zero = struct.pack("ll", 0, 0)
    print(c("poll", raw, len(fds), 0), selects(zero))
    moves(a)
    print(c("poll", raw, len(fds), 0), selects(zero))
    a.send(b"x")
    print(c("poll", raw, len(fds), 5000), struct.unpack_from("ihh", raw.raw, 8 * 1500)[2], selects())
    moves(a)
    print(c("poll", raw, len(fds), 5000), selects(), b.recv(1), far > 1024)


@moving
def interrupted():
    """A handler without SA_RESTART ends a call that waits, also while the connection is replaced."""
    a, b = session()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    buf = ctypes.create_string_buffer(10)
    ep = select.epoll()
    ep.register(b, select.EPOLLIN)
    p = ctypes.create_string_buffer(struct.pack("ihh", b.fileno(), select.POLLIN, 0), 8)
    calls = {"recv": lambda: c("recv", b.fileno(), buf, 10, 0), "read": lambda: c("read", b.fileno(), buf, 10),
             "poll": lambda: c("poll", p, 1, -1), "epoll": lambda: c("epoll_wait", ep.fileno(), buf, 1, -1),
             "select": lambda: c("pselect", 0, None, None, None, None, None)}
    for name, call in calls.items():
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)       # again and again: one may come before it waits
        print(name, call())
        signal.setitimer(signal.ITIMER_REAL, 0)
        moves(a)
    a.send(b"x")
    print(b.recv(1), WAY != "")
