#!/usr/bin/env python3
"""Connections a second of servers that make a process for each connection, plain and under the shim.

All variants of a server are up for the whole run. A round takes a sample of each in turn, and each round begins
at the other end, so that what else the machine does hits all alike; the ratio is that of one round. Client and
server are both under the shim, or neither. With --sleeper there is a third variant, plain with a second thread in
the server that sleeps (sleeper.c): what is lost there no shim with a helper can win back. The result is JSON on
standard output: by form of server and variant, the quartiles of the rate and of its ratio to plain, and how many
sessions the server's log tells of.
"""
import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile

FORMS = ("fork", "exec")
PATIENCE_S = 120


class Failure(Exception):
    pass


def answer(process):
    if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
        raise Failure("no answer in time")
    return process.stdout.readline().strip()


class Server:
    def __init__(self, command, environment):
        # A group of its own, so that its children end with it.
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True, start_new_session=True)

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Driver:
    """Connections of one client, one after the other."""

    def __init__(self, program, port, environment):
        self.process = subprocess.Popen([program, "drive", str(port)], env={**os.environ, **environment},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def sample(self, connections):
        """Connections a second."""
        self.process.stdin.write(f"{connections}\n")
        self.process.stdin.flush()
        said = answer(self.process)
        if not said:
            raise Failure("the client ended")
        return float(said)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Pair:
    """A server and its client, and the log of both when they are under the shim."""

    def __init__(self, environment, server, client):
        self.log = environment.get("NAMESOCKET_LOG_FILE")
        self.server, self.client = server, client

    def sessions(self):
        if not self.log:
            return 0
        with open(self.log) as f:
            return sum("session established" in line for line in f)

    def end(self):
        self.client.end()
        self.server.end()


def toy(program, form, environment, for_server=None):
    server = Server([program, "serve", form], {**environment, **(for_server or {})})
    return Pair(environment, server, Driver(program, answer(server.process), environment))


def under_shim(shim, log):
    return {"LD_PRELOAD": os.path.abspath(shim), "NAMESOCKET_LOG_FILE": log, "NAMESOCKET_LOG_LEVEL": "info"}


def quartiles(values):
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def measure(pairs, rounds, connections):
    rates = {variant: [] for variant in pairs}
    try:
        for pair in pairs.values():
            pair.client.sample(connections)         # not counted: the first contact is in it
        for n in range(rounds):
            for variant in list(pairs) if n % 2 else reversed(pairs):
                rates[variant].append(pairs[variant].client.sample(connections))
    finally:
        for pair in pairs.values():
            pair.end()
    result = {variant: {"value": quartiles(values),
                        "ratio": quartiles([v / plain for v, plain in zip(values, rates["plain"])])}
              for variant, values in rates.items()}
    result["shim"].update(sessions=pairs["shim"].sessions(), connections=2 * connections * (rounds + 1))
    return result


def measure_toy(options, form, directory):
    pairs = {"plain": toy(options.processes, form, {}),
             "shim": toy(options.processes, form, under_shim(options.shim, os.path.join(directory, form)))}
    if options.sleeper:
        pairs["sleeper"] = toy(options.processes, form, {}, {"LD_PRELOAD": os.path.abspath(options.sleeper)})
    return measure(pairs, options.rounds, options.connections)


def main():
    parser = argparse.ArgumentParser(description="Servers with a process for each connection.")
    parser.add_argument("--processes", required=True)
    parser.add_argument("--shim", required=True)
    parser.add_argument("--sleeper", help="sleeper.so, for the third variant")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=300, help="in one sample")
    options = parser.parse_args()
    options.processes = os.path.abspath(options.processes)
    try:
        with tempfile.TemporaryDirectory(prefix="namesocket-processes-") as directory:
            result = {form: measure_toy(options, form, directory) for form in FORMS}
    except (Failure, OSError) as why:
        print(f"processes.py: {why}", file=sys.stderr)
        return 1
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
