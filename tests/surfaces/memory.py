"""Memory that leads nowhere, or may not be written: EFAULT, and the program and its stream go on."""
import ctypes
import errno
import mmap
import select
import socket

from .cases import all_of, c, case, libc, moves, moving, pair, session
from .data import unread

NOTHING = ctypes.c_void_p(8)
DONTWAIT = socket.MSG_DONTWAIT


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


def constant():
    """A page that may be read only."""
    libc.mmap.restype = ctypes.c_void_p
    return ctypes.c_void_p(libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1,
                                     ctypes.c_long(0)))


def nowhere():
    """A page that may not even be read."""
    libc.mmap.restype = ctypes.c_void_p
    return ctypes.c_void_p(libc.mmap(None, mmap.PAGESIZE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0)))


def messages(buffer):
    """Each with something wrong in it."""
    good = Iovec(ctypes.addressof(buffer), 3)
    bad = Iovec(8, 3)
    messages.kept = good, bad
    return [Message(iov=None, iovlen=1), Message(iov=8, iovlen=1), Message(iov=ctypes.addressof(bad), iovlen=1)]


@moving
def bad_pointers_while_receiving():
    a, b = session()
    a.send(b"abcdefgh")
    while unread(b) < 8:
        select.select([b], [], [], 1)
    moves(a)
    fd, page, buffer = b.fileno(), constant(), ctypes.create_string_buffer(10)
    for where in NOTHING, page:
        print(c("recv", fd, where, 3, DONTWAIT), c("read", fd, where, 3), c("recv", fd, where, 3, socket.MSG_PEEK))
    for m in messages(buffer):
        print(c("recvmsg", fd, ctypes.byref(m), DONTWAIT))
    print(c("recvmsg", fd, NOTHING, DONTWAIT), c("readv", fd, NOTHING, 1), c("recvmmsg", fd, NOTHING, 1, DONTWAIT, None))
    print(c("recvmmsg", fd, ctypes.create_string_buffer(64), 1, DONTWAIT, NOTHING))
    # The second buffer may not be written: what the first took is the result.
    both = (Iovec * 2)(Iovec(ctypes.addressof(buffer), 3), Iovec(page.value, 5))
    print(c("readv", fd, both, 2), buffer.raw[:3], unread(b))
    print(b.recv(10))


@moving
def bad_pointers_while_sending():
    a, b = session()
    moves(a)
    fd, buffer = a.fileno(), ctypes.create_string_buffer(b"abc", 10)
    print(c("send", fd, NOTHING, 3, 0), c("write", fd, NOTHING, 3), c("writev", fd, NOTHING, 1))
    for m in messages(buffer):
        print(c("sendmsg", fd, ctypes.byref(m), 0))
    good = Iovec(ctypes.addressof(buffer), 3)
    print(c("sendmsg", fd, ctypes.byref(Message(name=8, namelen=16, iov=ctypes.addressof(good), iovlen=1)), 0))
    print(c("sendmsg", fd, NOTHING, 0), c("sendmmsg", fd, NOTHING, 1, 0))
    a.send(b"def")
    print(all_of(b, 3), unread(b))


@moving
def bad_pointers_while_asking():
    a, b = session()
    moves(a)
    fd, page, buffer = a.fileno(), constant(), ctypes.create_string_buffer(100)
    for call in "getsockname", "getpeername":
        size = ctypes.c_int(100)
        print(c(call, fd, NOTHING, ctypes.byref(size)), c(call, fd, page, ctypes.byref(size)))
        print(c(call, fd, buffer, NOTHING), c(call, fd, buffer, page), c(call, fd, buffer, ctypes.byref(ctypes.c_int(-1))))
    for where in NOTHING, page:
        print(c("getsockopt", fd, socket.SOL_SOCKET, socket.SO_ERROR, where, ctypes.byref(ctypes.c_int(4))),
              c("getsockopt", fd, socket.SOL_SOCKET, socket.SO_ERROR, buffer, where))
    a.send(b"x")
    print(b.recv(10))


@case()
def bad_pointers_while_waiting():
    """With no session in the epoll descriptor, too."""
    a, b = session()
    epoll = select.epoll()
    events = ctypes.create_string_buffer(12)
    for s in a, socket.socket():
        for op in 1, 3:
            print(c("epoll_ctl", epoll.fileno(), op, s.fileno(), NOTHING), c("epoll_ctl", epoll.fileno(), op, s.fileno(), None))
    print(c("epoll_pwait2", epoll.fileno(), events, 1, NOTHING, None), c("epoll_wait", epoll.fileno(), NOTHING, 1, 0))
    print(c("ppoll", NOTHING, 1, None, None), c("ppoll", None, 0, NOTHING, None), c("pselect", 0, None, None, None, NOTHING, None))


@case()
def bad_pointers_while_accepting():
    """The connection whose address cannot be told is closed, and the next one is accepted."""
    listener, a, b = pair()
    a.send(b"?")
    print(b.recv(1))
    listener.setblocking(False)
    size = ctypes.c_int(16)
    print(c("accept", listener.fileno(), NOTHING, ctypes.byref(size)))
    for pointers in (NOTHING, ctypes.byref(size)), (ctypes.create_string_buffer(16), NOTHING):
        client = socket.create_connection(listener.getsockname())
        client.send(b"x")
        select.select([listener], [], [], 5)
        print(c("accept", listener.fileno(), *pointers))
        try:
            print(client.recv(1))
        except OSError as e:
            print(errno.errorcode[e.errno])
    client = socket.create_connection(listener.getsockname())
    client.send(b"x")
    select.select([listener], [], [], 5)
    c1, _ = listener.accept()
    print(all_of(c1, 1), "done")


@case()
def unreadable_addresses():
    """Of connect(2), on a new socket, on a connection, and by its number."""
    listener, a, b = pair()
    page = nowhere()
    a.send(b"?")
    print(b.recv(1))
    for fd in socket.socket().detach(), a.fileno():
        print(c("connect", fd, page, 16), c("connect", fd, NOTHING, 16), c("syscall", 42, fd, page, 16))
    b.send(b"still here")
    print(all_of(a, 10))


@case()
def unreadable_times():
    """Of the calls that wait, by their numbers: libc's functions read a time themselves."""
    a, b = session()
    page, word, time, poll = nowhere(), ctypes.c_long(8), (ctypes.c_long * 2)(), (ctypes.c_int * 2)(a.fileno())
    epoll, events = select.epoll(), ctypes.create_string_buffer(12)
    epoll.register(a, select.EPOLLOUT)
    sets = (ctypes.c_long * 2)(page.value, 8)
    print("select", c("syscall", 23, 0, None, None, None, page))
    print("pselect6", c("syscall", 270, 0, None, None, None, page, None), c("syscall", 270, 0, None, None, None, time, page),
          c("syscall", 270, 0, None, None, None, time, sets))
    print("ppoll", c("syscall", 271, poll, word, page, None, word), c("syscall", 271, poll, word, time, page, word))
    print("epoll_pwait", c("syscall", 281, epoll.fileno(), events, 1, 0, page, word))
    print("epoll_pwait2", c("syscall", 441, epoll.fileno(), events, 1, page, None, word),
          c("syscall", 441, epoll.fileno(), events, 1, time, page, word))
    print(c("syscall", 281, epoll.fileno(), events, 1, 0, None, word))
