#!/usr/bin/env python3
"""Writes docs/performance-kernel.md from what kernel/bench.sh has measured: lines of words on standard input."""
import datetime
import statistics
import sys

STATES = {"unpatched": "Unpatched", "off": "Key off", "unused": "Key on, not used", "negotiated": "Negotiated"}
WHAT = {"bulk": "Throughput - 1 MiB", "rr": "Latency - 32 B", "connection": "Connection"}
FAULTS = {"local-link-down": "local link set down", "peer-link-down": "peer's link set down",
          "black-hole": "silent black hole, both ways", "address-removed": "local address removed"}
GOALS = {"local-link-down": 5, "peer-link-down": 250, "black-hole": 250}
SIZES = {"TCPv6": "connection", "request_sock_TCPv6": "connection request", "tw_sock_TCPv6": "TIME_WAIT",
         "TCP": "connection over IPv4"}


def table(head, rows):
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def read(lines):
    got = {"cost": {}, "state": {}, "size": {}, "gap": {}}
    for line in lines:
        kind, _, rest = line.rstrip("\n").partition(" ")
        words = rest.split()
        if kind in ("version", "compiler"):
            got[kind] = rest
        elif kind == "gap":
            got["gap"].setdefault(words[0], []).append(dict(w.split("=", 1) for w in words[1:]))
        elif kind in got:
            got[kind][tuple(words[:-1])] = int(words[-1])
    return got


def gap_text(trials):
    survived = [float(t["gap"]) for t in trials if t.get("done") == "1"]
    text = f"{len(trials) - len(survived)} of {len(trials)} not survived; " if len(survived) < len(trials) else ""
    if not survived:
        return text, False, 0
    return f"{text}{statistics.median(survived):.1f} ms (longest {max(survived):.1f}; {len(trials)} trials)", \
        len(survived) == len(trials), max(survived)


def goals(got):
    cost = lambda state, what: got["cost"][(state, what)]
    base = cost("unpatched", "rr")
    for state, most in (("off", 10), ("unused", 30)):
        more = cost(state, "rr") - base
        yield f"instructions for a request and response, {STATES[state].lower()}", f"≤ +{most}", f"{more:+d}", more <= most
    more = 100 * (cost("negotiated", "rr") / base - 1)
    yield "the same, negotiated", "≤ +1 %", f"{more:+.2f} %", more <= 1
    ratio = cost("off", "bulk") / cost("negotiated", "bulk")
    yield "throughput, negotiated", "≥ 0.995 of the same kernel with it off", f"{ratio:.4f}", ratio >= 0.995
    ratio = cost("off", "connection") / cost("negotiated", "connection")
    yield "connect and close, one alternative prefix", "≥ 0.85 of the same kernel with it off", f"{ratio:.3f}", ratio >= 0.85
    for fault, most in GOALS.items():
        text, all_survived, longest = gap_text(got["gap"][fault])
        yield f"longest gap: {FAULTS[fault]}", f"≤ {most} ms", text, all_survived and longest <= most
    more = got["size"][("patched", "TCPv6")] - got["size"][("plain", "TCPv6")]
    yield "memory of a connection without the feature", "one pointer (8 bytes)", f"{more:+d} bytes", more <= 8


def main():
    got = read(sys.stdin)
    for state in STATES:
        if got["state"][(state,)] != (2 if state == "negotiated" else -1):
            sys.exit(f"report.py: {state} was in another state")
    rows = list(goals(got))
    print(f"""# Performance of the kernel half

Written by `kernel/bench.sh`; do not edit. Measured on {datetime.date.today()}: {got["version"].replace("_", " ")},
{got["compiler"]}; x86-64, one processor, QEMU's count of instructions.

## Against the goals
""")
    print(table(["what", "goal", "measured", "met"],
                [[what, goal, text, "yes" if met else "**no**"] for what, goal, text, met in rows]))
    short = [what for what, _, _, met in rows if not met]
    print(f"Falls short: {'; '.join(short)}.\n" if short else "All goals are met.\n")
    print("## Throughput, latency, connections\n\nThe layout is that of the thesis's table 7.1; instructions instead of "
          "times, so less is better, and a ratio is\nwhat the unpatched kernel needs divided by what this one needs.\n")
    head = ["Benchmark", STATES["unpatched"]]
    for state in list(STATES)[1:]:
        head += [STATES[state], "Ratio"]
    lines = []
    for what, name in WHAT.items():
        base = got["cost"][("unpatched", what)]
        line = [name, str(base)]
        for state in list(STATES)[1:]:
            count = got["cost"][(state, what)]
            line += [str(count), f"{base / count:.4f}"]
        lines.append(line)
    print(table(head, lines))
    print("""How: two network namespaces with two veth links, so one alternative prefix at each end. Client and server are one
process, which counts with the time stamp counter: one instruction is one tick there, so the numbers repeat, but for
ten or twenty instructions that one boot may differ from another by. Both ends' kernel work and the process's own instructions are in them. Each is the median of 2001 exchanges, 65 MiB, 501
connections. *Key on, not used*: some other network namespace has the feature on.

## When the path breaks
""")
    lines = []
    for fault, name in FAULTS.items():
        trials = got["gap"].get(fault, [])
        gaps = sorted(float(t["gap"]) for t in trials if t.get("done") == "1")
        q = statistics.quantiles(gaps, n=4) if len(gaps) > 1 else gaps * 3
        lines.append([name, str(len(trials)), str(len(trials) - len(gaps)),
                      f"{q[1]:.1f} ({q[0]:.1f} to {q[2]:.1f}; {gaps[-1]:.1f})" if gaps else ""])
    print(table(["fault", "trials", "not survived", "longest gap"], lines))
    print("""Milliseconds; median (first to third quartile; longest). One exchange of 64 bytes each 20 ms; the gap is the longest
time that one took. Default settings. Time is the guest's, a nanosecond for an instruction; the links take none.

## Memory
""")
    print(table(["kept for each", "unpatched", "patched"],
                [[name, str(got["size"][("plain", slab)]), str(got["size"][("patched", slab)])]
                 for slab, name in SIZES.items()]))
    print("Bytes, from the guest's /sys/kernel/slab/*/object_size.")


main()
