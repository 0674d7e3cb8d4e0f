#!/usr/bin/env python3
"""Writes docs/performance.md from what tools/bench.sh has measured.

Arguments: the directory with the JSON files of tcpbench, count.py, gap.py, calls.py, processes.py and servers.py,
and with `commands` (one a line) and `machine` (one line). A file that is missing
gives "not measured". The text goes to standard output.
"""
import json
import os
import re
import sys

NAMES = {"plain": "Normal", "shim": "Namesocket shim", "library": "Library", "mptcp": "MPTCP",
         "unprotected": "Unprotected"}
BENCHMARKS = {"throughput-512": "Throughput - 512 B", "throughput-2048": "Throughput - 2048 B",
              "throughput-8192": "Throughput - 8192 B", "throughput-65536": "Throughput - 65536 B",
              "latency": "Latency", "connection": "Connection"}
SIGNALLED = {"link-down-client": "link set down at the client", "link-down-server": "link set down at the server",
             "address-removed": "address removed", "reset": "RST"}
SILENT = {"hole-both": "silent black hole, both ways", "hole-to-server": "silent black hole, to the server",
          "hole-to-client": "silent black hole, to the client"}
IDLE_GOAL_BYTES = 2048
# A call of the shim's, a look into the table, and on to libc's; for those that wait, with one descriptor.
LOOK_UP_INSTRUCTIONS = 50
FORMS = {"fork": "a process for each connection", "exec": "a program for each connection",
         "socat": "socat, a program for each connection", "git": "git daemon, `git ls-remote`",
         "ssh": "OpenSSH, login and a command"}


def load(directory, name):
    try:
        with open(os.path.join(directory, name)) as f:
            return json.load(f)
    except (FileNotFoundError, ValueError):
        return None


def text(directory, name):
    try:
        with open(os.path.join(directory, name)) as f:
            return f.read().rstrip("\n")
    except FileNotFoundError:
        return ""


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def variant(bench, benchmark, name):
    entry = (bench or {}).get("benchmarks", {}).get(benchmark)
    return entry["variants"].get(name) if entry else None


# -- against the goals: rows of what, goal, measured, met (None: not measured) ----------------------------


def ratio_row(bench, benchmark, name, what, least):
    found = variant(bench, benchmark, name)
    goal = f"≥ {least:.2f} of plain"
    if not found:
        return what, goal, None, None
    r = found["ratio"]
    return what, goal, f"{r['median']:.3f} ({r['q1']:.3f} to {r['q3']:.3f})", r["median"] >= least


def call_row(counts):
    what, goal = "latency: system calls added to the application's own", "none"
    calls = (counts or {}).get("system_calls", {}).get("latency", {})
    if not {"plain", "shim"} <= set(calls):
        return what, goal, None, None
    added = {f"{end} {call}": calls["shim"][end].get(call, 0) - calls["plain"][end].get(call, 0)
             for end in ("client", "server") for call in {**calls["plain"][end], **calls["shim"][end]}}
    # A thousandth of a call per operation is rounding.
    added = {call: n for call, n in added.items() if n > 0.0015}
    measured = ", ".join(f"{call} {n:+.3f}" for call, n in sorted(added.items()))
    return what, goal, measured or "none", not added


def look_note(counts):
    """What the row above leaves out, in words."""
    calls = (counts or {}).get("system_calls", {}).get("latency", {}).get("shim", {})
    looks = [f"{', '.join(f'{call} {n:g}' for call, n in calls[end].items())} at the {end}"
             for end in ("client's helper", "server's helper") if calls.get(end)]
    if not looks:
        return ""
    return ("\nBeside the application's calls there are those of the helper thread, which looks at a session with "
            "traffic every\n10 ms however many operations that is: " + "; ".join(looks) +
            " for each round trip (under strace, which makes\nround trips long).\n")


def gap_row(gap, fault, what, base_ms, key="beyond_ms"):
    found = ((gap or {}).get("faults", {}).get(fault) or {}).get("shim")
    goal = {"beyond_ms": f"≤ {base_ms} ms + 2 RTT", "after_back_ms": f"≤ {base_ms} ms after the first is back"}[key]
    lost = failures(gap, fault, "shim") if gap else 0
    if not found:
        return what, goal, f"none of {lost} trials survived" if lost else None, False if lost else None
    rtt = found["rtt_ms"]["median"]
    limit = base_ms + (2 * rtt if key == "beyond_ms" else 0)
    value = found[key]
    measured = (f"{value['median']:.1f} ms ({value['q1']:.1f} to {value['q3']:.1f}; longest {value['max']:.1f}; "
                f"{found['trials']} trials" + (f", {lost} not survived" if lost else "") + ")")
    return what, goal, measured, value["median"] <= limit and not lost


def failures(gap, fault, name):
    return sum(1 for f in gap["failures"] if f["variant"] == name and (fault is None or f["fault"] == fault))


def memory_row(memory):
    what, goal = "idle protected session", f"≤ {IDLE_GOAL_BYTES} B beyond the kernel's socket, each end"
    found = (memory or {}).get("bytes_per_connection", {})
    if "shim" not in found:
        return what, goal, None, None
    beyond = {end: found["shim"][end] - found["plain"][end] for end in ("client", "server")}
    return (what, goal, f"{beyond['client']:.0f} B at the client, {beyond['server']:.0f} B at the server",
            max(beyond.values()) <= IDLE_GOAL_BYTES)


def loss_row(gap):
    what, goal = "bytes lost, doubled, reordered", "none"
    lost = failures(gap, None, "shim") if gap else 0
    trials = lost + sum(v["shim"]["trials"] for v in (gap or {}).get("faults", {}).values() if "shim" in v)
    if not trials:
        return what, goal, None, None
    return what, goal, f"{lost} of {trials} trials failed" if lost else f"none in {trials} trials", not lost


def calls_row(calls):
    what, goal = "no session in the process: instructions added to a call", f"≤ {LOOK_UP_INSTRUCTIONS}: one look-up"
    if not calls:
        return what, goal, None, None
    added = {name: n["shim"] - n["plain"] for name, n in calls.items()}
    over = ", ".join(f"{name} {n:.0f}" for name, n in added.items() if n > LOOK_UP_INSTRUCTIONS)
    return what, goal, f"{min(added.values()):.0f} to {max(added.values()):.0f}" + (f"; over: {over}" if over else ""), not over


def file_row(files):
    what, goal = "sendfile: throughput", "≥ 0.90 of plain"
    if not files:
        return what, goal, None, None
    r = files["shim"]["ratio"]
    return what, goal, f"{r['median']:.3f} ({r['q1']:.3f} to {r['q3']:.3f})", r["median"] >= 0.90


def process_row(processes, form):
    what, goal = f"{FORMS[form]}: connections", "≥ 0.85 of plain"
    if form not in processes:
        return what, goal, None, None
    r = processes[form]["shim"]["ratio"]
    return what, goal, f"{r['median']:.3f} ({r['q1']:.3f} to {r['q3']:.3f})", r["median"] >= 0.85


def goal_rows(bench, memory, counts, gap, calls, processes, files):
    rows = [ratio_row(bench, f"throughput-{n}", "shim", f"throughput, {n} B", 0.95) for n in (512, 2048, 8192, 65536)]
    rows += [ratio_row(bench, "latency", "shim", "latency, 1 byte", 0.98), call_row(counts),
             ratio_row(bench, "connection", "shim", "connect and close", 0.90)]
    rows += [ratio_row(bench, b, "unprotected", f"unprotected descriptors: {title}", 0.99)
             for b, title in BENCHMARKS.items()]
    rows += [gap_row(gap, fault, f"longest gap: {what}", 10) for fault, what in SIGNALLED.items()]
    rows += [gap_row(gap, fault, f"longest gap: {what}", 200) for fault, what in SILENT.items()]
    rows += [gap_row(gap, "both-gone", "longest gap: both links gone for 2 s", 200, "after_back_ms"),
             file_row(files), memory_row(memory), loss_row(gap), calls_row(calls), *(process_row(processes, form) for form in FORMS)]
    return rows


def goals(*measured):
    met = {None: "", True: "yes", False: "**no**"}
    rows = goal_rows(*measured)
    short = [row[0] for row in rows if row[3] is False]
    lines = table(["what", "goal", "measured", "met"],
                  [[what, goal, value or "not measured", met[good]] for what, goal, value, good in rows])
    if short:
        lines += "\nFalls short: " + "; ".join(short) + ".\n"
    return lines + look_note(measured[2])


# -- the measurements themselves ---------------------------------------------------------------------------


def number(unit, value):
    return f"{value / 1e6:.1f} 10⁶ B/s" if unit == "B/s" else f"{value:.0f} ops/s"


def table_7_1(bench):
    if not bench:
        return "Not measured.\n"
    present = [v for v in NAMES if any(v in e["variants"] for e in bench["benchmarks"].values())]
    head, medians, quartiles = ["Benchmark"], [], []
    for v in present:
        head += [NAMES[v]] + (["Ratio"] if v != "plain" else [])
    for benchmark, title in BENCHMARKS.items():
        entry = bench["benchmarks"].get(benchmark)
        if not entry:
            continue
        middle, spread = [title], [title]
        for v in present:
            value, ratio = entry["variants"][v]["value"], entry["variants"][v]["ratio"]
            middle.append(number(entry["unit"], value["median"]))
            spread.append(f"{number(entry['unit'], value['q1']).split()[0]} to {number(entry['unit'], value['q3'])}")
            if v != "plain":
                middle.append(f"{ratio['median']:.3f}")
                spread.append(f"{ratio['q1']:.2f} to {ratio['q3']:.2f}")
        medians.append(middle)
        quartiles.append(spread)
    return (f"Medians of {bench['rounds']} rounds:\n\n" + table(head, medians) +
            "\nThe middle half of the samples (first to third quartile):\n\n" + table(head, quartiles))


def counted(counts):
    if not counts:
        return "Not measured.\n"
    parts = []
    rows = []
    for benchmark, by_variant in counts["system_calls"].items():
        for name, ends in by_variant.items():
            for end, calls in ends.items():
                rows.append([benchmark, NAMES[name], end, ", ".join(f"{c} {n:g}" for c, n in calls.items()) or "none"])
    if rows:
        parts.append("System calls per operation; those of the helper thread, which come by time, apart:\n\n" +
                     table(["operation", "variant", "end", "calls"], rows))
    rows = []
    for benchmark, by_variant in counts["client_instructions"].items():
        plain = by_variant.get("plain", 0)
        rows += [[benchmark, NAMES[name], f"{n:.1f}", f"{n - plain:+.1f}"] for name, n in by_variant.items()]
    if rows:
        parts.append("Instructions per operation that the client process spends outside the kernel:\n\n" +
                     table(["operation", "variant", "instructions", "beyond plain"], rows))
    return "\n".join(parts)


def gaps(gap):
    if not gap:
        return "Not measured.\n"
    rows = []
    for fault, what in {**SIGNALLED, **SILENT, "both-gone": "both links gone for 2 s"}.items():
        for name, s in gap["faults"].get(fault, {}).items():
            rows.append([what, NAMES[name], str(s["trials"]), str(failures(gap, fault, name)),
                         *(f"{s[key]['median']:.1f} ({s[key]['q1']:.1f} to {s[key]['q3']:.1f}; {s[key]['max']:.1f})"
                           for key in ("gap_ms", "beyond_ms", "late_ms")),
                         f"{s['after_back_ms']['median']:.1f}" if "after_back_ms" in s else "",
                         f"{s['rtt_ms']['median']:.2f}"])
    return table(["fault", "variant", "trials", "not survived", "longest gap", "beyond the interval", "record late",
                  "after the first link is back", "RTT"], rows) + \
        "\nMilliseconds; median (first to third quartile; longest). Not survived: not every record was back\n" \
        "20 s later, or the connection failed; such trials are not in the medians.\n"


def weights(memory):
    if not memory:
        return "Not measured.\n"
    rows = [[NAMES[v], f"{b['client']:.0f}", f"{b['server']:.0f}"] for v, b in memory["bytes_per_connection"].items()]
    return (f"Growth of resident memory over {memory['connections']} connections, in bytes per connection:\n\n" +
            table(["variant", "client", "server"], rows) +
            "\nThe kernel's sockets are not in it. What a process has once, however many sessions, is not either.\n")


def beyond_libc(calls):
    if not calls:
        return "Not measured.\n"
    return table(["call", "plain", "shim", "beyond plain"],
                 [[name, f"{n['plain']:g}", f"{n['shim']:g}", f"{n['shim'] - n['plain']:+g}"] for name, n in calls.items()])


def by_file(files):
    if not files:
        return "Not measured.\n"
    rates = [f"{v['value']['median'] / 1e6:.1f} 10⁶ B/s ({v['value']['q1'] / 1e6:.1f} to {v['value']['q3'] / 1e6:.1f})"
             for v in (files["plain"], files["shim"])]
    return table(["Normal", "Namesocket shim", "Ratio"], [[*rates, f"{files['shim']['ratio']['median']:.3f}"]])


def by_process(processes):
    if not processes:
        return "Not measured.\n"
    names = [name for name in ("plain", "sleeper", "shim") if any(name in v for v in processes.values())]

    def rate(v):
        few = 0 if v["median"] >= 100 else 1
        return f"{v['median']:.{few}f} ({v['q1']:.{few}f} to {v['q3']:.{few}f})"
    rows = [[FORMS[form], *(rate(v[name]["value"]) if name in v else "" for name in names),
             *(f"{v[name]['ratio']['median']:.3f}" if name in v else "" for name in names[1:]),
             f"{v['shim']['sessions']} of {v['shim']['connections']}"]
            for form, v in processes.items()]
    title = {**NAMES, "sleeper": "Second thread"}
    return table(["server", *(title[name] for name in names),
                  *(f"Ratio, {title[name].lower()}" for name in names[1:]), "sessions"], rows)


PAGE = """# Performance

Written by `tools/bench.sh`; do not edit. {date}

{machine}

Commands:

```
{commands}
```

## Against the goals

{goals}
Ratios are medians of the ratios to plain TCP's sample in the same round, the middle half in brackets.

## Throughput, latency, connections

The layout is that of the thesis's table 7.1.

{table_7_1}
How: client and server are two processes on two CPUs, over loopback. Each variant has a pair of its own for the
whole run. A round takes one sample of every benchmark from every variant in turn, and each round begins with
another variant, so that what else the machine does hits all alike. Throughput is timed from the first send until
the server's count of the bytes is back, and the count must be right. Every sample asks both ends for the state of
the session and fails the run when a session that is to be protected is not. *Unprotected* is plain TCP in
processes that run under the shim. In the connection benchmark every hundredth connection carries one byte there
and back, which shows that it is protected and that the server has caught up. Closed connections stay in TIME_WAIT
for a minute; SO_LINGER would spare that but may throw NEW away (thesis, 7.2), so the number of connections of a
run is bounded instead, the same for every variant.

### The kernel half

{kernel_half}
## Counted

{counted}
### A process without a session

Instructions of a call outside the kernel, on a Unix socket (`open` on a file), by callgrind. What a call costs
beyond plain is the price of looking whether the descriptor has a session.

{beyond_libc}
## A process for each connection

Connections a second, client and server both under the shim or neither. In the first rows each has one byte there
and back: the server forks for each, and in the second row executes a program with the connection as standard input
and output. Beside these two, which do nothing else, stand servers that people use: socat, which executes `cat`, with the same
client; git's daemon, whose client lists what an empty repository has; sshd, whose client logs in with a key and runs
`true`. Median (first to third quartile); the ratio is of samples in the same round. *Sessions*: how many of the
connections began as protected, by the log of both ends. *Second thread*: a plain server in which a thread sleeps, as
the shim's helper does, and nothing else (bench/sleeper.c); what that costs no shim with a helper can win back.

{by_process}
{parts}
## sendfile

32 MiB of a file in memory, by sendfile(2) of 1 MiB at a time on one connection, until the client has them all; the
session is protected. What goes out passes through memory, so that it can be sent again.

{by_file}
## When the path breaks

{gaps}
How: two network namespaces with two veth links, one 64-byte record each 20 ms, echoed. *Longest gap*: the longest
time between the arrivals of two records. As records come 20 ms apart anyway, *beyond the interval* is what the
fault adds, and what the goals are about. *Record late*: from when a record was due to be sent until its echo was
there. RTT is a record's, from being due to its echo, undisturbed. The fault hits the link that the connection's
packets run over, at any moment of the interval. Every byte of every echo is compared.

## Memory of an idle session

{weights}"""


# Where the time of a connection goes that has a process of its own. Counted by hand: by strace, by perf's page faults
# with addresses, by callgrind, and by processor time (cpuacct), which other load on the machine disturbs least.
PARTS = """### What a fork and an exec cost, in parts

Counted on 2026-11-29, for one connection of the rows above. In brackets: with what the shim did until that day. The
machine was busy with other things, which the times show: they are for comparison with each other.

| | plain | second thread | shim |
| --- | --- | --- | --- |
| processor time of a fork, both ends, least of 30 samples | 100 us | 137 us | 204 us (412) |
| processor time of an exec, the same | 908 us | 1069 us | 1325 us (1531) |
| page faults of the child, from fork to exit | 18 | 30 | 37 where the parent has read NEW, 48 where the child reads it (44, 54) |
| page faults of the parent | 2 | 6 | 9 (13) |
| system calls of the parent | 3 | 3 | 31 (32) |
| system calls of the child | 6 | 6 | 36 (40) |
| system calls of the client | 5 | 5 | 16 (18) |
| mappings | 24 | | 34 (39) |
| a program that begins: instructions | 127,000 | | 293,000 (408,000) |
| a program that begins: page faults | 50 | | 73 (94) |

- A *page fault* costs the child 1.5 us, and the copy something more when it ends. **A second thread in the parent is
  12 of them in the child and 4 in the parent**: glibc's fork sees to the locks of malloc, stdio, the name service and
  timers then, each on pages and in code of its own. With fork itself that takes 55 us in place of 36 until the child
  runs, and 89 in place of 63 until it has ended. This is the floor: a server has to answer HELLO and RESUME while it
  sleeps in `accept`, and that is the helper.
- The shim's own in the child: its data, a page of table, slots and session, the mark that a child is one, the estate, a ring,
  thread-local memory, and two or three pieces of its code.
- *The estate* (docs/architecture.md), a memory file made, sealed, mapped, closed and unmapped: 9 us. It cannot be used
  again: a child may have kept it.
- *A new client's key*: 700,000 instructions (X25519), once at each end; for a client that comes again, nothing.
  NEW itself, with its tag and its check: some 4,000.
- *Round trips*: none is added. NEW goes out with the first bytes.
- *exec*: what remains beyond the fork is to load and relocate the shim (100,000 of its 166,000 instructions are the
  dynamic linker's, and there are some 25 pages to fault in), to look whether the next program will have it, and to hand
  the session down and take it up: some 60 system calls.
- On virtual machines CPUID is emulated: the dynamic linker's look at the processor takes 500 us of a program's start in
  this one, and libgcc_s, which the shim does not load any more, took 100 more.
"""


def kernel_half():
    """The same table of the kernel half, out of the page that kernel/bench.sh writes."""
    kernel = text(os.path.join(os.path.dirname(__file__), "..", "docs"), "performance-kernel.md")
    verdict = re.search(r"^(?:Falls short: |All goals ).*", kernel, re.M)
    rows = re.search(r"^## Throughput.*?(^\|.*?)\n\n", kernel, re.M | re.S)
    if not verdict or not rows:
        return "not measured\n"
    return (f"From [performance-kernel.md](performance-kernel.md), which says how. Instructions instead of times, so less is\n"
            f"better; a ratio is the unpatched kernel's count divided by this one's.\n\n{rows[1]}\n\nIts goals: {verdict[0].lower()}\n")


def main():
    if len(sys.argv) != 2:
        print("Usage: performance.py DIRECTORY", file=sys.stderr)
        return 2
    directory = sys.argv[1]
    names = ("tcpbench", "memory", "count", "gap", "calls", "files")
    bench, memory, counts, gap, calls, files = (load(directory, f"{n}.json") for n in names)
    processes = {**(load(directory, "processes.json") or {}), **(load(directory, "servers.json") or {})}
    date = re.sub(r"T.*", "", bench["date"]) if bench else ""
    page = PAGE.format(date=f"Measured on {date}." if date else "", machine=text(directory, "machine"),
                       commands=text(directory, "commands"), goals=goals(bench, memory, counts, gap, calls, processes, files),
                       table_7_1=table_7_1(bench), counted=counted(counts), gaps=gaps(gap), beyond_libc=beyond_libc(calls),
                       by_process=by_process(processes), parts=PARTS, by_file=by_file(files), weights=weights(memory),
                       kernel_half=kernel_half())
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
