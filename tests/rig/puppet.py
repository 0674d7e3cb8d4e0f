"""A program that does what the test says, one call at a time: a Python interpreter under the shim. What it calls are
libc's functions, so it can be put into any moment of a session's life that plain sockets can be in."""
import ast
import json
import os
import sys

from . import wire
from .pair import ESTABLISHED, PATIENT, PORT, RESUMED, SUSPENDED, Wrong, shim_env
from .procs import DEADLINE_S, Deadline, Log, wait_for

ANSWERED = "the peer speaks namesocket"

# Each line of standard input is [number, text, whether in a thread of its own]; each answer `number thread`, then
# `number = value` or `number ! exception errno`. What the texts name lives in `names`.
PROGRAM = r"""
import errno, fcntl, json, os, select, signal, socket, struct, sys, termios, threading
names = dict(globals())
names["libc"] = __import__("ctypes").CDLL("libc.so.6", use_errno=True)   # its own functions, around the shim
answers = os.dup(1)
def say(text):
    os.write(answers, (text + "\n").encode())
def run(number, text):
    say(f"{number} thread {threading.get_native_id()}")
    try:
        try:
            code = compile(text, "call", "eval")
        except SyntaxError:
            code = compile(text, "call", "exec")
        say(f"{number} = {eval(code, names)!r}")
    except BaseException as e:
        say(f"{number} ! {type(e).__name__} {errno.errorcode.get(getattr(e, 'errno', None), e)}")
for line in sys.stdin:
    number, text, aside = json.loads(line)
    if aside:
        threading.Thread(target=run, args=(number, text), daemon=True).start()
    else:
        run(number, text)
"""


class Raised(Exception):
    """The call raised; the text is the exception's name and its errno's."""


class Call:
    """One call that was begun."""

    def __init__(self, puppet, number, text):
        self.puppet, self.number, self.text = puppet, number, text

    def result(self, timeout_s=DEADLINE_S):
        m = self.puppet.proc.wait_line(rf"^{self.number} ([=!]) (.*)", timeout_s)
        if m[1] == "!":
            raise Raised(m[2])
        try:
            return ast.literal_eval(m[2])
        except (SyntaxError, ValueError):
            return m[2]

    def done(self):
        return self.puppet.proc.last(rf"^{self.number} [=!] ") is not None

    def asleep(self, *calls):
        """Waits until its thread sleeps in one of these system calls (numbers)."""
        tid = self.puppet.proc.wait_line(rf"^{self.number} thread (\d+)")[1]

        def look():
            if self.done():
                raise Wrong(f"{self.text} did not wait: {self.puppet.proc.last(f'^{self.number} [=!]')[0]}")
            try:
                with open(f"/proc/{self.puppet.pid}/task/{tid}/syscall") as f:
                    return f.read().split()[0] in map(str, calls)
            except FileNotFoundError:
                return self.done()                            # and says so in the next round
        wait_for(f"{self.text} to sleep", look)
        look()
        return self


class Puppet:
    def __init__(self, host, name, shim, env=None, second_preload=None, under=()):
        self.name = name
        self.log = Log(os.path.join(host.rig.dir, name + ".log"))
        env = {**({**shim_env(shim, self.log.path), **PATIENT} if shim else {}), **(env or {})}
        if second_preload:
            env["LD_PRELOAD"] = " ".join(filter(None, (env.get("LD_PRELOAD"), second_preload)))
        if under:                                             # a program that puts it under the shim
            env.pop("LD_PRELOAD", None)
        self.proc = host.start(name, [*under, sys.executable, "-c", PROGRAM], env)
        self.count = 0
        self.pid = self.do("os.getpid()")

    def begin(self, text, aside=True):
        self.count += 1
        self.proc.send(json.dumps([self.count, text, aside]))
        return Call(self, self.count, text)

    def do(self, text, timeout_s=DEADLINE_S):
        return self.begin(text, False).result(timeout_s)

    def says(self, text, expected, timeout_s=DEADLINE_S):
        """The call gives exactly this: a value, or the text of what it raises."""
        try:
            got = self.do(text, timeout_s)
        except Raised as e:
            got = str(e)
        if got != expected:
            raise Wrong(f"{self.name}: {text} gave {got!r}, not {expected!r}")

    def becomes(self, text, expected, timeout_s=DEADLINE_S):
        """The call gives this before long."""
        got = []

        def look():
            got[:] = [self.do(text)]
            return got[0] == expected
        try:
            wait_for("", look, timeout_s)
        except Deadline:
            raise Wrong(f"{self.name}: {text} gave {got[0]!r} to the last, not {expected!r}") from None


class Session:
    """One session between a puppet on troels, whose end is `s`, and one on tage, whose end is `s` as well."""

    def __init__(self, context, client_env=None, server_env=None, second_preload=None, born=True, client_under=(),
                 server_under=()):
        self.rig, self.shim = context.rig(), context.shim
        self.server = Puppet(self.rig.tage, "server", self.shim, server_env, under=server_under)
        self.client = Puppet(self.rig.troels, "client", self.shim, client_env, second_preload, client_under)
        self.ends = (self.client, self.server)
        self.server.do(f"l = socket.create_server(('::', {PORT}), family=socket.AF_INET6)")
        if born:
            self.connect()

    def connect(self):
        self.client.do(f"s = socket.create_connection(('tage', {PORT}))")
        if self.shim:
            # The first write waits for the answer to HELLO for 50 ms only: a busy machine may need more.
            self.client.log.wait(ANSWERED)
        self.client.do("s.send(b'?')")
        self.server.do("s = l.accept()[0]")
        self.server.says("s.recv(1)", b"?")
        self.server.do("s.send(b'!')")
        self.client.says("s.recv(1)", b"!")
        if self.shim:
            for end in self.ends:
                end.log.wait(ESTABLISHED)
        return self

    def link(self):
        return wire.link_of(self.rig.troels, wait_for("a connection", lambda: self.rig.troels.flows(PORT))[0][0])

    def resumes(self):
        """A link goes, the session moves, the link comes back."""
        before = [end.log.count(RESUMED) for end in self.ends]
        link = self.link()
        self.rig.troels.link_down(link)
        for end, n in zip(self.ends, before):
            end.log.wait(RESUMED, n + 1)
        self.rig.troels.link_up(link)

    def block(self):
        """No new connection reaches the server, until `again` or `open`."""
        self.rig.tage.nft(f"table inet shut {{ chain in {{ type filter hook input priority 0;\n"
                          f"tcp dport {PORT} tcp flags & (syn|ack) == syn drop;\n}}\n}}")

    def suspended(self):
        """Both ends know that the connection is gone, and there is no other, until `again`."""
        before = [end.log.count(SUSPENDED) for end in self.ends]
        self.block()
        self.rig.reset_flows([self.rig.troels, self.rig.tage], PORT)
        for end, n in zip(self.ends, before):
            # An idle session's loss is noticed when it is used.
            wait_for("the loss", lambda: end.do("select.select([s], [], [], 0)") and end.log.count(SUSPENDED) > n)

    def again(self):
        before = [end.log.count(RESUMED) for end in self.ends]
        self.open()
        for end, n in zip(self.ends, before):
            end.log.wait(RESUMED, n + 1)

    def open(self):
        self.rig.tage.nft("delete table inet shut")
        # Something that makes rounds go on at once, as a link that comes back does.
        self.rig.troels.own("link-b", "10.32.0.99/24")
        self.rig.troels.disown("link-b", "10.32.0.99/24")

    def talks(self, times=2):
        """Both directions work, and nothing else is in them."""
        for n in range(times):
            for a, b in (self.ends, reversed(self.ends)):
                a.do(f"s.sendall(b'talk {n}')")
                b.says("s.recv(6, socket.MSG_WAITALL)", b"talk %d" % n)


__all__ = ["Puppet", "Session", "Raised", "Call"]
