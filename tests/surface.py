#!/usr/bin/env python3
"""What a program sees of its sockets under the shim is what it sees without. Each case runs several ways, over the
loopback interface of a network namespace of its own, and must say the same in all of them:

    plain      without the shim
    unasked    under it, the connection not protected
    protected  under it, the connection protected
    moved      the same, and where the case allows it the connection is destroyed and the session resumes

    surface.py --list
    surface.py -k splice -x

A case is a function of surfaces/*.py, run in a process of its own (`--case NAME`), that prints what it saw.
"""
import argparse
import concurrent.futures
import difflib
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from rig import become_root                                                   # noqa: E402
from rig.netns import die_with_parent                                         # noqa: E402
from rig.pair import DEMOTED, ESTABLISHED, PATIENT, RESUMED, shim_env         # noqa: E402
from rig.procs import Log                                                     # noqa: E402
from surfaces import CASES                                                    # noqa: E402

CASE_LIMIT_S = 60
ATTEMPTS = 3
WAYS = ("plain", "unasked", "protected", "moved")


def env_of(way, case, shim, log):
    env = dict(os.environ, SURFACE_WAY=way)
    env.pop("PYTHONUNBUFFERED", None)                         # it is about C's standard streams, too
    if way != "plain":
        env.update({**shim_env(shim, log), **PATIENT, **case.settings})
        env["NAMESOCKET_KNOWN"] = "127.0.0.1:*"
    if way == "unasked":
        env["NAMESOCKET_ASK"] = "never"
    return env


def run(case, way, o, top):
    """What the case said, one way. A machine that is too busy to answer HELLO in time gets another try."""
    for attempt in range(ATTEMPTS):
        log = os.path.join(top, f"{case.name}-{way}-{attempt}.log")
        said = run_once(case, way, o, log)
        if way not in ("protected", "moved") or not case.protects or Log(log).count(ESTABLISHED):
            break
    return said


def run_once(case, way, o, log):
    env = env_of(way, case, o.shim, log)
    preload = ["env", "LD_PRELOAD=" + env.pop("LD_PRELOAD")] if way != "plain" else []
    program = ([os.path.join(o.builddir, "tests", case.program), case.name] if case.program else
               [sys.executable, os.path.abspath(__file__), "--case", case.name])
    argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *preload, *program]
    try:
        done = subprocess.run(argv, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=CASE_LIMIT_S, preexec_fn=die_with_parent)
        said = done.stdout + (f"exit status {done.returncode}\n" if done.returncode else "")
    except subprocess.TimeoutExpired as e:
        said = (e.stdout or b"").decode() + f"did not end in {CASE_LIMIT_S} s\n"
    return said + remarks(case, way, Log(log))


def remarks(case, way, log):
    """What the shim's log must say. A case that compares plain TCP with plain TCP proves nothing."""
    if way in ("protected", "moved"):
        if not log.count(ESTABLISHED):
            return "the connection was not protected\n" if case.protects else ""
        if case.stays and log.count(DEMOTED):
            return "the session was demoted\n"
    if way == "moved" and not log.count(RESUMED):
        return "the session did not move\n"
    return ""


def ways_of(case):
    return [way for way in WAYS if not (way == "moved" and not case.moves or way == "unasked" and case.asked)]


def compare(case, o, top):
    """Lines that tell how the ways differ; none when they do not."""
    os.makedirs(top)
    said = {way: run(case, way, o, top) for way in ways_of(case)}
    if all(text == said["plain"] for text in said.values()) and "Traceback" not in said["plain"]:
        return []
    lines = ["    plain: " + said["plain"].strip().replace("\n", "\n        ")]
    for way, text in said.items():
        if text != said["plain"]:
            lines += ["    " + line for line in difflib.unified_diff(
                said["plain"].splitlines(), text.splitlines(), "plain", way, lineterm="", n=0)]
    return lines


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--builddir", default=os.path.join(os.path.dirname(here), "build"))
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--list", action="store_true")
    p.add_argument("-k", metavar="PART", action="append", help="only cases whose name contains this")
    p.add_argument("-j", type=int, default=4, help="cases at a time")
    p.add_argument("-x", action="store_true", help="end at the first failure")
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--keep-logs", metavar="DIR", help="keep the shim's logs here")
    o = p.parse_args()
    o.builddir = os.path.abspath(o.builddir)
    o.shim = os.path.join(o.builddir, "src/preload/libnsshim.so")
    return o


def main():
    o = options()
    if o.case:
        CASES[o.case].function()
        return 0
    cases = [c for c in CASES.values() if not o.k or any(part in c.name for part in o.k)]
    if o.list:
        print("\n".join(c.name for c in cases))
        return 0
    become_root()
    sys.stdout.reconfigure(line_buffering=True)
    cases *= o.repeat
    failed = passed = 0
    with tempfile.TemporaryDirectory(prefix="namesocket-surface-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(o.j) as pool:
        top = o.keep_logs or scratch
        for case, lines in zip(cases, pool.map(lambda case, n: compare(case, o, os.path.join(top, str(n))), cases,
                                               range(len(cases)))):
            print(f"{'not ok' if lines else 'ok'} {case.name}")
            failed += bool(lines)
            passed += not lines
            if lines:
                print("\n".join(lines))
                if o.x:
                    pool.shutdown(cancel_futures=True)
                    break
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
