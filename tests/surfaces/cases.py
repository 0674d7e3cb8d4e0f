"""What the cases share: registering, a pair of connected sockets, and the moment at which the connection may go."""
import ctypes
import errno
import os
import socket
import struct

CASES = {}
WAY = os.environ.get("SURFACE_WAY", "plain")

from rig.pair import ESTABLISHED, RESUMED                                     # noqa: E402
from rig.procs import Log, wait_for                                           # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)                # what the program calls: the shim's where it is loaded
bare = ctypes.CDLL("libc.so.6", use_errno=True)         # around it
libc.send.restype = libc.recv.restype = libc.splice.restype = libc.sendfile.restype = ctypes.c_ssize_t


class Case:
    def __init__(self, name, function, moves=False, protects=True, stays=False, asked=False, program=None,
                 **settings):
        self.name, self.function, self.moves, self.program = name, function, moves, program
        self.protects = protects                              # the protected ways must have a session
        self.stays = stays                                    # and it must not be demoted
        self.asked = asked                                    # it is about a client that is protected
        self.settings = settings


def case(**how):
    def register(function):
        name = function.__name__.replace("_", "-")
        CASES[name] = Case(name, function, **how)
        return function
    return register


def moving(function):
    """A case that calls moves()."""
    return case(moves=True, stays=True)(function)


def shim_log():
    return Log(os.environ["NAMESOCKET_LOG_FILE"])


def protected(ends=2):
    """In the protected ways: wait until so many ends of sessions are established."""
    if WAY in ("protected", "moved"):
        shim_log().wait(ESTABLISHED, ends, 30)


def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    return listener, client, server


def session(pairs=1):
    """Client and server of one connection, over which a byte has gone each way."""
    listener, client, server = pair()
    client.send(b"?")
    server.recv(1)
    server.send(b"!")
    client.recv(1)
    protected(2 * pairs)
    session.listeners.append(listener)
    return client, server


session.listeners = []
session.moved = 0


def destroy(*clients):
    """Their connections end: this end gets ECONNABORTED, the other a reset. Asked of the kernel (SOCK_DESTROY,
    sock_diag(7)), since a program that is started would demote the sessions."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:             # NETLINK_SOCK_DIAG
        for client in clients:
            (here, ours), (there, theirs) = (kernels_name(client, number) for number in (51, 52))
            request = struct.pack("=BBBxIHH4s12x4s12xIII", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF,
                                  socket.htons(ours), socket.htons(theirs), here, there, 0, 0xFFFFFFFF, 0xFFFFFFFF)
            diag.send(struct.pack("=IHHII", 16 + len(request), 21, 1 | 4, 1, 0) + request)
            error = struct.unpack_from("=i", diag.recv(4096), 16)[0]
            if error:
                raise OSError(-error, "SOCK_DESTROY: " + os.strerror(-error))


def kernels_name(sock, number):
    """An address of the connection in use (getsockname and getpeername by their numbers, asm/unistd_64.h): what the
    shim tells are the first one's."""
    buf, size = ctypes.create_string_buffer(28), ctypes.c_int(28)
    if bare.syscall(number, sock.fileno(), buf, ctypes.byref(size)) < 0:
        raise OSError(ctypes.get_errno(), "no name")
    return buf.raw[4:8], int.from_bytes(buf.raw[2:4], "big")


def moves(*clients):
    """In the last way: the connections of these sessions go, and both ends of each resume."""
    if WAY != "moved":
        return
    session.moved += 2 * len(clients)
    destroy(*clients)
    shim_log().wait(RESUMED, session.moved, 30)


def told(call, *args):
    """Its value, or the error's name."""
    try:
        return call(*args)
    except OSError as e:
        return errno.errorcode[e.errno] if e.errno else repr(e)


def c(name, *args):
    """The result of one of libc's functions, or the error's name."""
    r = getattr(libc, name)(*args)
    return r if r >= 0 else errno.errorcode[ctypes.get_errno()]


def becomes(what, condition):
    """Prints it once it is true."""
    print(what, wait_for(what, condition, 30))


def all_of(sock, n):
    """Exactly so many bytes."""
    got = bytearray()
    while len(got) < n:
        piece = sock.recv(n - len(got))
        if not piece:
            break
        got += piece
    return bytes(got)


__all__ = ["CASES", "Case", "WAY", "all_of", "becomes", "c", "case", "destroy", "libc", "moves", "moving",
           "pair", "protected", "session", "shim_log", "told"]
