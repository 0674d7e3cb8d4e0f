"""What a case gets: a server on tage under nsrun, a client on troels under the shim, links of a bounded rate."""
import hashlib
import json
import os
import re
import select
import shutil
import subprocess

from rig import wait_for
from rig.pair import DEMOTED, ESTABLISHED, PATIENT, PORT, RESUMED, Wrong, shim_env
from rig.procs import Deadline, Log
from rig.report import Skip
from rig.wire import link_of

CUTS = 3
# What a client's log says when it has lost a path.
LOSS = "path lost|path dead|now suspended"
# Data has to flow for long enough to cut a link under it, however fast the machine is, or slow to cut.
RATE_MBIT = 32
TRIALS = 3
PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
# Daemons are not on everybody's search path.
PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"

class TooLate(Exception):
    """The payload was there before a link could be cut under it."""


CASES = {}                                                    # name -> Case


def find(name):
    path = shutil.which(name, path=PATH)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def random_bytes(n, seed=b"programs"):
    return hashlib.shake_128(seed).digest(n)


def need_users():
    """For servers that become another user."""
    if os.environ.get("NS_RIG_USERNS"):
        raise Skip("here is only one user to be")


def digest(data):
    return hashlib.blake2b(data).hexdigest()


def file_digest(path):
    with open(path, "rb") as f:
        return digest(f.read())


def payload(n):
    """What the clients in peers/ send and get back."""
    return random_bytes(n, b"payload")


def size(path):
    """0 for a file that is not there yet."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


class Case:
    """One row of the table. Called with a Context it runs, and leaves what came of it in the directory `records`.

    needs: programs, the first of which the version is of. version: arguments that make it say it.
    plain: why this program's sessions become plain TCP, so that links are not cut. They must then be, in the end:
    who repairs the reason is told to take it out here. With --strict it counts for nothing.
    """

    records = None

    def __init__(self, function, name, program, needs, version, shape, done, plain):
        self.function, self.name, self.program, self.needs = function, name, program, needs
        self.version, self.shape, self.done, self.plain = version, shape, done, plain

    def __call__(self, context):
        for name in self.needs:
            find(name)
        for trial in range(TRIALS):
            stage = Stage(context, self, RATE_MBIT >> trial)
            try:
                self.function(stage)
                break
            except TooLate:
                stage.rig.close()
                if trial == TRIALS - 1:
                    raise
        if stage.plain and stage.context.shim and stage.survived():
            raise Wrong(f"protected, against what is said in {self.function.__module__}: {self.plain}")
        if self.records:
            with open(os.path.join(self.records, self.name), "w") as f:
                json.dump({"version": self.told_version(), "plain": stage.plain, "cuts": stage.cuts,
                           "sessions": stage.sessions, "bytes": stage.bytes}, f)

    def told_version(self):
        """The first number with a dot in what the program says of itself."""
        done = subprocess.run([find(self.needs[0]), *self.version], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        found = re.search(r"\d+\.\d[\w.]*", done.stdout)
        return found[0] if found else "?"


def case(name, program, needs, version=("--version",), shape="one process", done="", plain=None):
    """Decorator: this function is a case."""
    def add(function):
        CASES[name] = Case(function, name, program, needs, version, shape, done, plain)
        return function
    return add


class Stage:
    """Server on tage, client on troels, each under the shim with a log of its own."""

    def __init__(self, context, about, rate_mbit):
        self.context = context
        self.about = about
        self.rig = context.rig()
        self.dir = self.rig.dir
        self.timeout_s = context.timeout_s
        self.cuts = self.sessions = self.bytes = 0
        self.last = None                                      # client
        self.plain = None                                     # why, when the sessions are not protected
        self.logs = {side: Log(os.path.join(self.dir, side + ".log")) for side in ("client", "server")}
        for host in (self.rig.troels, self.rig.tage):
            for link in host.addresses:
                # A kernel without this queue has a faster link; the payload is as good.
                subprocess.run(["tc", "-n", host.ns, "qdisc", "add", "dev", link, "root", "tbf", "rate",
                                f"{rate_mbit}mbit", "burst", "32kb", "limit", "128kb"], capture_output=True)

    # -- files ----------------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.dir, name)

    def file(self, name, data):
        """A new file with this text, or these bytes."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    # -- programs -------------------------------------------------------------------------------------------

    def env(self, side):
        return {**shim_env(self.context.shim, self.logs[side].path), **PATIENT} if self.context.shim else {}

    def env_of_daemon(self, side):
        """For nsrun, which finds the shim by itself and does not run under it."""
        return {key: value for key, value in self.env(side).items() if key != "LD_PRELOAD"}

    def server(self, *argv, port=PORT, settings=()):
        """Under nsrun, which is a broker for all of its processes. Returns when something listens on `port`."""
        if self.context.shim:
            argv = (self.context.built("src/daemon/nsrun"), "--", *argv)
        proc = self.rig.tage.start("server", argv, {**self.env_of_daemon("server"), **dict(settings)})

        def listening():
            if not proc.alive():
                raise Wrong(f"the server ended ({proc.ending()}): {proc.stderr()[-300:]}")
            return f":{port}" in self.rig.tage.run("ss", "-tlnH", f"sport = :{port}").stdout
        wait_for("a listener", listening, self.timeout_s)
        return proc

    def client(self, *argv, name="client", settings=()):
        self.last = self.rig.troels.start(name, argv, {**self.env("client"), **dict(settings)})
        return self.last

    def wrapped_client(self, *argv, name="client"):
        """Under nsrun: one whose processes need a broker."""
        if not self.context.shim:
            return self.client(*argv, name=name)
        self.last = self.rig.troels.start(name, [self.context.built("src/daemon/nsrun"), "--", *argv],
                                          self.env_of_daemon("client"))
        return self.last

    def end(self, proc, expected=0):
        code = proc.wait(self.timeout_s)
        if code != expected:
            raise Wrong(f"{proc.name}: exit {code}, expected {expected}: {proc.stderr()[-300:]}")

    # -- sessions -------------------------------------------------------------------------------------------

    def protected(self, count=1):
        """Waits until both logs say so."""
        if not self.context.shim:
            self.plain = "without the shim"
            return
        if self.about.plain and not self.context.options.strict:
            self.plain = self.about.plain
            return
        for log in self.logs.values():
            log.wait(ESTABLISHED, count, self.timeout_s)
        self.sessions = count

    def survived(self):
        """How many sessions both ends had, and neither has given up: a program may well have one until the moment
        that makes it plain TCP."""
        began = min(log.count(ESTABLISHED) for log in self.logs.values())
        return max(0, began - max(log.count(DEMOTED) for log in self.logs.values()))

    def used(self, link, states=("ESTAB",)):
        return [f for f in self.rig.troels.flows(PORT, states) if link_of(self.rig.troels, f[0]) == link]

    def cut(self, over=lambda: False):
        """Cut a link in use, wait until no session uses it any more, put it back. False when there was nothing to
        cut, since the payload is `over`, which counts as no cut."""
        if self.context.options.no_cut or self.plain and self.context.shim:
            return True
        while not over():
            flows = wait_for("a connection", lambda: self.rig.troels.flows(PORT) or over(), self.timeout_s)
            if over():
                break
            link = link_of(self.rig.troels, flows[0][0])
            resumes = [log.count(RESUMED) for log in self.logs.values()]
            losses = self.logs["client"].count(LOSS)
            self.rig.troels.link_down(link)
            if not self.context.shim:
                return True

            def resumed():
                return all(log.count(RESUMED) > n for log, n in zip(self.logs.values(), resumes))

            def settled():
                if over():
                    return True
                if self.used(link):
                    return False
                # What used it may have been another path on trial only. Then no session misses it.
                return resumed() or self.logs["client"].count(LOSS) == losses and not self.used(link)
            wait_for("each session on the other link", settled, self.timeout_s)
            self.rig.troels.link_up(link)
            if resumed():
                self.cuts += 1
                return True
        return False

    def growing(self, what, done, at_least):
        """Waits until `done()`, which the last client that was started sees to, is more than this. The time that
        may take begins again whenever it grows."""
        seen = -1
        while seen <= at_least:
            def more():
                if not self.last.alive() and self.last.wait():
                    raise Wrong(f"{self.last.name}: {self.last.ending()}: {self.last.stderr()[-300:]}")
                return done() > seen or not self.last.alive()
            wait_for(f"more of {what} than {seen}", more, self.timeout_s)
            if not self.last.alive():
                return
            seen = done()

    def cuts_during(self, what, done, total):
        """CUTS cuts while `done()` grows from 0 to `total`, and then all of it."""
        for n in range(1, CUTS + 1):
            self.growing(what, done, n * total // (3 * CUTS))
            if n == 1 and not self.sessions:
                self.protected()
            if not self.cut(lambda: done() >= total or not self.last.alive()):
                break
        if self.context.shim and not (self.cuts or self.plain or self.context.options.no_cut):
            raise TooLate(f"{what}: there before the link could be cut")
        self.growing(what, done, total - 1)

    @staticmethod
    def told(proc):
        """How far a client of peers/ says that it is."""
        found = proc.last(r"^at (\d+)")
        return int(found[1]) if found else 0

    def feed(self, proc, data):
        """Write `data` into a program's stdin, with cuts in between."""
        pipe = proc.p.stdin.fileno()
        os.set_blocking(pipe, False)
        cuts_at = [len(data) * n // (CUTS + 1) for n in range(1, CUTS + 1)]
        at = 0
        while at < len(data):
            if not select.select([], [pipe], [], self.timeout_s)[1]:
                raise Deadline(f"{proc.name} has not read its stdin for {self.timeout_s:g} s, at {at} of {len(data)}")
            at += os.write(pipe, data[at:at + 65536])
            if cuts_at and at >= cuts_at[0]:
                cuts_at.pop(0)
                self.cut()
        os.set_blocking(pipe, True)

    # -- end ------------------------------------------------------------------------------------------------

    def same(self, what, got, expected, count):
        """`count`: the payload's bytes, for the table."""
        if got != expected:
            raise Wrong(f"{what}: other bytes than were sent")
        self.bytes += count
        if self.plain is None:
            for log in self.logs.values():
                if log.count(DEMOTED):
                    raise Wrong(f"{os.path.basename(log.path)} says '{DEMOTED}'")

    def same_file(self, path, data):
        self.same(f"the file {os.path.basename(path)}", file_digest(path), digest(data), len(data))

    def same_told(self, proc, count):
        """What a client of peers/ got is the payload."""
        told = proc.last(r"^hash (\w+)")
        self.same(f"what {proc.name} got", told and told[1], hashlib.sha256(payload(count)).hexdigest(), count)
