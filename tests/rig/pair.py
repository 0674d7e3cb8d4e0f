"""A pair of traffic programs on the rig, and what the shim's logs must say about them."""
import os
import re

from . import wire
from .procs import DEADLINE_S, Deadline, Log, wait_for

PORT = 7007

# What the engine writes to its log, once for each connection and event, as regular expressions; the only place
# in the tests that knows the words.
ESTABLISHED = "session established"
SUSPENDED = "session suspended"
# The state's own line, not the two that tell the user: a program that has got its last byte may end before those.
RESUMED = "suspended, resumed, now connected"
DEMOTED = "session demoted"
NOW_PLAIN = "demoted, now plain"

# Which processes and programs have the connection (`traffic --as`).
SHAPES = ("fork", "exec", "vfork", "spawn", "inetd", "prefork", "daemon", "setuid", "privsep", "passed", "pair")

FORMS = ("blocking", "select", "poll", "epoll", "epoll-et", "threads")
MODES = ("stream", "up", "down", "records", "idle", "halfclose")

FLOW_BYTES = 64 * 1024
RECORDS_BYTES = 64 * 4


# For tests of what comes after the first contact: a busy machine may take longer than by default to answer HELLO, and
# then there is no session to test. Towards a plain peer the default holds.
# Nor is a round trip there what it seems.
PATIENT = {"NAMESOCKET_HOLD": "5s", "NAMESOCKET_NEAR": "5s"}


class Wrong(Exception):
    """The programs or the logs say something else than they must."""


def shim_env(shim, log_path):
    # A sanitizer's runtime has to come before everything else.
    first = os.environ.get("NS_PRELOAD_FIRST")
    return {"LD_PRELOAD": f"{first}:{shim}" if first else shim, "NAMESOCKET_LOG_FILE": log_path, "NAMESOCKET_LOG_LEVEL": "debug"}


class Pair:
    """`traffic serve` on tage, `traffic run` on troels."""

    def __init__(self, rig, traffic, shim, mode="stream", forms=("poll", "poll"), connections=1, timeout_s=DEADLINE_S,
                 shim_at=("client", "server"), first=False, idle_bytes=300_000, client_under=(), quiet=False,
                 settings=(), own_settings=None, plain=False):
        self.rig, self.traffic, self.shim, self.mode = rig, traffic, shim, mode
        self.connections, self.timeout_s = connections, timeout_s
        self.shim_at = shim_at if shim else ()
        self.own_settings = own_settings or {}                # the same, of one side
        self.plain = plain                                    # both have the shim, and yet no session may come about
        self.protected = len(self.shim_at) == 2 and not plain
        self.client_log = Log(os.path.join(rig.dir, "client.log"))
        self.server_log = Log(os.path.join(rig.dir, "server.log"))
        self.common = ["-c", str(connections), "--timeout", "120", "--check-so-error"]
        if first:
            self.common += ["--server-speaks-first"]
        self.client_args = ["-m", mode, *self.form(forms[0]), *self.common]
        if mode == "idle":
            self.client_args += ["-n", str(idle_bytes)]
        if mode == "halfclose":
            self.client_args += ["-n", "200000", "-d", str((1 << 64) - 1)]
        self.quiet = quiet
        self.settings = dict(settings)                        # NAMESOCKET_ variables of both ends
        if self.protected:
            self.settings = {**PATIENT, **self.settings}
        self.client_under = client_under                      # a program that runs the client
        if quiet:
            self.client_args += ["--quiet"]
        self.client_form, self.server_form = forms
        self.server = self.client = None
        self.link = None

    @staticmethod
    def form(name):
        """fork-X: the form X in a process that was forked; and so with every shape."""
        how, dash, plain = name.partition("-")
        return ["-f", plain, "--as", how] if how in SHAPES else ["-f", name]

    def env(self, side):
        if side not in self.shim_at:
            return {}
        log = self.client_log if side == "client" else self.server_log
        return {**shim_env(self.shim, log.path), **self.settings, **self.own_settings.get(side, {})}

    def daemon(self, name):
        """A program of the project's that finds the shim by itself."""
        return os.path.join(os.path.dirname(os.path.dirname(self.shim)), "daemon", name)

    def env_of_daemon(self, log):
        return {key: value for key, value in shim_env(self.shim, log.path).items() if key != "LD_PRELOAD"} | self.settings

    def start_broker(self, host, log):
        """Who accepts from a listener that was inherited needs one, and two processes at once. Returns the setting
        that names it."""
        where = f"@traffic/{os.urandom(8).hex()}"
        broker = host.start(f"broker-{host.name}", [self.daemon("namesocketd"), f"--broker={where}"], self.env_of_daemon(log))
        wait_for("the broker", lambda: "ready" in broker.stderr())
        return {"NAMESOCKET_BROKER": where}

    def start_server(self, name="server"):
        inherits = self.server_form.startswith(("prefork-", "daemon-", "pair-")) and "server" in self.shim_at
        broker = self.start_broker(self.rig.tage, self.server_log) if inherits else {}
        proc = self.rig.tage.start(name, [self.traffic, "serve", PORT, *self.form(self.server_form), *self.common],
                                   {**self.env("server"), **broker})
        proc.wait_line("listening")
        return proc

    def start_client(self):
        broker = self.start_broker(self.rig.troels, self.client_log) if self.client_form.startswith("pair-") else {}
        return self.rig.troels.start(
            "client", [*self.client_under, self.traffic, "run", "tage", PORT, *self.client_args],
            {**self.env("client"), **broker})

    def start(self):
        """Both programs, connected, protected if they can be, and data flowing."""
        self.server = self.start_server()
        self.client = self.start_client()
        self.client.wait_line("connected", 10)
        self.server.wait_line(r"accepted conns=(\d+)", 10, lambda m: int(m[1]) == self.connections)
        if self.protected:
            self.client_log.wait(ESTABLISHED, self.connections, 10)
            self.server_log.wait(ESTABLISHED, self.connections, 10)
        if self.quiet:
            self.client.send("go")
        if self.mode == "idle":
            wait_for("every opening read", lambda: sum("opened" in (line or "") for line in self.server.lines) ==
                     self.connections)
        elif self.mode == "halfclose":
            self.wait_progress(self.server, "ended", self.connections)
            self.flow()
        else:
            self.flow()
        wait_for("a connection for each session", self.settled)
        return self

    def where(self):
        """The link that the (first) connection runs over."""
        flow = wait_for("a connection", lambda: self.rig.troels.flows(PORT))[0]
        return wire.link_of(self.rig.troels, flow[0])

    def settled(self):
        """Notes where the sessions are. Anew each time, since one whose path was suspected may move meanwhile."""
        self.link = self.where()
        self.on_link = self.count_on_link()
        return self.on_link

    def count_on_link(self):
        """Connections over self.link; None while there are others than one a session: attempts to resume one
        whose path was suspected."""
        flows = self.rig.troels.flows(PORT)
        if len(flows) != self.connections:
            return None
        return sum(wire.link_of(self.rig.troels, f[0]) == self.link for f in flows)

    @property
    def other_link(self):
        return "link-b" if self.link == "link-a" else "link-a"

    # -- progress -----------------------------------------------------------------------------------------------

    @staticmethod
    def progress(proc):
        m = proc.last(r"^progress in=(\d+) out=(\d+) ended=(\d+)")
        return dict(zip(("in", "out", "ended"), map(int, m.groups()))) if m else {"in": 0, "out": 0, "ended": 0}

    def wait_progress(self, proc, key, at_least, timeout_s=None):
        def enough():
            if self.progress(proc)[key] >= at_least:
                return True
            if not proc.alive():
                raise Wrong(f"{proc.name} ended ({proc.ending()}): {self.said(proc)}")
            return False
        wait_for(f"{proc.name} {key}>={at_least} (is {self.progress(proc)})", enough, timeout_s or self.timeout_s)

    def flow(self):
        """More data has arrived wherever this mode makes any arrive, counted from now."""
        amount = RECORDS_BYTES if self.mode == "records" else FLOW_BYTES
        ends = {"up": [self.server], "down": [self.client], "halfclose": [self.client],
                "idle": []}.get(self.mode, [self.client, self.server])
        targets = [(proc, self.progress(proc)["in"] + amount) for proc in ends]
        for proc, target in targets:
            self.wait_progress(proc, "in", target)

    def resumed(self, count=1, timeout_s=None):
        """Both logs say so, `count` times for every connection that ran over the link."""
        if self.protected:
            for log in (self.client_log, self.server_log):
                log.wait(RESUMED, count * self.on_link, timeout_s or self.timeout_s)

    # -- end ----------------------------------------------------------------------------------------------------

    def go(self):
        if self.mode == "idle":
            self.client.send("go")

    def stop(self):
        (self.server if self.mode == "halfclose" else self.client).send("stop")

    @staticmethod
    def said(proc):
        lines = [line for line in proc.lines if line and not line.startswith(("progress", "conn "))]
        return " | ".join(lines[-3:])

    def finish(self, demoted=False):
        """Both end well, and each got exactly what the other sent. demoted: a session came about and became plain."""
        codes = {}
        for proc in (self.client, self.server):
            codes[proc.name] = proc.wait(self.timeout_s)
        for proc in (self.client, self.server):
            if codes[proc.name] != 0:
                raise Wrong(f"{proc.name} {proc.ending()}: {self.said(proc)}")
        ours, theirs = self.summaries(self.client), self.summaries(self.server)
        if len(ours) != self.connections or ours.keys() != theirs.keys():
            raise Wrong(f"connections: client {sorted(ours)}, server {sorted(theirs)}")
        for n, (c_in, c_out, c_in_hash, c_out_hash) in ours.items():
            if (c_out, c_in, c_out_hash, c_in_hash) != theirs[n]:
                raise Wrong(f"conn {n}: client in/out {c_in}/{c_out}, server {theirs[n][0]}/{theirs[n][1]}, or hashes")
        for log in (self.client_log, self.server_log):
            if self.protected and log.count(DEMOTED):
                raise Wrong(f"{os.path.basename(log.path)} says '{DEMOTED}'")
            if not self.protected and not demoted and log.count(ESTABLISHED):
                raise Wrong(f"{os.path.basename(log.path)} says '{ESTABLISHED}'")

    @staticmethod
    def summaries(proc):
        found = {}
        for line in proc.lines:
            m = re.match(r"conn (\d+) in=(\d+) out=(\d+) in_hash=(\w+) out_hash=(\w+)", line or "")
            if m:
                found[int(m[1])] = (int(m[2]), int(m[3]), m[4], m[5])
        return found


class HeldPair(Pair):
    """The client without the shim, its connections taken over by nsrun."""

    def start_client(self):
        return self.rig.troels.start(
            "client", [self.daemon("nsrun"), "--gateway", self.traffic, "run", "tage", PORT, *self.client_args],
            self.env_of_daemon(self.client_log))


class GatewayPair(Pair):
    """The same two programs, neither under the shim: what is between them is, a gateway on each host."""

    FORWARD, SERVE = 7006, 7008

    def gateway(self, host, side, option, route):
        log = self.client_log if side == "client" else self.server_log
        proc = host.start(f"gateway-{side}", [self.daemon("namesocketd"), option, route], self.env_of_daemon(log))
        wait_for(f"the {side}'s gateway", lambda: "ready" in proc.stderr())
        return proc

    def start_server(self, name="server"):
        proc = self.rig.tage.start(name, [self.traffic, "serve", self.SERVE, "-f", self.server_form, *self.common], {})
        proc.wait_line("listening")
        self.gateway(self.rig.tage, "server", "--accept", f"{PORT}:127.0.0.1:{self.SERVE}")
        return proc

    def start_client(self):
        self.gateway(self.rig.troels, "client", "--forward", f"{self.FORWARD}:tage:{PORT}")
        return self.rig.troels.start(
            "client", [self.traffic, "run", "127.0.0.1", self.FORWARD, *self.client_args], {})


class ForwardPair(GatewayPair):
    """A gateway at the client's host; the server is under the shim."""

    def start_server(self, name="server"):
        return Pair.start_server(self, name)


class AcceptPair(GatewayPair):
    """A gateway at the server's host; the client is under the shim."""

    def start_client(self):
        return Pair.start_client(self)


__all__ = ["Pair", "GatewayPair", "ForwardPair", "AcceptPair", "HeldPair", "Wrong", "Deadline", "PORT", "FORMS", "SHAPES", "MODES", "ESTABLISHED", "SUSPENDED", "RESUMED", "DEMOTED", "NOW_PLAIN",
           "PATIENT", "shim_env"]
