#!/usr/bin/env python3
"""Throughput of sendfile(2), plain and under the shim.

Both variants are up for the whole run, each with one connection. A round takes a sample of each in turn, and each
round begins with the other; the ratio is that of one round. The result is JSON on standard output: by variant, the
quartiles of the rate and of its ratio to plain; and how many sessions the server's log tells of.
"""
import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile

VARIANTS = ("plain", "shim")
PATIENCE_S = 120


class Failure(Exception):
    pass


def answer(process):
    if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
        raise Failure("no answer in time")
    said = process.stdout.readline().strip()
    if not said:
        raise Failure("a process ended")
    return said


class Pair:
    def __init__(self, program, environment):
        env = {**os.environ, **environment}
        self.server = subprocess.Popen([program, "serve"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       text=True)
        self.client = subprocess.Popen([program, "drive", answer(self.server)], env=env, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)

    def sample(self):
        self.client.stdin.write("\n")
        self.client.stdin.flush()
        return float(answer(self.client))

    def end(self):
        self.client.stdin.close()
        self.client.wait()
        self.server.kill()
        self.server.wait()


def quartiles(values):
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def measure(options, log):
    pairs = {"plain": Pair(options.files, {}),
             "shim": Pair(options.files, {"LD_PRELOAD": options.shim, "NAMESOCKET_LOG_FILE": log,
                                          "NAMESOCKET_LOG_LEVEL": "info"})}
    rates = {variant: [] for variant in VARIANTS}
    try:
        for variant in VARIANTS:
            pairs[variant].sample()        # not counted: the first contact is in it
        for n in range(options.rounds):
            for variant in VARIANTS if n % 2 else reversed(VARIANTS):
                rates[variant].append(pairs[variant].sample())
    finally:
        for pair in pairs.values():
            pair.end()
    with open(log) as f:
        text = f.read()
    return {"plain": {"value": quartiles(rates["plain"])},
            "shim": {"value": quartiles(rates["shim"]),
                     "ratio": quartiles([shim / plain for shim, plain in zip(rates["shim"], rates["plain"])]),
                     "sessions": text.count("session established"), "demoted": text.count("demoted")}}


def main():
    parser = argparse.ArgumentParser(description="Throughput of sendfile.")
    parser.add_argument("--files", required=True)
    parser.add_argument("--shim", required=True)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    options.files, options.shim = os.path.abspath(options.files), os.path.abspath(options.shim)
    try:
        with tempfile.TemporaryDirectory(prefix="namesocket-files-") as directory:
            result = measure(options, os.path.join(directory, "log"))
        # Server and client write to one log.
        if result["shim"]["sessions"] != 2 or result["shim"]["demoted"]:
            raise Failure("the session was not protected")
    except (Failure, OSError) as why:
        print(f"files.py: {why}", file=sys.stderr)
        return 1
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
