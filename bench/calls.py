#!/usr/bin/env python3
"""Instructions that a call costs beyond libc's own, in a process that has no session, counted by callgrind.

Each call of bench/calls runs FEW and MANY times, with the shim and without; what differs belongs to one call. The
result is JSON on standard output.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

FEW, MANY = 1000, 3000


def instructions(options, directory, environment, name, times):
    path = os.path.join(directory, "callgrind")
    subprocess.run(["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={path}", options.calls, name, str(times)],
                   env={**os.environ, **environment}, check=True)
    with open(path) as f:
        return int(re.findall(r"^(?:summary|totals): (\d+)", f.read(), re.MULTILINE)[-1])


def main():
    parser = argparse.ArgumentParser(description="Instructions per call in a process without a session.")
    parser.add_argument("--calls", required=True)
    parser.add_argument("--shim", required=True)
    options = parser.parse_args()
    names = subprocess.run([options.calls, "--list"], capture_output=True, text=True, check=True).stdout.split("\n")
    variants = {"plain": {}, "shim": {"LD_PRELOAD": os.path.abspath(options.shim)}}
    result = {}
    with tempfile.TemporaryDirectory(prefix="namesocket-calls-") as directory:
        for name in filter(None, names):
            result[name] = {}
            for variant, environment in variants.items():
                few, many = (instructions(options, directory, environment, name, n) for n in (FEW, MANY))
                result[name][variant] = round((many - few) / (MANY - FEW), 1)
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
