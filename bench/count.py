#!/usr/bin/env python3
"""System calls and instructions per operation, counted.

Runs tcpbench's two processes by themselves with a fixed number of operations,
once with FEW and once with MANY, under strace and under valgrind's callgrind.
What differs between the two runs belongs to the operations; what a process does
once drops out. An operation is one byte there and back (latency), one send of
8192 bytes (throughput) or one connection opened and closed (connection).

tcpbench's workers have one thread. What other threads call, that is the shim's or
the library's helper, is counted apart: it looks at the sessions from time to time,
however many operations there are in between.

The result is JSON on standard output.
"""
import argparse
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile

FEW, MANY = 500, 2500
ORDERS = {"latency": "latency 1 {}", "throughput": "throughput 8192 1 {}", "connection": "connection {}"}
# Fewer calls than this per operation is the noise of waiting (EINTR, timers).
LEAST = 0.002


class Failure(Exception):
    pass


def worker_environment(options, variant):
    env = {}
    if variant in ("shim", "unprotected"):
        env["LD_PRELOAD"] = options.shim
    if variant == "unprotected":
        env["NAMESOCKET_ASK"] = "never"
    return env


def start(options, variant, role, port, tool=(), tool_takes_env=False):
    """A worker of tcpbench, perhaps under a tool. `tool_takes_env`: the tool itself is to run without the shim."""
    setting = [f"{k}={v}" for k, v in worker_environment(options, variant).items()]
    command = [options.tcpbench, role, variant, "--port", str(port)]
    if tool_takes_env:
        command = [*tool, *(word for s in setting for word in ("-E", s)), *command]
    else:
        command = ["env", *setting, *tool, *command]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process, timeout_s=300):
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        raise Failure("no answer in time")
    return process.stdout.readline().strip()


def started_server(options, variant, tool=(), tool_takes_env=False):
    server = start(options, variant, "--serve", options.port, tool, tool_takes_env)
    words = answer(server).split()
    if len(words) != 2 or words[0] != "ready":
        server.kill()
        raise Failure(f"{variant} server did not start")
    return server, int(words[1])


def obey(client, order):
    client.stdin.write(order + "\n")
    client.stdin.close()
    said = answer(client)
    client.wait(60)
    if not said.startswith("ok"):
        raise Failure(f"{order}: {said or 'client ended'}")


def end_tracee(tracer):
    """Ends what strace runs; strace then writes its summary and ends itself."""
    with open(f"/proc/{tracer.pid}/task/{tracer.pid}/children") as f:
        for pid in f.read().split():
            os.kill(int(pid), signal.SIGKILL)
    tracer.wait(30)


def calls_in(path):
    """strace -f: a line for each call, beginning with the thread; the program's own is the first. Returns two
    dictionaries: calls of that thread, and of all others."""
    own, others, first = {}, {}, None
    with open(path) as f:
        for line in f:
            m = re.match(r"(\d+) +(\w+)\(", line)
            if m:
                first = first or m[1]
                calls = own if m[1] == first else others
                calls[m[2]] = calls.get(m[2], 0) + 1
    return own, others


def strace_once(options, directory, variant, order):
    """System calls of client and server, each as calls_in gives them."""
    paths = [os.path.join(directory, role) for role in ("client", "server")]
    tools = [["strace", "-f", "-qq", "-e", "signal=none", "-s", "0", "-o", path] for path in paths]
    server, port = started_server(options, variant, tools[1], True)
    try:
        obey(start(options, variant, "--drive", port, tools[0], True), order)
    finally:
        end_tracee(server)
    return [calls_in(path) for path in paths]


def per_operation(few, many):
    names = set(few) | set(many)
    rates = {name: (many.get(name, 0) - few.get(name, 0)) / (MANY - FEW) for name in names}
    return {name: round(rate, 3) for name, rate in sorted(rates.items()) if abs(rate) >= LEAST}


def system_calls(options, directory, variant, benchmark):
    few, many = (strace_once(options, directory, variant, ORDERS[benchmark].format(n)) for n in (FEW, MANY))
    result = {}
    for end, (fewer, more) in zip(("client", "server"), zip(few, many)):
        # How many receives a stream takes depends on how it arrives, not on us.
        if end == "server" and benchmark == "throughput":
            continue
        result[end] = per_operation(fewer[0], more[0])
        helper = per_operation(fewer[1], more[1])
        if helper:
            result[end + "'s helper"] = helper
    return result


def instructions_once(options, directory, variant, order):
    path = os.path.join(directory, "callgrind")
    tool = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={path}"]
    server, port = started_server(options, variant)
    try:
        obey(start(options, variant, "--drive", port, tool), order)
    finally:
        server.kill()
        server.wait()
    with open(path) as f:
        totals = re.findall(r"^(?:summary|totals): (\d+)", f.read(), re.MULTILINE)
    if not totals:
        raise Failure("callgrind wrote no total")
    return int(totals[-1])


def instructions(options, directory, variant, benchmark):
    few, many = (instructions_once(options, directory, variant, ORDERS[benchmark].format(n)) for n in (FEW, MANY))
    return round((many - few) / (MANY - FEW), 1)


def count(options, directory):
    result = {"system_calls": {}, "client_instructions": {}}
    for benchmark in ORDERS:
        if shutil.which("strace"):
            result["system_calls"][benchmark] = {v: system_calls(options, directory, v, benchmark)
                                                 for v in options.variants}
        if shutil.which("valgrind"):
            result["client_instructions"][benchmark] = {v: instructions(options, directory, v, benchmark)
                                                        for v in options.variants}
    return result


def main():
    parser = argparse.ArgumentParser(description="System calls and instructions per operation.")
    parser.add_argument("--tcpbench", required=True)
    parser.add_argument("--shim", help="libnsshim.so, for the variants shim and unprotected")
    parser.add_argument("--variants", default="plain,shim,unprotected")
    parser.add_argument("--port", type=int, default=21000)
    options = parser.parse_args()
    options.variants = options.variants.split(",")
    if not options.shim and {"shim", "unprotected"} & set(options.variants):
        parser.error("shim and unprotected need --shim")
    for name in ("tcpbench", "shim"):
        path = getattr(options, name)
        if path:
            setattr(options, name, os.path.abspath(path))
    try:
        with tempfile.TemporaryDirectory(prefix="namesocket-count-") as directory:
            result = count(options, directory)
    except (Failure, OSError, subprocess.SubprocessError) as why:
        print(f"count.py: {why}", file=sys.stderr)
        return 1
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
