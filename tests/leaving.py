#!/usr/bin/env python3
"""Nothing written is lost at the end of a process: programs that write and exit while the path is down, and what the
broker's process delivers after them. Each case drives both ends call by call (rig/puppet.py).

    leaving.py --list
    leaving.py -k resume -x
"""
import json
import os
import sys

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                                              # noqa: E402
from rig.pair import PORT, Wrong                                                          # noqa: E402
from rig.puppet import Session                                                                     # noqa: E402
from rig.report import Skip, main, options                                                         # noqa: E402

CASES = {}

ADOPTED = "adopted a session"
DELIVERED = "delivered to the end"
GIVEN_UP = "not delivered in time"


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


class Leaving(Session):
    """The client runs under nsrun, or with another broker, or with none; its adopter writes to its log."""

    def __init__(self, context, broker="nsrun", side="client", born=True, **env):
        if not context.shim:
            raise Skip("needs the shim")
        self.nsrun = context.built("src/daemon/nsrun")
        self.nsctl = context.built("src/daemon/nsctl")
        self.broker = None if broker == "nsrun" else broker
        env = {**({} if broker == "nsrun" else {"NAMESOCKET_BROKER": broker}), **env}
        under = (self.nsrun,) if broker == "nsrun" else ()
        super().__init__(context, born=born, **{side + "_env": env, side + "_under": under})
        if broker == "nsrun":
            self.broker = getattr(self, side).do("os.environ['NAMESOCKET_BROKER']")

    def deaf(self, to=""):
        """The server's host hears nothing any more of what comes to its port, or only not what is like `to`."""
        self.rig.tage.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                          f"tcp dport {PORT} {to} drop;\n}}\n}}")

    def hears(self):
        self.rig.tage.nft("delete table inet deaf")

    def adopted(self, count=1):
        self.client.log.wait(ADOPTED, count)

    def adopters(self):
        """The processes that have a session after it, once the broker says so: it is told a moment after."""
        def named():
            out = self.rig.troels.run(self.nsctl, "list", "--json", "--broker", self.broker).stdout
            return [h["pid"] for s in json.loads(out) for h in s["holders"] if h["program"] == "ns-adopter"]
        return wait_for("somebody is said to have the session", named)

    def reads(self, expected):
        """The server gets exactly this, and then the end."""
        self.server.says(f"s.recv({len(expected)}, socket.MSG_WAITALL)", expected)
        self.server.says("s.recv(1)", b"")
        self.server.do("s.close()")


def ends(x, text, status, puppet=None):
    """The call ends the process with this status."""
    puppet = puppet or x.client
    puppet.begin(text, aside=False)
    got = puppet.proc.wait()
    if got != status:
        raise Wrong(f"{text} ended the process with {got}, not {status}")


ENDINGS = {
    "_exit": ("os._exit(7)", 7),
    "exit": ("libc.exit(7)", 7),
    "quick-exit": ("__import__('ctypes').CDLL(None).quick_exit(7)", 7),
    "exit-group": ("__import__('ctypes').CDLL(None).syscall(231, 7)", 7),
    "close-and-exit": ("s.close(); os._exit(7)", 7),
}


def written_before(how):
    """Bytes that the peer never got are there when the process ends, at once, and are delivered when there is a path."""
    text, status = ENDINGS[how]

    def run(context):
        x = Leaving(context)
        x.deaf()
        x.client.do("s.sendall(b'last words')")
        ends(x, text, status)
        x.adopted()
        x.adopters()
        x.hears()
        x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words")
        x.client.log.wait(DELIVERED)
    return run


for name in ("_exit", "exit", "quick-exit", "exit-group", "close-and-exit"):
    CASES["written-before/" + name] = written_before(name)


@case
def suspended(context):
    """The session has no connection when the process ends."""
    x = Leaving(context)
    x.deaf("tcp flags & (syn|rst) == 0")
    x.client.do("s.sendall(b'last words')")
    x.hears()
    x.suspended()
    ends(x, "os._exit(3)", 3)
    x.adopted()
    x.open()
    x.reads(b"last words")
    x.client.log.wait(DELIVERED)


@case
def stream_not_flushed(context):
    """What a stream of stdio still holds is written by exit, and is undelivered then, too."""
    x = Leaving(context)
    x.deaf()
    x.client.do("import ctypes; c = ctypes.CDLL(None); c.fdopen.restype = ctypes.c_void_p")
    x.client.do("f = ctypes.c_void_p(c.fdopen(s.fileno(), b'w'))")
    x.client.do("s.sendall(b'last ')")
    x.client.do("c.fputs(b'words', f)")
    ends(x, "c.exit(3)", 3)
    x.adopted()
    x.hears()
    x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words")
    x.client.log.wait(DELIVERED)


@case
def executed_and_not_touched(context):
    """What was written before an exec is delivered, though the next program does nothing with the connection."""
    x = Leaving(context)
    x.deaf()
    x.client.do("s.set_inheritable(True)")
    x.client.do("s.sendall(b'last words')")
    ends(x, "os.execv('/bin/true', ['true'])", 0)
    x.adopted()
    x.hears()
    x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words")
    x.client.log.wait(DELIVERED)


@case
def closed_by_exec(context):
    """The next program does not inherit the descriptor: to the connection that is the process's end."""
    x = Leaving(context)
    x.deaf()
    x.client.do("s.sendall(b'last words')")
    ends(x, "os.execv('/bin/true', ['true'])", 0)
    x.adopted()
    x.hears()
    x.server.says("s.recv(10, socket.MSG_WAITALL)", b"last words")


@case
def not_closed_by_exec(context):
    """There is no such program: nothing has happened to the connection."""
    x = Leaving(context)
    x.deaf()
    x.client.do("s.sendall(b'first ')")
    x.client.do("""for call in os.execv, os.execvp:
    try: call('/nonexistent', ['x'])
    except FileNotFoundError: pass""")
    x.client.do("s.sendall(b'and last')")
    x.hears()
    x.server.says("s.recv(14, socket.MSG_WAITALL)", b"first and last")


@case
def link_goes_with_the_last_write(context):
    """Nobody has noticed the loss yet; the other link is there."""
    x = Leaving(context)
    x.rig.troels.link_down(x.link())
    ends(x, "s.sendall(b'x' * 100000); os._exit(0)", 0)
    x.reads(b"x" * 100000)


@case
def much(context):
    """As much as the kernel and the ring take, most of it not even sent."""
    x = Leaving(context)
    x.client.do("import hashlib; data = os.urandom(3 << 20)")
    digest = x.client.do("hashlib.sha256(data).hexdigest()")
    x.client.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)")
    x.deaf()
    x.client.do("s.setblocking(False); sent = s.send(data)")
    n = x.client.do("sent")
    digest = x.client.do("hashlib.sha256(data[:sent]).hexdigest()")
    ends(x, "os._exit(0)", 0)
    x.adopted()
    x.hears()
    x.server.do("import hashlib")
    x.server.says(f"hashlib.sha256(s.recv({n}, socket.MSG_WAITALL)).hexdigest()", digest)
    x.server.says("s.recv(1)", b"")


@case
def during_a_resume(context):
    """RESUME is out, and its answer is not here."""
    x = Leaving(context)
    x.rig.tage.nft("table inet deaf { chain out { type filter hook output priority 0;\n"
                   f"tcp sport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    x.client.do("s.sendall(b'last words')")
    x.client.log.wait("Sending NSPT_RESUME")
    ends(x, "os._exit(0)", 0)
    x.adopted()
    x.hears()
    x.reads(b"last words")


@case
def between_confirm_and_done(context):
    """The server has moved, and the client does not know."""
    x = Leaving(context)
    x.deaf("tcp flags & (syn|rst) == 0")
    x.client.do("s.sendall(b'last words')")
    x.rig.troels.nft("table inet undone { chain in { type filter hook input priority 0;\n"
                     f"tcp sport {PORT} meta length {{ 84, 104 }} drop;\n}}\n}}")
    x.hears()
    x.rig.reset_flows([x.rig.troels, x.rig.tage], PORT)
    x.server.log.wait("Successfully resumed at server")
    ends(x, "os._exit(0)", 0)
    x.rig.troels.nft("delete table inet undone")
    x.reads(b"last words")


@case
def child_of_a_server(context):
    """Its parent listens, and has closed the connection; the child answers and ends while the path is down."""
    x = Leaving(context, side="server")
    x.server.do("pid = os.fork()\nif pid:\n    s.close()\nelse:\n    r = s.recv(7, socket.MSG_WAITALL)\n"
                "    s.sendall(b'answer to ' + r)\n    os._exit(0)")
    x.rig.troels.nft("table inet deaf { chain in { type filter hook input priority 0;\n"
                     f"tcp sport {PORT} tcp flags & (syn|rst) == 0 drop;\n}}\n}}")
    x.client.do("s.sendall(b'request')")
    x.server.says("os.waitpid(pid, 0)[1]", 0)
    x.server.log.wait(ADOPTED)
    x.rig.troels.nft("delete table inet deaf")
    x.client.says("s.recv(17, socket.MSG_WAITALL)", b"answer to request")
    x.client.says("s.recv(1)", b"")


@case
def patience_over(context):
    """What cannot be delivered is given up after NAMESOCKET_GIVE_UP, and nothing stays behind."""
    x = Leaving(context, NAMESOCKET_GIVE_UP="2s")
    x.deaf()
    x.client.do("s.sendall(b'last words')")
    ends(x, "os._exit(0)", 0)
    x.adopted()
    pids = x.adopters()
    x.client.log.wait(GIVEN_UP)
    wait_for("the adopter to end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


@case
def machines_broker_killed(context):
    """The process is another broker's, which ends when it has adopted: who delivers goes on."""
    x = Leaving(context, f"@leaving/{os.urandom(8).hex()}", born=False)
    broker = x.rig.troels.start("broker", [context.built("src/daemon/namesocketd"), f"--broker={x.broker}"],
                                {"NAMESOCKET_LOG_FILE": x.client.log.path, "NAMESOCKET_LOG_LEVEL": "debug"})
    wait_for("the broker", lambda: "ready" in broker.stderr())
    x.connect()
    x.deaf()
    x.client.do("s.sendall(b'last words')")
    ends(x, "os._exit(0)", 0)
    x.adopted()
    broker.kill()
    x.hears()
    x.reads(b"last words")


@case
def handed_over_in_part(context):
    """Who delivers keeps no descriptor of what it cannot read: neither of a short record, nor of one without a sense."""
    x = Leaving(context)
    x.client.do("""
import array
def message(kind, body=b""):
    return struct.pack(">HBBBIi16s", 0x4E42, 1, kind, 1, 0, 0, bytes(16)) + body
def beside(s, text, *fds):
    s.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
def hand(text, count):
    "What the broker's process says, and what comes out of a pipe whose other end only that could still have."
    member, (ours, its) = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), socket.socketpair(type=socket.SOCK_SEQPACKET)
    member.connect(chr(0) + os.environ["NAMESOCKET_BROKER"][1:])
    member.send(message(1, struct.pack(">H", 1) + b"x"))
    beside(member, message(12), its.fileno())
    its.close()
    ready = ours.recv(1)
    r, w = os.pipe()
    os.set_blocking(r, False)
    beside(ours, text, *[w] * count)
    os.close(w)
    return ready, ours.recv(1), os.read(r, 1)
""")
    for text, count, answer in ((b"x", 6, b""), (b"J", 200, b""), (bytes(12), 6, b"N"), (bytes(12), 200, b"N")):
        x.client.says(f"hand({text!r}, {count})", (b"R", answer, b""))


@case
def without_a_broker(context):
    """Then the process waits until it is delivered."""
    x = Leaving(context, "none")
    x.deaf()
    x.client.do("s.sendall(b'last words')")
    x.client.begin("os._exit(4)", aside=True).asleep(7, 271)
    x.client.log.wait("path suspected")
    if not x.client.proc.alive():
        raise Wrong("it has ended with bytes undelivered")
    x.hears()
    if x.client.proc.wait() != 4:
        raise Wrong(f"ended with {x.client.proc.wait()}")
    x.reads(b"last words")


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
