"""Calls that carry bytes."""
import array
import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import tempfile
import termios
import time

from .cases import all_of, becomes, c, case, libc, moves, moving, pair, session, told

IOV = struct.Struct("PN")
RWF_NOWAIT = 8
SPLICE_F_MOVE, SPLICE_F_NONBLOCK, SPLICE_F_MORE = 1, 2, 4


def unread(s):
    return struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0]


class Vector:
    """Buffers, as an iovec array of libc's."""

    def __init__(self, *parts):
        self.bufs = [ctypes.create_string_buffer(p, len(p)) if isinstance(p, bytes) else ctypes.create_string_buffer(p)
                     for p in parts]
        self.raw = b"".join(IOV.pack(ctypes.addressof(b), len(b)) for b in self.bufs)
        self.buf = ctypes.create_string_buffer(self.raw, len(self.raw))
        self.n = len(parts)

    def values(self):
        return [b.raw for b in self.bufs]


class Message:
    """A msghdr with one buffer, and room for a name and a control part."""
    FORM = struct.Struct("PI4xPNPNi4x")

    def __init__(self, part):
        self.vector, self.beside = Vector(part), ctypes.create_string_buffer(64)
        raw = self.FORM.pack(ctypes.addressof(self.beside), 32, ctypes.addressof(self.vector.buf), 1,
                             ctypes.addressof(self.beside) + 32, 32, 99)
        self.header = ctypes.create_string_buffer(raw, len(raw))

    def filled(self):
        """The name's length, the control part's, the flags."""
        got = self.FORM.unpack(self.header.raw)
        return got[1], got[5], got[6]


def temporary(data):
    f = tempfile.TemporaryFile()
    f.write(data)
    f.flush()
    return f


@moving
def vectors():
    """readv, writev, preadv2 and pwritev2, several buffers each."""
    a, b = session()
    out = Vector(b"one", b"", b"three")
    print(c("writev", a.fileno(), out.buf, 3))
    moves(a)
    into = Vector(2, 1, 0, 5)
    becomes("unread", lambda: unread(b) == 8)
    print(c("readv", b.fileno(), into.buf, 4), into.values())
    print(c("pwritev2", a.fileno(), out.buf, 3, ctypes.c_long(-1), 0))
    becomes("unread", lambda: unread(b) == 8)
    moves(a)
    into = Vector(3, 5)
    print(c("preadv2", b.fileno(), into.buf, 2, ctypes.c_long(-1), RWF_NOWAIT), into.values())
    print(c("preadv2", b.fileno(), into.buf, 2, ctypes.c_long(-1), RWF_NOWAIT))
    print(c("pwritev2", a.fileno(), out.buf, 3, ctypes.c_long(-1), 1 << 20))
    print(c("writev", a.fileno(), out.buf, -1), c("writev", a.fileno(), out.buf, 1025), c("readv", b.fileno(), None, 1))
    print(c("pread", b.fileno(), into.buf, 1, ctypes.c_long(0)), c("pwrite", b.fileno(), into.buf, 1, ctypes.c_long(0)))


def messages(*vectors):
    """An array of mmsghdr over these, and how to read the lengths."""
    form = struct.Struct("PI4xPNPNi4xI4x")
    raw = b"".join(form.pack(0, 0, ctypes.addressof(v.buf), v.n, 0, 0, 0, 0) for v in vectors)
    buf = ctypes.create_string_buffer(raw, len(raw))
    return buf, lambda: [form.unpack_from(buf.raw, i * form.size)[7] for i in range(len(vectors))]


@moving
def several_messages():
    """sendmmsg and recvmmsg."""
    a, b = session()
    keep = [Vector(b"first"), Vector(b"sec", b"ond"), Vector(b"third")]
    out, sent = messages(*keep)
    print(c("sendmmsg", a.fileno(), out, 3, 0), sent())
    becomes("unread", lambda: unread(b) == 16)
    moves(a)
    vectors = [Vector(5), Vector(2, 4), Vector(5), Vector(9)]
    into, got = messages(*vectors)
    print(c("recvmmsg", b.fileno(), into, 4, socket.MSG_DONTWAIT, None), got()[:3], [v.values() for v in vectors[:3]])
    print(c("sendmmsg", a.fileno(), out, 1, 0))
    becomes("unread", lambda: unread(b) == 5)
    moves(a)
    print(c("recvmmsg", b.fileno(), into, 4, 0x10000, None), got()[0], vectors[0].values())      # MSG_WAITFORONE
    print(c("recvmmsg", b.fileno(), into, 4, socket.MSG_DONTWAIT, None))
    timeout = ctypes.create_string_buffer(struct.pack("ll", 0, 2_000_000_000))
    print(c("recvmmsg", b.fileno(), into, 4, 0, timeout))
    print(c("sendmmsg", a.fileno(), out, 0, 0), c("recvmmsg", b.fileno(), into, 0, socket.MSG_DONTWAIT, None))


@moving
def ancillary():
    """What recvmsg tells beside the bytes: time stamps, how much more there is; and what sendmsg refuses."""
    a, b = session()
    b.setsockopt(socket.SOL_SOCKET, 29, 1)                                        # SO_TIMESTAMP
    b.setsockopt(socket.IPPROTO_TCP, 36, 1)                                       # TCP_INQ

    def receive(n, flags=0):
        data, beside, flags, address = b.recvmsg(n, 256, flags)
        return data, sorted((level, kind, len(value)) for level, kind, value in beside), flags, address
    stamped = False
    while not stamped:                                        # the kernel takes a moment to begin
        a.send(b"w")
        stamped = any(kind == 29 for _, kind, _ in receive(1)[1])
    a.send(b"0123456789")
    becomes("unread", lambda: unread(b) == 10)
    print(receive(4))
    print(receive(100))
    moves(a)
    a.send(b"0123456789")
    becomes("unread", lambda: unread(b) == 10)
    print(receive(4), receive(100))
    left = [struct.unpack("i", value)[0] for _, kind, value in (a.send(b"abcdef"), becomes("unread", lambda: unread(b) == 6),
            b.recvmsg(2, 256))[2][1] if kind == 36]
    print(left)
    print(all_of(b, 4))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))
    print(told(a.sendmsg, [b"with rights"], [rights]))
    print(told(a.sendmsg, [b"with nonsense"], [(socket.IPPROTO_TCP, 77, b"\0\0\0\0")]))
    print(told(a.sendmsg, [b"to nobody"], [], 0, ("127.0.0.1", 9)))
    print(told(b.recvmsg, 64, 64, socket.MSG_DONTWAIT)[0])


@moving
def ancillary_of_what_was_unread():
    """TCP_INQ counts what an earlier connection left, too."""
    a, b = session()
    b.setsockopt(socket.IPPROTO_TCP, 36, 1)
    a.send(b"before")
    becomes("unread", lambda: unread(b) == 6)
    moves(a)
    a.send(b"after")
    becomes("unread", lambda: unread(b) == 11)
    data, beside, flags, _ = b.recvmsg(2, 64)
    print(data, [struct.unpack("i", v)[0] for _, kind, v in beside if kind == 36], flags)
    data, beside, flags, _ = b.recvmsg(64, 4)
    print(data, flags)


@moving
def peeking():
    a, b = session()
    a.send(b"peeked at")
    becomes("unread", lambda: unread(b) == 9)
    print(b.recv(4, socket.MSG_PEEK), b.recv(100, socket.MSG_PEEK))
    moves(a)
    print(b.recv(9, socket.MSG_PEEK | socket.MSG_WAITALL), b.recv(3), b.recv(100, socket.MSG_PEEK), unread(b))
    print(b.recv(100), told(b.recv, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK), told(b.recv, 1, socket.MSG_DONTWAIT))
    a.send(b"thrown away")
    becomes("unread", lambda: unread(b) == 11)
    print(c("recv", b.fileno(), None, 6, socket.MSG_TRUNC), b.recv(100))


@moving
def wait_for_all():
    """MSG_WAITALL takes pieces from either side of a move; an end and a time-out cut it short."""
    import threading
    a, b = session()
    a.send(b"half")
    becomes("unread", lambda: unread(b) == 4)
    got = []
    t = threading.Thread(target=lambda: got.append(b.recv(10, socket.MSG_WAITALL)))
    t.start()
    moves(a)
    a.send(b" whole")
    t.join()
    print(got)
    b.settimeout(None)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
    a.send(b"!")
    print(b.recv(10, socket.MSG_WAITALL), told(b.recv, 10))
    a.send(b"last")
    a.shutdown(socket.SHUT_WR)
    print(b.recv(10, socket.MSG_WAITALL), b.recv(10))


@moving
def more_to_come():
    """MSG_MORE and TCP_CORK keep a segment back until it is whole; nothing is lost by it."""
    a, b = session()
    a.send(b"first ", socket.MSG_MORE)
    moves(a)
    a.send(b"second")
    print(all_of(b, 12))
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    a.send(b"corked")
    moves(a)
    print(a.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    print(all_of(b, 6))


@moving
def nothing_at_all():
    """Calls with no bytes."""
    a, b = session()
    for _ in range(2):
        print(a.send(b""), os.write(a.fileno(), b""), told(a.sendmsg, []), os.read(b.fileno(), 0))
        print(c("recv", b.fileno(), ctypes.create_string_buffer(1), 0, socket.MSG_DONTWAIT))
        a.send(b"x")
        becomes("unread", lambda: unread(b) == 1)
        print(c("recv", b.fileno(), ctypes.create_string_buffer(1), 0, 0), b.recv(1))
        moves(a)


@moving
def wrong_arguments():
    a, b = session()
    for _ in range(2):
        print(c("send", a.fileno(), None, 5, 0), c("recv", b.fileno(), None, 5, socket.MSG_DONTWAIT))
        print(c("sendto", a.fileno(), b"x", 1, 0, b"y", 1000), c("recvmsg", b.fileno(), None, 0), c("sendmsg", a.fileno(), None, 0))
        a.send(b"z")
        becomes("unread", lambda: unread(b) == 1)
        print(c("recv", b.fileno(), None, 5, 0), unread(b), b.recv(1))
        moves(a)


@moving
def pointers_to_nothing():
    """Memory that is not there, cannot be written, or ends: an error, or less, and no fault."""
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
    libc.mprotect(ctypes.c_void_p(page + 4096), 4096, mmap.PROT_READ)
    constant, low = ctypes.c_void_p(page + 4096), ctypes.c_void_p(8)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    a, b = session()
    fd, room, size = b.fileno(), ctypes.create_string_buffer(200), ctypes.create_string_buffer(struct.pack("i", 4))

    def message(iov, n):
        return ctypes.create_string_buffer(struct.pack("PixxxxPNPNi", 0, 0, iov, n, 0, 0, 0), 64)

    def list_of(address, n=9):
        return ctypes.create_string_buffer(IOV.pack(address.value, n), 16)
    a.send(b"something")
    becomes("unread", lambda: unread(b) == 9)
    moves(a)
    for nowhere in constant, low:
        buffers = list_of(nowhere)
        print(c("recv", fd, nowhere, 9, socket.MSG_PEEK), c("read", fd, nowhere, 9), c("readv", fd, buffers, 1),
              c("recvmsg", fd, message(ctypes.addressof(buffers), 1), 0))
    print(c("recvmsg", fd, message(8, 1), 0), c("sendmsg", a.fileno(), message(8, 1), 0), c("sendmsg", a.fileno(), message(0, 1), 0))
    print(c("recvmmsg", fd, low, 1, 0, None), c("recvmmsg", fd, room, 1, 0, low), c("sendmmsg", a.fileno(), low, 1, 0))
    print(c("getsockopt", fd, 1, 4, low, size), c("getsockopt", fd, 1, 4, room, low),                    # SO_ERROR
          c("getpeername", fd, low, size), c("getsockname", fd, room, low), c("accept", listener.fileno(), low, size))
    ep = select.epoll()
    print(c("epoll_ctl", ep.fileno(), 1, fd, low), c("epoll_pwait2", ep.fileno(), room, 1, low, None))
    print(c("recv", fd, ctypes.c_void_p(page + 4096 - 4), 4, 0), ctypes.string_at(page + 4096 - 4, 4), b.recv(20))


@case(stays=True)
def urgent():
    """Urgent data, in band and out of it, and where the mark is."""
    def at_mark(s):
        return struct.unpack("i", fcntl.ioctl(s, 0x8905, bytes(4)))[0]
    a, b = session()
    print(told(b.recv, 1, socket.MSG_OOB))
    a.send(b"one")
    a.send(b"!", socket.MSG_OOB)
    becomes("urgent", lambda: select.select([], [], [b], 0)[2] == [b])
    moves(a)
    print(select.select([], [], [b], 5)[2] == [b], at_mark(b))
    print(b.recv(1, socket.MSG_OOB | socket.MSG_PEEK), b.recv(1, socket.MSG_OOB), told(b.recv, 1, socket.MSG_OOB))
    a.send(b"two")
    becomes("unread", lambda: unread(b) >= 3)
    print(all_of(b, 3), at_mark(b), all_of(b, 3), at_mark(b))
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    a.send(b"in")
    a.send(b"L", socket.MSG_OOB)
    a.send(b"ine")
    becomes("unread", lambda: unread(b) >= 2)
    print(b.recv(2), at_mark(b), told(b.recv, 1, socket.MSG_OOB))
    becomes("unread", lambda: unread(b) == 4)
    print(b.recv(10), at_mark(b))
    moves(a)
    a.send(b"ends")
    print(all_of(b, 4))


@moving
def urgent_behind_what_is_unread():
    """The mark is not reached before what stands in front of it is read."""
    at_mark = lambda: (struct.unpack("i", fcntl.ioctl(b, 0x8905, bytes(4)))[0], libc.sockatmark(b.fileno()))
    a, b = session()
    a.send(b"before")
    becomes("unread", lambda: unread(b) == 6)
    moves(a)
    print(at_mark())
    a.send(b"!", socket.MSG_OOB)
    becomes("urgent", lambda: select.select([], [], [b], 0)[2] == [b])
    print(at_mark(), b.recv(3), at_mark(), b.recv(3), at_mark(), b.recv(1, socket.MSG_OOB), at_mark())
    a.send(b"behind")
    print(all_of(b, 6), at_mark())


@moving
def urgent_unread():
    """An urgent byte that was here before the connection went, each way, among others."""
    def by_message(s):
        data, _, flags, _ = s.recvmsg(1, 0, socket.MSG_OOB)
        return data, flags == socket.MSG_OOB
    a, b = session()
    for x, y in (a, b), (b, a):
        x.send(b"before")
        x.send(b"U", socket.MSG_OOB)
    for s in a, b:
        becomes("urgent", lambda: select.select([], [], [s], 0)[2] == [s])
    b.send(b"behind")
    becomes("unread", lambda: unread(a) >= 6)
    moves(a)
    for s in a, b:
        print(select.select([], [], [s], 5)[2] == [s], s.recv(1, socket.MSG_OOB | socket.MSG_PEEK), by_message(s),
              told(s.recv, 1, socket.MSG_OOB), told(by_message, s))
    print(all_of(a, 12), all_of(b, 6))
    a.send(b"U", socket.MSG_OOB)
    becomes("urgent", lambda: select.select([], [], [b], 0)[2] == [b])
    print(b.recv(1, socket.MSG_OOB))                          # that is in the queue still, and must not be read again
    a.send(b"behind")
    becomes("here", lambda: select.select([b], [], [], 0)[0] == [b])
    moves(a)
    print(told(b.recv, 1, socket.MSG_OOB), all_of(b, 6), b.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE))
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    a.send(b"in")
    a.send(b"L", socket.MSG_OOB)
    a.send(b"ine")
    becomes("here", lambda: select.select([], [], [b], 0)[2] == [b])
    moves(a)
    print(all_of(b, 6), b.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE))


@moving
def file_sending():
    """sendfile: offsets, the file's position, ends, what it refuses."""
    a, b = session()
    whole = os.urandom(100_000)
    f = temporary(whole)
    os.lseek(f.fileno(), 10, os.SEEK_SET)
    at = ctypes.c_long(5)
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 1000), at.value, os.lseek(f.fileno(), 0, os.SEEK_CUR))
    print(c("sendfile", a.fileno(), f.fileno(), None, 1000), os.lseek(f.fileno(), 0, os.SEEK_CUR))
    moves(a)
    print(all_of(b, 2000) == whole[5:1005] + whole[10:1010])
    at.value = 99_000
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 1 << 30), at.value)
    print(all_of(b, 1000) == whole[99_000:])
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 10), at.value)
    at.value = 200_000
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 10), at.value)
    at.value = -1
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 10), c("sendfile", a.fileno(), f.fileno(), None, 0))
    r, w = os.pipe()
    os.write(w, b"pipe")
    at.value = 0
    print(c("sendfile", a.fileno(), r, None, 4), c("sendfile", a.fileno(), r, ctypes.byref(at), 4))
    print(c("sendfile", a.fileno(), 999, None, 4), c("sendfile", a.fileno(), b.fileno(), None, 4))
    with tempfile.NamedTemporaryFile() as other:
        wo = os.open(other.name, os.O_WRONLY)
        print(c("sendfile", a.fileno(), wo, None, 4))
    print(c("sendfile", a.fileno(), os.open("/tmp", os.O_RDONLY), None, 4))
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.c_void_p(1), 4))
    version = os.open("/proc/version", os.O_RDONLY)
    n = c("sendfile", a.fileno(), version, None, 4096)
    moves(a)
    print(all_of(b, n) == open("/proc/version", "rb").read())
    print(c("sendfile", f.fileno(), b.fileno(), None, 4), c("sendfile", r, a.fileno(), None, 4))


@moving
def file_sending_without_room():
    """A socket that takes a part: how much, and where the file stands, agree; EAGAIN where it takes none."""
    a, b = session()
    whole = os.urandom(30_000_000)
    f = temporary(whole)
    os.lseek(f.fileno(), 0, os.SEEK_SET)
    a.setblocking(False)
    total = 0
    while isinstance(n := c("sendfile", a.fileno(), f.fileno(), None, 10_000_000), int) and n > 0:
        total += n
    print(n, os.lseek(f.fileno(), 0, os.SEEK_CUR) == total, 0 < total < 30_000_000)
    moves(a)
    print(all_of(b, total) == whole[:total])
    a.setblocking(True)
    print(c("sendfile", a.fileno(), f.fileno(), None, 100), all_of(b, 100) == whole[total:total + 100])


def spliced(*args):
    fd_in, at_in, fd_out, at_out, n, flags = args
    return c("splice", fd_in, ctypes.byref(at_in) if at_in is not None else None, fd_out, ctypes.byref(at_out) if at_out is not None else None,
             ctypes.c_size_t(n), flags)


@moving
def splice_out():
    """From a pipe into the session."""
    a, b = session()
    r, w = os.pipe()
    os.write(w, b"through a pipe")
    print(spliced(r, None, a.fileno(), None, 7, 0), all_of(b, 7))
    moves(a)
    print(spliced(r, None, a.fileno(), None, 1000, SPLICE_F_MOVE | SPLICE_F_MORE), spliced(r, None, a.fileno(), None, 0, 0))
    print(spliced(r, None, a.fileno(), None, 10, SPLICE_F_NONBLOCK))
    a.send(b".")
    print(all_of(b, 8))
    at = ctypes.c_long(0)
    os.write(w, b"again")
    print(spliced(r, at, a.fileno(), None, 5, 0), spliced(r, None, a.fileno(), at, 5, 0))
    print(spliced(r, None, a.fileno(), None, 5, 1 << 7), spliced(w, None, a.fileno(), None, 5, 0))
    print(spliced(r, None, 999, None, 5, 0), spliced(a.fileno(), None, b.fileno(), None, 5, 0))
    f = temporary(b"a file")
    print(spliced(f.fileno(), None, a.fileno(), None, 5, 0))
    print(spliced(r, None, a.fileno(), None, 5, 0), all_of(b, 5))
    os.close(w)
    print(spliced(r, None, a.fileno(), None, 5, 0))
    moves(a)
    a.send(b"ends")
    print(all_of(b, 4))


@moving
def splice_in():
    """From the session into a pipe."""
    a, b = session()
    r, w = os.pipe()
    a.send(b"into a pipe")
    becomes("unread", lambda: unread(b) == 11)
    print(spliced(b.fileno(), None, w, None, 4, 0), os.read(r, 100))
    moves(a)
    print(spliced(b.fileno(), None, w, None, 1000, 0), os.read(r, 100))
    print(spliced(b.fileno(), None, w, None, 0, 0))
    b.setblocking(False)
    print(spliced(b.fileno(), None, w, None, 10, 0), spliced(b.fileno(), None, w, None, 10, SPLICE_F_NONBLOCK))
    b.setblocking(True)
    at = ctypes.c_long(0)
    a.send(b"again")
    becomes("unread", lambda: unread(b) == 5)
    print(spliced(b.fileno(), at, w, None, 5, 0), spliced(b.fileno(), None, w, at, 5, 0))
    print(spliced(b.fileno(), None, r, None, 5, 0), spliced(999, None, w, None, 5, 0))
    moves(a)
    a.send(b" and after")
    becomes("unread", lambda: unread(b) == 15)
    print(spliced(b.fileno(), None, w, None, 100, 0), os.read(r, 100))
    a.shutdown(socket.SHUT_WR)
    print(spliced(b.fileno(), None, w, None, 100, 0))
    print(spliced(b.fileno(), None, w, None, 100, SPLICE_F_NONBLOCK))
    b.send(b"back")
    print(all_of(a, 4))


@moving
def appending():
    """O_APPEND is refused where a file would be spliced to, a socket too, and means nothing elsewhere."""
    a, b = session()
    r, w = os.pipe()
    os.write(w, b"pipe")
    f = temporary(b"file")
    a.send(b"sent")
    becomes("unread", lambda: unread(b) == 4)
    moves(a)
    for fd in a.fileno(), b.fileno():
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    print(spliced(r, None, a.fileno(), None, 4, 0), spliced(r, None, a.fileno(), None, 0, 0))
    for flags in 0, os.O_APPEND:
        fcntl.fcntl(w, fcntl.F_SETFL, flags)
        print(spliced(b.fileno(), None, w, None, 2, 0), os.read(r, 100))
    for offset in None, ctypes.byref(ctypes.c_long(0)):
        print(c("sendfile", a.fileno(), f.fileno(), offset, 4), c("sendfile", a.fileno(), f.fileno(), offset, 0),
              os.lseek(f.fileno(), 0, os.SEEK_SET))
    at = ctypes.c_long(-1)
    print(c("sendfile", a.fileno(), f.fileno(), ctypes.byref(at), 4), c("sendfile", a.fileno(), 999, None, 4),
          c("sendfile", a.fileno(), r, None, 4))
    fcntl.fcntl(a.fileno(), fcntl.F_SETFL, 0)
    print(c("sendfile", a.fileno(), f.fileno(), None, 4), all_of(b, 4))


@moving
def splice_waits():
    """A splice that waits for the session, or for the pipe, goes on after a move."""
    import threading
    a, b = session()
    r, w = os.pipe()
    got = []
    t = threading.Thread(target=lambda: got.append(spliced(b.fileno(), None, w, None, 100, 0)))
    t.start()
    moves(a)
    a.send(b"at last")
    t.join()
    print(got, os.read(r, 100))
    t = threading.Thread(target=lambda: got.append(spliced(r, None, a.fileno(), None, 100, 0)))
    t.start()
    moves(a)
    os.write(w, b"at last")
    t.join()
    print(got, all_of(b, 7))


@moving
def splice_relay():
    """Megabytes through a pipe of 64 KiB, from one session to another and back to the test, which moves meanwhile."""
    import hashlib
    import threading
    a, b = session()
    x, y = session(2)
    whole = os.urandom(4_000_000)

    def relay():
        r, w = os.pipe()
        while (n := spliced(b.fileno(), None, w, None, 1 << 20, SPLICE_F_MOVE)) and n > 0:
            while n > 0:
                n -= spliced(r, None, x.fileno(), None, n, SPLICE_F_MOVE | SPLICE_F_MORE)
        x.shutdown(socket.SHUT_WR)

    def write():
        a.sendall(whole[:2_000_000])
        moves(a)
        a.sendall(whole[2_000_000:])
        a.shutdown(socket.SHUT_WR)
    threads = [threading.Thread(target=relay), threading.Thread(target=write)]
    for t in threads:
        t.start()
    got = all_of(y, len(whole))
    for t in threads:
        t.join()
    print(len(got), hashlib.sha256(got).digest() == hashlib.sha256(whole).digest(), y.recv(1))


def fill(sock):
    """Until neither the socket nor the peer takes any more. What is on its way makes room once more; so it has to be
    full as often as the peer can open its window a little further."""
    sock.setblocking(False)
    full = 0
    while full < 10:
        try:
            sock.send(b"z" * 100_000)
            full = 0
        except BlockingIOError:
            full += 1
            time.sleep(0.02)


@moving
def splice_without_room():
    """A full pipe, a full socket."""
    a, b = session()
    r, w = os.pipe()
    fcntl.fcntl(w, 1031, 4096)                                                    # F_SETPIPE_SZ
    a.send(b"x" * 10_000)
    becomes("unread", lambda: unread(b) == 10_000)
    os.write(w, b"y" * 4096)
    print(spliced(b.fileno(), None, w, None, 5000, SPLICE_F_NONBLOCK), unread(b))
    print(len(os.read(r, 10_000)))
    total = 0
    while total < 10_000:
        n = spliced(b.fileno(), None, w, None, 10_000 - total, SPLICE_F_NONBLOCK)
        total += n
        os.read(r, 10_000)
        moves(a)
    print(total, unread(b))
    fill(a)
    os.write(w, b"w" * 4096)
    print(spliced(r, None, a.fileno(), None, 4096, 0), unread(r))
    while unread(b):
        b.recv(1 << 20)


@moving
def tee_is_for_pipes():
    a, b = session()
    r, w = os.pipe()
    r2, w2 = os.pipe()
    os.write(w, b"twice")
    print(c("tee", r, w2, ctypes.c_size_t(100), 0), spliced(r, None, a.fileno(), None, 100, 0))
    moves(a)
    print(spliced(r2, None, a.fileno(), None, 100, 0), all_of(b, 10))
    print(c("tee", a.fileno(), w, ctypes.c_size_t(5), 0), c("tee", r, a.fileno(), ctypes.c_size_t(5), 0))
    print(c("vmsplice", a.fileno(), Vector(b"x").buf, ctypes.c_size_t(1), 0))
    print(c("copy_file_range", temporary(b"file").fileno(), None, a.fileno(), None, ctypes.c_size_t(4), 0))


class Control(ctypes.Structure):
    """struct aiocb (aio.h(7)), glibc's."""
    _fields_ = [("fd", ctypes.c_int), ("what", ctypes.c_int), ("priority", ctypes.c_int), ("buf", ctypes.c_void_p),
                ("n", ctypes.c_size_t), ("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                ("rest", ctypes.c_byte * 256)]

    def __init__(self, fd, data, what=0):
        self.data = ctypes.create_string_buffer(data, len(data)) if isinstance(data, bytes) else \
            ctypes.create_string_buffer(data)
        super().__init__(fd=fd, what=what, buf=ctypes.addressof(self.data), n=len(self.data), notify=1)

    def done(self):
        """What came of it."""
        libc.aio_suspend((ctypes.c_void_p * 1)(ctypes.addressof(self)), 1, None)
        error, r = libc.aio_error(ctypes.byref(self)), libc.aio_return(ctypes.byref(self))
        return errno.errorcode[error] if error else r, self.data.raw


@case()
def asynchronous():
    """POSIX asynchronous I/O, at the very beginning and later."""
    LIO_WAIT, LIO_READ, LIO_WRITE, LIO_NOP = 0, 0, 1, 2
    for suffix in "", "64":
        def begin(name, control):
            return c(name + suffix, ctypes.byref(control))

        def list_of(*controls):
            return c("lio_listio" + suffix, LIO_WAIT, (ctypes.c_void_p * len(controls))(*map(ctypes.addressof, controls)),
                     len(controls), None)
        listener, client, server = pair()
        client.send(b"hello")
        first = Control(server.fileno(), 5)
        print(begin("aio_read", first), first.done())
        written = Control(server.fileno(), b"answer")
        print(begin("aio_write", written), written.done(), all_of(client, 6))
        listener, client, server = pair()
        client.send(b"hello again")
        parts = [Control(server.fileno(), n, LIO_READ) for n in (5, 6)]
        print(list_of(Control(client.fileno(), b"nothing", LIO_NOP), *parts), [part.done() for part in parts])
        client, server = session()
        pending = Control(client.fileno(), 5)
        print(begin("aio_read", pending), libc.aio_error(ctypes.byref(pending)) == errno.EINPROGRESS)
        server.send(b"later")
        print(pending.done())
        written = Control(client.fileno(), b"written", LIO_WRITE)
        print(list_of(written), written.done(), all_of(server, 7))


@moving
def by_number():
    """syscall() with the socket calls, as event loops make them."""
    a, b = session()
    n = libc.syscall
    n.restype = ctypes.c_long
    buf = ctypes.create_string_buffer(100)

    def call(number, *args):
        return c("syscall", ctypes.c_long(number), *(ctypes.c_long(x) if isinstance(x, int) else x for x in args))
    iov = Vector(b"ab", b"cd")
    print(call(1, a.fileno(), b"write", 5), call(44, a.fileno(), b"sendto", 6, 0, 0, 0), call(20, a.fileno(), iov.buf, 2))
    becomes("unread", lambda: unread(b) == 15)
    moves(a)
    print(call(0, b.fileno(), buf, 5), buf.raw[:5], call(45, b.fileno(), buf, 6, 0, 0, 0), buf.raw[:6])
    into = Vector(2, 2)
    print(call(19, b.fileno(), into.buf, 2), into.values())
    r, w = os.pipe()
    print(call(1, w, b"pipe", 4), call(275, r, 0, a.fileno(), 0, 4, 0), all_of(b, 4))
    f = temporary(b"file")
    os.lseek(f.fileno(), 0, 0)
    print(call(40, a.fileno(), f.fileno(), 0, 4), all_of(b, 4))
    moves(a)
    p = struct.pack("ihh", b.fileno(), select.POLLIN, 0)
    polled = ctypes.create_string_buffer(p, 8)
    print(call(7, polled, 1, 0), call(271, polled, 1, ctypes.create_string_buffer(16), 0, 8))
    ep = call(291, 0)
    event = ctypes.create_string_buffer(struct.pack("<Iq", select.EPOLLIN, 77), 12)
    print(call(233, ep, 1, b.fileno(), event))
    a.send(b"ready")
    got = ctypes.create_string_buffer(24)
    print(call(281, ep, got, 2, 5000, 0, 8), struct.unpack("<Iq", got.raw[:12]))
    copy = call(32, b.fileno())
    moves(a)
    print(os.read(copy, 5), call(3, copy), call(48, a.fileno(), 1), call(0, b.fileno(), buf, 5))
    print(call(55, a.fileno(), 1, 4, buf, struct.pack("i", 4)), buf.raw[:4])


@case()
def peeking_at_an_offset():
    """SO_PEEK_OFF: each look begins where the last ended. Of a session, and of connections at whose beginning the shim
    looks, too, before the application does."""
    for make in session, pair, pair:
        *listener, a, b = make()
        for given, taken in (a, b), (b, a):
            told(taken.setsockopt, socket.SOL_SOCKET, 42, 0)
            given.send(b"ab")
            print([taken.recv(1, socket.MSG_PEEK), taken.getsockopt(socket.SOL_SOCKET, 42), taken.recv(2, socket.MSG_PEEK)],
                  all_of(taken, 2), taken.getsockopt(socket.SOL_SOCKET, 42))
