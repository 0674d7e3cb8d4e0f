"""Run cases one or several at a time, one line each, and count. A case is a function of (context); it returns
when it passed, raises Skip, or raises anything else."""
import argparse
import fnmatch
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from . import hosts, netns
from .procs import Deadline, Ended

CASE_LIMIT_S = 300
SECOND_TRIES = 3
LATE = (Deadline, TimeoutError)                               # something did not come in time


class Skip(Exception):
    pass


class Context:
    """What a case gets: the options, a directory of its own, and rigs that go away with it."""

    def __init__(self, options, directory):
        self.options = options
        self.dir = directory
        self.shim = options.shim
        self.traffic = options.traffic
        self.timeout_s = options.timeout
        self.rigs = []

    def built(self, name):
        """A file of the build directory."""
        return os.path.abspath(os.path.join(self.options.builddir, name))

    def rig(self, **kw):
        sub = self.dir if not self.rigs else os.path.join(self.dir, f"rig{len(self.rigs)}")
        rig = hosts.Rig(keep=sub, **kw)
        self.rigs.append(rig)
        return rig

    def dump(self):
        """Whatever helps to see why: sockets, filters, stacks of what still runs."""
        for rig in self.rigs:
            for host in rig.hosts:
                with open(os.path.join(rig.dir, f"state-{host.name}.txt"), "w") as f:
                    for argv in (["ss", "-N", host.ns, "-tnoaie"], ["ip", "-n", host.ns, "address"],
                                 ["ip", "-n", host.ns, "-6", "route"],
                                 ["nsenter", f"--net={host.net}", "nft", "list", "ruleset"]):
                        f.write(f"$ {' '.join(argv)}\n")
                        f.write(subprocess.run(argv, capture_output=True, text=True).stdout + "\n")
            gdb = shutil.which("gdb")
            for proc in rig.procs:
                if not proc.alive() or proc.name.startswith("dnsmasq"):
                    continue
                with open(os.path.join(rig.dir, f"stacks-{proc.name}.txt"), "w") as f:
                    argv = ([gdb, "-p", str(proc.p.pid), "-batch", "-ex", "thread apply all bt"] if gdb else
                            ["sh", "-c", f"cd /proc/{proc.p.pid}/task && head -n 20 */comm */wchan */syscall */stack"])
                    try:
                        f.write(subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout)
                    except subprocess.TimeoutExpired:
                        f.write("gdb took too long\n")

    def close(self):
        for rig in self.rigs:
            rig.close()


def options(description, parser_extra=None):
    p = argparse.ArgumentParser(description=description)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    p.add_argument("--builddir", default=os.environ.get("NS_BUILDDIR", os.path.join(here, "build")))
    p.add_argument("--shim", help="libnsshim.so (default: the build directory's)")
    p.add_argument("--no-shim", action="store_true", help="plain TCP: see the cases fail")
    p.add_argument("--traffic", help="the traffic program (default: the build directory's)")
    p.add_argument("-k", metavar="PATTERN", action="append", help="only cases whose name contains or globs this")
    p.add_argument("--list", action="store_true")
    p.add_argument("-j", type=int, default=2, help="cases at a time")
    p.add_argument("--timeout", type=float, default=40, help="seconds to wait for any one thing")
    p.add_argument("--keep-logs", metavar="DIR", help="keep every case's files here (those of failed ones stay anyway)")
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("-x", action="store_true", help="end at the first failure")
    p.add_argument("--once", action="store_true", help="do not try again, alone, what was late")
    p.add_argument("--hold", action="store_true", help="after a failure keep the hosts until Enter (implies -j1 -x)")
    if parser_extra:
        parser_extra(p)
    o = p.parse_args()
    if o.hold:
        o.j, o.x = 1, True
    if o.x or o.repeat > 1:
        o.once = True
    o.shim = None if o.no_shim else os.path.abspath(o.shim or os.path.join(o.builddir, "src/preload/libnsshim.so"))
    o.traffic = os.path.abspath(o.traffic or os.path.join(o.builddir, "tests/traffic"))
    if getattr(o, "control", False):
        o.shim = None
    if o.list:
        return o
    for path in filter(None, (o.shim, o.traffic)):
        if not os.path.exists(path):
            p.error(f"{path} is not there: build first (meson setup build && ninja -C build), or see --builddir")
    return o


def chosen(cases, patterns):
    if not patterns:
        return list(cases)
    return [c for c in cases if any(fnmatch.fnmatch(c, p) or p in c for p in patterns)]


_cases = {}
_options = None
_top = None
_ended = multiprocessing.get_context("fork").Event()                  # -x, and one has failed


def _alarm(*_):
    raise TimeoutError(f"the case took longer than {CASE_LIMIT_S} s")


def _end(*_):
    # Once: a second signal must not stop the first one's clearing up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(1)


def _begin_worker():
    netns.die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _alarm)


def _run_one(numbered):
    number, name = numbered
    if _ended.is_set():
        return name, "left out", "", 0, None
    directory = os.path.join(_top, f"{number:0>3}-{name.replace('/', '-')}")
    os.makedirs(directory, exist_ok=True)
    context = Context(_options, directory)
    start = time.monotonic()
    signal.alarm(CASE_LIMIT_S)
    try:
        try:
            _cases[name](context)
            verdict, why = "passed", ""
        except Skip as e:
            verdict, why = "skipped", str(e)
        except Exception as e:                                # noqa: BLE001
            late = isinstance(e, LATE) and not isinstance(e, Ended)
            verdict, why = "late" if late else "failed", f"{type(e).__name__}: {e}"
            signal.alarm(0)
            try:
                with open(os.path.join(directory, "why.txt"), "w") as f:
                    traceback.print_exc(file=f)
                context.dump()
            except OSError as trouble:
                why += f" (and its files could not be written: {trouble})"
            if _options.hold:
                hold(context, name, why)
    finally:
        signal.alarm(0)
        context.close()
    if verdict in ("passed", "skipped") and not _options.keep_logs:
        shutil.rmtree(directory, ignore_errors=True)
    return name, verdict, why, time.monotonic() - start, directory


def hold(context, name, why):
    print(f"# {name}: {why}")
    for rig in context.rigs:
        print(f"# files: {rig.dir}")
        for host in rig.hosts:
            print(f"# {host.name}: nsenter -t {host.holder.pid if host.holder else '?'} -n -m bash   ({host.ns})")
        for proc in rig.procs:
            print(f"# {proc.name}: pid {proc.p.pid}, {proc.p.poll()}")
    input("# Enter ends it\n")


def main(cases, o):
    """Run `cases` (name -> function); returns the exit status. The last line is the count."""
    global _cases, _options, _top
    names = chosen(cases, o.k)
    if o.list:
        print("\n".join(names))
        return 0
    sys.stdout.reconfigure(line_buffering=True)
    _cases, _options = cases, o
    _top = o.keep_logs or tempfile.mkdtemp(prefix="namesocket-cases-")
    os.makedirs(_top, exist_ok=True)
    os.chmod(_top, 0o755)
    names = names * o.repeat
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    print(f"1..{len(names)}")
    start = time.monotonic()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    jobs = list(enumerate(names, 1))
    if o.j == 1:
        signal.signal(signal.SIGALRM, _alarm)
        late = report(map(_run_one, jobs), counts, o)
    else:
        # Workers that have nothing left leave by themselves. Never terminate(), which `with` and an orderly exit
        # mean: a worker that takes the signal between two cases leaves by our handler with the queue's lock
        # held, and terminate() then waits for that lock for ever. Killed, we just go: each worker is told.
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: os._exit(1))
        pool = multiprocessing.get_context("fork").Pool(o.j, _begin_worker)
        late = report(pool.imap_unordered(_run_one, jobs), counts, o)
        pool.close()
        pool.join()
        signal.signal(signal.SIGALRM, _alarm)
    again(late, counts, o)
    if not counts["failed"] and not o.keep_logs:
        shutil.rmtree(_top, ignore_errors=True)
    print(f"# {time.monotonic() - start:.0f} s")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


def say(n, name, verdict, why, seconds, directory, word):
    if verdict == "passed":
        print(f"ok {n} - {name} ({seconds:.1f} s)")
    elif verdict == "skipped":
        print(f"ok {n} - {name} # SKIP {why}")
    else:
        print(f"{word} {n} - {name} ({seconds:.1f} s)\n#   {why}\n#   files: {directory}")


def report(results, counts, o):
    """Print and count each result. Returns those to be tried again, (n, name)."""
    late = []
    for n, (name, verdict, why, seconds, directory) in enumerate(results, 1):
        if verdict == "left out":
            continue
        if verdict == "late" and len(late) < SECOND_TRIES and not o.once:
            late.append((n, name))
            say(n, name, verdict, why, seconds, directory, "# late")
            continue
        bad = verdict in ("failed", "late")
        counts["failed" if bad else verdict] += 1
        say(n, name, verdict, why, seconds, directory, "not ok")
        if bad and o.x:
            _ended.set()
    return late


def again(late, counts, o):
    """On a busy machine anything may be late, so what was late, and nothing else, is tried once more, alone. A wrong
    byte, a wrong answer or a program that died never is. A few at most: more are no accident."""
    for n, name in late:
        name, verdict, why, seconds, directory = _run_one((f"{n:03d}-again", name))
        bad = verdict in ("failed", "late")
        counts["failed" if bad else verdict] += 1
        say(n, name, verdict, why, seconds, directory, "not ok")
    if late:
        print(f"# {len(late)} late at first, tried again alone: {', '.join(name for _, name in late)}")
