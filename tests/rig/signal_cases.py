"""Cases about signal handlers: tests/signals.c at both ends. Each holds without the shim too."""
import os
import signal

from .pair import DEMOTED, ESTABLISHED, PATIENT, PORT, RESUMED, SUSPENDED, Wrong, shim_env
from .procs import Log, wait_for
from .wire import link_of


class Ends:
    """`signals serve` on tage, `signals WHAT` on troels."""

    def __init__(self, context, what, how, ports=(PORT,), shim_at=("client", "server")):
        self.rig, self.context = context.rig(), context
        self.shim_at = shim_at if context.shim else ()
        self.logs = {side: Log(os.path.join(self.rig.dir, side + ".log")) for side in ("client", "server")}
        self.program = os.path.join(os.path.dirname(context.traffic), "signals")
        self.servers = [self.rig.tage.start(f"server{port}", [self.program, "serve", port, how], self.env("server"))
                        for port in ports]
        for server in self.servers:
            server.wait_line("listening")
        self.server, self.what, self.ports = self.servers[0], what, ports
        self.client = None

    def env(self, side):
        return {**shim_env(self.context.shim, self.logs[side].path), **(PATIENT if len(self.shim_at) == 2 else {})} if side in self.shim_at else {}

    def start(self):
        self.client = self.rig.troels.start("client", [self.program, self.what, "tage", *self.ports],
                                            self.env("client"))
        return self

    def each_log(self, marker, count=1):
        if len(self.shim_at) == 2:
            for log in self.logs.values():
                log.wait(marker, count, self.context.timeout_s)

    def wait_asleep(self):
        """The client's first thread is in a call that waits."""
        def asleep():
            if not self.client.alive():
                raise Wrong(f"the client {self.client.ending()}: {[x for x in self.client.lines if x][-3:]}")
            with open(f"/proc/{self.client.p.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "S"
        wait_for("the client asleep", asleep)

    def finish(self, *procs):
        for proc in procs:
            if proc.wait(self.context.timeout_s) != 0:
                raise Wrong(f"{proc.name} {proc.ending()}: {[x for x in proc.lines if x][-3:]}")
        for log in self.logs.values():
            if log.count(DEMOTED):
                raise Wrong(f"{os.path.basename(log.path)} says '{DEMOTED}'")


def storm(what):
    """Handlers that jump out of writes, or write on top of them: the session must still be good for a resume."""
    def case(context):
        ends = Ends(context, what, "sink").start()
        timeout = context.timeout_s
        ends.server.wait_line(r"records m=\d+", timeout)
        ends.each_log(ESTABLISHED)
        for n in range(1, 4) if context.shim else ():
            link = link_of(ends.rig.troels, wait_for("a connection", lambda: ends.rig.troels.flows(PORT))[0][0])
            ends.rig.troels.link_down(link)
            ends.each_log(RESUMED, n)
            ends.rig.troels.link_up(link)
            at = int(ends.server.last(r"records m=(\d+)")[1])
            wait_for("more records", lambda: int(ends.server.last(r"records m=(\d+)")[1]) > at or
                     not ends.server.alive(), timeout)
        ends.client.send("stop")
        ends.finish(ends.client, ends.server)
        sent, got = ends.client.last(r"sent (m=\d+ h=\d+) jumps=(\d+)"), ends.server.last(r"end (m=\d+ h=\d+)")
        if sent[1] != got[1]:
            raise Wrong(f"sent {sent[1]}, got {got[1]}")
        if "h=0" in sent[1] and sent[2] == "0":
            raise Wrong("no handler did anything")
    return case


def wait_on_wait(context):
    """poll in a handler, on top of a read that waits for the session to be resumed."""
    ends = Ends(context, "poll", "speak").start()
    tage, troels = ends.rig.tage, ends.rig.troels
    ends.client.wait_line("reading")
    ends.each_log(ESTABLISHED)
    if context.shim:
        tage.nft(f"""table inet nobody {{
            chain in {{ type filter hook input priority 0;
                tcp dport {PORT} tcp flags & (syn | ack) == syn drop;
            }}
        }}""")
        ends.rig.reset_flows([troels], PORT)
        ends.logs["client"].wait(SUSPENDED, 1, context.timeout_s)
    ends.wait_asleep()
    ends.client.p.send_signal(signal.SIGUSR1)
    ends.client.wait_line("looked 1")
    if context.shim:
        tage.nft("delete table inet nobody")
        ends.each_log(RESUMED)
    ends.server.send("x")
    ends.client.wait_line("got x", context.timeout_s)
    ends.server.send("end")
    ends.finish(ends.client, ends.server)


def restart(context):
    """A handler with SA_RESTART does not end a write, though another one's lacks it; one that got something off
    ends early whichever it is."""
    ends = Ends(context, "restart", "still").start()
    filled = int(ends.client.wait_line(r"filled (\d+)", context.timeout_s)[1])
    ends.server.send(str(filled + 1))
    ends.server.wait_line("read", context.timeout_s)
    ends.wait_asleep()
    ends.client.p.send_signal(signal.SIGUSR1)
    ends.client.wait_line("writing a byte", context.timeout_s)
    ends.wait_asleep()
    ends.client.p.send_signal(signal.SIGUSR1)
    ends.client.wait_line("handled USR1 2", context.timeout_s)
    ends.wait_asleep()
    ends.client.p.send_signal(signal.SIGUSR2)
    ends.client.wait_line("interrupted, USR1=2 USR2=1", context.timeout_s)
    ends.server.close_stdin()
    ends.finish(ends.client, ends.server)


def first_write(context):
    """While the peer is being asked, a write that must not wait is refused, and the socket is not writable; but the first
    waits a moment, since the peer is near, and when that was in vain the next ones do not. HELLO is lost: of each
    port's SYNs only the first comes through."""
    ports = [PORT + i for i in range(10)]
    ends = Ends(context, "first", "still", ports, shim_at=("client",))
    ends.rig.tage.nft("""table inet first {
        set seen { type inet_service; flags dynamic; }
        chain in { type filter hook input priority 0;
            tcp flags & (syn | ack) == syn tcp dport @seen drop;
            tcp flags & (syn | ack) == syn add @seen { tcp dport };
        }
    }""")
    ends.start()
    ends.finish(ends.client)
    if context.shim and not ends.client.last("refused [1-5]"):
        raise Wrong(f"{ends.client.lines[-2:]}")


CASES = {"signals/jump": storm("jump"), "signals/nested": storm("nested"), "signals/wait-on-wait": wait_on_wait,
         "signals/restart": restart, "signals/first-write": first_write}
