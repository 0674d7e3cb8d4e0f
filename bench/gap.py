#!/usr/bin/env python3
"""How long an application falls silent when its path breaks.

On the rig of the tests (the two hosts and two links of the thesis's figure 6.1)
a program exchanges a 64-byte record each 20 ms (bench/records.c). The link that
its connection runs over is broken, and the longest time between two records'
arrivals is taken. Once under the shim, once over MPTCP, trial by trial in turn.

Progress goes to standard error, the result as JSON to standard output. Needs
root or unprivileged user namespaces.
"""
import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from rig import Deadline, Rig, RigError, become_root, wait_for  # noqa: E402
from rig import netns                                           # noqa: E402

LINKS = ("link-a", "link-b")
PORTS = {"shim": 20100, "mptcp": 20200}
INTERVAL_MS = 20
LIMIT_MS = 20000
# What is measured begins with a protected session. A machine that is busy must not make a plain one of it.
HOLD = "5s"

# Kind of fault: how long records go on after it, in ms.
FAULTS = {
    "link-down-client": 600,
    "link-down-server": 600,
    "address-removed": 600,
    "reset": 600,
    "hole-both": 800,
    "hole-to-server": 800,
    "hole-to-client": 800,
    "both-gone": 3500,
}
# The faults that some end is told of; the rest it has to notice.
SIGNALLED = ("link-down-client", "link-down-server", "address-removed", "reset")
BOTH_GONE_S = 2.0
SECOND_LATER_S = 1.0

FAILURES = (Deadline, RigError, OSError)


def set_up_mptcp(rig):
    """The server tells of its second address, the client takes it up."""
    for host in (rig.troels, rig.tage):
        host.ip("mptcp limits set subflows 4 add_addr_accepted 4")
    rig.tage.ip(f"mptcp endpoint add {rig.tage.address('link-b')} dev link-b signal")


def answers(rig, host, link):
    """Whether the other end of `link` answers: a refusal of a connection will do."""
    with netns.inside(host.net):
        probe = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with probe:
        probe.settimeout(1)
        try:
            probe.bind((host.address(link), 0))
            probe.connect((rig.other(host).address(link), 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def other_link(link):
    return LINKS[1 - LINKS.index(link)]


def break_path(rig, fault, link, port):
    client, server = rig.troels, rig.tage
    if fault == "link-down-client":
        client.link_down(link)
    elif fault == "link-down-server":
        server.link_down(link)
    elif fault == "address-removed":
        client.address_del(link)
    elif fault == "reset":
        reset(rig, link, port)
    elif fault == "both-gone":
        for each in LINKS:
            client.link_down(each)
    if fault in ("hole-both", "hole-to-server"):
        server.drop_incoming(link)
    if fault in ("hole-both", "hole-to-client"):
        client.drop_incoming(link)


def reset_rules(host, link, port):
    """Refuses this link's connection only, so that MPTCP keeps its other subflow and the shim's next one passes."""
    rules = [f"ip6 daddr {remote} tcp sport {lport} tcp dport {rport} tcp flags & rst == 0 reject with tcp reset;"
             for local, lport, remote, rport in host.flows(port) if local == host.address(link)]
    if len(rules) != 1:
        raise RigError(f"{len(rules)} connections over {link} at {host.name}, expected one")
    return f"table inet rst {{ chain out {{ type filter hook output priority 0;\n{rules[0]}\n}}\n}}"


def reset(rig, link, port):
    """A RST from the middle, to whichever end sends next."""
    # All rules first: with one host's in place, the connection may be over another link before the next is asked.
    rulesets = [(host, reset_rules(host, link, port)) for host in (rig.troels, rig.tage)]
    for host, ruleset in rulesets:
        host.nft(ruleset)


def repair(rig):
    for host in (rig.troels, rig.tage):
        host.nft("flush ruleset")
        for link in LINKS:
            host.link_up(link)
    for host in (rig.troels, rig.tage):
        for link in LINKS:
            wait_for(f"an answer over {link}", lambda: answers(rig, host, link))


def packets_in(host):
    """By link, how many packets have come in."""
    done = subprocess.run(["ip", "-n", host.ns, "-s", "-j", "link", "show"], check=True, capture_output=True)
    return {entry["ifname"]: entry["stats64"]["rx"]["packets"] for entry in json.loads(done.stdout)}


def start_records(options, host, variant, *words):
    env = {"LD_PRELOAD": options.shim, "NAMESOCKET_HOLD": HOLD} if variant == "shim" else {}
    if variant == "mptcp":
        words += ("mptcp",)
    return host.start(f"records-{variant}-{words[0]}", [options.records, *words], env)


def trial(options, rig, variant, fault):
    port = PORTS[variant]
    before = packets_in(rig.troels)
    # "protected" is the shim's word; that MPTCP has its second subflow is seen to below.
    client = start_records(options, rig.troels, variant, "drive", rig.tage.address("link-a"), port, INTERVAL_MS,
                           FAULTS[fault], LIMIT_MS, "protected" if variant == "shim" else "plain")
    back_ns = None
    try:
        rtt_us = int(client.wait_line(r"^ready \d+ (\d+)", 30)[1])
        if variant == "mptcp":
            wait_for("MPTCP's second subflow", lambda: len(rig.troels.flows(port)) >= 2)
        after = packets_in(rig.troels)
        busy = max(LINKS, key=lambda link: after[link] - before[link])
        time.sleep(random.uniform(0, INTERVAL_MS / 1000))     # any phase of the interval
        client.send("")
        break_path(rig, fault, busy, port)
        if fault == "both-gone":
            time.sleep(BOTH_GONE_S)
            rig.troels.link_up(busy)
            back_ns = time.monotonic_ns()
            time.sleep(SECOND_LATER_S)
            rig.troels.link_up(other_link(busy))
        done = client.wait_line(r"^done \d+ (\d+) (\d+) (\d+)", 2 * LIMIT_MS / 1000)
    except Deadline as why:
        raise Deadline(f"{why} {client.stderr().strip()[-200:]}") from None
    finally:
        client.kill()
        client.close_stdin()
        client.p.stdout.close()
        rig.procs.remove(client)
    result = {"rtt_ms": rtt_us / 1000, "gap_ms": int(done[1]) / 1000, "late_ms": int(done[2]) / 1000}
    result["beyond_ms"] = max(0.0, result["gap_ms"] - INTERVAL_MS)
    if back_ns:
        result["after_back_ms"] = (int(done[3]) - back_ns) / 1e6
    return result


def take(options, rig, variant, fault):
    """A trial's result. What the rig has not brought about is no trial, and begun again."""
    for tries_left in (2, 1, 0):
        try:
            return trial(options, rig, variant, fault)
        except RigError as why:
            print(f"gap.py: {fault}, {variant}: begun again: {why}", file=sys.stderr)
            if tries_left == 0:
                raise
            repair(rig)


def summary(trials):
    out = {"trials": len(trials)}
    for key in trials[0]:
        values = sorted(t[key] for t in trials)
        quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        out[key] = {"q1": quarters[0], "median": quarters[1], "q3": quarters[2], "max": values[-1]}
    return out


def measure(options, rig):
    variants = [v for v in ("shim", "mptcp") if v in options.variants]
    results, failures = {}, []
    set_up_mptcp(rig)
    for v in variants:
        start_records(options, rig.tage, v, "serve", "::", PORTS[v]).wait_line("ready")
    for fault in options.faults:
        taken = {v: [] for v in variants}
        many = options.trials if fault in SIGNALLED else options.fewer
        wanted = {"shim": many, "mptcp": min(many, options.fewer)}
        for i in range(many):
            for v in variants if i % 2 == 0 else variants[::-1]:
                if i >= wanted[v]:
                    continue
                try:
                    taken[v].append(take(options, rig, v, fault))
                except FAILURES as why:
                    text = f"{fault}, {v}, trial {i + 1}: {why}"
                    print(f"gap.py: {text}", file=sys.stderr)
                    failures.append({"variant": v, "fault": fault, "text": text})
                repair(rig)
        results[fault] = {v: summary(t) for v, t in taken.items() if t}
        report(fault, results[fault])
    return {"interval_ms": INTERVAL_MS, "faults": results, "failures": failures}


def report(fault, by_variant):
    for variant, s in by_variant.items():
        line = (f"{fault:18} {variant:6} {s['trials']:3} trials  gap {s['gap_ms']['median']:7.1f} ms  "
                f"beyond interval {s['beyond_ms']['median']:7.1f} ms  record late {s['late_ms']['median']:7.1f} ms  "
                f"rtt {s['rtt_ms']['median']:.3f} ms")
        if "after_back_ms" in s:
            line += f"  after back {s['after_back_ms']['median']:.1f} ms"
        print(line, file=sys.stderr, flush=True)


def listed(known):
    def check(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name}; known: {', '.join(known)}")
        return names
    return check


def main():
    parser = argparse.ArgumentParser(description="Longest silence of an application when its path breaks.")
    parser.add_argument("--records", required=True, help="the program built from bench/records.c")
    parser.add_argument("--shim", help="libnsshim.so; without it only MPTCP is measured")
    parser.add_argument("-n", "--trials", type=int, default=50, help="of each fault that is signalled, under the shim")
    parser.add_argument("--fewer", type=int, help="of all others, and over MPTCP (default: as many)")
    parser.add_argument("--variants", type=listed(PORTS), default=None, help="of: shim,mptcp")
    parser.add_argument("--faults", type=listed(FAULTS), default=list(FAULTS), help="of: " + ",".join(FAULTS))
    options = parser.parse_args()
    options.variants = options.variants or (["shim"] if options.shim else []) + ["mptcp"]
    if "shim" in options.variants and not options.shim:
        parser.error("--variants shim needs --shim")
    options.fewer = options.trials if options.fewer is None else options.fewer
    if min(options.trials, options.fewer) < 1:
        parser.error("--trials, --fewer: at least 1")
    for name in ("records", "shim"):
        path = getattr(options, name)
        if path:
            setattr(options, name, os.path.abspath(path))
    try:
        become_root()
        with Rig(names="hosts") as rig:
            outcome = measure(options, rig)
    except FAILURES as why:
        print(f"gap.py: {why}", file=sys.stderr)
        return 1
    json.dump(outcome, sys.stdout, indent=1)
    print()
    # What MPTCP does not survive is a finding, not a failure of this run.
    return 1 if any(f["variant"] != "mptcp" for f in outcome["failures"]) else 0


if __name__ == "__main__":
    sys.exit(main())
