#!/usr/bin/env python3
"""Servers of several processes that accept from one listener, and the broker between them.

Options as in faults.py (--list, -k, --hold, ...). The server is workers.py, in plain sockets, and so is the client,
which compares every byte that comes back. A RESUME reaches whoever accepts; the session is one worker's.
"""
import contextlib
import json
import os
import signal
import sys

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                         # noqa: E402
from rig.pair import DEMOTED, ESTABLISHED, PATIENT, PORT, RESUMED, Wrong, shim_env          # noqa: E402
from rig.procs import Log                                                     # noqa: E402
from rig.report import Skip, main, options                                    # noqa: E402

WORKERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workers.py")
PASSED = "took a connection that another process accepted"
FORMS = ("blocking", "poll", "epoll")


class Stage:
    """workers.py on both hosts; the broker on tage, by namesocketd or by nsrun."""

    def __init__(self, context, form="blocking", workers=4, connections=4, broker="namesocketd", args=(), short=0):
        if not context.shim:
            raise Skip("needs the shim")
        self.context = context
        self.rig = context.rig()
        self.troels, self.tage = self.rig.troels, self.rig.tage
        self.client_log = Log(os.path.join(self.rig.dir, "client.log"))
        self.server_log = Log(os.path.join(self.rig.dir, "server.log"))
        self.where = f"@prefork/{os.urandom(8).hex()}"
        self.brokers = 0
        self.broker = self.start_broker() if broker == "namesocketd" else None
        env = {**shim_env(context.shim, self.server_log.path), **PATIENT, "NAMESOCKET_BROKER": self.where if self.broker else "none"}
        under = []
        if broker == "nsrun":
            under = [self.daemon("nsrun")]
            del env["LD_PRELOAD"], env["NAMESOCKET_BROKER"]
        self.workers = workers
        self.server = self.tage.start("server", [*under, sys.executable, WORKERS, "serve", PORT, "--workers", workers,
                                                 "--form", form, *args], env)
        self.server.wait_line("^listening$")
        wait_for("every worker", lambda: len(self.pids()) == workers)
        self.client = self.troels.start(
            "client", [sys.executable, WORKERS, "run", "tage", PORT, "--connections", connections, "--short", short],
            {**shim_env(context.shim, self.client_log.path), **PATIENT, "NAMESOCKET_BROKER": "none"})
        self.connections = connections

    def daemon(self, name):
        return self.context.built(os.path.join("src/daemon", name))

    def start_broker(self):
        self.brokers += 1
        proc = self.tage.start(f"broker-{self.brokers}", [self.daemon("namesocketd"), f"--broker={self.where}"])
        wait_for("the broker", lambda: "ready" in proc.stderr())
        return proc

    def pids(self):
        return [int(line.split()[1]) for line in self.server.lines if line and line.startswith("worker ")]

    def accepted(self):
        """By which worker each connection was, in order."""
        return [int(line.split()[0]) for line in self.server.lines if line and line.endswith(" accepted")]

    def served(self):
        return {line.split()[1] for line in self.client.lines if line and line.startswith("served ")}

    def alive(self):
        for line in self.client.lines:
            if line and line.startswith("failed"):
                raise Wrong(f"the client {line}")

    def established(self, count=None):
        count = self.connections if count is None else count
        self.client_log.wait(ESTABLISHED, count)
        self.server_log.wait(ESTABLISHED, count)
        self.flows()
        return self

    def flows(self, of=None):
        """Every connection (or these) has had an answer, counted from now."""
        self.alive()
        numbers = set(map(str, range(self.connections))) if of is None else set(map(str, of))
        lines = len(self.client.lines)

        def all_served():
            self.alive()
            return numbers <= {line.split()[1] for line in self.client.lines[lines:] if line and line.startswith("served ")}
        wait_for("an answer on every connection", all_served)

    def link(self):
        """The link that most connections run over."""
        from rig.wire import link_of
        links = [link_of(self.troels, f[0]) for f in self.troels.flows(PORT)]
        return max(set(links), key=links.count)

    @contextlib.contextmanager
    def cut(self):
        link = self.link()
        self.troels.link_down(link)
        yield
        self.troels.link_up(link)

    def moves(self):
        """A link is cut, and all sessions go on over the other."""
        before = self.client_log.count(RESUMED)
        with self.cut():
            self.client_log.wait(RESUMED, before + 1)
            self.flows()

    def finish(self):
        self.client.send("stop")
        if self.client.wait() != 0:
            raise Wrong(f"the client {self.client.ending()}: {self.client.last('^failed')}")
        for log in (self.client_log, self.server_log):
            if log.count(DEMOTED):
                raise Wrong(f"{os.path.basename(log.path)} says '{DEMOTED}'")
        self.server.send("stop")
        if self.server.wait() != 0:
            raise Wrong(f"the server {self.server.ending()}")


CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def form_case(function):
    for form in FORMS:
        CASES[f"{function.__name__.replace('_', '-')}/{form}"] = lambda context, form=form: function(context, form)
    return function


@form_case
def moves(context, form):
    """Several workers, each with a connection; some idle."""
    s = Stage(context, form, workers=5, connections=4).established()
    for _ in range(3):
        s.moves()
    s.finish()


@form_case
def under_nsrun(context, form):
    s = Stage(context, form, broker="nsrun").established()
    for _ in range(2):
        s.moves()
    s.finish()


@case
def all_busy(context):
    """No worker is in accept: the helpers take the RESUMEs, and pass them on."""
    s = Stage(context, "blocking", workers=4, connections=4).established()
    if sorted(s.accepted()) != sorted(s.pids()):
        raise Wrong(f"not every worker has one: {s.accepted()} of {s.pids()}")
    for _ in range(3):
        s.moves()
    if s.server_log.count(PASSED) == 0:
        raise Wrong("no RESUME came to another worker than its own")
    s.finish()


@case
def next_who_is_free(context):
    """All are busy and a helper takes what waits: a connection among it is served by the first that is free."""
    s = Stage(context, "blocking", workers=2, connections=2).established()
    s.client.send("more 3")
    s.client.wait_line("^connected 4$")
    s.moves()  # the helpers have to accept the three that wait, to come to the RESUMEs
    victim = s.accepted()[0]
    os.kill(victim, signal.SIGKILL)  # the other two wait for the one that is left
    s.client.send("stop")
    s.client.wait()
    numbers = s.served()
    if not {"2", "3", "4"} <= numbers:
        raise Wrong(f"only these were served: {sorted(numbers)}")


@case
def short_ones(context):
    """Connections that come and go, at workers that are all busy now and then: none is served twice or left waiting."""
    s = Stage(context, "blocking", workers=3, connections=8, short=25, args=("--busy-ms", "12"))
    if s.client.wait() != 0:
        raise Wrong(f"the client {s.client.last('^failed')}")
    count = sum(line.endswith(" accepted") for line in s.server.lines if line)
    if count != 8 * 25:
        raise Wrong(f"{count} connections were accepted, {8 * 25} were made")


@case
def killed_inside_accept(context):
    """A worker that was killed in accept is not waited for by those who would take over."""
    s = Stage(context, "blocking", workers=4, connections=3).established()
    idle = set(s.pids()) - set(s.accepted())
    for pid in idle:
        os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        s.moves()
    s.client.send("stop")
    if s.client.wait() != 0:
        raise Wrong(f"the client {s.client.last('^failed')}")


@case
def master_leaves(context):
    """The process that listened first has closed its own descriptor."""
    s = Stage(context, "epoll", args=("--master-leaves",)).established()
    s.moves()
    s.finish()


@case
def broker_killed_and_started_again(context):
    """Twenty times, while sessions move to and fro."""
    s = Stage(context, "blocking", workers=6, connections=5).established()
    for _ in range(20):
        with s.cut():
            s.broker.kill()
            s.broker = s.start_broker()
            s.flows()
    s.finish()


@case
def many_on_few(context):
    s = Stage(context, "epoll", workers=3, connections=24).established()
    for _ in range(4):
        s.moves()
    s.finish()


@case
def without_a_broker(context):
    """As a server without us: plain TCP."""
    s = Stage(context, "blocking", broker=None)
    s.client.wait_line("^connected 3$")
    s.flows()
    if s.client_log.count(ESTABLISHED):
        raise Wrong("a session was made that nobody can find again")
    s.client.send("stop")
    if s.client.wait() != 0:
        raise Wrong(f"the client {s.client.last('^failed')}")


@case
def a_program_inherits_the_listener(context):
    """It could accept, and knows nothing of us: from then on nobody is promised anything."""
    s = Stage(context, "blocking", workers=4, connections=1, args=("--leave-open",)).established()
    s.server.send("exec")
    s.server_log.wait("its listener is another program's, too")
    before = s.client_log.count(ESTABLISHED)
    s.client.send("more 2")
    s.client.wait_line("^connected 2$")
    s.connections = 3
    s.flows()
    if s.client_log.count(ESTABLISHED) > before:
        raise Wrong("a session was made")
    s.client.send("stop")
    if s.client.wait() != 0:
        raise Wrong(f"the client {s.client.last('^failed')}")


@case
def nsctl_lists_them(context):
    s = Stage(context, "blocking", workers=3, connections=3).established()
    s.moves()
    done = s.tage.run(s.daemon("nsctl"), "list", "--json", "--broker", s.where)
    rows = json.loads(done.stdout)
    holders = sorted(h["pid"] for r in rows for h in r["holders"])
    if holders != sorted(s.pids()):
        raise Wrong(f"holders {holders}, workers {s.pids()}")
    for r in rows:
        if (r["role"], r["state"]) != ("server", "connected") or r["resumes"] < 1 or r["received_bytes"] == 0:
            raise Wrong(f"a session {r}")
    s.finish()


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
