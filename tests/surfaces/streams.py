"""C's streams on a connection: fdopen, dprintf, and the standard ones."""
import ctypes
import errno
import fcntl
import os
import select
import socket
import sys
import threading

from .cases import all_of, becomes, libc, moves, moving, session, told
from .data import unread

for name in ("fdopen", "freopen", "fgets", "tmpfile"):
    getattr(libc, name).restype = ctypes.c_void_p
for name in ("fread", "fwrite", "ftell"):
    getattr(libc, name).restype = ctypes.c_size_t if name != "ftell" else ctypes.c_long
LINE = 4096


class Stream:
    """A FILE; its methods are libc's functions with the stream where they have it."""

    def __init__(self, fd, mode, pointer=None):
        ctypes.set_errno(0)
        self.f = ctypes.c_void_p(pointer or libc.fdopen(fd, mode.encode()))
        self.error = errno.errorcode.get(ctypes.get_errno()) if not self.f else None

    def __getattr__(self, name):
        return lambda *args: getattr(libc, name)(*args, self.f)

    def line(self, n=LINE):
        buf = ctypes.create_string_buffer(n)
        return buf.value if libc.fgets(buf, n, self.f) else None

    def print(self, text, *args):
        return libc.fprintf(self.f, text, *args)

    def read(self, n):
        buf = ctypes.create_string_buffer(n)
        got = libc.fread(buf, ctypes.c_size_t(1), ctypes.c_size_t(n), self.f)
        return buf.raw[:got]

    def write(self, data):
        return libc.fwrite(data, ctypes.c_size_t(1), ctypes.c_size_t(len(data)), self.f)

    def flags(self):
        return self.feof() != 0, self.ferror() != 0


@moving
def stream_both_ways():
    """A reading and a writing stream, as network programs have them."""
    a, b = session()
    into, out = Stream(b.fileno(), "r"), Stream(os.dup(b.fileno()), "w")
    print(into.fileno() == b.fileno(), libc.fileno_unlocked(into.f) == b.fileno())
    a.send(b"first line\nsecond")
    print(into.line())
    moves(a)
    a.send(b" line\nthird\nrest")
    print(into.line(), into.line(), into.getc(), libc.ungetc(ord("R"), into.f), into.read(2))
    print(out.print(b"%s is %d\n", b"answer", 42), unread(a), out.fflush())
    moves(a)
    print(all_of(a, 13), libc.fputs(b"more", out.f) >= 0, libc.putc(ord("!"), out.f))
    a.shutdown(socket.SHUT_WR)
    moves(a)
    print(into.read(10), into.flags(), into.getc(), out.flags())
    into.clearerr()
    print(into.flags(), out.fclose(), all_of(a, 5), into.fclose(), told(os.fstat, b.fileno()), a.recv(10))
    b.detach()


@moving
def stream_of_megabytes():
    """Blocks of all sizes through streams, while the connection goes and comes."""
    import hashlib
    a, b = session()
    whole = os.urandom(3_000_000)
    out, into = Stream(a.fileno(), "w"), Stream(b.fileno(), "r")

    def write():
        at = 0
        for n in (1, 100, 4095, 4096, 4097, 70_000, 900_000):
            assert out.write(whole[at:at + n]) == n
            at += n
            moves(b)
        assert out.write(whole[at:]) == len(whole) - at
        print(out.fclose())
        a.detach()
    t = threading.Thread(target=write)
    t.start()
    digest, n = hashlib.sha256(), 0
    while piece := into.read(10_007):
        digest.update(piece)
        n += len(piece)
    t.join()
    print(n, digest.digest() == hashlib.sha256(whole).digest(), into.flags())


@moving
def stream_buffering():
    """setvbuf: none, by line, full; and what has no line's end."""
    a, b = session()
    out = Stream(a.fileno(), "w")
    print(libc.setvbuf(out.f, None, 2, 0), out.print(b"at once"), all_of(b, 7))                  # _IONBF
    moves(a)
    line = Stream(os.dup(a.fileno()), "w")
    buf = ctypes.create_string_buffer(64)
    print(libc.setvbuf(line.f, buf, 1, 64), line.print(b"a line\nand"), all_of(b, 7), unread(b))     # _IOLBF
    moves(a)
    print(libc.fflush(line.f), all_of(b, 3), libc.fputs(b"x" * 100, line.f) >= 0, libc.fflush(None), all_of(b, 100) == b"x" * 100)
    full = Stream(os.dup(a.fileno()), "w")
    print(full.print(b"kept\n"), unread(b), libc.__fbufsize(full.f) > 0, libc.__flbf(full.f), libc.__fpending(full.f))
    moves(a)
    print(full.fclose(), all_of(b, 5), libc.__fwritable(out.f) != 0, libc.__freadable(out.f), libc.__freading(out.f))


@moving
def stream_refuses():
    """Modes that are none, seeking, reading what is only written."""
    a, b = session()
    print([Stream(a.fileno(), mode).error for mode in ("", "x", "+r")])
    out, into = Stream(os.dup(a.fileno()), "wb"), Stream(os.dup(b.fileno()), "rb")
    moves(a)
    print(libc.fseek(into.f, ctypes.c_long(0), 0), errno.errorcode[ctypes.get_errno()], into.ftell(), into.rewind() is not None)
    print(out.getc(), out.flags(), libc.putc(1, into.f), into.flags(), errno.errorcode[ctypes.get_errno()])
    appending = Stream(os.dup(a.fileno()), "a+")
    print(fcntl.fcntl(a, fcntl.F_GETFL) & os.O_APPEND != 0, appending.print(b"end"), appending.fflush(), all_of(b, 3))
    moves(a)
    print(Stream(os.dup(a.fileno()), "r+e").f is not None, libc.fclose(out.f), libc.fclose(into.f), libc.fclose(appending.f))


@moving
def stream_without_blocking():
    """O_NONBLOCK under a stream: nothing to read is an error; a full socket, too, and what went before it is gone."""
    a, b = session()
    into = Stream(os.dup(b.fileno()), "r")
    b.setblocking(False)
    print(into.getc(), into.flags(), errno.errorcode[ctypes.get_errno()])
    into.clearerr()
    moves(a)
    a.send(b"now")
    becomes("unread", lambda: unread(b) == 3)
    print(into.line(4), into.flags(), into.getc(), into.flags())
    a.setblocking(False)
    out = Stream(os.dup(a.fileno()), "w")
    n = out.write(b"x" * 20_000_000)
    print(0 < n < 20_000_000, out.flags(), errno.errorcode[ctypes.get_errno()])
    b.setblocking(True)
    moves(a)
    while unread(b):
        b.recv(1 << 20)


@moving
def stream_turns():
    """One stream for both directions: reading and writing in turn."""
    a, b = session()
    both = Stream(b.fileno(), "r+")
    for n in range(3):
        a.send(b"question %d\n" % n)
        print(both.line(), libc.fseek(both.f, ctypes.c_long(0), 1), both.print(b"answer %d\n", n), both.fflush())
        print(all_of(a, 9))
        moves(a)
    a.send(b"two\nlines\n")
    print(both.line(), both.print(b"in between\n"), both.fflush(), both.flags())
    print(both.line(), told(a.recv, 100, socket.MSG_DONTWAIT))


@moving
def stream_elsewhere():
    """freopen puts the stream on a file; the connection ends with it."""
    a, b = session()
    s = Stream(b.fileno(), "w")
    moves(a)
    print(s.print(b"last words"))
    again = Stream(None, None, libc.freopen(b"/dev/null", b"w", s.f))
    print(again.f.value == s.f.value, again.fileno() == b.fileno(), again.print(b"nothing"), again.fflush())
    print(all_of(a, 10), a.recv(10), again.fclose())
    b.detach()


@moving
def stream_and_descriptor():
    """The stream and its descriptor, used in turn; dprintf."""
    a, b = session()
    out = Stream(os.dup(a.fileno()), "w")
    out.print(b"stream, ")
    out.fflush()
    os.write(a.fileno(), b"descriptor, ")
    moves(a)
    print(libc.dprintf(a.fileno(), b"%s %d\n", b"dprintf", 7), out.print(b"stream"), out.fflush())
    print(all_of(b, 36))
    into = Stream(os.dup(b.fileno()), "r")
    a.send(b"by line\nby read")
    print(into.line(), select.select([b], [], [], 0)[0], into.read(7))
    moves(a)
    a.send(b"read first")
    print(all_of(b, 10), told(b.recv, 1, socket.MSG_DONTWAIT))


@moving
def stream_broken():
    """A write after the end: the error is the stream's, and fclose reports it."""
    a, b = session()
    import signal
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    out, late = Stream(os.dup(a.fileno()), "w"), Stream(os.dup(a.fileno()), "w")
    moves(a)
    a.shutdown(socket.SHUT_WR)
    print(out.print(b"x"), out.fflush(), errno.errorcode[ctypes.get_errno()], out.flags(), out.fclose())
    print(late.print(b"y"), late.fclose(), errno.errorcode[ctypes.get_errno()])


# -- the standard streams --------------------------------------------------------------------------------------------

def standard(name):
    return Stream(None, None, ctypes.c_void_p.in_dll(libc, name).value)


def prints_elsewhere():
    """Python's own standard output on another number."""
    sys.stdout = open(os.dup(1), "w", buffering=1)


@moving
def standard_streams():
    """dup2 onto 0, 1 and 2, as servers do it: what is printed and read after that is the connection's."""
    a, b = session()
    prints_elsewhere()
    libc.printf(b"printed before; ")
    for fd in (0, 1, 2):
        os.dup2(b.fileno(), fd)
    a.send(b"a question\nanother\n")
    print(standard("stdin").line(), standard("stdin").fileno(), standard("stdout").fileno(), standard("stderr").fileno())
    moves(a)
    libc.printf(b"%s\n", b"an answer")
    libc.putchar(ord("!"))
    print(libc.getchar(), unread(a), libc.fflush(None), all_of(a, 27))
    ctypes.set_errno(2)
    libc.perror(b"told")
    moves(a)
    print(all_of(a, 32), standard("stdin").line())
    libc.puts(b"last")
    libc.fflush(None)
    print(all_of(a, 5), standard("stdin").flags(), standard("stdout").flags())
    a.shutdown(socket.SHUT_WR)
    print(libc.getchar(), standard("stdin").flags())
    print(standard("stdout").fclose(), standard("stderr").fclose(), libc.printf(b"closed") and libc.fflush(None))
    print(told(os.fstat, 1), b.close(), standard("stdin").fclose(), a.recv(10))


@moving
def standard_input_read_ahead():
    """What the old standard input had read ahead comes first, then the connection's."""
    a, b = session()
    prints_elsewhere()
    r, w = os.pipe()
    os.write(w, b"from the pipe\nand more\n")
    os.dup2(r, 0)
    print(standard("stdin").line())
    os.dup2(b.fileno(), 0)
    a.send(b"from the session\n")
    moves(a)
    print(standard("stdin").line(), standard("stdin").line())


@moving
def standard_output_by_line():
    """How the old standard output buffers stays as it was."""
    a, b = session()
    prints_elsewhere()
    buf = ctypes.create_string_buffer(64)
    libc.setvbuf(standard("stdout").f, buf, 1, 64)
    os.dup2(b.fileno(), 1)
    libc.printf(b"one line\nhalf a")
    print(all_of(a, 9), unread(a))
    moves(a)
    libc.puts(b" line")
    print(all_of(a, 12), libc.fflush(None), unread(a))
