#!/usr/bin/env python3
"""Calls on a session at awkward moments: while it is suspended, while bytes of an earlier connection are unread, at
the very moment that a connection is replaced. Each case drives both ends call by call (rig/puppet.py).

    moments.py --list
    moments.py -k peek -x
"""
import sys

sys.dont_write_bytecode = True
from rig import become_root                                                   # noqa: E402
from rig.pair import DEMOTED, ESTABLISHED, PORT, RESUMED, SUSPENDED, Wrong                                           # noqa: E402
from rig.puppet import Raised, Session                                        # noqa: E402
from rig.report import main, options                                          # noqa: E402

CASES = {}

RECVFROM, RECVMSG = 45, 47                                                       # asm/unistd_64.h
ASLEEP = (0, 7, 271, RECVFROM, RECVMSG)                                       # read, poll, ppoll


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


# -- the harness itself ----------------------------------------------------------------------------------------------

@case
def resumed(context):
    x = Session(context)
    x.resumes()
    x.talks()


@case
def suspended_and_again(context):
    x = Session(context)
    x.suspended()
    read = x.client.begin("s.recv(10)").asleep(*ASLEEP)
    x.server.begin("s.send(b'later')").asleep(*ASLEEP)
    x.again()
    if read.result() != b"later":
        raise Wrong("other bytes")
    x.talks()


# -- reading while bytes of an earlier connection are unread ---------------------------------------------------------

def inbox(context, old=b"from the first", new=b", from the second", **more):
    """A session whose client has not read `old` of the connection before and `new` of this one."""
    x = Session(context, **more)
    x.server.do(f"s.send({old!r})")
    x.client.becomes(UNREAD, len(old))
    x.resumes()
    if new:
        x.server.do(f"s.send({new!r})")
        x.client.becomes(UNREAD, len(old) + len(new))
    return x


UNREAD = "struct.unpack('i', fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0]"
BOTH = b"from the first, from the second"


@case
def inbox_unread_count(context):
    inbox(context)


@case
def inbox_peek(context):
    """MSG_PEEK sees what is unread as one stream, as often as it is asked, and takes nothing."""
    x = inbox(context)
    for n in (5, 20, 100):
        x.client.says(f"s.recv({n}, socket.MSG_PEEK)", BOTH[:n])
    x.client.says("s.recvmsg(100, 0, socket.MSG_PEEK)[0]", BOTH)
    x.client.says("s.recv(3)", BOTH[:3])
    x.client.says("s.recv(100, socket.MSG_PEEK)", BOTH[3:])
    x.client.says("s.recv(100)", BOTH[3:])
    x.talks()


@case
def inbox_peek_waits_for_all(context):
    x = inbox(context, new=b"")
    peek = x.client.begin("s.recv(31, socket.MSG_PEEK | socket.MSG_WAITALL)").asleep(*ASLEEP)
    x.server.do("s.send(b', from the second')")
    if peek.result() != BOTH:
        raise Wrong("peeked at something else")
    x.client.says("s.recv(31, socket.MSG_WAITALL)", BOTH)
    x.talks()


@case
def inbox_read_goes_on_into_the_socket(context):
    """FIONREAD has told how much there is: one read gets it."""
    x = inbox(context)
    x.client.says("s.recv(100)", BOTH)
    x.talks()


@case
def inbox_several_buffers(context):
    x = inbox(context)
    x.client.do("bufs = [bytearray(n) for n in (3, 8, 0, 9, 30)]")
    x.client.says("s.recvmsg_into(bufs)[0]", len(BOTH))
    x.client.says("b''.join(bufs)[:31]", BOTH)
    x.talks()


@case
def inbox_wait_for_all_in_several_buffers(context):
    x = inbox(context, new=b"")
    x.client.do("bufs = [bytearray(n) for n in (3, 8, 20)]")
    read = x.client.begin("s.recvmsg_into(bufs, 0, socket.MSG_WAITALL)[0]").asleep(*ASLEEP)
    x.server.do("s.send(b', from the second')")
    if read.result() != 31:
        raise Wrong("not all of them")
    x.client.says("b''.join(bufs)", BOTH)
    x.talks()


@case
def inbox_truncated(context):
    """tcp(7): with MSG_TRUNC the bytes are discarded, and no buffer is needed."""
    x = inbox(context)
    x.client.do("import ctypes; own = ctypes.CDLL(None, use_errno=True)")
    x.client.says("own.recv(s.fileno(), None, 20, socket.MSG_TRUNC)", 20)
    x.client.says("s.recv(100)", BOTH[20:])
    x.talks()


@case
def inbox_low_water_mark(context):
    """SO_RCVLOWAT: not readable, and no blocking read returns, before so much is there."""
    x = inbox(context, new=b"")
    x.client.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)")
    x.client.do("ep = select.epoll(); ep.register(s, select.EPOLLIN)")
    x.client.says("select.select([s], [], [], 0)[0]", [])
    x.client.says("ep.poll(0)", [])
    x.client.says("s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)", 20)
    read = x.client.begin("s.recv(100, socket.MSG_PEEK)").asleep(*ASLEEP)
    x.server.do("s.send(b', from the second')")
    if read.result() != BOTH:
        raise Wrong("less than the low-water mark")
    x.client.says("select.select([s], [], [], 10)[0] == [s]", True)
    x.client.says("len(ep.poll(10))", 1)
    x.client.says("s.recv(100)", BOTH)
    x.client.says("s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)", 20)
    x.client.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)")
    x.talks()


# -- ending a direction ----------------------------------------------------------------------------------------------

@case
def shutdown_read_while_suspended(context):
    x = Session(context)
    x.suspended()
    x.client.do("s.shutdown(socket.SHUT_RD)")
    x.client.says("s.recv(10)", b"")
    x.again()
    x.client.says("s.recv(10)", b"")
    x.client.do("s.send(b'still')")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"still")


@case
def shutdown_read_is_kept(context):
    """It holds for the next connection too, when the application had done it before."""
    x = Session(context)
    x.client.do("s.shutdown(socket.SHUT_RD)")
    x.resumes()
    x.client.says("s.recv(10)", b"")
    x.client.do("s.send(b'still')")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"still")


@case
def shutdown_read_wakes_a_suspended_read(context):
    x = Session(context)
    x.suspended()
    read = x.client.begin("s.recv(10)").asleep(*ASLEEP)
    x.client.do("s.shutdown(socket.SHUT_RD)")
    if read.result() != b"":
        raise Wrong("read something")


@case
def shutdown_write_while_suspended(context):
    x = Session(context)
    x.suspended()
    x.client.do("s.shutdown(socket.SHUT_WR)")
    x.client.do("signal.signal(signal.SIGPIPE, signal.SIG_IGN)")
    x.client.says("s.send(b'x')", "BrokenPipeError EPIPE")
    x.server.begin("s.send(b'down')").asleep(*ASLEEP)
    x.again()
    x.server.says("s.recv(10)", b"")
    x.client.says("s.recv(4, socket.MSG_WAITALL)", b"down")
    x.server.do("s.close()")
    x.client.says("s.recv(10)", b"")


@case
def close_while_suspended(context):
    """What was written before is delivered, then the end."""
    x = Session(context)
    x.suspended()
    x.client.do("s.close()")
    x.again()
    x.server.says("s.recv(10)", b"")


@case
def close_undelivered_and_reset(context):
    """A close with bytes on their way; then the connection under it is reset."""
    x = Session(context)
    x.rig.tage.drop_incoming(x.link())
    x.client.do("s.send(b'last words')")
    x.client.do("s.close()")
    x.rig.troels.link_down(x.link())
    x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words", 20)
    x.server.says("s.recv(10)", b"", 20)


@case
def inbox_readable_while_suspended(context):
    """By whatever means the application asks; nothing spins until the session has resumed."""
    x = Session(context)
    x.client.do("s.send(b'unread')")
    x.server.becomes(UNREAD, 6)
    x.server.do("ep = select.epoll(); ep.register(s, select.EPOLLIN)")
    link = x.link()
    x.block()
    x.rig.tage.address_del(link)
    x.server.log.wait(SUSPENDED)
    x.server.says("ep.poll(5) == [(s.fileno(), select.EPOLLIN)]", True)
    x.server.says("select.select([s], [], [], 0)[0] == [s]", True)
    x.server.says("s.recv(10)", b"unread")
    x.server.says("ep.poll(0)", [])
    x.rig.tage.address_add(link)
    x.again()
    x.talks()


@case
def names_stay(context):
    """getsockname and getpeername tell the first addresses, whatever has happened."""
    x = Session(context)
    names = "s.getsockname(), s.getpeername()"
    before = [end.do(names) for end in x.ends]
    x.suspended()
    for end, n in zip(x.ends, before):
        end.says(names, n)
    x.again()
    x.resumes()
    for end, n in zip(x.ends, before):
        end.says(names, n)


# -- connect again ---------------------------------------------------------------------------------------------------

CONNECT = "s.connect(s.getpeername())"
AGAIN = "OSError EISCONN"


@case
def connect_connected(context):
    x = Session(context)
    x.client.says(CONNECT, AGAIN)
    x.server.says(CONNECT, AGAIN)
    x.resumes()
    x.client.says(CONNECT, AGAIN)
    x.server.says(CONNECT, AGAIN)
    x.talks()


@case
def connect_suspended(context):
    x = Session(context)
    x.suspended()
    x.client.says(CONNECT, AGAIN)
    x.server.says(CONNECT, AGAIN)
    x.again()
    x.talks()


@case
def connect_nonblocking_told_once(context):
    """Linux says once that the connection stands, and EISCONN after that; whatever happened meanwhile."""
    x = Session(context, born=False)
    x.client.do("s = socket.socket(socket.AF_INET6); s.setblocking(False)")
    x.client.do(f"peer = socket.getaddrinfo('tage', {PORT}, socket.AF_INET6)[0][4]")
    x.client.says("s.connect_ex(peer) == errno.EINPROGRESS", True)
    x.client.says("select.select([], [s], [], 10)[1] == [s]", True)
    x.client.do("s.setblocking(True)")
    x.client.do("s.send(b'?')")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(1)", b"?")
    x.client.log.wait(ESTABLISHED)
    x.resumes()
    x.client.says("s.connect_ex(peer)", 0)
    x.client.says("s.connect(peer)", AGAIN)
    x.talks()


PREPARE_DISCONNECT = """
import ctypes
own = ctypes.CDLL(None, use_errno=True)
def disconnect(fd):
    return own.connect(fd, struct.pack('16x'), 16)
"""


@case
def disconnect_connected(context):
    """connect(AF_UNSPEC) ends the session; the socket can be connected again."""
    x = Session(context)
    x.client.do(PREPARE_DISCONNECT)
    x.client.do("peer = s.getpeername()")
    x.client.says("disconnect(s.fileno())", 0)
    x.client.says("s.getpeername()", "OSError ENOTCONN")
    x.client.do("s.connect(peer)")
    x.client.do("s.send(b'new')")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(3)", b"new")


@case
def disconnect_suspended(context):
    x = Session(context)
    x.suspended()
    x.client.do(PREPARE_DISCONNECT)
    x.client.do("peer = s.getpeername()")
    x.client.says("disconnect(s.fileno())", 0)
    x.client.says("s.getpeername()", "OSError ENOTCONN")
    x.client.says("s.recv(1)", "OSError ENOTCONN")
    x.open()
    x.client.do("s.connect(peer)")
    x.client.do("s.send(b'new')")
    x.server.do("t = l.accept()[0]")
    x.server.says("t.recv(3)", b"new")
    if x.client.log.count(RESUMED):
        raise Wrong("the session that was ended has resumed")
    x.client.do("s.send(b'er')")
    x.server.says("t.recv(2, socket.MSG_WAITALL)", b"er")


@case
def disconnect_with_an_inbox(context):
    """What was unread is discarded, as it is with TCP; it must not come from the next connection."""
    x = inbox(context, new=b"")
    x.client.do(PREPARE_DISCONNECT)
    x.client.do("peer = s.getpeername()")
    x.client.says("disconnect(s.fileno())", 0)
    x.client.do("s.connect(peer)")
    x.client.do("s.send(b'new')")
    x.server.do("t = l.accept()[0]")
    x.server.says("t.recv(3)", b"new")
    x.server.do("t.send(b'answer')")
    x.client.says("s.recv(100)", b"answer")


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
