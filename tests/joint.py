#!/usr/bin/env python3
"""Sessions that two processes use at once: parent and child of a puppet, driven call by call (rig/puppet.py). The session
goes to a relay, and nothing else changes for either.

    joint.py --list
    joint.py -k killed -x
"""
import errno
import json
import os
import signal
import sys

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                                              # noqa: E402
from rig.pair import ESTABLISHED, PORT, RESUMED, Wrong                                                          # noqa: E402
from rig.puppet import Puppet, Raised, Session                                                             # noqa: E402
from rig.report import Skip, main, options                                                         # noqa: E402
from rig.stalled import NAME, Relay, StoppedThread, helper_of                                                # noqa: E402

CASES = {}

GIVEN = "session given to a relay"
SHARED = "session shared by way of a relay"
PLAIN = "session demoted"
RELAYING = "relaying a session"
POLL, RECVFROM, EPOLL_WAIT, SELECT, PPOLL, PSELECT, EPOLL_PWAIT = 7, 45, 232, 23, 271, 270, 281
FUTEX, NANOSLEEP, TGSIGQUEUEINFO, MEMFD_CREATE = 202, 35, 297, 319

# A child that does what it is told, one call after the other, or beside the next ones (`begin`, `result`).
CHILD = r"""
def obey(pair):
    begun = {}
    def evaluate(text):
        try:
            try:
                code = compile(text, "call", "eval")
            except SyntaxError:
                code = compile(text, "call", "exec")
            return repr(eval(code, globals()))
        except BaseException as e:
            return f"{type(e).__name__} {errno.errorcode.get(getattr(e, 'errno', None), e)}"
    def aside(name, text, answer):
        answer.append(threading.get_native_id())
        answer.append(evaluate(text))
    for line in pair.makefile("r"):
        word, name, text = json.loads(line)
        if word == "begin":
            begun[name] = answer = []
            thread = threading.Thread(target=aside, args=(name, text, answer), daemon=True)
            thread.start()
            while not answer:
                pass
            got = answer[0]
        elif word == "result":
            got = begun[name][1] if len(begun[name]) > 1 else None
        else:
            got = evaluate(text)
        pair.sendall((json.dumps(got) + "\n").encode())
    os._exit(0)
def spawn():
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        obey(there)
    there.close()
    return pid, here, here.makefile("r")
def tell(child, *words):
    child[1].sendall((json.dumps(words) + "\n").encode())
    return json.loads(child[2].readline() or '"gone"')
"""


class Child:
    """A child of a puppet's that has what the puppet had."""

    def __init__(self, puppet, name="c"):
        self.puppet, self.name = puppet, name
        puppet.do(CHILD)
        puppet.do(f"{name} = spawn()")
        self.pid = puppet.do(f"{name}[0]")
        self.count = 0

    def do(self, text):
        got = self.puppet.do(f"tell({self.name}, 'do', '', {text!r})")
        try:
            return eval(got, {"__builtins__": {}})
        except Exception:
            return got

    def says(self, text, expected):
        got = self.do(text)
        if got != expected:
            raise Wrong(f"child: {text} gave {got!r}, not {expected!r}")

    def calls_on(self):
        """Until the process has a helper: a server's child has none before it has called for a while (limits.md)."""
        self.do("s.setblocking(False)")
        self.do("def call():\n try: s.recv(1)\n except BlockingIOError: pass")
        self.do("while len(os.listdir('/proc/self/task')) < 2: call()")
        self.do("s.setblocking(True)")

    def begin(self, text):
        self.count += 1
        name = str(self.count)
        tid = self.puppet.do(f"tell({self.name}, 'begin', {name!r}, {text!r})")
        return Aside(self, name, text, tid)

    def ends(self):
        self.do("os._exit(0)")
        self.puppet.do(f"os.waitpid({self.name}[0], 0)")


class Aside:
    def __init__(self, child, name, text, tid):
        self.child, self.name, self.text, self.tid = child, name, text, tid

    def asleep(self, *calls):
        def look():
            with open(f"/proc/{self.child.pid}/task/{self.tid}/syscall") as f:
                return f.read().split()[0] in map(str, calls)
        wait_for(f"{self.text} to sleep", look)
        return self

    def result(self):
        got = wait_for(self.text, lambda: self.child.puppet.do(f"tell({self.child.name}, 'result', {self.name!r}, '')"))
        try:
            return eval(got, {"__builtins__": {}})
        except Exception:
            return got


class Joint(Session):
    """Both ends under nsrun; `side` is the one that forks."""

    def __init__(self, context, side="client", under=True, **kw):
        if not context.shim:
            raise Skip("needs the shim")
        nsrun = (context.built("src/daemon/nsrun"),) if under else ()
        super().__init__(context, client_under=nsrun, server_under=nsrun, **kw)
        self.parent = getattr(self, side)
        self.peer = self.server if side == "client" else self.client

    def fork(self):
        self.child = Child(self.parent)
        return self.child

    def joined(self, asks=True):
        self.parent.log.wait(GIVEN)
        if asks:
            self.parent.log.wait(SHARED)
        self.parent.log.wait(RELAYING)

    def apart(self):
        """The parent has it, by a byte that it wrote, and the child calls for it."""
        child = self.fork()
        self.parent.do("s.send(b'p')")
        self.peer.says("s.recv(1)", b"p")
        child.do("s.send(b'c')")
        self.peer.says("s.recv(1)", b"c")
        self.joined()
        return child

    def child_hears(self, text):
        self.peer.do(f"s.sendall({text!r})")
        self.child.says(f"s.recv({len(text)}, socket.MSG_WAITALL)", text)

    def parent_hears(self, text):
        self.peer.do(f"s.sendall({text!r})")
        self.parent.says(f"s.recv({len(text)}, socket.MSG_WAITALL)", text)

    def peer_hears(self, who, text):
        who.do(f"s.sendall({text!r})")
        self.peer.says(f"s.recv({len(text)}, socket.MSG_WAITALL)", text)

    def all_talk(self, word=b"word"):
        self.peer_hears(self.parent, word + b" of the parent")
        self.peer_hears(self.child, word + b" of the child")
        self.child_hears(word + b" to the child")
        self.parent_hears(word + b" to the parent")

    def all_of_the_parent(self):
        self.peer_hears(self.parent, b"to you")
        self.parent_hears(b"to you, too")

    def relays(self):
        """Processes that have a session, and are neither end."""
        return [int(line.split()[0]) for line in
                os.popen("ps -e -o pid=,comm=").read().splitlines() if line.split()[1] == "ns-adopter"
                and self.mine(int(line.split()[0]))]

    def mine(self, pid):
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino in [os.stat(h.net).st_ino for h in self.rig.hosts]
        except FileNotFoundError:
            return False

    def relay(self):
        return wait_for("a relay", lambda: self.relays())[0]

    def rig_session(self, host, context):
        """The session's id, as anybody of the same user may read it."""
        broker = self.parent.do("os.environ['NAMESOCKET_BROKER']")

        def listed():
            out = host.run(context.built("src/daemon/nsctl"), "list", "--json", "--broker", broker).stdout
            return json.loads(out or "[]")
        return wait_for("the list", listed)[0]["id"].replace("-", "")

    def never_plain(self):
        for end in self.ends:
            if end.log.count(PLAIN):
                raise Wrong(f"{end.name}: a session became plain TCP")


def second_session(x):
    """Another one of the same two, `t`, which children know nothing of."""
    before = [end.log.count(ESTABLISHED) for end in x.ends]
    x.client.do(f"t = socket.create_connection(('tage', {PORT}))")
    x.client.do("t.send(b'?')")
    x.server.do("t = l.accept()[0]")
    x.server.says("t.recv(1)", b"?")
    for end, n in zip(x.ends, before):
        end.log.wait(ESTABLISHED, n + 1)


def either_side(function):
    for side in ("client", "server"):
        def run(context, side=side):
            function(context, side)
        run.__doc__ = function.__doc__
        CASES[f"{side}/{function.__name__.replace('_', '-')}"] = run
    return function


@either_side
def both_use_it(context, side):
    """Each reads and writes, before and after a resume."""
    x = Joint(context, side)
    x.apart()
    x.all_talk()
    for n in range(3):
        x.resumes()
        x.all_talk(b"again %d" % n)
    x.never_plain()


@either_side
def one_reads_the_other_writes(context, side):
    """As rsync's receiver and generator do; much of it, and the links go meanwhile."""
    x = Joint(context, side)
    child = x.fork()
    x.parent.do("import hashlib")
    x.peer.do("import hashlib")
    x.parent.do("data = hashlib.shake_128(b'joint').digest(6_000_000)")
    child.do("import hashlib")
    back = child.begin("(lambda h, n: [n.append(len(h[1])) for h[1] in iter(lambda: s.recv(65536), b'') "
                       "if not h[0].update(h[1])] and (h[0].hexdigest(), sum(n)))([hashlib.sha256(), b''], [])")
    echo = x.peer.begin("[s.sendall(b) for b in iter(lambda: s.recv(65536), b'')] and s.shutdown(socket.SHUT_WR)")
    sent = x.parent.begin("[s.sendall(data[at:at + 10_000]) or time.sleep(0.004) for at in range(0, len(data), 10_000)] and "
                          "s.shutdown(socket.SHUT_WR)") if x.parent.do("import time") is None else None
    x.joined()
    for _ in range(3):
        x.resumes()
    sent.result()
    echo.result()
    expected = x.parent.do("(hashlib.sha256(data).hexdigest(), len(data))")
    if back.result() != expected:
        raise Wrong(f"the child read {back.result()}, not {expected}")
    x.never_plain()


@either_side
def asleep_in_recv(context, side):
    """The parent is in recv when the child writes: what is answered is its, and it goes on."""
    x = Joint(context, side)
    child = x.fork()
    call = x.parent.begin("s.recv(100)").asleep(RECVFROM)
    x.peer_hears(child, b"question")
    x.joined()
    x.peer.do("s.sendall(b'answer')")
    if call.result() != b"answer":
        raise Wrong(f"recv gave {call.result()!r}")
    x.all_talk()
    x.resumes()
    x.all_talk()
    x.never_plain()


@either_side
def asleep_in_recv_and_moved(context, side):
    """The same, and the session is moved before anything comes."""
    x = Joint(context, side)
    child = x.fork()
    call = x.parent.begin("s.recv(100)").asleep(RECVFROM)
    x.peer_hears(child, b"question")
    x.joined()
    x.resumes()
    x.peer.do("s.sendall(b'answer')")
    if call.result() != b"answer":
        raise Wrong(f"recv gave {call.result()!r}")
    x.all_talk()
    x.never_plain()


@either_side
def asleep_with_waitall(context, side):
    """Half of what it waits for came before."""
    x = Joint(context, side)
    child = x.fork()
    call = x.parent.begin("s.recv(8, socket.MSG_WAITALL)").asleep(RECVFROM)
    x.peer.do("s.sendall(b'half')")
    x.peer_hears(child, b"question")
    x.joined()
    x.peer.do("s.sendall(b'left' + b'more')")
    if call.result() != b"halfleft":
        raise Wrong(f"recv gave {call.result()!r}")
    x.parent.says("s.recv(4, socket.MSG_WAITALL)", b"more")
    x.all_talk()
    x.never_plain()


WAITS = {
    "poll": ("(lambda p: p.register(s, select.POLLIN) or p.poll())(select.poll())", (POLL, PPOLL)),
    "select": ("select.select([s], [], [])", (SELECT, PSELECT, PPOLL, POLL)),
    "epoll": ("(lambda e: e.register(s, select.EPOLLIN) or e.poll())(select.epoll())", (EPOLL_WAIT, EPOLL_PWAIT)),
}


def asleep_in(wait, side):
    def run(context):
        x = Joint(context, side)
        child = x.fork()
        text, calls = WAITS[wait]
        call = x.parent.begin(text).asleep(*calls)
        x.peer_hears(child, b"question")
        x.joined()
        if call.done():
            raise Wrong(f"{wait} has returned {call.result()}")
        x.peer.do("s.sendall(b'answer')")
        call.result()
        x.parent.says("s.recv(6, socket.MSG_WAITALL)", b"answer")
        x.all_talk()
        x.resumes()
        x.all_talk()
        x.never_plain()
    run.__doc__ = f"The parent sleeps in {wait} when the session goes to the relay."
    return run


for _wait in WAITS:
    for _side in ("client", "server"):
        CASES[f"{_side}/asleep-in-{_wait}"] = asleep_in(_wait, _side)


@either_side
def epoll_of_both(context, side):
    """Registered before the fork, waited for by both."""
    x = Joint(context, side)
    x.parent.do("e = select.epoll(); e.register(s, select.EPOLLIN)")
    child = x.fork()
    x.parent.says("e.poll(0)", [])
    wait = child.begin("e.poll()").asleep(EPOLL_WAIT, EPOLL_PWAIT)
    x.joined()
    x.peer.do("s.sendall(b'answer')")
    wait.result()
    x.parent.do("e.poll()")
    child.says("s.recv(6, socket.MSG_WAITALL)", b"answer")
    x.resumes()
    x.peer.do("s.sendall(b'again')")
    x.parent.do("e.poll()")
    x.parent.says("s.recv(5, socket.MSG_WAITALL)", b"again")
    x.parent.says("e.poll(0)", [])
    x.never_plain()


@either_side
def while_suspended(context, side):
    """There is no connection when the child calls."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(x.parent, b"had")
    x.suspended()
    kept = x.parent.begin("s.sendall(b'kept')").asleep(0, POLL, PPOLL)
    x.peer.begin("s.sendall(b'for you')")
    call = child.begin("s.recv(7, socket.MSG_WAITALL)")
    x.joined()
    kept.result()
    x.again()
    x.peer.says("s.recv(4, socket.MSG_WAITALL)", b"kept")
    if call.result() != b"for you":
        raise Wrong(f"recv gave {call.result()!r}")
    x.all_talk()
    x.resumes()
    x.all_talk()
    x.never_plain()


@either_side
def unread_of_an_earlier_connection(context, side):
    """The bytes come in order, whoever reads them."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(x.parent, b"had")
    x.peer.do("s.sendall(b'first ')")
    x.parent.becomes("struct.unpack('i', fcntl.ioctl(s, termios.FIONREAD, b'    '))[0]", 6)
    x.resumes()
    x.peer.do("s.sendall(b'second ')")
    child.says("s.recv(13, socket.MSG_WAITALL)", b"first second ")
    x.joined()
    x.all_talk()
    x.never_plain()


@either_side
def parent_ends_first(context, side):
    """Who had the session ends; the child goes on, moves, and ends it."""
    x = Joint(context, side)
    child = x.apart()
    x.parent.do("s.close()")
    x.peer_hears(child, b"alone")
    x.resumes()
    x.child_hears(b"still")
    child.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def child_ends_first(context, side):
    x = Joint(context, side)
    child = x.apart()
    child.ends()
    x.parent_hears(b"alone")
    x.resumes()
    x.peer_hears(x.parent, b"still")
    x.parent.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def killed(context, side):
    """One of the two is killed: nothing happens to the other."""
    x = Joint(context, side)
    child = x.apart()
    child.do("s.sendall(b'last words')")
    os.kill(child.pid, signal.SIGKILL)
    x.peer.says("s.recv(10, socket.MSG_WAITALL)", b"last words")
    x.parent.do("os.waitpid(c[0], 0)")
    x.parent_hears(b"alone")
    x.resumes()
    x.peer_hears(x.parent, b"still")
    x.never_plain()


@either_side
def killed_who_had_it(context, side):
    """The process that accepted or connected is killed, and with it all that knew of the session."""
    x = Joint(context, side)
    x.fork()
    inner = Child(x.parent, "d")                                  # a brother of the first
    x.child.do("s.send(b'1')")
    x.peer.says("s.recv(1)", b"1")
    x.child.calls_on()
    inner.do("s.send(b'2')")
    x.peer.says("s.recv(1)", b"2")
    x.joined()
    os.kill(x.child.pid, signal.SIGKILL)
    inner.do("s.send(b'3')")
    x.peer.says("s.recv(1)", b"3")
    x.resumes()
    inner.do("s.send(b'4')")
    x.peer.says("s.recv(1)", b"4")
    x.peer.do("s.sendall(b'5')")
    inner.says("s.recv(1)", b"5")
    x.never_plain()


@either_side
def three(context, side):
    """A third process calls, too."""
    x = Joint(context, side)
    x.fork()
    third = Child(x.parent, "d")
    x.peer_hears(x.parent, b"1")
    x.peer_hears(x.child, b"2")
    x.peer_hears(third, b"3")
    x.parent.log.wait(SHARED, 2)
    x.resumes()
    for who in (third, x.child, x.parent):
        x.peer_hears(who, b"again")
        x.peer.do("s.sendall(b'you')")
        who.says("s.recv(3, socket.MSG_WAITALL)", b"you")
    x.never_plain()


@either_side
def grandchild(context, side):
    """Forked after it went to the relay: there is nothing to ask for."""
    x = Joint(context, side)
    x.apart()
    third = Child(x.parent, "d")
    x.peer_hears(third, b"third")
    x.resumes()
    x.peer.do("s.sendall(b'you')")
    third.says("s.recv(3, socket.MSG_WAITALL)", b"you")
    third.says("s.getpeername()", x.parent.do("s.getpeername()"))
    x.never_plain()


@either_side
def names(context, side):
    """Whose connection it is, all of them are told as before."""
    x = Joint(context, side)
    ends = x.parent.do("(s.getsockname(), s.getpeername())")
    x.apart()
    for who in (x.parent, x.child):
        who.says("(s.getsockname(), s.getpeername())", ends)
    x.resumes()
    for who in (x.parent, x.child):
        who.says("(s.getsockname(), s.getpeername())", ends)
        who.says("(socket.socket(fileno=os.dup(s.fileno())).getpeername())", ends[1])


@either_side
def settings(context, side):
    """What was set before is set after, and as it was where nothing was."""
    look = ("[s.getsockopt(*o) for o in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY), "
            "(socket.SOL_SOCKET, socket.SO_RCVLOWAT), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), "
            "(socket.IPPROTO_TCP, socket.TCP_KEEPCNT), (socket.SOL_SOCKET, socket.SO_LINGER))] + "
            "[fcntl.fcntl(s, fcntl.F_GETFL), fcntl.fcntl(s, fcntl.F_GETFD), s.family, s.type]")
    x = Joint(context, side)
    x.parent.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    x.parent.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 7)")
    x.parent.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)")
    before = x.parent.do(look)
    x.apart()
    for who in (x.parent, x.child):
        who.says(look, before)


@either_side
def not_to_block(context, side):
    """A call that must not block gets what there is, or EAGAIN."""
    x = Joint(context, side)
    x.parent.do("s.setblocking(False)")
    child = x.fork()
    x.peer_hears(x.parent, b"mine")
    child.says("s.recv(1)", "BlockingIOError EAGAIN")
    x.joined()
    child.says("s.recv(1)", "BlockingIOError EAGAIN")
    x.peer.do("s.sendall(b'there')")
    child.do("select.select([s], [], [])")
    child.says("s.recv(5)", b"there")
    x.peer_hears(child, b"done")
    x.resumes()
    x.parent.says("s.recv(1)", "BlockingIOError EAGAIN")
    x.never_plain()


@either_side
def end_of_stream(context, side):
    """The peer's end comes to both, once everything before it is read; theirs comes when both have closed."""
    x = Joint(context, side)
    child = x.apart()
    x.peer.do("s.sendall(b'the last'); s.shutdown(socket.SHUT_WR)")
    child.says("s.recv(8, socket.MSG_WAITALL)", b"the last")
    child.says("s.recv(1)", b"")
    x.parent.says("s.recv(1)", b"")
    x.peer_hears(x.parent, b"not yet")
    x.parent.do("s.close()")
    x.peer_hears(child, b"nor now")
    child.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def half_closed_before(context, side):
    """The parent had ended its stream when the child reads."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(x.parent, b"all")
    x.parent.do("s.shutdown(socket.SHUT_WR)")
    x.peer.says("s.recv(1)", b"")
    x.peer.do("s.sendall(b'answer')")
    child.says("s.recv(6, socket.MSG_WAITALL)", b"answer")
    x.joined()
    child.says("s.send(b'more')", "BrokenPipeError EPIPE")
    x.peer.do("s.sendall(b'end'); s.close()")
    x.parent.says("s.recv(3, socket.MSG_WAITALL)", b"end")
    x.parent.says("s.recv(1)", b"")
    child.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def reset_by_them(context, side):
    """A close with SO_LINGER at 0 by the last of them resets the peer's."""
    x = Joint(context, side)
    child = x.apart()
    child.ends()
    x.parent.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))")
    x.parent.do("s.close()")
    wait_for("the relay's end", lambda: not x.relays())


@either_side
def relay_killed(context, side):
    """Nobody is told of an end that the peer has not made."""
    x = Joint(context, side)
    child = x.apart()
    os.kill(x.relay(), signal.SIGKILL)
    child.says("s.recv(1)", "ConnectionResetError ECONNRESET")
    x.parent.says("s.recv(1)", b"")                              # as after any error that another was told


@either_side
def relay_ends(context, side):
    """When all is over nothing is left of it."""
    x = Joint(context, side)
    child = x.apart()
    pid = x.relay()
    child.ends()
    x.parent.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.peer.do("s.close()")
    wait_for("the relay's end", lambda: not os.path.exists(f"/proc/{pid}"))


@either_side
def without_a_broker(context, side):
    """There is no relay: plain TCP for both, and the log says so."""
    x = Joint(context, side, under=False)
    child = x.fork()
    x.peer_hears(x.parent, b"p")
    x.peer_hears(child, b"c")
    x.parent.log.wait("no relay for a session")
    x.parent.log.wait(PLAIN)
    x.child_hears(b"yours")
    x.parent_hears(b"yours too")


@either_side
def links_go_at_that_moment(context, side):
    """The path goes while the child asks."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(x.parent, b"p")
    before = [end.log.count(RESUMED) for end in x.ends]
    link = x.link()
    call = child.begin("s.send(b'c')")
    x.rig.troels.link_down(link)
    call.result()
    x.peer.says("s.recv(1)", b"c")
    x.joined()
    for end, n in zip(x.ends, before):
        end.log.wait(RESUMED, n + 1)
    x.rig.troels.link_up(link)
    x.all_talk()
    x.never_plain()


@either_side
def nsctl_lists_it(context, side):
    """One session, one holder: the relay."""
    x = Joint(context, side)
    x.apart()
    host = x.rig.troels if side == "client" else x.rig.tage
    broker = x.parent.do("os.environ['NAMESOCKET_BROKER']")

    def listed():
        out = host.run(context.built("src/daemon/nsctl"), "list", "--broker", broker).stdout
        return "ns-adopter" in out and out
    out = wait_for("the list", listed)
    if out.count("connected") != 1:
        raise Wrong(out)


# -- what a hostile reading asked for -------------------------------------------------------------------------------

def begun_anew(how, side):
    """The read of a sleeping parent begins anew: a handler with SA_RESTART runs, or the process is stopped a while."""
    def run(context):
        x = Joint(context, side)
        x.parent.do("signal.signal(signal.SIGUSR1, lambda *a: None); signal.siginterrupt(signal.SIGUSR1, False)")
        child = x.fork()
        call = x.parent.begin("s.recv(100)").asleep(RECVFROM)
        if how == "stopped":
            os.kill(x.parent.pid, signal.SIGSTOP)
            wait_for("the stop", lambda: open(f"/proc/{x.parent.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T")
            os.kill(x.parent.pid, signal.SIGCONT)
        x.peer_hears(child, b"question")
        x.joined()
        tid = x.parent.proc.wait_line(rf"^{call.number} thread (\d+)")[1]
        x.parent.do(f"libc.syscall(234, os.getpid(), {tid}, signal.SIGUSR1)")
        x.peer.do("s.sendall(b'answer')")
        if call.result() != b"answer":
            raise Wrong(f"recv gave {call.result()!r}")
        x.all_talk()
        x.resumes()
        x.all_talk()
        x.never_plain()
    run.__doc__ = begun_anew.__doc__
    return run


for _how in ("handled", "stopped"):
    for _side in ("client", "server"):
        CASES[f"{_side}/read-begun-anew-{_how}"] = begun_anew(_how, _side)


@either_side
def interrupted_by_nothing(context, side):
    """A parent that has left its read by a handler's exception sleeps elsewhere: that sleep is not ended."""
    x = Joint(context, side)
    x.parent.do("def leave(*a): raise KeyError\nsignal.signal(signal.SIGUSR1, leave)")
    child = x.fork()
    pause = x.parent.begin("libc.pause()").asleep(34)
    x.peer_hears(x.parent, b"had")
    x.peer_hears(child, b"question")
    x.joined()
    x.all_talk()
    if pause.done():
        raise Wrong(f"pause has ended: {pause.result()}")


@either_side
def others_are_not_interrupted(context, side):
    """A user id is set while a sleeping read is made to leave: a read of another session, which libc's signal meets
    then, goes on."""
    x = Joint(context, side)
    child = x.fork()
    second_session(x)
    call = x.parent.begin("s.recv(100)").asleep(RECVFROM)
    x.parent.do("import ctypes; own = ctypes.CDLL(None, use_errno=True); buf = ctypes.create_string_buffer(100)")
    other = x.parent.begin("own.recv(t.fileno(), buf, 100, 0)").asleep(RECVFROM)   # Python's own calls again after EINTR
    x.peer_hears(x.parent, b"mine")
    helper = StoppedThread(helper_of(x.parent.pid, EPOLL_PWAIT))
    try:
        asked = child.begin("s.send(b'c')")
        helper.goes_to(TGSIGQUEUEINFO)
        uid = x.parent.begin("libc.setuid(os.getuid())").asleep(FUTEX)
    finally:
        helper.go_on()
    uid.result()
    asked.result()
    x.peer.says("s.recv(1)", b"c")
    x.peer.do("t.sendall(b'to t'); s.sendall(b'to s')")
    if (other.result(), call.result()) != (4, b"to s"):
        raise Wrong("a read had something else")


@either_side
def third_keeps_it_open(context, side):
    """The two who use it are gone, and a third has it still: no end, and what it says is heard."""
    x = Joint(context, side)
    first, second = x.fork(), Child(x.parent, "d")
    first.do("s.send(b'1')")
    x.peer.says("s.recv(1)", b"1")
    first.calls_on()
    x.peer_hears(second, b"2")
    x.joined()
    first.ends()
    second.ends()
    x.peer.says("select.select([s], [], [], 0)[0]", [])
    x.peer_hears(x.parent, b"done")
    x.parent_hears(b"for you")
    x.parent.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def relay_killed_is_no_end_for_the_peer(context, side):
    """What the relay had is lost with it: the peer's stream must not look as if it had ended."""
    x = Joint(context, side)
    child = x.apart()
    pid = x.relay()
    os.kill(pid, signal.SIGSTOP)
    child.do("s.sendall(b'lost')")
    os.kill(pid, signal.SIGKILL)
    x.peer.do("s.settimeout(3)")
    try:
        got = x.peer.do("s.recv(10)")
    except Raised as e:
        got = str(e)
    if got == b"":
        raise Wrong("the peer read an end that nobody made")


@either_side
def urgent(context, side):
    """An urgent byte passes in each direction, and stays one."""
    x = Joint(context, side)
    child = x.apart()
    child.do("s.sendall(b'abc'); s.send(b'!', socket.MSG_OOB); s.sendall(b'def')")
    x.peer.says("s.recv(3, socket.MSG_WAITALL)", b"abc")
    x.peer.do("select.select([], [], [s])")
    x.peer.says("s.recv(1, socket.MSG_OOB)", b"!")
    x.peer.says("s.recv(3, socket.MSG_WAITALL)", b"def")
    x.peer.do("s.sendall(b'abc'); s.send(b'!', socket.MSG_OOB); s.sendall(b'def')")
    child.says("s.recv(3, socket.MSG_WAITALL)", b"abc")
    child.do("select.select([], [], [s])")
    child.says("s.recv(1, socket.MSG_OOB)", b"!")
    child.says("s.recv(3, socket.MSG_WAITALL)", b"def")
    x.all_talk()


@either_side
def settings_that_wait(context, side):
    """A low-water mark, and a cork, are the users' own, and not the relay's."""
    x = Joint(context, side)
    x.parent.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1000)")
    x.parent.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)")
    child = x.fork()
    x.parent.do("s.send(b'p')")
    child.do("s.send(b'c')")
    x.joined()
    x.parent.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)")
    x.peer.says("s.recv(2, socket.MSG_WAITALL)", b"pc")
    x.peer.do("s.sendall(b'four')")
    x.parent.becomes("struct.unpack('i', fcntl.ioctl(s, termios.FIONREAD, b'    '))[0]", 4)
    child.says("s.recv(4)", b"four")


@either_side
def long_write_goes_on(context, side):
    """A blocking write under way when it goes to the relay is no shorter for it."""
    x = Joint(context, side)
    child = x.fork()
    call = x.parent.begin("s.send(bytes(8_000_000))").asleep(0, POLL, PPOLL)
    reads = child.begin("s.recv(100)")
    x.joined()
    x.peer.says("len(s.recv(8_000_000, socket.MSG_WAITALL))", 8_000_000)
    if call.result() != 8_000_000:
        raise Wrong(f"send gave {call.result()}")
    x.peer.do("s.sendall(b'got it')")
    if reads.result() != b"got it":
        raise Wrong(f"recv gave {reads.result()!r}")
    x.never_plain()


@either_side
def executes(context, side):
    """Another program on a descriptor of it is told the same names, and goes on."""
    x = Joint(context, side)
    child = x.apart()
    ends = x.parent.do("(s.getsockname(), s.getpeername())")
    x.parent.do(r"program = 'import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); "
                r"s.sendall(repr((s.getsockname(), s.getpeername())).encode()); s.shutdown(socket.SHUT_WR)'")
    child.do("os.set_inheritable(s.fileno(), True)")
    child.do("program = 'import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); "
             "s.sendall(repr((s.getsockname(), s.getpeername())).encode().ljust(200))'")
    child.begin("os.execv(sys.executable, [sys.executable, '-c', program, str(s.fileno())])")
    x.peer.says("eval(s.recv(200, socket.MSG_WAITALL))", ends)
    x.parent_hears(b"still")
    x.never_plain()


@either_side
def spawns(context, side):
    """A process to which it is dormant starts a program that has it, too."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(child, b"the child's")
    child.calls_on()
    x.parent.do("os.set_inheritable(s.fileno(), True)")
    x.parent.do("os.waitpid(os.posix_spawn('/bin/true', ['true'], os.environ), 0)")
    x.joined()
    x.peer_hears(x.parent, b"mine")
    x.parent_hears(b"yours")
    x.never_plain()


@either_side
def strangers_get_nothing(context, side):
    """A process of the same user that has no descriptor of it asks, by all names that there are."""
    x = Joint(context, side)
    x.fork()
    x.peer_hears(x.parent, b"mine")
    host = x.rig.troels if side == "client" else x.rig.tage
    thief = Puppet(host, "thief", x.shim)
    thief.do("import re, array")
    boxes = wait_for("a mailbox", lambda: thief.do(r"re.findall(r'@(namesocket/[0-9a-f]{32})\n', open('/proc/net/unix').read())"))
    sid = x.rig_session(host, context)
    thief.do("def ask(box, id, role, size):\n"
             " p, q = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
             " try: d.sendmsg([(bytes([3]) + id + bytes([role])).ljust(size, b'\\0')], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [q.fileno()]))], 0, b'\\0' + box.encode())\n"
             " except OSError: return b''\n"
             " q.close(); m, anc, f, a = p.recvmsg(400, 100)\n"
             " return (m[:1], len(anc))")
    answers = [thief.do(f"ask({box!r}, bytes.fromhex({sid!r}), {role}, {size})") for box in boxes for role in (0, 1)
               for size in range(60, 100)]
    if (b"N", 0) not in answers:
        raise Wrong(f"no letter was understood: {set(map(str, answers))}")
    if any(a and a[1] for a in answers):
        raise Wrong("a stranger was given the stream")
    x.all_talk()


def nobody_is_left(how, side):
    """Who else had a descriptor is gone, or never was: the close of the last is the end of the stream, at once."""
    def run(context):
        x = Joint(context, side)
        if how == "fork-failed":
            x.parent.do("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)); libc.syscall(105, 65534)")
            x.parent.says("os.fork()", "BlockingIOError EAGAIN")
        elif how == "not-waited-for":
            x.parent.do("p = os.fork()\nif p == 0: signal.pause()")
            os.kill(x.parent.do("p"), signal.SIGKILL)
        else:
            x.parent.do("ps = []\nfor n in range(15):\n p = os.fork()\n if p == 0: signal.pause()\n ps.append(p)")
        x.peer_hears(x.parent, b"mine")
        x.resumes()
        if how == "many":
            x.parent.do("for p in ps: os.kill(p, signal.SIGKILL); os.waitpid(p, 0)")
        x.peer_hears(x.parent, b"still")
        x.parent.do("s.close()")
        x.peer.says("s.recv(1)", b"")
    run.__doc__ = nobody_is_left.__doc__
    return run


for _how in ("fork-failed", "not-waited-for", "many"):
    for _side in ("client", "server"):
        CASES[f"{_side}/nobody-is-left-{_how}"] = nobody_is_left(_how, _side)


@either_side
def executes_and_closes(context, side):
    """Who has moved it executes something that does not inherit it: the other goes on."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(child, b"mine")
    child.calls_on()
    x.resumes()
    child.begin("os.execv('/bin/sleep', ['sleep', '60'])")
    x.parent.log.wait(RELAYING)
    x.all_of_the_parent()
    x.never_plain()


@either_side
def ends_after_a_move(context, side):
    """Who has moved it ends, before the other has made a call on it."""
    x = Joint(context, side)
    child = x.fork()
    x.peer_hears(child, b"mine")
    child.calls_on()
    x.resumes()
    child.ends()
    x.all_of_the_parent()
    x.resumes()
    x.all_of_the_parent()
    x.parent.do("s.close()")
    x.peer.says("s.recv(1)", b"")
    x.never_plain()


@either_side
def closed_by_one_of_two(context, side):
    """Without a relay it is plain TCP: the close of one is no end, though what the other has written is on its way."""
    x = Joint(context, side, under=False)
    child = x.fork()
    x.peer_hears(x.parent, b"p")
    x.peer_hears(child, b"c")
    host, port = (x.rig.tage, "dport") if side == "client" else (x.rig.troels, "sport")
    host.nft(f"table inet deaf {{ chain in {{ type filter hook input priority 0;\ntcp {port} {PORT} drop;\n}}\n}}")
    child.do("s.sendall(b'on its way')")
    x.parent.do("s.close()")
    host.nft("delete table inet deaf")
    x.peer.says("s.recv(10, socket.MSG_WAITALL)", b"on its way")
    x.peer_hears(child, b"still")
    child.do("s.close()")
    x.peer.says("s.recv(1)", b"")


# -- while the relay takes its time ----------------------------------------------------------------------------------


class Stalled(Joint):
    """The child has called, the session is with the relay, and the relay, which the test plays, has not said whether it
    takes it. The helper, which waits for that, is stopped: for as long as the test likes."""

    def __init__(self, context, side, children=1):
        super().__init__(context, side, under=False, **{side + "_env": {"NAMESOCKET_BROKER": "@" + NAME}})
        self.relay_ = Relay(self.rig.troels if side == "client" else self.rig.tage)
        self.children = [Child(self.parent, f"c{n}") for n in range(children)]
        self.child = self.children[-1]
        second_session(self)
        self.peer_hears(self.parent, b"the parent's")
        self.asked = self.child.begin("select.select([], [s], [])")
        self.relay_.has_it()
        self.helper = StoppedThread(helper_of(self.parent.pid))    # with `stalled`, which lets it go

    def goes_on(self, byte):
        """The relay says so, and the helper hears it."""
        self.relay_.answers(byte)
        self.helper.go_on()
        if byte == b"T":
            self.parent.log.wait(GIVEN)

    def parent_in(self, *calls):
        """Its first thread sleeps in one of these."""
        def look():
            with open(f"/proc/{self.parent.pid}/task/{self.parent.pid}/syscall") as f:
                return f.read().split()[0] in map(str, calls)
        wait_for("the parent to sleep", look)

    def relayed(self, word=b"word"):
        """Parent and child have the relay's connection now."""
        self.asked.result()
        for who in (self.parent, self.child):
            who.do(f"s.sendall({word!r})")
            self.relay_.hears(word)

    def stayed(self, word=b"word"):
        """Nobody has taken it: plain TCP, for both."""
        self.peer_hears(self.parent, word)
        self.peer_hears(self.child, word)


def futex_of(pid, tid):
    """Where the thread sleeps, or None."""
    with open(f"/proc/{pid}/task/{tid}/syscall") as f:
        call, *arguments = f.read().split()
    return arguments[0] if call == str(FUTEX) else None


def stalled(function):
    """Both sides, and whatever comes of it."""
    def run(context, side):
        x = Stalled(context, side)
        try:
            function(x)
        finally:
            x.helper.go_on()
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return either_side(run)


@stalled
def others_go_on_meanwhile(x):
    """Calls on other descriptors wait for nothing: another session's, and those that look at, or change, what there is."""
    x.parent.do("t.sendall(b'on and on')")
    x.peer.says("t.recv(9, socket.MSG_WAITALL)", b"on and on")
    x.peer.do("t.sendall(b'and on')")
    x.parent.says("t.recv(6, socket.MSG_WAITALL)", b"and on")
    x.parent.do("u = t.dup(); e = select.epoll(); e.register(u, select.EPOLLOUT)")
    x.parent.says("[f for f, _ in e.poll()] == [u.fileno()]", True)
    x.parent.do("e.close(); u.close(); select.select([], [t], [])")
    x.parent.do(f"w = socket.create_connection(('tage', {PORT})); w.close()")
    x.parent.do("t.close()")
    x.goes_on(b"T")
    x.relayed()


@stalled
def its_own_wait(x):
    """A read, a write and a shutdown wait for what comes of it, and then are on the relay's connection; a poll waits no
    longer than it was told to."""
    x.parent.says("(lambda p: p.register(s, select.POLLIN | select.POLLOUT) or p.poll(0))(select.poll())", [])
    x.parent.says("[select.select([s], [], [t.fileno()], 0), select.select([t], [t], [], 0)[1] == [t]]", [([], [], []), True])
    reads = x.parent.begin("s.recv(100)").asleep(FUTEX)
    writes = x.parent.begin("s.sendall(b'written') or s.shutdown(socket.SHUT_WR)").asleep(FUTEX)
    waits = x.parent.begin("(lambda p: p.register(s, select.POLLIN) or p.poll())(select.poll())").asleep(POLL, PPOLL)
    x.goes_on(b"T")
    writes.result()
    x.relay_.hears(b"written")
    x.relay_.do("end_.sendall(b'answer')")
    if reads.result() != b"answer":
        raise Wrong("the read had something else")
    x.relay_.do("end_.sendall(b'more')")
    waits.result()
    x.parent.says("s.recv(4, socket.MSG_WAITALL)", b"more")


@stalled
def it_stays(x):
    """The relay refuses: those who wait go on with the session, which is plain TCP once the child goes on with it, too."""
    reads = x.parent.begin("s.recv(100)").asleep(FUTEX)
    writes = x.parent.begin("s.sendall(b'written')").asleep(FUTEX)
    x.parent.do("e = select.epoll(); e.register(s, select.EPOLLIN)")
    x.goes_on(b"N")
    writes.result()
    x.asked.result()
    x.peer.says("s.recv(7, socket.MSG_WAITALL)", b"written")
    x.peer.do("s.sendall(b'answer')")
    if reads.result() != b"answer":
        raise Wrong("the read had something else")
    x.stayed()
    x.peer.do("s.sendall(b'once more')")
    x.parent.says("len(e.poll())", 1)


@stalled
def closed_meanwhile(x):
    """The close of the last descriptor waits, since nobody could say yet what it means."""
    close = x.parent.begin("s.close()").asleep(FUTEX)
    x.goes_on(b"T")
    close.result()


@stalled
def closed_and_it_stays(x):
    close = x.parent.begin("s.close()").asleep(FUTEX)
    x.goes_on(b"N")
    close.result()
    x.asked.result()
    x.peer_hears(x.child, b"still")
    x.child.do("s.close()")
    x.peer.says("s.recv(1)", b"")


@stalled
def duplicated_meanwhile(x):
    """Neither a duplicate nor the close of one waits, and all lead to the relay afterwards."""
    x.parent.do("d, d2 = os.dup(s.fileno()), os.dup(s.fileno()); s.close()")
    x.parent.do("os.dup2(d, d2); os.close(os.dup(d))")
    x.goes_on(b"T")
    x.parent.do("s = socket.socket(fileno=d2)")
    x.relayed()
    x.parent.says("os.fstat(d2).st_ino == os.fstat(d).st_ino", True)


@stalled
def replaced_meanwhile(x):
    """Another descriptor is put under its only number."""
    x.parent.do("n = s.fileno(); ino = os.fstat(t.fileno()).st_ino")
    put = x.parent.begin("os.dup2(t.fileno(), n)").asleep(FUTEX)
    x.goes_on(b"T")
    put.result()
    x.parent.says("os.fstat(n).st_ino == ino", True)
    x.parent.do("os.write(n, b'another')")
    x.peer.says("t.recv(7, socket.MSG_WAITALL)", b"another")


@stalled
def closed_behind_our_back(x):
    """Its number is closed around the shim, and is another socket's: that one is left alone."""
    x.parent.do("n = s.detach(); libc.close(n); r = socket.socketpair(); q = [p for p in r if p.fileno() == n][0]")
    x.goes_on(b"T")
    x.parent.do("[p for p in r if p is not q][0].send(b'to you')")
    x.parent.says("q.recv(6)", b"to you")


@stalled
def forked_meanwhile(x):
    """A fork waits; its child has it, too."""
    x.parent.do("a, b = os.pipe()")
    fork = x.parent.begin("os.fork() or (s.sendall(b'grandchild'), os._exit(0))").asleep(FUTEX, NANOSLEEP, PPOLL)
    x.goes_on(b"T")
    x.parent.do(f"os.waitpid({fork.result()}, 0)")
    x.relay_.hears(b"grandchild")
    x.relayed()


@stalled
def handled_meanwhile(x):
    """A signal handler runs while its thread waits, and may leave the wait."""
    x.parent.do("a, b = os.pipe(); os.set_blocking(b, False); signal.signal(signal.SIGUSR1, lambda *a: None); signal.set_wakeup_fd(b)")
    call = x.parent.begin("s.sendall(b'after all')").asleep(FUTEX)
    tid = x.parent.proc.wait_line(rf"^{call.number} thread (\d+)")[1]
    x.parent.do(f"libc.syscall(234, os.getpid(), {tid}, signal.SIGUSR1)")
    x.parent.says("os.read(a, 1) == bytes([signal.SIGUSR1])", True)
    call.asleep(FUTEX)
    x.goes_on(b"T")
    call.result()
    x.relay_.hears(b"after all")


@stalled
def interrupted_meanwhile(x):
    """A handler without SA_RESTART ends a read that waits, as it ends one that sleeps in the kernel (signal(7))."""
    x.parent.do("import ctypes; own = ctypes.CDLL(None, use_errno=True)\n"
                "a, b = os.pipe(); os.set_blocking(b, False); signal.signal(signal.SIGUSR1, lambda *a: None); signal.set_wakeup_fd(b)")
    call = x.parent.begin("own.recv(s.fileno(), ctypes.create_string_buffer(9), 9, 0), ctypes.get_errno()").asleep(FUTEX)
    tid = x.parent.proc.wait_line(rf"^{call.number} thread (\d+)")[1]
    x.parent.do(f"libc.syscall(234, os.getpid(), {tid}, signal.SIGUSR1)")
    x.parent.says("os.read(a, 1) == bytes([signal.SIGUSR1])", True)
    x.goes_on(b"T")
    if call.result() != (-1, errno.EINTR):
        raise Wrong("the read did not end")
    x.relayed()


@stalled
def copied_meanwhile(x):
    """A child that libc did not make has nobody who would end the wait: it has the socket as it is."""
    x.parent.do("""
import ctypes
own = ctypes.CDLL(None, use_errno=True)
one, polled = ctypes.c_int(1), ctypes.create_string_buffer(struct.pack("ihh", s.fileno(), select.POLLOUT, 0))
pid = own.syscall(57)
if pid == 0:
    libc.prctl(1, 9, 0, 0, 0), libc.alarm(30)
    done = own.setsockopt(s.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE, ctypes.byref(one), 4) == 0
    libc._exit(0 if done and own.poll(polled, 1, -1) == 1 else 1)
""")
    x.parent.says("os.waitpid(pid, 0)[1]", 0)
    x.goes_on(b"T")
    x.relayed()


@either_side
def called_for_twice(context, side):
    """The relay refuses, and the other child calls for it at once: what has waited for the first answer, and has not got
    far, waits for the second, too."""
    x = Stalled(context, side, children=2)
    asking = caller = None
    try:
        asking = StoppedThread(x.asked.tid)                     # it would make the session plain
        writes = x.parent.begin("s.sendall(b'written')").asleep(FUTEX)
        caller = StoppedThread(int(x.parent.proc.wait_line(rf"^{writes.number} thread (\d+)")[1]))
        waits_at = futex_of(x.parent.pid, caller.tid)
        x.relay_.answers(b"N")
        again = x.relay_.begin("adopt()")
        x.children[0].begin("select.select([], [s], [])")
        x.helper.goes_to(MEMFD_CREATE)                          # under the table's lock, nearly on its way again
        tid = caller.tid
        caller.go_on()
        wait_for("the table to be waited for", lambda: futex_of(x.parent.pid, tid) not in (None, waits_at))
        x.helper.go_on()
        if again.result() != "J":
            raise Wrong("the session has not come a second time")
        x.relay_.answers(b"T")
        x.relay_.hears(b"written")
        writes.result()
    finally:
        for thread in (x.helper, asking, caller):
            if thread:
                thread.go_on()


@stalled
def ends_meanwhile(x):
    """The process ends: not before it is known, and the child has the relay's connection."""
    x.parent.do("import ctypes; pid = os.getpid()")
    x.parent.begin("os._exit(0)", aside=False)
    x.parent_in(FUTEX)
    x.relay_.answers(b"T")
    x.helper.go_on()
    x.parent.proc.wait()


@stalled
def executes_meanwhile(x):
    """Another program follows: on the relay's connection."""
    x.parent.do("s.set_inheritable(True)")
    x.parent.begin("os.execv(sys.executable, [sys.executable, '-c', "
                   "f'import socket; s = socket.socket(fileno={s.fileno()}); s.sendall(b\"the next\")'])", aside=False)
    x.parent_in(PPOLL, FUTEX)
    x.relay_.answers(b"T")
    x.helper.go_on()
    x.relay_.hears(b"the next")


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
