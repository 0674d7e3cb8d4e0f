#!/usr/bin/env python3
"""What strangers and bad luck do to a server: packets by hand at a live server under the shim.

Options as in faults.py (--list, -k, --hold, ...). The client in most cases is rig/peer.py, which speaks the protocol
by itself and can break each of its rules; the server is echo.py, in plain sockets, under the shim. Whatever
happens, the session of a client that obeys the rules goes on.
"""
import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import termios

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                         # noqa: E402
from rig.pair import ESTABLISHED, PORT, RESUMED, Wrong, shim_env              # noqa: E402
from rig.peer import (CONFIRM, EPOCH, GAP, GO_ON, NEW, RESUME, UNKNOWN, Client, Hello, connect, ended,  # noqa: E402
                      header, read, reset)
from rig.procs import Log                                                     # noqa: E402
from rig.report import Skip, main, options                                    # noqa: E402
from rig.wire import link_of                                                  # noqa: E402

ECHO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "echo.py")
REFUSED = "refused: "
CONNECTED = "now connected"


class Stage:
    """An echo server on tage, under the shim; clients by hand on troels."""

    def __init__(self, context, *args, env=None, under=(), port=PORT, **rig):
        if not context.shim:
            raise Skip("needs the shim")
        self.context = context
        self.rig = context.rig(**rig)
        self.troels, self.tage = self.rig.troels, self.rig.tage
        self.log = Log(os.path.join(self.rig.dir, "server.log"))
        self.server = self.serve("server", self.log, *args, env=env, under=under, port=port)
        self.to = self.tage.address("link-a", 4)

    def serve(self, name, log, *args, env=None, under=(), port=PORT):
        server = self.tage.start(name, [*under, sys.executable, ECHO, port, *args],
                                 {**shim_env(self.context.shim, log.path), **(env or {})})
        server.wait_line("^listening$", 20)
        return server

    def hello(self, **kw):
        answer = Hello(self.troels, kw.pop("to", self.to), **kw)
        if not answer.answered:
            raise Wrong("HELLO is not answered")
        return answer

    def client(self, hello=None, to=None):
        return Client(self.troels, to or self.to, hello or self.hello())

    def session(self, **kw):
        before = self.log.count(CONNECTED)
        client = self.client(**kw).begin()
        client.echo(b"first words")
        self.log.wait(CONNECTED, before + 1)
        return client

    def got(self):
        """What the application read, by its own number of the connection."""
        found = {}
        for line in self.server.lines:
            words = (line or "").split()
            if len(words) == 3 and words[1] == "got":
                found[int(words[0])] = found.get(int(words[0]), b"") + bytes.fromhex(words[2])
        return found

    def wait_got(self, *streams):
        """The application has read this, on as many connections, and nothing else."""
        wait_for(f"{streams} at the application (is {self.got()})", lambda: sorted(self.got().values()) == sorted(streams))

    def accepted(self):
        return sum("accepted" in (line or "") for line in self.server.lines)

    def said(self, line):
        return sum(x == line for x in self.server.lines)


def expect(what, is_, wanted):
    if is_ != wanted:
        raise Wrong(f"{what}: {is_!r}, not {wanted!r}")


# -- packets --------------------------------------------------------------------------------------------------------

def refused_as(status):
    def check(stage, client, conn):
        ack = client.ack(read(conn, 64))
        expect("the answer's status", ack.status, status)
        if not ended(conn):
            raise Wrong("a refused connection stays open")
    return check


def closed(_stage, _client, conn):
    if not ended(conn):
        raise Wrong("it was answered")


def resumes(make, check):
    """A connection that says what make() makes; check() says what must come of it."""
    def attack(stage, client):
        conn = connect(stage.troels, stage.to)
        try:
            conn.sendall(make(client))
        except ConnectionError:
            pass
        check(stage, client, conn)
        conn.close()
    return attack


def cut_short(client):
    """A RESUME that lacks its last byte, and then the end."""
    return client.resume()[:-1]


def half_closed(make):
    def attack(stage, client):
        conn = connect(stage.troels, stage.to)
        conn.sendall(make(client))
        conn.shutdown(socket.SHUT_WR)
        closed(stage, client, conn)
        conn.close()
    return attack


def confirms(make, log=True):
    """A RESUME as it should be, and another CONFIRM than should be."""
    def attack(stage, client):
        conn, ack = client.ask()
        expect("RESUME's status", ack.status, GO_ON)
        conn.sendall(make(client, ack))
        closed(stage, client, conn)
        conn.close()
    return attack


def replayed(stage, client):
    """A RESUME that was good once, with what the client said after it."""
    conn, ack = client.ask()
    said = [client.resume(epoch=client.epoch, nonce=client.nonce), client.confirm(ack)]
    conn.close()                                              # a hedge that was not needed
    again = connect(stage.troels, stage.to)
    again.sendall(b"".join(said))
    refused_as(EPOCH)(stage, client, again)
    again.close()


def never_sent(client, ack):
    return client.confirm(ack, received=client.received + 1000)


def flip(packet, at=-1):
    packet = bytearray(packet)
    packet[at] ^= 1
    return bytes(packet)


PACKETS = {
    "resume-cut-short": half_closed(cut_short),
    "resume-too-long": resumes(lambda c: c.resume(key=bytes(32)) + b"x" * 5000, refused_as(UNKNOWN)),
    "resume-bad-tag": resumes(lambda c: flip(c.resume()), refused_as(UNKNOWN)),
    "resume-other-key": resumes(lambda c: c.resume(key=bytes(32)), refused_as(UNKNOWN)),
    "resume-other-session": resumes(lambda c: flip(c.resume(), 9), refused_as(UNKNOWN)),
    "resume-old-epoch": resumes(lambda c: c.resume(epoch=0), refused_as(EPOCH)),
    "resume-never-sent": resumes(lambda c: c.resume(received=c.received + 1000), refused_as(GAP)),
    "resume-replayed": replayed,
    "resume-of-version-1": resumes(lambda c: header(1, RESUME) + bytes(40), closed),
    "confirm-cut-short": confirms(lambda c, a: c.confirm(a)[:-1] + b""),
    "confirm-bad-tag": confirms(lambda c, a: flip(c.confirm(a))),
    "confirm-other-key": confirms(lambda c, a: c.confirm(a, key=bytes(32))),
    "confirm-other-type": confirms(lambda c, a: header(2, NEW) + c.confirm(a)[4:]),
    "confirm-unknown-version": confirms(lambda c, a: header(9, CONFIRM) + c.confirm(a)[4:]),
}
# Waits for as long as CONFIRM may take, so in a case of its own.
del PACKETS["confirm-cut-short"]

LOGGED = {name for name in PACKETS if name not in ("resume-cut-short",)}


def bad_packet(name):
    def case(context):
        stage = Stage(context)
        client = stage.session()
        PACKETS[name](stage, client)
        client.echo(b"the session goes on")
        if name in LOGGED:
            expect("lines in the log about it", stage.log.count(REFUSED), 1)
        client.move().echo(b"and moves")
        stage.wait_got(b"first wordsthe session goes onand moves")
    return case


def bounded_log(context):
    """A thousand bad packets are a few lines, and each is refused."""
    stage = Stage(context)
    client = stage.session()
    for _ in range(1000):
        conn, ack = client.ask(key=bytes(32), epoch=7)
        expect("the answer's status", ack.status, UNKNOWN)
        conn.close()
    client.echo(b"the session goes on")
    lines = stage.log.count(REFUSED)
    if not 1 <= lines <= 50:
        raise Wrong(f"{lines} lines in the log for 1000 packets")
    client.move().echo(b"and moves")


def never_sent_confirmed(context):
    """The client's final offset is of bytes that were never sent: such a session cannot go on, and must not
    go wrong."""
    stage = Stage(context)
    client = stage.session()
    conn, ack = client.ask()
    conn.sendall(never_sent(client, ack))
    closed(stage, client, conn)
    stage.server.wait_line("^1 (error|end)")
    stage.wait_got(b"first words")
    other = stage.session()
    other.echo(b"others go on")


def application_looks_like(context):
    """Streams of applications that begin as a packet does are the application's, every byte."""
    stage = Stage(context)
    client = stage.session()
    hello = client.hello
    strangers = {
        "NEW with flags": flip(stage.client(hello).new(), 7),
        "unknown version": header(9, NEW) + bytes(76),
        "unknown type": header(2, 77) + bytes(76),
        "HELLO_ACK": header(2, 7) + bytes(100),
        "one byte": b"N",
        "two bytes": b"NS",
        "version 1's NEW": header(1, NEW) + b"more",
    }
    for what, data in strangers.items():
        plain = connect(stage.troels, stage.to)
        plain.sendall(data)
        expect(what, read(plain, len(data)), data)
        plain.close()
    client.echo(b"the session goes on")
    client.move().echo(b"and moves")


# -- crowds ---------------------------------------------------------------------------------------------------------

def silent_strangers(context):
    """Those who begin a RESUME and say no more, whatever their number, keep nobody from resuming."""
    stage = Stage(context)
    client = stage.session()
    crowd = []
    for _ in range(400):
        conn = connect(stage.troels, stage.to)
        conn.sendall(header(2, RESUME))
        crowd.append(conn)
    for n in range(5):
        client.move().echo(b"still here")
        crowd.append(connect(stage.troels, stage.to))
        crowd[-1].sendall(header(2, RESUME))
    wait_for("all but 128 strangers to be dropped", lambda: sum(not ended_already(c) for c in crowd) <= 128, 1)


def ended_already(conn):
    conn.setblocking(False)
    try:
        return conn.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def many_exchanges(context):
    """One session's own client asks and asks, and confirms nothing."""
    stage = Stage(context)
    client = stage.session()
    asked = [client.ask()[0] for _ in range(300)]
    wait_for("all but 16 to be dropped", lambda: sum(not ended_already(c) for c in asked) == 16)
    client.move().echo(b"still here")


def oldest_stranger_asks(context):
    """One that came before all others begins the last exchange: it is not the one to go, and nothing stops."""
    stage = Stage(context)
    client = stage.session()
    first = connect(stage.troels, stage.to)
    first.sendall(header(2, RESUME))
    asked = [client.ask()[0] for _ in range(16)]
    packet = client.resume()
    first.sendall(packet[4:])
    ack = client.ack(read(first, 64))
    expect("the answer's status", ack.status, GO_ON)
    for _ in range(3):                                        # memory of what was dropped is used again
        stage.hello()
    first.sendall(client.confirm(ack))
    expect("DONE's length", len(read(first, 32)), 32)
    client.conn = first
    client.echo(b"still here")
    expect("whether the others are dropped", [ended_already(conn) for conn in asked], [True] * 16)


def asks_and_reads_on(context):
    """A client that asks for its session, and uses the old connection, does not make the server keep all it sends."""
    stage = Stage(context)
    client = stage.session()
    asked, _ack = client.ask()
    for _ in range(800):
        client.echo(bytes(1 << 16))
        if ended_already(asked):
            break
    else:
        raise Wrong("50 MB are kept for it")
    client.move().echo(b"still here")


def exchanges_of_many_sessions(context):
    """A source that has many sessions cannot take all descriptors by asking for each."""
    stage = Stage(context, "--form", "epoll")
    hello = stage.hello()
    clients = [stage.client(hello).begin(b"mine") for _ in range(40)]
    for client in clients:
        client.expect(b"mine")
    stage.log.wait(CONNECTED, len(clients), 20)
    asked = [client.ask()[0] for client in clients for _ in range(15)]
    wait_for("all but 512 to be dropped", lambda: sum(not ended_already(c) for c in asked) == 512)
    clients[0].move().echo(b"still here")


def reset_before_it_was_read(context):
    """What is awaited is looked into for a session: an error that waits there stays the application's."""
    stage = Stage(context, "--form", "blocking", "--hold")
    hello = stage.hello()
    conn = connect(stage.troels, stage.to)
    stage.server.wait_line("^1 accepted")
    reset(conn)
    other, ack = stage.client(hello).ask()
    expect("the answer's status", ack.status, UNKNOWN)
    other.close()
    stage.server.send("go")
    stage.server.wait_line("^1 error ConnectionResetError", 20)


def leases_for_all(context):
    """Who asks and asks takes no leases away but his own."""
    stage = Stage(context)
    stage.troels.own("link-a", "10.31.0.77/24")
    other = stage.hello(source="10.31.0.77")
    greedy = [stage.hello(source="10.31.0.1") for _ in range(200)]
    newcomer = stage.hello(to=stage.tage.address("link-a", 6))
    if any(hello.lease_s == 0 for hello in [other, newcomer, *greedy]):
        raise Wrong("somebody gets no lease")
    if not other.open() or not newcomer.open():
        raise Wrong("a lease has ended for somebody else's sake")
    if not greedy[-1].open() or greedy[0].open() or sum(hello.open() for hello in greedy) > 128:
        raise Wrong("the greedy one's own leases: not the oldest have ended")


def all_at_once(context):
    """The link of 400 sessions goes, and each of their RESUMEs is here before the server looks."""
    stage = Stage(context, "--form", "epoll")
    hello = stage.hello()
    clients = [stage.client(hello).begin(b"mine") for _ in range(400)]
    for client in clients:
        client.expect(b"mine")
    stage.log.wait(CONNECTED, len(clients), 20)
    stage.server.p.send_signal(signal.SIGSTOP)
    asked = []
    for client in clients:
        conn = connect(stage.troels, stage.to)
        conn.sendall(client.resume())
        asked.append(conn)
    stage.server.p.send_signal(signal.SIGCONT)
    for n, (client, conn) in enumerate(zip(clients, asked)):
        expect(f"the answer to RESUME {n}", client.ack(read(conn, 64)).status, GO_ON)


# -- what HELLO tells -----------------------------------------------------------------------------------------------

def told(context):
    """The inside's addresses are told to the inside alone."""
    stage = Stage(context)
    public, inside = ["198.51.100.2", "2001:db8:5::2"], ["fd00:7::2", "10.31.0.2", "10.32.0.2"]
    stage.tage.own("link-b", "198.51.100.2/24", "2001:db8:5::2/64", "fd00:7::2/64")
    stage.troels.own("link-a", "203.0.113.1/32", "2001:db8:6::1/128")
    # The rig's own prefixes are public ones: nobody but a neighbour comes from them.
    public += [a for a in stage.rig.records["tage"] if ":" in a]
    stage.tage.ip("route add 203.0.113.1/32 dev link-a", "route add 2001:db8:6::1/128 dev link-a")
    to6 = stage.tage.address("link-a", 6)
    for source, to, wanted in (("10.31.0.1", stage.to, public + inside), ("203.0.113.1", stage.to, public),
                               ("2001:db8:6::1", to6, public), (stage.troels.address("link-a", 6), to6, public + inside)):
        expect(f"told to {source}", sorted(stage.hello(to=to, source=source).addresses), sorted(wanted))


def told_by_bound(context):
    """A server that is bound to one address speaks for no other: the same port there can be somebody else's."""
    for family, everything in ((4, "0.0.0.0"), (6, None)):
        stage = Stage(context, "--bind", "10.31.0.2" if family == 4 else "3ffe:2a00:100:3100::dead:beef")
        to = stage.tage.address("link-a", family)
        expect("told by a server of one address", stage.hello(to=to).addresses, [to])
        if everything:
            stage.serve("all", Log(os.path.join(stage.rig.dir, "all.log")), "--bind", everything, port=PORT + 1)
            expect("told by a server of IPv4 alone", sorted(stage.hello(to=to, port=PORT + 1).addresses),
                   ["10.31.0.2", "10.32.0.2"])


# -- what the connection before has left ------------------------------------------------------------------------------

NUMBERS = b"".join(b"%07d\n" % n for n in range(12000))


def no_room(context):
    """A server without the memory to keep what was unread loses none of it: it resumes once there is some."""
    stage = Stage(context, "--form", "blocking", "--hold")
    client = stage.client().begin(NUMBERS[:8])
    stage.server.wait_line("^1 accepted")
    client.move(NUMBERS[:client.sent])
    for upto in (60000, len(NUMBERS)):                        # more than the first memory of what is kept
        client.conn.sendall(NUMBERS[client.sent:upto])
        client.sent = upto
        wait_for("the server's kernel to have it", lambda: unacknowledged(client.conn) == 0)
        if upto < len(NUMBERS):
            client.move(NUMBERS[:client.sent])
    with open(f"/proc/{stage.server.p.pid}/status") as f:
        used = next(int(line.split()[1]) for line in f if line.startswith("VmSize")) * 1024
    before = resource.prlimit(stage.server.p.pid, resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    conn, ack = client.ask()
    conn.sendall(client.confirm(ack))
    closed(stage, client, conn)
    resource.prlimit(stage.server.p.pid, resource.RLIMIT_AS, before)
    client.move(NUMBERS[:client.sent])
    stage.server.send("go")
    client.expect(NUMBERS)
    stage.wait_got(NUMBERS)


def unacknowledged(conn):
    return struct.unpack("i", fcntl.ioctl(conn, termios.TIOCOUTQ, bytes(4)))[0]


def urgent_again(context):
    """Bytes that the server has, an urgent one among them, come again: each is skipped once."""
    stage = Stage(context, "--form", "blocking")
    client = stage.session()
    conn, ack = client.ask()
    client.conn.sendall(b"ab")
    client.conn.send(b"U", socket.MSG_OOB)
    client.conn.sendall(b"cd")
    client.expect(b"abcd")
    conn.sendall(client.confirm(ack))
    done = read(conn, 32)
    expect("what DONE says is here", struct.unpack(">Q", done[8:16])[0], ack.received + 5)
    conn.sendall(b"ab")
    conn.send(b"U", socket.MSG_OOB)
    conn.sendall(b"cdEFGH")
    client.conn = conn
    client.expect(b"EFGH")


def sleeps_in_accept(pid):
    with open(f"/proc/{pid}/task/{pid}/syscall") as f:
        return f.read().split()[0] == "288"                   # accept4: asm/unistd_64.h


def no_descriptors(context):
    """A server that is out of descriptors when a path is lost: its calls go on as if nothing had been."""
    stage = Stage(context, "--form", "blocking")
    client = stage.session()
    pid = stage.server.p.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    wait_for("the server in accept", lambda: sleeps_in_accept(pid))     # which has its descriptor then
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    reset(client.conn)
    client.conn = None
    stage.log.wait("now suspended")
    stage.server.wait_line("^1 (got|error)")                  # not an error since, either
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    client.move().echo(b"still here")
    stage.wait_got(b"first words" + b"still here")


def full(context):
    """A server whose descriptors are all in use: accept says so, as without us, and those who are served stay."""
    stage = Stage(context, "--form", "select", under=("prlimit", "--nofile=64:64"))
    conns = []
    while not stage.said("full"):
        if len(conns) == 100:
            raise Wrong("100 connections on 64 descriptors")
        conns.append(connect(stage.troels, stage.to, talks=False))
        wait_for("the next to be accepted", lambda: stage.accepted() == len(conns) or stage.said("full"))
    for conn in conns[:-1]:
        conn.sendall(b"served")
        expect("the echo", read(conn, 6), b"served")


# -- first bytes ----------------------------------------------------------------------------------------------------

WAITS = "poll,ppoll,select,pselect6,epoll_wait,epoll_pwait"


def ends_while_asked(context):
    """The application ends its stream when a RESUME was answered and its CONFIRM is on the way: the client, which
    may have given its old connection up, gets that end on the new one."""
    stage = Stage(context)
    client = stage.session()
    conn, ack = client.ask()
    expect("RESUME's status", ack.status, GO_ON)
    client.conn.shutdown(socket.SHUT_WR)
    if not ended(client.conn):
        raise Wrong("the application did not end its stream")
    conn.sendall(client.confirm(ack))
    done = read(conn, 32)
    expect("DONE's length", len(done), 32)
    if not ended(conn):
        raise Wrong("no end on the new connection")
    client.close()


def stalls(form):
    """Streams that begin as NEW does, and stop: the application gets the bytes, and nobody spins until then."""
    def case(context):
        if not shutil.which("strace"):
            raise Skip("strace is not installed")
        trace = os.path.join(context.dir, "calls")
        stage = Stage(context, "--form", form, under=("strace", "-f", "-qq", "-o", trace, "-e", "trace=" + WAITS))
        try:
            stalled(stage)
        finally:
            stage.server.close_stdin()                        # strace's death is not its program's
            stage.server.wait()
        with open(trace) as f:
            calls = sum(1 for _ in f)
        # Some for each connection, for its listener and the helper's timers. Not one for each time round.
        if calls > 400:
            raise Wrong(f"{calls} calls that wait")
    return case


def stalled(stage):
    start = stage.client().new()
    for length in (1, 3, 4, 40, 79):
        conn = connect(stage.troels, stage.to)
        conn.sendall(start[:length])
        expect(f"the echo of {length} bytes", read(conn, length), start[:length])
        conn.sendall(b"and more")
        expect("the echo of the rest", read(conn, 8), b"and more")
        conn.shutdown(socket.SHUT_WR)
        expect("what follows", read(conn, 1), b"")


def ends_in_new(form):
    """The same, and then the end of the stream: nothing is waited for."""
    def case(context):
        stage = Stage(context, "--form", form)
        start = stage.client().new()
        for length in (3, 4, 79):
            conn = connect(stage.troels, stage.to)
            conn.sendall(start[:length])
            conn.shutdown(socket.SHUT_WR)
            expect(f"the echo of {length} bytes", read(conn, length + 1), start[:length])
    return case


def in_pieces(form):
    """NEW that comes byte by byte is NEW."""
    def case(context):
        stage = Stage(context, "--form", form)
        client = stage.client()
        before = stage.log.count(CONNECTED)
        client.conn = connect(stage.troels, stage.to, talks=False)
        client.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        new = client.new()
        for at in range(0, len(new), 8):
            client.conn.sendall(new[at:at + 8])
        client.echo(b"first words")
        stage.log.wait(CONNECTED, before + 1)
        client.move().echo(b" and more")
        stage.wait_got(b"first words and more")
    return case


def reset_early(form):
    """A client that resets its connection before it has said anything: the application gets the error."""
    def case(context):
        stage = Stage(context, "--form", form)
        conn = connect(stage.troels, stage.to, talks=False)
        stage.server.wait_line("^1 accepted")
        reset(conn)
        stage.server.wait_line("^1 error ConnectionResetError$")
    return case


def late(what, form):
    """HELLO or RESUME that comes when the application has accepted the connection: to the application a client
    that came and left. The helper has the real one."""
    def case(context):
        stage = Stage(context, "--form", form)
        client = stage.session()
        first = 2
        if what == "hello-stripped":
            # That of an application that waits for the answer: else the byte is one that somebody says.
            asking = connect(stage.troels, stage.to, talks=False)
            stage.server.wait_line("^2 accepted")
            first = 3
        for n in range(first, first + 3):
            conn = connect(stage.troels, stage.to, talks=False)
            stage.server.wait_line(f"^{n} accepted")
            if what == "resume":
                conn.sendall(client.resume())
                ack = client.ack(read(conn, 64))
                expect("RESUME's status", ack.status, GO_ON)
                conn.sendall(client.confirm(ack))
                expect("DONE", read(conn, 32)[:4], header(2, 6))
                client.conn = conn
            else:
                hello = Hello.__new__(Hello)
                hello.lease = conn
                conn.send(b"N", socket.MSG_OOB if what == "hello" else 0)
                conn.shutdown(socket.SHUT_WR)
                hello.read()
                expect("HELLO is answered", hello.answered, True)
                client.move()
            stage.server.wait_line(f"^{n} end$")
            client.echo(b"more")
        if what == "hello-stripped":
            asking.close()
        stage.wait_got(b"first words" + 3 * b"more")
        if any("stale" in (line or "") for line in stage.server.lines):
            raise Wrong("epoll tells of a number that is closed")
    return case


def wrong_server(form):
    """A load balancer: HELLO was answered by one server, NEW comes to another. No session, and no byte of NEW in
    the stream; nor where the keys differ."""
    def case(context):
        stage = Stage(context, "--form", form)
        other = Log(os.path.join(stage.rig.dir, "other.log"))
        second = stage.serve("other", other, "--form", form, port=PORT + 1)
        client = Client(stage.troels, stage.to, stage.hello(), PORT + 1)
        client.begin(b"first words").expect(b"first words")
        client.echo(b" and more")
        conn, ack = client.ask()
        expect("RESUME's status", ack.status, UNKNOWN)
        conn.close()
        client.echo(b" and more")
        wait_for("the whole stream", lambda: "".join((line or "").split()[2] for line in second.lines if
                                                     " got " in (line or "")) == b"first words and more and more".hex())
        other_key = stage.client()
        other_key.c2s = bytes(32)
        other_key.begin(b"mine").expect(b"mine")
        stage.wait_got(b"mine")
    return case


# -- sessions that the application has not seen yet -------------------------------------------------------------------

def unread(how):
    """The client's path dies when NEW and more are in the server's kernel, and the application has read nothing."""
    def case(context):
        stage = Stage(context, "--form", "blocking", "--hold")
        client = stage.client().begin(b"first words")
        stage.server.wait_line("^1 accepted")
        if how == "reset":
            reset(client.conn)
            client.conn = None
        client.move(b"first words")
        client.conn.sendall(b" and more")
        stage.server.send("go")
        client.expect(b"first words and more")
        stage.wait_got(b"first words and more")
    return case


def unread_by_real_client(context):
    stage = Stage(context, "--form", "blocking", "--hold")
    log = Log(os.path.join(stage.rig.dir, "client.log"))
    client = stage.troels.start("client", [context.traffic, "toy-echo", "run", "tage", PORT],
                                shim_env(context.shim, log.path))
    client.wait_line("connected")
    client.send("helo")
    log.wait(CONNECTED, 1)
    stage.server.wait_line("^1 accepted")
    stage.troels.link_down(link_of(stage.troels, stage.troels.flows(PORT)[0][0]))
    log.wait(RESUMED, 1, context.timeout_s)
    stage.server.send("go")
    client.wait_line("^echo helo$")


def not_accepted(context):
    """The same with a connection that the application has not even accepted."""
    stage = Stage(context, "--form", "blocking", "--iterative")
    first = stage.session()
    second = stage.client(first.hello).begin(b"second")
    conn, ack = second.ask()
    expect("RESUME's status while the application is busy", ack.status, 4)
    conn.close()
    first.echo(b" and more")
    first.conn.shutdown(socket.SHUT_WR)
    stage.server.wait_line("^2 got")
    second.move(b"second")
    second.expect(b"second")
    stage.wait_got(b"first words and more", b"second")


def waits_behind(stage, conns):
    """Connections that say nothing, and that the helper of a busy server has taken out of the kernel's queue."""
    silent = [connect(stage.troels, stage.to, talks=False) for _ in range(conns)]
    wait_for("the kernel's queue to be emptied", lambda: stage.tage.backlog(PORT) == 0)
    return silent


def spoke_late(context):
    """A RESUME whose first bytes were late, at a server that is blocked reading that very session."""
    stage = Stage(context, "--form", "blocking", "--iterative")
    client = stage.session()
    conn, = waits_behind(stage, 1)
    conn.sendall(client.resume())
    expect("RESUME's status", client.ack(read(conn, 64)).status, GO_ON)


def late_crowd(context):
    """So many have come late to a busy server that they fill the queue: it is not full for good."""
    stage = Stage(context, "--form", "blocking", "--iterative")
    client = stage.session()
    for conn in waits_behind(stage, 32):
        conn.sendall(header(2, RESUME))
        conn.close()
    client.move().echo(b"still here")
    stage.wait_got(b"first words" + b"still here")


def all_cases():
    cases = {f"packet/{name}": bad_packet(name) for name in PACKETS}
    cases["packet/1000-bad-ones"] = bounded_log
    cases["packet/confirm-never-sent"] = never_sent_confirmed
    cases["stream/looks-like-a-packet"] = application_looks_like
    cases["crowd/silent-strangers"] = silent_strangers
    cases["crowd/exchanges-of-one-session"] = many_exchanges
    cases["crowd/oldest-stranger-asks"] = oldest_stranger_asks
    cases["crowd/asks-and-reads-on"] = asks_and_reads_on
    cases["crowd/exchanges-of-many-sessions"] = exchanges_of_many_sessions
    cases["left/reset-before-it-was-read"] = reset_before_it_was_read
    cases["crowd/leases"] = leases_for_all
    cases["crowd/400-resume-at-once"] = all_at_once
    cases["hello/addresses"] = told
    cases["hello/bound"] = told_by_bound
    cases["left/no-room"] = no_room
    cases["left/no-descriptors"] = no_descriptors
    cases["crowd/all-descriptors"] = full
    cases["left/urgent-again"] = urgent_again
    cases["left/ends-while-asked"] = ends_while_asked
    for form in ("blocking", "select", "poll", "epoll", "epoll-et", "epoll-oneshot"):
        cases[f"first/stalls/{form}"] = stalls(form)
        cases[f"first/ends-in-new/{form}"] = ends_in_new(form)
        cases[f"first/in-pieces/{form}"] = in_pieces(form)
        cases[f"first/reset-early/{form}"] = reset_early(form)
        for what in ("resume", "hello", "hello-stripped"):
            cases[f"late/{what}/{form}"] = late(what, form)
        cases[f"wrong-server/{form}"] = wrong_server(form)
    for how in ("path", "reset"):
        cases[f"unread/{how}"] = unread(how)
    cases["unread/real-client"] = unread_by_real_client
    cases["unread/not-accepted"] = not_accepted
    cases["late/behind-a-busy-server"] = spoke_late
    cases["late/crowd-behind-a-busy-server"] = late_crowd
    return cases


if __name__ == "__main__":
    opts = options("Strangers and bad luck at a server under the shim.")
    if not opts.list:
        become_root()
    sys.exit(main(all_cases(), opts))
