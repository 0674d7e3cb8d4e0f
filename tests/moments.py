#!/usr/bin/env python3
"""Calls on a session at awkward moments: while it is suspended, while bytes of an earlier connection are unread, at
the very moment that a connection is replaced. Each case drives both ends call by call (rig/puppet.py).

    moments.py --list
    moments.py -k peek -x
"""
import os
import signal
import sys

sys.dont_write_bytecode = True
from rig import Deadline, become_root, wait_for                                                   # noqa: E402
from rig.pair import DEMOTED, ESTABLISHED, PORT, RESUMED, SUSPENDED, Wrong                                           # noqa: E402
from rig.puppet import ANSWERED, Puppet, Raised, Session                                        # noqa: E402
from rig.peer import Client, Hello                                                                     # noqa: E402
from rig.report import Skip, main, options                                          # noqa: E402
from rig.stalled import StoppedThread, helper_of                                     # noqa: E402

CASES = {}

RECVFROM, RECVMSG, ACCEPT4, EPOLL_PWAIT, DUP3, FUTEX = 45, 47, 288, 281, 292, 202                       # asm/unistd_64.h
ASLEEP = (0, 7, 271, 232, 281, RECVFROM, RECVMSG)                            # read, poll, ppoll, epoll_wait, epoll_pwait


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


# -- losses, one upon another ----------------------------------------------------------------------------------------

@case
def lost_while_suspected(context):
    """A link that goes while other paths are tried on suspicion is lost all the same, though nothing is in flight."""
    x = Session(context)
    link, sent = x.link(), 0
    x.block()
    x.server.do("import time")

    def suspected():
        """A steady flow that pauses raises suspicion."""
        nonlocal sent
        x.server.do("[(s.send(b'.'), time.sleep(0.01)) for _ in range(60)]")
        sent += 60
        x.client.says(f"s.recv({sent}, socket.MSG_PEEK | socket.MSG_WAITALL)", b"." * sent)
        try:
            x.client.log.wait("path suspected", timeout_s=1)
        except Deadline:
            return False
        return True
    wait_for("suspicion", suspected)
    x.rig.troels.link_down(link)
    x.again()
    x.client.says(f"s.recv({sent})", b"." * sent)
    x.talks()


@case
def lost_after_needless_suspicion(context):
    """Suspicion that was needless is not repeated for a while. What is lost in that time, and nobody calls for any more,
    is looked after all the same."""
    x = Session(context)
    for n in (1, 2):
        def suspected():
            x.rig.tage.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                           f"tcp dport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
            x.client.do("s.send(b'.')")
            try:
                x.client.log.wait("path suspected", n, timeout_s=0.5)
                return True
            except Deadline:
                return False
            finally:
                x.rig.tage.nft("delete table inet deaf")
                x.server.says("s.recv(1)", b".")
        x.block()
        wait_for("suspicion", suspected)
        x.open()
        x.talks()
    link = x.link()
    for host in (x.rig.troels, x.rig.tage):
        host.drop_incoming(link)
    x.client.do("s.send(b'lost')")
    for end in x.ends:
        end.log.wait(RESUMED)
    x.server.says("s.recv(5)", b"lost")


@case
def answered_by_another_instance(context):
    """What is at the address by now, behind a load balancer, is not always who has the session: it is asked again."""
    x = Session(context)
    other = Puppet(x.rig.tage, "other", x.shim)
    other.do("l = socket.create_server(('::', 7008), family=socket.AF_INET6)")
    # All of the first round and more: two sources, and two destinations of either family.
    x.rig.tage.nft("table inet balance { chain in { type nat hook prerouting priority -100;\n"
                   f"tcp dport {PORT} numgen inc mod 1000 < 14 redirect to :7008;\n}}\n}}")
    x.rig.reset_flows([x.rig.troels, x.rig.tage], PORT)
    wait_for("the loss", lambda: x.client.do("select.select([s], [], [], 0)") and x.client.log.count(SUSPENDED))
    for end in x.ends:
        end.log.wait(RESUMED)
    if x.client.log.count("RESUME is refused") < 4:
        raise Wrong("the other was not asked")
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
    x.client.do("p = select.poll(); p.register(s, select.POLLIN | select.POLLRDHUP)")
    x.client.do("ep = select.epoll(); ep.register(s, select.EPOLLIN | select.EPOLLRDHUP)")
    x.client.do("s.shutdown(socket.SHUT_RD)")
    x.client.says("s.recv(10)", b"")
    for when in "suspended", "again":
        x.client.says("[e for _, e in p.poll(10000)]", [0x2001])                    # POLLIN, POLLRDHUP
        x.client.says("[e for _, e in ep.poll(10)]", [0x2001])
        if when == "suspended":
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
def shutdown_read_ends_a_suspended_read_that_has_a_part(context):
    """MSG_WAITALL gives what has come, as it does at the end of a stream."""
    x = Session(context)
    read = x.client.begin("s.recv(10, socket.MSG_WAITALL)").asleep(*ASLEEP)
    x.server.do("s.send(b'part')")
    x.server.becomes("struct.unpack('i', fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]", 0)
    x.suspended()
    read.asleep(*ASLEEP)
    x.client.do("s.shutdown(socket.SHUT_RD)")
    if read.result() != b"part":
        raise Wrong(f"the read gave {read.result()}")


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
def shutdown_write_after_an_unnoticed_reset(context):
    """The application ends its stream after the reset has come and before anybody has seen it."""
    x = Session(context)
    x.client.do("""
def end_after_reset():
    while s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1:       # TCP_ESTABLISHED
        pass
    return s.shutdown(socket.SHUT_WR)""")
    x.client.do("s.send(b'last words')")
    x.block()
    end = x.client.begin("end_after_reset()")
    x.rig.reset_flows([x.rig.troels], PORT)
    if end.result() is not None:
        raise Wrong(f"shutdown gave {end.result()}")
    x.open()
    x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words")
    x.server.says("s.recv(10)", b"")


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
def exit_while_suspended_with_nothing_to_deliver(context):
    """What was written is acknowledged: the program is not kept until there is a path, or for EXIT_MS."""
    x = Session(context)
    x.suspended()
    x.client.begin("os._exit(3)")
    if x.client.proc.wait(20) != 3:
        raise Wrong("it ended with another status")


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
    sent = x.client.begin("s.send(b'w')")                     # an idle client may not have seen a RST yet
    x.again()
    sent.result()
    x.server.says("s.recv(1)", b"w")
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


@case
def reset_noticed_without_a_call(context):
    """What was written before a reset arrives, though the application does nothing more."""
    x = Session(context)
    x.block()
    x.rig.tage.drop_incoming(x.link())
    x.client.do("s.send(b'written')")
    x.rig.reset_flows([x.rig.troels], PORT)
    x.open()
    x.server.says("s.recv(7, socket.MSG_WAITALL)", b"written")


# -- waiting ---------------------------------------------------------------------------------------------------------

EPOLL = "ep = select.epoll(); ep.register(s, {events})"
IN, OUT = "select.EPOLLIN", "select.EPOLLOUT"


def woken(x, poll, expected, spoil="s.send(b'x')"):
    """A thread that sleeps in `poll` over a resume is woken by what comes on the new connection."""
    wait = x.client.begin(poll).asleep(*ASLEEP)
    x.resumes()
    if wait.done():
        raise Wrong(f"woken by the resume: {wait.result()}")
    x.server.do(spoil)
    if wait.result() != expected:
        raise Wrong(f"{poll} gave {wait.result()}")


@case
def epoll_over_a_resume(context):
    x = Session(context)
    x.client.do(EPOLL.format(events=IN))
    woken(x, "[e for _, e in ep.poll()]", [1])
    x.client.says("s.recv(9)", b"x")
    x.client.says("ep.poll(0)", [])
    x.talks()


@case
def epoll_edge_triggered_over_a_resume(context):
    x = Session(context)
    x.client.do(EPOLL.format(events=IN + " | select.EPOLLET"))
    woken(x, "[e for _, e in ep.poll()]", [1])
    x.client.says("ep.poll(0)", [])
    x.client.says("s.recv(9)", b"x")
    woken(x, "[e for _, e in ep.poll()]", [1])


@case
def epoll_one_shot_over_a_resume(context):
    """Armed it stays armed, and once fired it stays silent."""
    x = Session(context)
    x.client.do(EPOLL.format(events=IN + " | select.EPOLLONESHOT"))
    woken(x, "[e for _, e in ep.poll()]", [1])
    x.resumes()
    x.server.do("s.send(b'y')")
    x.client.becomes(UNREAD, 2)
    x.client.says("ep.poll(0)", [])
    x.client.do("ep.modify(s, select.EPOLLIN | select.EPOLLONESHOT)")
    x.client.says("[e for _, e in ep.poll(5)]", [1])
    x.client.says("ep.poll(0)", [])
    x.client.says("s.recv(9)", b"xy")


@case
def epoll_two_with_one_session(context):
    x = Session(context)
    x.client.do("ep, other = select.epoll(), select.epoll(); ep.register(s, 1); other.register(s, 1)")
    second = x.client.begin("[e for _, e in other.poll()]").asleep(*ASLEEP)
    woken(x, "[e for _, e in ep.poll()]", [1])
    if second.result() != [1]:
        raise Wrong("the second was not woken")
    x.resumes()                                               # with an inbox
    x.client.says("[e for _, e in ep.poll(5)] + [e for _, e in other.poll(5)]", [1, 1])
    x.client.says("s.recv(9)", b"x")
    x.client.says("ep.poll(0) + other.poll(0)", [])


@case
def epoll_in_epoll(context):
    x = Session(context)
    x.client.do("inner, ep = select.epoll(), select.epoll(); inner.register(s, 1); ep.register(inner, 1)")
    woken(x, "[e for _, e in ep.poll()]", [1])
    x.client.says("[e for _, e in inner.poll(0)]", [1])
    x.resumes()
    x.client.says("[e for _, e in ep.poll(5)] + [e for _, e in inner.poll(0)]", [1, 1])
    x.client.says("s.recv(9)", b"x")
    x.client.says("inner.poll(0) + ep.poll(0)", [])


@case
def epoll_registered_before_connect(context):
    x = Session(context, born=False)
    x.client.do("s = socket.socket(socket.AF_INET6)")
    x.client.do(EPOLL.format(events=IN))
    x.client.do(f"s.connect(socket.getaddrinfo('tage', {PORT}, socket.AF_INET6)[0][4])")
    x.client.do("s.send(b'?')")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(1)", b"?")
    x.client.log.wait(ESTABLISHED)
    woken(x, "[e for _, e in ep.poll()]", [1])


@case
def epoll_after_the_inbox_is_read(context):
    """A child that libc did not make holds copies of all descriptors: what stood in for the inbox must be taken out
    of the epoll, not just closed."""
    x = inbox(context, new=b"")
    x.client.do(EPOLL.format(events=IN))
    x.client.says("[e for _, e in ep.poll(5)]", [1])
    # clone(2) with SIGCHLD alone, as fork(2) is; the child does nothing but wait to be killed.
    x.client.do("import ctypes; own = ctypes.CDLL(None, use_errno=True); pid = own.syscall(56, 17, 0, 0, 0, 0)\n"
                "while pid == 0: libc.prctl(1, 9, 0, 0, 0), libc.pause()")
    x.client.says("s.recv(100)", b"from the first")
    x.client.says("ep.poll(0)", [])
    x.client.says("libc.kill(pid, 9)", 0)
    x.client.says("os.waitpid(pid, 0)[1]", 9)
    x.talks()


@case
def written_around_the_shim(context):
    """The ring has not seen all: such a session may become plain or fail, but nothing is ever sent twice or missing."""
    x = Session(context)
    x.client.do("s.send(b'seen')")
    x.client.says("libc.send(s.fileno(), b'around', 6, 0)", 6)
    x.client.do("s.send(b'seen')")
    x.server.says("s.recv(14, socket.MSG_WAITALL)", b"seenaroundseen")
    x.rig.troels.link_down(x.link())
    x.client.log.wait(DEMOTED, 1, 10)
    x.server.says("s.recv(9, socket.MSG_DONTWAIT)", "BlockingIOError EAGAIN")


@case
def written_around_and_reset(context):
    """What cannot be resumed tells its error as plain TCP does: the wait shows it, and the read says which."""
    x = Session(context)
    x.client.says("libc.send(s.fileno(), b'around', 6, 0)", 6)
    x.server.says("s.recv(6, socket.MSG_WAITALL)", b"around")
    x.client.do("p = select.poll(); p.register(s, select.POLLIN)")
    wait = x.client.begin("p.poll()[0][1]").asleep(*ASLEEP)
    x.server.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()")
    if wait.result() != 0x19:                                                    # POLLIN, POLLERR, POLLHUP
        raise Wrong("the wait does not show the error")
    x.client.says("s.recv(1)", "ConnectionResetError ECONNRESET")
    x.client.says("s.recv(1)", b"")


def written_around_before(context, call):
    """Bytes are on the connection before the shim has written any: no NEW may follow them."""
    x = Session(context)
    x.client.do(f"t = socket.create_connection(('tage', {PORT}))")
    x.client.says("libc.send(t.fileno(), b'around', 6, 0)", 6)
    x.server.do("t = l.accept()[0]")
    x.client.do(call)
    x.client.do("t.sendall(b'seen')")
    x.server.says("t.recv(10, socket.MSG_WAITALL)", b"aroundseen")
    x.server.do("t.sendall(b'heard')")
    x.client.says("t.recv(5, socket.MSG_WAITALL)", b"heard")
    x.talks()


@case
def written_around_before_a_write(context):
    written_around_before(context, "t.send(b'')")


@case
def written_around_before_a_wait(context):
    written_around_before(context, "select.select([t], [], [], 0)")


@case
def written_around_before_a_read(context):
    written_around_before(context, "t.setblocking(False)\ntry: t.recv(1)\nexcept BlockingIOError: t.setblocking(True)")


@case
def keepalive_after_demotion(context):
    """The helper's probes of an idle session go with the session."""
    x = Session(context)
    ask = "[libc_option(*o) for o in ((1, 9), (6, 4), (6, 5), (6, 6))]"
    x.client.do("""
import ctypes
def libc_option(level, name):
    value, size = ctypes.c_int(), ctypes.c_uint(4)
    libc.getsockopt(s.fileno(), level, name, ctypes.byref(value), ctypes.byref(size))
    return value.value
""")
    before = x.client.do(ask)
    x.client.becomes(ask + "[:2]", [1, 5])
    x.client.do("os.set_inheritable(s.fileno(), True); os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)")
    x.client.log.wait(DEMOTED)
    x.client.says(ask, before)
    x.talks()


@case
def epoll_refuses_the_same_while_suspended(context):
    """EPOLLEXCLUSIVE goes with few others, and cannot be changed (epoll_ctl(2))."""
    x = Session(context)
    x.client.do("alone = 1 << 28; ep = select.epoll(); other = select.epoll()")
    x.client.do("ep.register(s, select.EPOLLIN | alone)")
    x.suspended()
    for when in "suspended", "again":
        for events in "select.EPOLLIN", "select.EPOLLIN | alone":
            x.client.says(f"ep.modify(s, {events})", "OSError EINVAL")
        x.client.says("ep.register(s, select.EPOLLIN | alone)", "FileExistsError EEXIST")
        x.client.says("other.register(s, select.EPOLLIN | alone | select.EPOLLONESHOT)", "OSError EINVAL")
        x.client.says("other.register(s, select.EPOLLIN)", None)
        x.client.says("other.modify(s, select.EPOLLIN | alone)", "OSError EINVAL")
        x.client.do("other.unregister(s)")
        if when == "suspended":
            x.again()
    x.talks()


# -- first contact ---------------------------------------------------------------------------------------------------

@case
def lease_of_a_host_that_is_gone(context):
    """It ends nothing any more, so its answer to HELLO is not kept for that."""
    x = Session(context)
    x.rig.tage.nft("table inet gone { chain in { type filter hook input priority 0;\nmeta l4proto tcp drop;\n}\n}")
    x.client.log.wait("a lease has ended")
    x.rig.tage.nft("delete table inet gone")
    x.client.do(f"t = socket.create_connection(('tage', {PORT}))")
    x.client.log.wait(ANSWERED, 2)


@case
def near_and_far(context):
    """NAMESOCKET_NEAR says by how long a round trip a call that must not block is kept waiting for the answer."""
    for near in "0", "5s":
        x = Session(context, client_env={"NAMESOCKET_NEAR": near}, born=False)
        os.kill(x.server.pid, signal.SIGSTOP)
        x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
        write = x.client.begin("s.send(b'now', socket.MSG_DONTWAIT)")
        if near == "0":
            try:
                raise Wrong(f"{write.result()} bytes were taken")
            except Raised as e:
                if str(e) != "BlockingIOError EAGAIN":
                    raise
        else:
            write.asleep(*ASLEEP)
        os.kill(x.server.pid, signal.SIGCONT)
        if near != "0" and write.result() != 3:
            raise Wrong("not all bytes were taken")


# -- first bytes -----------------------------------------------------------------------------------------------------

@case
def answer_too_late_for_the_first_bytes(context):
    """The connection is plain TCP, and the log says so and why."""
    x = Session(context, client_env={"NAMESOCKET_HOLD": "1ms"}, born=False)
    os.kill(x.server.pid, signal.SIGSTOP)                     # its kernel accepts, nobody answers
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.client.do("s.sendall(b'early')")
    x.client.log.wait("no answer to HELLO within 1 ms and two round trips: the connection stays plain TCP")
    os.kill(x.server.pid, signal.SIGCONT)
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"early")
    x.talks()
    if x.client.log.count(ESTABLISHED):
        raise Wrong("there is a session")


# -- no thread to be had ----------------------------------------------------------------------------------------------

NO_THREAD = "no helper thread .Resource temporarily unavailable.: connections stay plain TCP"


def plain_without_a_thread(x, side):
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.server.do("s = l.accept()[0]")
    x.talks()
    getattr(x, side).log.wait(NO_THREAD)
    for end in x.ends:
        if end.log.count(ESTABLISHED):
            raise Wrong(f"{end.name} has a session")


@case
def no_thread_at_the_client(context):
    """Connections are plain TCP, and the log says why; nothing is left open of each attempt."""
    x = Session(context, second_preload=context.built("tests/no_thread.so"), born=False)
    x.client.do("before = len(os.listdir('/proc/self/fd'))")
    for _ in range(3):
        plain_without_a_thread(x, "client")
        x.client.do("s.close()")
        x.server.says("s.recv(1)", b"")
    x.client.log.wait(NO_THREAD, 3)
    x.client.says("len(os.listdir('/proc/self/fd')) - before", 0)


@case
def no_thread_at_the_server(context):
    preload = " ".join((context.shim or "", context.built("tests/no_thread.so")))
    x = Session(context, server_env={"LD_PRELOAD": preload}, born=False)
    plain_without_a_thread(x, "server")


# -- duplicates ------------------------------------------------------------------------------------------------------

def paused(context):
    """`hold()` makes every thread wait between libc's dup and what the shim notes of it, until `go()`."""
    x = Session(context, second_preload=context.built("tests/pause.so"))
    x.client.do(f"""
import ctypes
own = ctypes.CDLL(None, use_errno=True)
pause_fd = ctypes.c_int.in_dll(ctypes.CDLL({context.built("tests/pause.so")!r}), "pause_fd")
gate = os.pipe()
spare = os.open("/dev/null", os.O_RDONLY)
def hold():
    pause_fd.value = gate[0]
def go():
    pause_fd.value = -1
    os.write(gate[1], b"g")
""")
    return x


def duplicated_while_replaced(context, call, flag=0):
    x = paused(context)
    x.client.do("hold()")
    new = x.client.begin(call).asleep(*ASLEEP)
    x.resumes()
    x.client.do("go()")
    x.client.do(f"d = socket.socket(fileno={new.result()})")
    x.client.says("os.fstat(d.fileno()).st_ino == os.fstat(s.fileno()).st_ino", True)
    x.client.says("fcntl.fcntl(d, fcntl.F_GETFD)", flag)
    x.client.do("d.send(b'by the other number')")
    x.server.says("s.recv(19, socket.MSG_WAITALL)", b"by the other number")
    x.resumes()
    x.client.do("s.close()")
    x.client.do("s = d")
    x.talks()


@case
def dup_while_replaced(context):
    duplicated_while_replaced(context, "own.dup(s.fileno())")


def changed_while_replaced(context, change, look, after):
    """What is set between the look at what there is and the new connection is set on that one, too."""
    x = Session(context)
    before = x.client.log.count(RESUMED)
    helper = StoppedThread(helper_of(x.client.pid, EPOLL_PWAIT))
    try:
        link = x.link()
        x.rig.troels.link_down(link)
        helper.goes_to(DUP3)
        call = x.client.begin(change).asleep(FUTEX)
    finally:
        helper.go_on()
    call.result()
    x.client.log.wait(RESUMED, before + 1)
    x.client.says(look, after)
    x.client.do("s.setblocking(True)")
    x.talks()


@case
def set_while_replaced(context):
    changed_while_replaced(context, "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)",
                           "s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)", 1)


@case
def unblocked_while_replaced(context):
    changed_while_replaced(context, "fcntl.fcntl(s, fcntl.F_SETFL, os.O_NONBLOCK)", "os.get_blocking(s.fileno())", False)


@case
def unblocked_by_ioctl_while_replaced(context):
    changed_while_replaced(context, "s.setblocking(False)", "os.get_blocking(s.fileno())", False)


@case
def reset_while_replaced(context):
    """The old connection is reset when the session is suspended already, and reads are still let to it. The helper is
    about to write that down."""
    x = Session(context)
    before = x.client.log.count(RESUMED)
    read = x.client.begin("s.recv(5)").asleep(RECVFROM)
    helper = StoppedThread(helper_of(x.client.pid, EPOLL_PWAIT))
    try:
        link = x.link()
        x.rig.troels.drop_incoming(link)
        x.client.do("s.send(b'x')")
        helper.writes("now suspended")
        x.rig.troels.pass_incoming(link)
        x.rig.reset_flows([x.rig.troels], PORT)
        read.asleep(FUTEX)
    finally:
        helper.go_on()
    x.client.log.wait(RESUMED, before + 1)
    x.server.says("s.recv(1)", b"x")
    x.server.do("s.send(b'hello')")
    if read.result() != b"hello":
        raise Wrong("the read got something else")
    x.talks()


@case
def dup2_while_replaced(context):
    duplicated_while_replaced(context, "own.dup2(s.fileno(), spare)")


@case
def dup3_while_replaced(context):
    duplicated_while_replaced(context, "own.dup3(s.fileno(), spare, os.O_CLOEXEC)", 1)


@case
def fcntl_dupfd_while_replaced(context):
    duplicated_while_replaced(context, "own.fcntl(s.fileno(), fcntl.F_DUPFD_CLOEXEC, 70)", 1)


@case
def dup_while_the_number_gets_another_session(context):
    """Another thread closes the number and connects again under it: the duplicate stays of the first."""
    x = paused(context)
    x.client.do("number, peer, other = s.fileno(), s.getpeername(), s.dup()")
    x.client.do("hold()")
    new = x.client.begin("own.dup(number)").asleep(*ASLEEP)
    x.client.do("s.close()")
    x.client.do("s = socket.socket(socket.AF_INET6); s.connect(peer)")
    x.client.says("s.fileno() == number", True)
    x.client.do("s.send(b'second')")
    x.server.do("t = l.accept()[0]")
    x.server.says("t.recv(6)", b"second")
    x.client.do("go()")
    x.client.do(f"d = socket.socket(fileno={new.result()})")
    x.resumes()
    x.client.do("d.send(b'first')")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"first")


# -- descriptors that leave ------------------------------------------------------------------------------------------

OWN_STDIO = "import ctypes; own = ctypes.CDLL(None, use_errno=True); own.fdopen.restype = ctypes.c_void_p"


@case
def stdio_while_suspended(context):
    """A stream can be made meanwhile; its session goes on being one."""
    x = Session(context)
    x.client.do(OWN_STDIO)
    x.suspended()
    x.client.says("own.fdopen(s.fileno(), b'r+') != 0", True)
    x.again()
    x.talks()
    x.resumes()
    x.talks()
    if x.client.log.count(DEMOTED):
        raise Wrong("the client's session was demoted")


@case
def stdio_with_an_inbox(context):
    """A stream reads what an earlier connection has left, then what came on this one."""
    x = inbox(context)
    x.client.do(OWN_STDIO)
    x.client.do("f, b = ctypes.c_void_p(own.fdopen(s.fileno(), b'r')), ctypes.create_string_buffer(31)")
    x.client.says("own.fread(b, 1, 31, f), b.raw", (31, b"from the first, from the second"))


@case
def rights_while_suspended(context):
    x = Session(context)
    x.client.do("a, b = socket.socketpair()")
    x.suspended()
    sent = x.client.begin("socket.send_fds(a, [b'x'], [s.fileno()])").asleep(*ASLEEP)
    x.again()
    if sent.result() != 1:
        raise Wrong("not sent")
    x.client.do("s = socket.socket(fileno=socket.recv_fds(b, 1, 1)[1][0])")
    x.talks()
    x.client.log.wait(DEMOTED)


@case
def rights_of_a_listener(context):
    """Who accepts from it next knows of no lease that the sender gave: what comes is plain TCP."""
    x = Session(context)
    heir = Puppet(x.rig.tage, "heir", x.shim)
    path = x.rig.dir + "/rights"
    heir.do(f"u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen(1)")
    x.server.do(f"u = socket.socket(socket.AF_UNIX); u.connect({path!r}); socket.send_fds(u, [b'x'], [l.fileno()])")
    x.client.log.wait("a lease has ended")
    heir.do("m = socket.socket(fileno=socket.recv_fds(u.accept()[0], 1, 1)[1][0])")
    x.client.do(f"t = socket.create_connection(('tage', {PORT}))")
    write = x.client.begin("t.sendall(b'plain')")             # HELLO is not answered before it is accepted
    heir.do("t = m.accept()[0]")
    heir.says("t.recv(100)", b"plain")
    write.result()
    x.talks()


@case
def rights_after_giving_up(context):
    """The session ends while it waits: its error is what sendmsg says."""
    x = Session(context, client_env={"NAMESOCKET_GIVE_UP": "4"})
    x.client.do("a, b = socket.socketpair()")
    x.suspended()
    sent = x.client.begin("socket.send_fds(a, [b'x'], [s.fileno()])").asleep(*ASLEEP)
    try:
        sent.result()
    except Raised as e:
        if str(e) not in ("ConnectionResetError ECONNRESET", "TimeoutError ETIMEDOUT"):
            raise
        return
    raise Wrong("a dead connection was passed on in silence")


@case
def splice_from_an_inbox(context):
    x = inbox(context)
    x.client.do("r, w = os.pipe()")
    x.client.do("""
def spliced(n):
    out = b''
    while len(out) < n:
        out += os.read(r, os.splice(s.fileno(), w, n - len(out)))
    return out
""")
    x.client.says("spliced(31)", BOTH)
    x.server.do("s.send(b'more')")
    x.client.says("spliced(4)", b"more")
    x.talks()


@case
def splice_to_a_session_with_an_inbox(context):
    """It becomes plain TCP for writing; what is unread is still read, in order."""
    x = inbox(context)
    x.client.do("r, w = os.pipe(); os.write(w, b'piped')")
    x.client.says("os.splice(r, s.fileno(), 5)", 5)
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"piped")
    x.client.says("select.select([s], [], [], 0)[0] == [s]", True)
    x.client.do("s.send(b'w')")
    x.client.says("s.recv(6)", BOTH[:6])
    x.client.says("s.recv(100)", BOTH[6:])
    x.server.says("s.recv(1)", b"w")
    x.talks()


@case
def splice_while_suspended(context):
    x = Session(context)
    x.client.do("r, w = os.pipe(); os.write(w, b'piped')")
    x.suspended()
    x.client.do("s.setblocking(False)")
    x.client.says(f"os.splice(r, s.fileno(), 5)", "BlockingIOError EAGAIN")
    x.client.do("s.setblocking(True)")
    spliced = x.client.begin("os.splice(r, s.fileno(), 5)").asleep(*ASLEEP)
    x.again()
    if spliced.result() != 5:
        raise Wrong("not spliced")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"piped")
    x.talks()


CHILD = "import os, sys, socket; s = socket.socket(fileno=int(sys.argv[1])); "


@case
def exec_while_suspended(context):
    """The new program gets a connection that works, with the application's own keepalive settings."""
    x = Session(context)
    x.client.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1234); os.set_inheritable(s.fileno(), True)")
    x.suspended()
    child = CHILD + ("s.send(b'from the next program %d %d' % (s.getsockopt(6, 4), s.getsockopt(1, 9)))")
    run = x.client.begin(f"os.execv(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())])")
    run.asleep(*ASLEEP)
    x.again()
    x.server.says("s.recv(30, socket.MSG_WAITALL)", b"from the next program 1234 0", 20)


@case
def asynchronous_io_while_suspended(context):
    """What libc's thread writes past the shim comes behind all that was written before."""
    x = Session(context)
    x.client.do("""
import ctypes
own = ctypes.CDLL(None, use_errno=True)
data = ctypes.create_string_buffer(b"behind", 6)
control = ctypes.create_string_buffer(                        # struct aiocb, SIGEV_NONE
    struct.pack("iiiPNPii", s.fileno(), 0, 0, ctypes.addressof(data), 6, 0, 0, 1), 512)
s.send(b"before")""")
    x.suspended()
    run = x.client.begin("own.aio_write(control)")
    run.asleep(*ASLEEP)
    x.again()
    if run.result() != 0:
        raise Wrong("aio_write failed")
    x.server.says("s.recv(12, socket.MSG_WAITALL)", b"beforebehind")
    x.talks()


# -- children --------------------------------------------------------------------------------------------------------

FORK = """
    child = os.fork()
    if child == 0:
        l.close()
        os.dup2(c.fileno(), 0)
        os.dup2(c.fileno(), 1)
        os.execvp("cat", ["cat"])
"""
SPAWN = """
    child = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, c.fileno(), n)
                                                                      for n in (0, 1)])
"""

SYSTEM = """
    import ctypes
    for fd in c.fileno(), reports[1]: os.set_inheritable(fd, True)
    ctypes.CDLL(None).system(b"cat <&%d >&%d & echo $! >&%d" % (c.fileno(), c.fileno(), reports[1]))
    child = int(os.read(reports[0], 20))
"""
POPEN = """
    import ctypes
    libc = ctypes.CDLL(None)
    libc.popen.restype = ctypes.c_void_p
    for fd in c.fileno(), reports[1]: os.set_inheritable(fd, True)
    stream = libc.popen(b"echo $$ >&%d; exec cat <&%d >&%d" % (reports[1], c.fileno(), c.fileno()), b"r")
    child = int(os.read(reports[0], 20))
"""


def executes(how):
    """A server that executes a program for each connection."""
    return f"""
import os, socket
l = socket.create_server(("::", {PORT}), family=socket.AF_INET6)
reports = os.pipe()
print("listening", flush=True)
for n in range(1, 100):
    c = l.accept()[0]
{how}
    print(n, child, flush=True)
    c.close()
"""


def before_the_first_bytes(context, how):
    """A server that executes a program for each connection: it gets what the client says and no NEW,
    however late the client begins, and though an earlier connection's HELLO was answered yes."""
    if not context.shim:
        return
    rig = context.rig()
    server = rig.tage.start("server", [context.built("src/daemon/nsrun"), "--", sys.executable, "-c", executes(how)])
    server.wait_line("listening")
    client = Puppet(rig.troels, "client", context.shim)
    for n in range(1, 4):
        client.do(f"s{n} = socket.create_connection(('tage', {PORT}))")
        child = server.wait_line(rf"^{n} (\d+)")[1]

        def executed():
            with open(f"/proc/{child}/comm") as f:
                return f.read() == "cat\n"
        wait_for(f"program {n}", executed)
        client.do(f"s{n}.sendall(b'hello {n}')")
        client.says(f"s{n}.recv(7, socket.MSG_WAITALL)", b"hello %d" % n)


@case
def exec_before_the_first_bytes(context):
    before_the_first_bytes(context, FORK)


@case
def full_before_the_first_bytes(context):
    """A server that speaks first, to a plain client, and more than the ring holds: it waits for acknowledgements as for
    a full buffer, whether it may block or not."""
    rig = context.rig()
    server = Puppet(rig.tage, "server", context.shim, {"NAMESOCKET_RING": "64K"})
    client = Puppet(rig.troels, "client", None)
    server.do(f"l = socket.create_server(('::', {PORT}), family=socket.AF_INET6)")
    client.do(f"s = socket.create_connection(('tage', {PORT}))")
    server.do("s = l.accept()[0]; s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)")
    rig.troels.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                   f"tcp sport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    write = server.begin("s.sendall(b'x' * 300000)").asleep(*ASLEEP)
    server.says("s.send(b'y', socket.MSG_DONTWAIT)", "BlockingIOError EAGAIN")
    server.says("select.select([], [s], [], 0)", ([], [], []))
    server.do("e = select.epoll(); e.register(s, select.EPOLLOUT)")
    server.says("e.poll(0)", [])
    rig.troels.nft("delete table inet deaf")
    client.says("s.recv(300000, socket.MSG_WAITALL) == b'x' * 300000", True)
    write.result()
    server.becomes("len(e.poll(0))", 1)
    client.do("s.send(b'?')")
    server.says("s.recv(2)", b"?")
    server.do("s.send(b'!')")
    client.says("s.recv(2)", b"!")


@case
def a_write_larger_than_the_ring(context):
    """However little a session may remember, no write is too large for it."""
    small = {"NAMESOCKET_RING": "64K"}
    x = Session(context, small, small, born=False)
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.client.log.wait(ANSWERED)
    write = x.client.begin("s.sendall(b'x' * 300000)")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(300000, socket.MSG_WAITALL) == b'x' * 300000", True)
    write.result()
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def spawn_before_the_first_bytes(context):
    before_the_first_bytes(context, SPAWN)


@case
def system_before_the_first_bytes(context):
    before_the_first_bytes(context, SYSTEM)


@case
def popen_before_the_first_bytes(context):
    before_the_first_bytes(context, POPEN)


@case
def system_with_an_inherited_session(context):
    """The command may use it, and leaves it."""
    x = Session(context)
    x.client.do("os.set_inheritable(s.fileno(), True)")
    run = x.client.begin("os.system(f'read line <&{s.fileno()}; echo $line >&{s.fileno()}')")
    x.server.do("s.send(b'command\\n')")
    x.server.says("s.recv(8, socket.MSG_WAITALL)", b"command\n")
    if run.result() != 0:
        raise Wrong("the command failed")
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def system_beside_an_inherited_session(context):
    """Of a command that does not use it, and goes on in the background, the session sees nothing."""
    x = Session(context)
    x.client.do("os.set_inheritable(s.fileno(), True); import ctypes; own = ctypes.CDLL(None, use_errno=True)")
    x.client.do("r, w = os.pipe(); os.set_inheritable(w, True)")
    x.client.says("own.system(b'sleep 1000 >&- & echo $! >&%d' % w)", 0)
    x.talks()
    x.resumes()
    x.client.says("own.system(b'exit 3'), own.system(None)", (3 << 8, 1))
    x.talks()
    x.resumes()
    never_demoted(x)
    x.client.do("os.kill(int(os.read(r, 10)), signal.SIGKILL)")


def child_and_an_inbox(context, call, before="None"):
    """What a child would miss of the stream stays here: it gets an error, and no stream with a hole."""
    x = inbox(context)
    x.client.do(before)
    x.client.do("os.set_inheritable(s.fileno(), True); r, w = os.pipe(); os.set_inheritable(w, True)")
    x.client.says(f"{call} != 0", True)
    x.client.says("os.close(w), os.read(r, 100)", (None, b""))
    x.client.says("s.recv(1)", "OSError ENOTCONN")            # as from a socket that was reset


@case
def system_with_an_inbox(context):
    """The command reads on where its caller has stopped, and so does the caller after it."""
    x = inbox(context)
    x.client.do("os.set_inheritable(s.fileno(), True); r, w = os.pipe(); os.set_inheritable(w, True)")
    x.client.says("os.system(f'head -c 5 <&{s.fileno()} >&{w}')", 0)
    x.client.says("os.read(r, 100)", BOTH[:5])
    x.client.says("s.recv(100)", BOTH[5:])
    x.talks()
    never_demoted(x)


@case
def popen_with_an_inbox(context):
    child_and_an_inbox(context, "own.pclose(own.popen(b'head -c 5 <&%d >&%d' % (s.fileno(), w), b'r'))",
                       "import ctypes; own = ctypes.CDLL(None); own.popen.restype = ctypes.c_void_p; "
                       "own.pclose.argtypes = [ctypes.c_void_p]")


@case
def spawn_with_an_inbox(context):
    child_and_an_inbox(context, "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', f'head -c 5 <&{s.fileno()} >&{w}'], "
                                "os.environ), 0)[1]")


@case
def spawn_keeps_what_is_close_on_exec(context):
    x = Session(context)
    x.client.says("os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)[1]", 0)
    x.client.says("os.system('true')", 0)
    x.resumes()
    x.talks()
    if x.client.log.count(DEMOTED):
        raise Wrong("demoted for a child that cannot use it")


@case
def spawn_with_an_inherited_session(context):
    x = Session(context)
    x.client.do("os.set_inheritable(s.fileno(), True)")
    child = CHILD + "s.send(b'child')"
    x.client.says(f"os.waitpid(os.posix_spawn(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())], "
                  "{}), 0)[1]", 0)
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.client.log.wait(DEMOTED)
    x.talks()


@case
def spawn_with_a_session_as_standard_output(context):
    """Close-on-exec, but a file action gives it to the child."""
    x = Session(context)
    x.client.says("os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'child'], {}, "
                  "file_actions=[(os.POSIX_SPAWN_DUP2, s.fileno(), 1)]), 0)[1]", 0)
    x.server.says("s.recv(6, socket.MSG_WAITALL)", b"child\n")
    x.client.log.wait(DEMOTED)
    x.talks()


@case
def fork_while_suspended(context):
    """The child has a connection that is gone; the session goes on in the parent."""
    x = Session(context)
    x.suspended()
    x.client.do("pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)")
    x.again()
    x.talks()


def child_of(context, make, number=""):
    """A child that libc does not announce closes what it has inherited: the parent's stream goes on."""
    x = Session(context)
    x.client.do("ep = select.epoll(); ep.register(s, select.EPOLLIN)")
    x.client.do(f"""
import ctypes
own = ctypes.CDLL(None, use_errno=True)
s.setblocking(False)
n = 0
try:
    while True: n += s.send(bytes(65536))                     # unacknowledged: a close is the helper's to see through
except BlockingIOError: s.setblocking(True)
pid = {make}
if pid == 0: own.close(s.fileno()), libc._exit(0)
""")
    x.client.says("os.waitpid(pid, 0)[1]", 0)
    n = x.client.do("n")
    x.server.says(f"sum(len(s.recv(65536, socket.MSG_WAITALL)) for _ in range({n // 65536}))", n // 65536 * 65536)
    if n % 65536:
        x.server.says(f"len(s.recv({n % 65536}, socket.MSG_WAITALL))", n % 65536)
    x.talks()
    x.client.says("ep.poll(0)", [])
    x.server.do("s.send(b'edge')")
    x.client.says("len(ep.poll())", 1)


@case
def fork_without_handlers(context):
    child_of(context, "own._Fork()")


@case
def fork_by_a_system_call(context):
    child_of(context, "libc.syscall(57)")


@case
def fork_with_an_inbox(context):
    x = inbox(context)
    x.client.do("pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)")
    x.client.says("s.recv(100)", BOTH)
    x.talks()
    never_demoted(x)


@case
def fork_with_an_inbox_for_the_child(context):
    x = inbox(context)
    x.client.do("pid = os.fork()\nif pid:\n    os._exit(0)")
    x.client.says("s.recv(100)", BOTH)
    x.resumes()
    x.talks()
    never_demoted(x)


# -- several processes ------------------------------------------------------------------------------------------------

ECHO = """pid = os.fork()
if pid == 0:
    try:
        while data := s.recv(100):
            s.sendall(data.upper())
    finally:
        os._exit(0)"""


def echoes(x, times=2):
    """Whoever has the server's end says what the client says, in capitals."""
    for n in range(times):
        x.client.do(f"s.sendall(b'talk {n}')")
        x.client.says("s.recv(6, socket.MSG_WAITALL)", b"TALK %d" % n)


def never_demoted(x):
    for end in x.ends:
        if end.log.count(DEMOTED):
            raise Wrong(f"the {end.name}'s session was demoted")


def served_by_another_process(x, how):
    """The server's end is another process's from here on, and moves as often as it has to."""
    x.server.do(how)
    echoes(x)
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    for _ in range(2):
        x.resumes()
        echoes(x)
    never_demoted(x)
    x.client.do("s.shutdown(socket.SHUT_WR)")
    x.client.says("s.recv(1)", b"")
    x.server.says("os.waitpid(pid, 0)[1]", 0)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def fork_the_child_serves(context):
    """One process for each connection: RESUME reaches the parent, which passes it on."""
    served_by_another_process(Session(context), ECHO + "\ns.close()")


def sleeps_in_read(x, pipe):
    """Whether the server's child `pid` reads that pipe, and finds nothing."""
    return x.server.do(f"open(f'/proc/{{pid}}/syscall').read().split()[:2] == ['0', hex({pipe})]")


@case
def fork_the_child_is_busy_elsewhere(context):
    """The path is lost while the child, which has the session, makes no call on it; it may have no helper thread yet,
    and RESUME is answered "later" until its next one."""
    x = Session(context)
    x.server.do("r, w = os.pipe()")
    x.client.do("s.sendall(b'talk 0')")
    x.server.do("""pid = os.fork()
if pid == 0:
    try:
        data = s.recv(100)
        os.read(r, 1)
        while data:
            s.sendall(data.upper())
            data = s.recv(100)
    finally:
        os._exit(0)
s.close()""")
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    wait_for("the child to read its pipe", lambda: sleeps_in_read(x, "r"))
    before = [end.log.count(RESUMED) for end in x.ends]
    link = x.link()
    x.rig.troels.link_down(link)
    x.client.log.wait("attempting resume")
    x.server.do("os.write(w, b'.')")
    for end, n in zip(x.ends, before):
        end.log.wait(RESUMED, n + 1)
    x.rig.troels.link_up(link)
    x.client.says("s.recv(6, socket.MSG_WAITALL)", b"TALK 0")
    echoes(x)
    never_demoted(x)
    x.client.do("s.shutdown(socket.SHUT_WR)")
    x.client.says("s.recv(1)", b"")
    x.server.says("os.waitpid(pid, 0)[1]", 0)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


def said_and_busy_elsewhere(context, says, piece):
    """The path is lost with what a child has said on it, and the child makes no call on the session any more."""
    x = Session(context)
    x.server.do("r, w = os.pipe()")
    x.server.do("r2, w2 = os.pipe()")
    x.server.do(f"""pid = os.fork()
if pid == 0:
    try:
        os.read(r, 1)
        {says}
        os.read(r2, 1)
    finally:
        os._exit(0)
s.close()""")
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    before = [end.log.count(RESUMED) for end in x.ends]
    link = x.link()
    x.rig.troels.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                     f"iifname {link} tcp sport {PORT} drop;\n}}\n}}")
    x.server.do("os.write(w, b'.')")
    wait_for("the child to have said it", lambda: sleeps_in_read(x, "r2"))
    x.rig.troels.link_down(link)
    for end, n in zip(x.ends, before):
        end.log.wait(RESUMED, n + 1)
    x.client.says(f"s.recv({len(piece) or 1}, socket.MSG_WAITALL)", piece)
    never_demoted(x)
    x.server.do("os.write(w2, b'.')")
    x.server.says("os.waitpid(pid, 0)[1]", 0)
    x.rig.troels.nft("delete table inet deaf")
    x.rig.troels.link_up(link)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def fork_the_child_has_answered(context):
    said_and_busy_elsewhere(context, "s.sendall(b'answer')", b"answer")


@case
def fork_the_child_has_ended_its_stream(context):
    said_and_busy_elsewhere(context, "s.shutdown(socket.SHUT_WR)", b"")


@case
def fork_before_the_first_bytes(context):
    """The child takes NEW off, by the keys that the parent has told the client of."""
    x = Session(context, born=False)
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.server.do("s = l.accept()[0]")
    x.server.do(ECHO + "\ns.close()")
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    x.client.log.wait(ANSWERED)
    echoes(x)
    x.server.log.wait(ESTABLISHED)
    x.resumes()
    echoes(x)
    never_demoted(x)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def fork_children_meet_a_client_again(context):
    """Each takes NEW off by itself, and the key that it makes with the client would die with it. From the second
    time on the parent has it, and so have the children."""
    x = Session(context, born=False)
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.server.do("s = l.accept()[0]")
    x.server.do(ECHO + "\ns.close()")
    accept = x.server.begin("s = l.accept()[0]").asleep(ACCEPT4, *ASLEEP)
    x.client.log.wait(ANSWERED)
    for n in range(5):
        if n:
            x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
            accept.result() if n == 1 else x.server.do("s = l.accept()[0]")
            x.server.do(ECHO + "\ns.close()")
        echoes(x)
        x.server.log.wait(ESTABLISHED, n + 1)
        x.client.do("s.close()")
        x.server.says("os.waitpid(pid, 0)[1]", 0)
    never_demoted(x)
    if x.server.log.count("children meet again is kept") != 1:
        raise Wrong("the parent does not know the client that its children have met")


@case
def fork_after_the_first_bytes(context):
    """They have come after accept: the parent takes NEW off, so that the next child knows the client, too."""
    x = Session(context, born=False)
    parent = x.server.do("os.getpid()")
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.server.do("s = l.accept()[0]")
    x.client.log.wait(ANSWERED)
    x.client.do("s.sendall(b'talk 0'); import fcntl, struct")
    x.client.becomes("struct.unpack('i', fcntl.ioctl(s, 0x5411, bytes(4)))[0]", 0)           # SIOCOUTQ
    x.server.do(ECHO + "\ns.close()")
    x.client.says("s.recv(6, socket.MSG_WAITALL)", b"TALK 0")
    echoes(x)
    if x.server.log.count(rf"{parent} - [^\n]*{ESTABLISHED}") != 1:
        raise Wrong("it was not the parent that took NEW off")
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    x.resumes()
    echoes(x)
    never_demoted(x)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def fork_a_child_that_only_holds(context):
    """It has a descriptor and does nothing with it: the session stays the parent's, and goes on moving."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid == 0:\n    signal.alarm(60); signal.pause()")
    x.talks()
    x.resumes()
    x.talks()
    x.client.do("os.kill(pid, signal.SIGKILL)")
    x.client.says("os.waitpid(pid, 0)[1]", 9)
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def fork_idle_and_nobody_calls(context):
    """What nobody has called for is looked after by the process that forked."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid == 0:\n    signal.alarm(60); signal.pause()")
    x.resumes()
    x.talks()
    never_demoted(x)
    x.client.do("os.kill(pid, signal.SIGKILL)")


@case
def fork_the_parent_ends(context):
    """As a client does that becomes a daemon; what the parent wrote after the fork is the child's to see through."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid:\n    s.send(b'parent')\n    os._exit(0)")
    x.server.says("s.recv(6, socket.MSG_WAITALL)", b"parent")
    x.talks()
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def fork_the_child_ends(context):
    """It has used the session; then it is the parent's again, with all that the child wrote."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid == 0:\n    s.sendall(b'child')\n    os._exit(0)\nos.waitpid(pid, 0)")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.talks()
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def fork_one_after_the_other(context):
    """A monitor that lets one child after the other do the work, as sshd does."""
    x = Session(context)
    for n in range(3):
        x.server.do(f"pid = os.fork()\nif pid == 0:\n    s.sendall(s.recv(5, socket.MSG_WAITALL) + b'{n}')\n    os._exit(0)")
        x.client.do(f"s.sendall(b'give{n}')")
        x.client.says("s.recv(6, socket.MSG_WAITALL)", b"give%d%d" % (n, n))
        x.server.says("os.waitpid(pid, 0)[1]", 0)
    x.server.do(ECHO + "\ns.close()")
    echoes(x)
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    x.resumes()
    echoes(x)
    never_demoted(x)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def fork_both_write(context):
    """Nobody can know what is in the stream: plain TCP, and no byte is wrong."""
    x = Session(context)
    x.client.do("r, w = os.pipe()")
    x.client.do("pid = os.fork()\nif pid == 0:\n    s.sendall(b'child')\n    os.write(w, b'.')\n    signal.alarm(60); signal.pause()")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.client.says("os.read(r, 1)", b".")
    x.client.do("s.sendall(b'parent')")
    x.client.log.wait(DEMOTED)
    x.server.says("s.recv(6, socket.MSG_WAITALL)", b"parent")
    x.talks()
    x.client.do("os.kill(pid, signal.SIGKILL)")
    x.client.do("os.waitpid(pid, 0)")
    x.talks()


@case
def fork_the_child_is_killed(context):
    """With it goes what it knew of the stream: the parent goes on in plain TCP."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid == 0:\n    s.sendall(b'child')\n    signal.alarm(60); signal.pause()")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.client.do("os.kill(pid, signal.SIGKILL)")
    x.client.do("os.waitpid(pid, 0)")
    x.client.do("s.sendall(b'parent')")
    x.server.says("s.recv(6, socket.MSG_WAITALL)", b"parent")
    x.client.log.wait(DEMOTED)
    x.talks()


@case
def fork_and_the_other_moves_it(context):
    """The parent, which did not use it, has a connection that is gone: it is told so, and reads nothing."""
    x = Session(context)
    x.client.do("r, w = os.pipe()")
    x.client.do("pid = os.fork()\nif pid == 0:\n    s.sendall(b'child')\n    os.read(r, 1)\n    s.sendall(b'again')\n"
                "    signal.alarm(60); signal.pause()")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.resumes()
    x.client.says("s.recv(10)", "ConnectionResetError ECONNRESET")
    x.client.do("os.write(w, b'.')")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"again")
    x.client.do("os.kill(pid, signal.SIGKILL)")


@case
def fork_with_bytes_on_their_way(context):
    """The child takes over what the parent has written and the peer has not acknowledged."""
    x = Session(context)
    x.rig.troels.nft("table inet deaf { chain out { type filter hook output priority 0;\n"
                     f"tcp dport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    x.client.do("s.send(b'lost')")
    x.client.do("pid = os.fork()\nif pid:\n    os._exit(0)")
    x.client.do("s.send(b'more')")
    x.rig.troels.nft("delete table inet deaf")
    x.server.says("s.recv(8, socket.MSG_WAITALL)", b"lostmore")
    x.resumes()
    x.talks()
    never_demoted(x)


# -- other programs ----------------------------------------------------------------------------------------------------

# What a server's child becomes: a program that serves on descriptor 0, and knows only that.
SERVING = """import os
import signal
while data := os.read(0, 100):
    while data:
        data = data[os.write(1, data.upper()):]
"""


def serving(argv="[sys.executable, '-c', serving]"):
    """In a child: that program on both standard streams."""
    return f"""
    try:
        for n in (0, 1):
            os.dup2(s.fileno(), n)
        os.execv(sys.executable, {argv})
    finally:
        os._exit(1)"""


INETD = f"serving = {SERVING!r}\npid = os.fork()\nif pid == 0:{serving()}\ns.close()"


@case
def exec_inetd_style(context):
    """Accepted by one program, served by another on its standard input and output."""
    served_by_another_process(Session(context), INETD)


@case
def exec_twice(context):
    """A shell in between, which does nothing with the session but become another program itself."""
    again = '[\'/bin/sh\', \'-c\', \'exec "$0" -c "$1"\', sys.executable, serving]'
    served_by_another_process(Session(context), INETD.replace("sys.executable, [sys.executable, '-c', serving]",
                                                              f"'/bin/sh', {again}"))


@case
def exec_after_a_part_was_served(context):
    """It was the child's already, and the client has sent more than is read, when it becomes another program."""
    x = Session(context)
    x.client.do("s.sendall(b'head' + b'talk')")
    x.server.do(INETD.replace("pid == 0:", "pid == 0:\n    s.sendall(s.recv(4, socket.MSG_WAITALL))"))
    x.client.says("s.recv(8, socket.MSG_WAITALL)", b"headTALK")
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    x.resumes()
    echoes(x)
    never_demoted(x)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


@case
def exec_with_an_inbox(context):
    """What is unread of the connection before goes along."""
    x = inbox(context)
    x.client.do("s.set_inheritable(True)")
    child = CHILD + "s.sendall(s.recv(100) + b'.')"
    x.client.begin(f"os.execv(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())])")
    x.server.says("s.recv(100, socket.MSG_WAITALL)", BOTH + b".")
    never_demoted(x)


@case
def exec_of_exec_with_two_sessions(context):
    """One is shared since a fork, one was made after it; a shell only passes both on, in the other order."""
    x = Session(context)
    x.client.do("pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)")
    x.client.do("s2 = socket.create_connection(s.getpeername()[:2]); s2.sendall(b'?')")
    x.server.do("s2, _ = l.accept(); s2.recv(1); s2.sendall(b'!')")
    x.client.says("s2.recv(1)", b"!")
    for end in x.ends:
        end.log.wait(ESTABLISHED, 2)
    x.client.do("for each in s, s2: each.set_inheritable(True)")
    child = CHILD + "s2 = socket.socket(fileno=int(sys.argv[2])); s.sendall(b'one'); s2.sendall(b'two'); s.recv(1)"
    x.client.begin("os.execv('/bin/sh', ['sh', '-c', 'exec \"$@\"', 'sh', sys.executable, "
                   f"'-c', {child!r}, str(s.fileno()), str(s2.fileno())])")
    x.server.says("s.recv(3, socket.MSG_WAITALL), s2.recv(3, socket.MSG_WAITALL)", (b"one", b"two"))
    never_demoted(x)
    x.server.do("s.sendall(b'.')")


@case
def exec_with_bytes_on_their_way(context):
    """What the program before has written, and the peer has not acknowledged, is the next one's to see through."""
    x = Session(context)
    x.client.do("s.set_inheritable(True)")
    x.rig.troels.nft("table inet deaf { chain out { type filter hook output priority 0;\n"
                     f"tcp dport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    x.client.do("s.send(b'lost')")
    child = CHILD + "s.sendall(b'more'); s.sendall(s.recv(1))"
    x.client.begin(f"os.execv(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())])")
    x.rig.reset_flows([x.rig.tage], PORT)
    x.rig.troels.nft("delete table inet deaf")
    x.server.says("s.recv(8, socket.MSG_WAITALL)", b"lostmore")
    x.server.do("s.send(b'.')")
    x.server.says("s.recv(2)", b".")
    never_demoted(x)


@case
def exec_before_the_first_bytes_inetd_style(context):
    """The next program takes NEW off, by the keys that its parent has told the client of."""
    x = Session(context, born=False)
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.server.do("s = l.accept()[0]")
    x.client.log.wait(ANSWERED)
    served_by_another_process(x, INETD)
    x.server.log.wait(ESTABLISHED)


@case
def exec_fails(context):
    """It goes on as before, whether that was seen beforehand or not."""
    x = Session(context)
    x.client.do("s.set_inheritable(True)")
    x.client.says("os.execv('/nowhere', ['x'])", "FileNotFoundError ENOENT")
    x.client.says("os.execv('/etc/passwd', ['x'])", "PermissionError EACCES")
    x.client.says("os.execv(sys.executable, ['x', 'y' * 3000000])", "OSError E2BIG")
    x.talks()
    x.resumes()
    x.talks()
    never_demoted(x)


@case
def exec_keeps_its_files_to_itself(context):
    """While exec waits for what is undelivered, what another thread starts must not inherit the keys; nor can others read
    in /proc how the next program was told of them."""
    x = Session(context, server_env={"NAMESOCKET_GIVE_UP": "10s"})
    x.client.do(f"t = socket.create_connection(('tage', {PORT})); t.send(b'?')")
    x.server.do("t = l.accept()[0]; s.set_inheritable(True)")
    x.server.says("t.recv(1)", b"?")
    port = x.client.do("t.getsockname()[1]")
    x.rig.troels.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                     f"tcp sport {PORT} tcp dport {port} drop;\n}}\n}}")
    x.server.do("t.send(b'undelivered'); t.close()")
    child = CHILD + "s.sendall(str(open('/proc/self/environ').read().count('HEIRLOOM')).encode() + os.readlink('/proc/self/exe').encode())"
    x.server.begin(f"os.execv(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())])")
    of = f"/proc/{x.server.pid}"

    def heirloom():
        """The flags of its descriptor (proc(5))."""
        try:
            for n in os.listdir(f"{of}/fd"):
                if "memfd:namesocket" in os.readlink(f"{of}/fd/{n}"):
                    with open(f"{of}/fdinfo/{n}") as f:
                        return int(next(line for line in f if line.startswith("flags")).split()[1], 8)
        except FileNotFoundError:                             # a descriptor that has gone meanwhile
            return None
    if not wait_for("the heirloom", heirloom) & os.O_CLOEXEC:
        raise Wrong("whatever this process starts has the keys")
    x.client.says("s.recv(2)[:1]", b"0")
    never_demoted(x)


@case
def exec_of_a_program_that_cannot_begin(context):
    """The shim is there, and has not what it needs: the connection is reset, and the keys are not left open."""
    x = Session(context)
    x.client.do("s.set_inheritable(True)")
    preload = " ".join((context.shim, context.built("tests/no_key.so")))
    x.client.begin(f"os.execve('/bin/ls', ['ls', '-l', '/proc/self/fd'], {{**os.environ, 'LD_PRELOAD': {preload!r}}})", aside=False)
    x.client.proc.wait()
    if any("memfd:namesocket" in (line or "") for line in x.client.proc.lines):
        raise Wrong("the keys are left open")
    x.server.says("s.recv(1)", "ConnectionResetError ECONNRESET")


@case
def exec_of_a_program_without_us(context):
    """Its environment has no LD_PRELOAD: plain TCP, before it begins."""
    x = Session(context)
    x.server.do(INETD.replace("os.execv(", "os.execve(").replace("serving])", "serving], {})"))
    echoes(x)
    x.server.log.wait(DEMOTED)


@case
def exec_with_a_session_that_is_none_of_its_own(context):
    """A descriptor that nobody thought of is no reason to be plain."""
    x = Session(context)
    x.client.do("s.set_inheritable(True)")
    x.client.do("pid = os.fork()\nif pid == 0:\n    os.execv('/bin/sleep', ['sleep', '60'])")
    x.talks()
    x.resumes()
    x.talks()
    never_demoted(x)
    x.client.do("os.kill(pid, signal.SIGKILL)")


@case
def exec_with_a_thread_inside(context):
    """Another thread reads the session: what it may have taken nobody can know."""
    x = Session(context)
    x.client.do("s.set_inheritable(True)")
    x.client.begin("s.recv(1)").asleep(*ASLEEP)
    child = CHILD + "s.sendall(b'child')"
    x.client.begin(f"os.execv(sys.executable, [sys.executable, '-c', {child!r}, str(s.fileno())])")
    x.server.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.client.log.wait(DEMOTED)
# -- what cannot be followed ------------------------------------------------------------------------------------------

RING = r"""
import ctypes, mmap, struct
own = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = own.syscall(425, 4, params)
if ring < 0:
    raise OSError(ctypes.get_errno(), "io_uring_setup")
sq_entries, cq_entries, flags = struct.unpack_from("III", params, 0)
sq = struct.unpack_from("8I", params, 40)
def mapped(size, offset):
    return mmap.mmap(ring, size, flags=mmap.MAP_SHARED | 0x8000, prot=3, offset=offset)
ring_map = mapped(max(sq[6] + 4 * sq_entries, 4096), 0)
entries = mapped(64 * sq_entries, 0x10000000)
def ring_send(fd, data):
    keep = ctypes.create_string_buffer(data, len(data))
    at = struct.unpack_from("I", ring_map, sq[1])[0]
    slot = at & struct.unpack_from("I", ring_map, sq[2])[0]
    entries[64 * slot:64 * slot + 64] = struct.pack("<BBHiQQII", 26, 0, 0, fd, 0, ctypes.addressof(keep), len(data), 0) + bytes(32)
    struct.pack_into("I", ring_map, sq[6] + 4 * slot, slot)
    struct.pack_into("I", ring_map, sq[1], at + 1)
    return own.syscall(426, ring, 1, 1, 1, 0, 0)
"""


def make_ring(puppet):
    try:
        puppet.do(RING)
    except Raised as e:
        raise Skip(f"the kernel gives no io_uring: {e}") from None


@case
def io_uring_written_to_a_session(context):
    """Its bytes are in no ring of ours: the session is not moved, and the peer never gets a stream with a hole."""
    x = Session(context)
    make_ring(x.client)
    x.client.says("ring_send(s.fileno(), b'past us')", 1)
    x.client.do("s.send(b', seen')")
    x.server.says("s.recv(13, socket.MSG_WAITALL)", b"past us, seen")
    x.rig.troels.link_down(x.link())
    x.client.do("s.send(b'later')")
    x.client.log.wait(DEMOTED)
    if x.client.log.count(RESUMED):
        raise Wrong("it was moved")


@case
def io_uring_asks_and_answers_nothing(context):
    """Neither end of a process with a ring is protected: NEW would be read past us."""
    x = Session(context, born=False)
    make_ring(x.server)
    x.client.do(f"s = socket.create_connection(('tage', {PORT}))")
    x.client.do("s.send(b'first')")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(100)", b"first")
    if x.client.log.count(ESTABLISHED) or x.server.log.count(ESTABLISHED):
        raise Wrong("a session came about")


@case
def kernel_tls(context):
    """What the kernel encrypts cannot be sent again by us."""
    x = Session(context)
    x.client.do("try:\n    s.setsockopt(socket.IPPROTO_TCP, 31, b'tls')\nexcept OSError:\n    pass")
    x.client.log.wait(DEMOTED)


@case
def close_range_over_many_of_ours(context):
    """The engine's own descriptors are passed over, however many there are."""
    x = Session(context)
    leases = [Hello(x.rig.troels, x.rig.tage.address("link-a", 6)) for _ in range(100)]
    x.server.do("import ctypes; own = ctypes.CDLL(None, use_errno=True)")
    x.server.says("own.close_range(s.fileno(), 0xffffffff, 0)", 0)
    x.client.says("s.recv(1)", b"")
    if not all(h.answered and h.open() for h in leases):
        raise Wrong("a lease was closed")


@case
def more_addresses_than_the_list_holds(context):
    """An address that is in no list of ours, because there are so many, is no address that has gone."""
    x = Session(context)
    x.rig.tage.ip(*(f"address add 10.99.0.{n}/32 dev lo" for n in range(1, 201)))
    x.rig.tage.own("link-b", "10.32.0.98/24")
    x.rig.tage.disown("link-b", "10.32.0.98/24")
    x.talks()
    if x.server.log.count("own address is gone") or x.client.log.count(SUSPENDED):
        raise Wrong("the session was reset")


@case
def version_1_ends_no_stream_of_its_own(context):
    """RESUME_ACK is lost, so the client gives an attempt up on which the server lives already: not by FIN."""
    version = {"NAMESOCKET_VERSION": "1"}
    x = Session(context, {**version, "NAMESOCKET_KNOWN": "*"}, version, born=False)
    x.client.do(f"s = socket.create_connection(('tage', {PORT})); s.send(b'?')")
    x.server.do("s = l.accept()[0]")
    x.server.says("s.recv(1)", b"?")
    read = x.server.begin("s.recv(100)").asleep(*ASLEEP)
    x.rig.troels.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                     f"tcp sport {PORT} tcp flags & psh == psh drop;\n}}\n}}")
    x.rig.troels.link_down(x.link())
    x.server.log.wait("Sending NSPT_RESUME_ACK")
    x.client.log.wait("no answer in time")
    x.rig.troels.nft("delete table inet deaf")
    x.client.begin("s.sendall(b'still one stream')")
    if read.result() != b"still one stream":
        raise Wrong(f"the server read {read.result()!r}")

# -- sandboxes ---------------------------------------------------------------------------------------------------------

# A seccomp filter that lets everything through: from here on the shim makes no call of its own.
SANDBOX = """
def sandbox():
    import ctypes
    own, ret = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxN', 1, ctypes.addressof(ret)))
    if own.prctl(38, 1, 0, 0, 0) or own.prctl(22, 2, program, 0, 0):
        os._exit(9)
"""

SANDBOXED = "pid = os.fork()\nif pid == 0:\n    sandbox()\n    "


@case
def sandbox_of_a_child_that_ends(context):
    """A monitor and its child without privileges, as in sshd: the child has the session until the login, the next one
    after it."""
    x = Session(context)
    x.server.do(SANDBOX)
    for n in range(2):
        x.server.do(SANDBOXED + f"s.sendall(s.recv(5, socket.MSG_WAITALL) + b'{n}')\n    os._exit(0)")
        x.client.do(f"s.sendall(b'give{n}')")
        x.client.says("s.recv(6, socket.MSG_WAITALL)", b"give%d%d" % (n, n))
        x.server.says("os.waitpid(pid, 0)[1]", 0)
    x.server.do(ECHO + "\ns.close()")
    echoes(x)
    accept = x.server.begin("l.accept()").asleep(ACCEPT4, *ASLEEP)
    for _ in range(2):
        x.resumes()
        echoes(x)
    never_demoted(x)
    if accept.done():
        raise Wrong("the server was shown a connection that is none of its own")


# -- listeners that go to another process ----------------------------------------------------------------------------

def another(x, name, **env):
    """One more process on tage, to which the server can send `l`."""
    other = Puppet(x.rig.tage, name, x.shim, env)
    other.do(f"u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.bind('\\0{name}')")
    x.server.do("u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)")
    return other


def pass_on(x, name, other, what="l"):
    x.server.do(f"u.connect('\\0{name}'); socket.send_fds(u, [b'.'], [{what}.fileno()])")
    other.do("l = socket.socket(fileno=socket.recv_fds(u, 1, 1)[1][0])")


@case
def passed_listener(context):
    """Whoever has it may accept there, and not know what to make of a NEW: nobody says yes to HELLO, whoever listens.
    A NEW for which one had said so is no part of the stream, for who has seen that it listens."""
    x = Session(context)
    other = another(x, "other")
    to = x.rig.tage.address("link-a", 6)
    for port, before, ours, theirs in ((7101, "t.listen()", "", ""), (7102, "", "t.listen()", ""),
                                       (7103, "", "", "l.listen()"), (7104, "t.listen()", "t.listen()", "l.listen()")):
        x.server.do(f"t = socket.socket(socket.AF_INET6); t.bind(('::', {port}))\n{before}")
        pass_on(x, "other", other, "t")
        x.server.do(ours or "None")
        other.do(theirs or "None")
        accept = other.begin("l.accept()[0].recv(100)").asleep(ACCEPT4)
        if Hello(x.rig.troels, to, port).answered:
            raise Wrong(f"HELLO was answered on {port}")
        if not before and not theirs:
            accept.result()
            continue
        if accept.done():
            raise Wrong(f"the application was shown HELLO on {port}")
        Client(x.rig.troels, to, Hello(x.rig.troels, to), port).begin(b"hello")
        if accept.result() != b"hello":
            raise Wrong(f"{accept.result()} was read on {port}")
    x.talks()


@case
def passed_listener_gets_a_resume(context):
    """The sessions of who had it before are his still: a RESUME is passed to him."""
    x = Session(context, born=False, server_env={"NAMESOCKET_BROKER": "@moments"})
    broker = x.rig.tage.start("broker", [context.built("src/daemon/namesocketd"), "--broker=@moments"])
    wait_for("the broker", lambda: "ready" in broker.stderr())
    x.connect()
    other = another(x, "other", NAMESOCKET_BROKER="@moments")
    pass_on(x, "other", other)
    x.server.do("l.close()")
    accept = other.begin("l.accept()").asleep(ACCEPT4)
    x.resumes()
    x.talks()
    if accept.done():
        raise Wrong("the application was shown a RESUME")


@case
def sandbox_of_a_child_that_stays(context):
    """Nobody can know what it reads and writes: plain TCP as soon as another process calls."""
    x = Session(context)
    x.server.do(SANDBOX + "r, w = os.pipe()")
    x.server.do(SANDBOXED + "s.sendall(s.recv(5, socket.MSG_WAITALL))\n    os.write(w, b'.')\n    signal.alarm(60); signal.pause()")
    x.client.do("s.sendall(b'child')")
    x.client.says("s.recv(5, socket.MSG_WAITALL)", b"child")
    x.server.says("os.read(r, 1)", b".")
    x.server.do("s.sendall(b'parent')")
    x.client.says("s.recv(6, socket.MSG_WAITALL)", b"parent")
    x.server.log.wait(DEMOTED)
    x.talks()
    x.server.do("os.kill(pid, signal.SIGKILL)")


@case
def sandbox_with_an_inbox(context):
    """What is unread of the connection before is out of reach there: an error, no stream with a hole."""
    x = inbox(context)
    x.client.do(SANDBOX + "r, w = os.pipe()")
    x.client.do(SANDBOXED + "try: s.recv(100)\n    except OSError as e: os.write(w, errno.errorcode[e.errno].encode())\n"
                "    os._exit(0)")
    x.client.do("os.close(w)")
    told = x.client.do("os.read(r, 100)")
    if told not in (b"ECONNRESET", b"ENOTCONN"):
        raise Wrong(f"the child got {told!r}")


@case
def sandbox_of_a_child_whose_last_bytes_are_lost(context):
    """They are in nobody's ring: the session ends with an error, never with a hole."""
    x = Session(context)
    x.server.do(SANDBOX)
    x.rig.tage.nft("table inet mute { chain out { type filter hook output priority 0;\n"
                   f"tcp sport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    x.server.do(SANDBOXED + "s.sendall(b'lost')\n    os._exit(0)")
    x.server.says("os.waitpid(pid, 0)[1]", 0)
    x.server.do("s.sendall(b'more')")
    x.rig.reset_flows([x.rig.troels, x.rig.tage], PORT)
    x.rig.tage.nft("delete table inet mute")
    x.server.begin("l.accept()")
    x.client.says("s.recv(8, socket.MSG_WAITALL)", "ConnectionResetError ECONNRESET")


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
