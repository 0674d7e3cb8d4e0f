#!/usr/bin/env python3
"""CPython's own test suite, as Debian packs it, in three ways: plain, under the shim with every connection plain
(NAMESOCKET_ASK=never), and under the shim with those on the loopback interface protected. What passes in the first
way has to pass in the others. Each run has a network namespace of its own.

Some of these tests measure time, and several runs share the machine. So a test that has failed is run once more in
that way, alone, as CPython's own regrtest --rerun does; which those were is printed.

Of test_asyncio, the modules that open sockets or start programs run; futures, locks, queues, tasks and their like
run on an event loop alone, and the rest is for Windows.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from rig import become_root, page                                             # noqa: E402
from rig.netns import die_with_parent                                         # noqa: E402
from rig.pair import ESTABLISHED, shim_env                                    # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3.11"                                # the one that Debian's suite is for
SUITE = "/usr/lib/python3.11/test"
# Beginnings of the names of tests that run in no way, and why.
LEFT_OUT = {
    "test.test_socket.ThreadedVSOCK": "AF_VSOCK has no network namespace: it would talk to the machine's hypervisor",
}
WAYS = ("plain", "off", "on")
MODULE_LIMIT_S = 300
SECOND_TRIES = 3                                              # of one module in one way; more are no accident
RUNS_MAX = 6                                                  # a run that dies is taken up again behind that test

# The longest first. True: it makes TCP connections to itself, which are protected in the third way.
MODULES = {
    "test_ssl": True, "test_signal": False, "test_subprocess": False, "test_socket": True, "test_imaplib": True,
    "test_xmlrpc": True, "test_logging": True, "test_selectors": False, "test_asyncio.test_ssl": True,
    "test_asyncio.test_subprocess": False, "test_asyncio.test_events": True, "test_ftplib": True, "test_poll": False,
    "test_eintr": False, "test_poplib": True, "test_asyncio.test_sslproto": True,
    "test_asyncio.test_sock_lowlevel": True, "test_threadsignals": False, "test_fork1": False, "test_wait3": False,
    "test_wait4": False, "test_asyncio.test_sendfile": True, "test_asyncio.test_streams": True,
    "test_asyncio.test_base_events": True, "test_asyncio.test_server": True,
    "test_asyncio.test_buffered_proto": True, "test_asyncio.test_selector_events": False,
    "test_asyncio.test_unix_events": False, "test_docxmlrpc": True, "test_asynchat": True, "test_asyncore": True,
    "test_urllib2_localnet": True, "test_httplib": True, "test_httpservers": True, "test_smtplib": True,
    "test_select": False, "test_socketserver": True, "test_os": False, "test_posix": False, "test_epoll": True,
    "test_file": False, "test_fileio": False, "test_fcntl": False, "test_pty": False, "test_nntplib": False,
    "test_telnetlib": False, "test_smtpd": False,
}


def environment(way, shim, log):
    """`log` is None for tests that look at what descriptors there are: a log file is one more."""
    env = dict(os.environ)
    if way == "off":
        env.update(LD_PRELOAD=shim, NAMESOCKET_ASK="never")
    if way == "on":
        # The tests listen on ephemeral ports, which are not asked unless they are known. A client that resets its
        # connection on purpose is waited for as one that has lost it (docs/limits.md): keep that short.
        env.update(shim_env(shim, log) if log else {"LD_PRELOAD": shim},
                   NAMESOCKET_KNOWN="127.0.0.1:*,[::1]:*", NAMESOCKET_PARK="500ms")
    return env


class Run:
    """One module in one way. `outcomes`: test -> (outcome, text)."""

    def __init__(self, way, module, options, top, only=()):
        self.way, self.module, self.only = way, module, only
        self.outcomes = {}
        self.sessions = 0
        directory = os.path.join(top, way + "-again" if only else way, module)
        os.makedirs(directory)
        self.results = os.path.join(directory, "results")
        log = os.path.join(directory, "log")
        began = time.monotonic()
        for n in range(RUNS_MAX):
            with open(os.path.join(directory, f"out.{n}"), "wb") as out:
                self.start(environment(way, options.shim, log if MODULES[module] else None), directory, out)
            if self.read():
                break
        else:
            self.outcomes["(the run)"] = ("failed", f"did not come to its end in {RUNS_MAX} runs")
        self.seconds = time.monotonic() - began
        with contextlib.suppress(FileNotFoundError), open(log, errors="replace") as f:
            self.sessions = sum(ESTABLISHED in line for line in f)
        if way == "on" and MODULES[module] and not self.sessions and not only:
            self.outcomes["(sessions)"] = ("failed", "no connection was protected")

    def start(self, env, directory, out):
        argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", PYTHON, "-B",
                os.path.join(HERE, "suites_run.py"), self.results, "test." + self.module, *LEFT_OUT,
                *(["--only", *self.only] if self.only else [])]
        shim = {name: env.pop(name) for name in ("LD_PRELOAD",) if name in env}
        argv[6:6] = ["env", *(f"{name}={value}" for name, value in shim.items())]
        proc = subprocess.Popen(argv, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                preexec_fn=die_with_parent)
        try:
            proc.wait(MODULE_LIMIT_S)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()

    def read(self):
        """Take in what the run has said. False if it ended in the middle."""
        ended = False
        with contextlib.suppress(FileNotFoundError), open(self.results) as f:
            for line in f:
                name, outcome, text = json.loads(line)
                ended = outcome == "end"
                if outcome == "begin":
                    self.outcomes[name] = ("failed", "the process hung or died in it")
                elif not ended:
                    self.outcomes[name] = (outcome, text)
        return ended


def failures(runs, way, module):
    """The tests that failed in this way and not without the shim."""
    plain = runs["plain", module].outcomes
    return [name for name, (outcome, _) in runs[way, module].outcomes.items() if outcome == "failed" and
            plain.get(name, ("",))[0] == "passed"]


def run_again(runs, module, o, top):
    """Run what failed under the shim and not without it once more; says which."""
    tried = []
    for way in WAYS[1:]:
        run, names = runs[way, module], failures(runs, way, module)
        if not 0 < len(names) <= SECOND_TRIES:
            continue
        second = Run(way, module, o, top, names).outcomes
        for name in names:
            tried.append(f"{way}: {name}: {run.outcomes[name][1].strip().splitlines()[-1:]}")
            run.outcomes[name] = second.get(name, run.outcomes[name])
    return tried


def compare(runs, module):
    """The counts and complaints about a module's shimmed runs."""
    plain = runs["plain", module].outcomes
    passed = skipped = 0
    wrong = []
    for way in WAYS[1:]:
        seen = runs[way, module].outcomes
        for name in sorted(plain.keys() | seen.keys()):
            before, after = plain.get(name, ("passed", ""))[0], seen.get(name, ("missing", ""))
            if before != "passed":
                skipped += 1                                  # says nothing about the shim
            elif after[0] == "passed":
                passed += 1
            else:
                wrong.append((way, name, *after))
    return passed, skipped, wrong


SECTION = """Written by `tests/suites.py --table docs/compatibility.md`. Each row is a module of CPython's own tests (Debian's
libpython3.11-testsuite {version}), run three ways: without the shim, under it with every connection
plain, and under it with those on the loopback interface protected. What has failed under the shim alone is run a
second time, alone; what fails without it, too, is in all three columns. An exception is a test that passes without
the shim and not under it, or one that runs in no way.

{counts}

{table}"""
HEAD = ("module", "tests run", "skipped", "failed without the shim", "failed plain", "failed protected", "sessions",
        "exceptions")


def row(runs, module):
    """A line of the table."""
    if ("on", module) not in runs:
        return [module, "not run", *[""] * (len(HEAD) - 2)]
    count = {way: collections.Counter(outcome for outcome, _ in runs[way, module].outcomes.values()) for way in WAYS}
    plain = count["plain"]
    exceptions = [f"`{name}` is left out: {why}" for name, why in LEFT_OUT.items()
                  if name.startswith(f"test.{module}.")]
    exceptions += [f"`{name}` is {outcome} ({way})" for way, name, outcome, _ in compare(runs, module)[2]]
    return [module, str(plain["passed"] + plain["failed"]), str(plain["skipped"]),
            *(str(count[way]["failed"]) for way in WAYS), str(runs["on", module].sessions), "; ".join(exceptions)]


def write_table(path, runs, counts):
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libpython3.11-testsuite"], text=True,
                             capture_output=True).stdout
    table = page.table(HEAD, [row(runs, module) for module in sorted(MODULES)])
    page.write(path, page.SUITES, SECTION.format(version=version, counts=counts, table=table))


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--builddir", default=os.path.join(os.path.dirname(HERE), "build"))
    p.add_argument("--list", action="store_true")
    p.add_argument("-k", metavar="PART", action="append", help="only modules whose name contains this")
    p.add_argument("-j", type=int, default=4, help="runs at a time")
    p.add_argument("--keep-logs", metavar="DIR")
    p.add_argument("--table", metavar="FILE", help="write the table of this, a section of docs/compatibility.md, there")
    o = p.parse_args()
    o.shim = os.path.abspath(os.path.join(o.builddir, "src/preload/libnsshim.so"))
    o.modules = [m for m in MODULES if not o.k or any(part in m for part in o.k)]
    return o


def report(runs, module, tried):
    """Print what came of a module. Returns how many tests passed, failed and were skipped."""
    passed, skipped, wrong = compare(runs, module)
    times = ", ".join(f"{w} {runs[w, module].seconds:.0f} s" for w in WAYS)
    print(f"{'not ok' if wrong else 'ok'} {module}: {passed} the same, {skipped} not passed without the shim, "
          f"{runs['on', module].sessions} sessions ({times})", flush=True)
    for line in tried:
        print(f"    tried again: {line}")
    for way, name, outcome, text in wrong:
        print(f"    {way}: {name}: {outcome}: " + text.strip().replace("\n", "\n        "))
    return passed, len(wrong), skipped


def main():
    o = options()
    if o.list:
        print("\n".join(o.modules))
        return 0
    if not os.path.isdir(SUITE) or not os.path.exists(PYTHON):
        print(f"no {SUITE} (libpython3.11-testsuite): skipped\n0 passed, 0 failed, {len(o.modules)} skipped")
        return 0
    become_root()
    runs, totals, again = {}, [0, 0, 0], 0
    with contextlib.ExitStack() as stack:
        top = o.keep_logs or stack.enter_context(tempfile.TemporaryDirectory(prefix="namesocket-suites-"))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(o.j))
        futures = {(w, m): pool.submit(Run, w, m, o, top) for m in o.modules for w in WAYS}
        for module in o.modules:
            runs.update({(w, module): futures[w, module].result() for w in WAYS})
            if any(failures(runs, way, module) for way in WAYS[1:]):
                concurrent.futures.wait(futures.values())
            tried = run_again(runs, module, o, top)
            again += len(tried)
            totals = [a + b for a, b in zip(totals, report(runs, module, tried))]
    counts = "{} passed, {} failed, {} skipped".format(*totals)
    sessions = sum(run.sessions for run in runs.values())
    if o.table:
        write_table(o.table, runs, f"Under the shim, both ways together: {counts}; {again} ran a second time. "
                                   f"{sessions} sessions were protected.")
    print(f"{sessions} sessions were protected")
    print(counts)
    return totals[1] > 0


if __name__ == "__main__":
    sys.exit(main())
