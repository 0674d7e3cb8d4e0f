#!/usr/bin/env python3
"""Real programs, each with the link cut under it while data flows, the payload compared by hash.

Options as in faults.py (--list, -k, --no-shim, --hold, ...); --no-cut leaves the links alone. A program that
is not installed counts as skipped.
"""
import base64
import hashlib
import json
import os
import select
import shutil
import sys

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                         # noqa: E402
from rig.pair import DEMOTED, ESTABLISHED, PATIENT, PORT, RESUMED, Wrong, shim_env     # noqa: E402
from rig.procs import Deadline, Log                                           # noqa: E402
from rig.report import Skip, main, options                                    # noqa: E402
from rig.terminal import Terminal                                             # noqa: E402
from rig.wire import link_of                                                  # noqa: E402

CUTS = 3
IPERF3_BLOCK = 16384


def need(*names):
    for name in names:
        if not shutil.which(name):
            raise Skip(f"{name} is not installed")


def random_bytes(n, seed=b"programs"):
    return hashlib.shake_128(seed).digest(n)


def digest(data):
    return hashlib.blake2b(data).hexdigest()


def file_digest(path):
    with open(path, "rb") as f:
        return digest(f.read())


class Stage:
    """Server on tage, client on troels, each under the shim with a log of its own."""

    def __init__(self, context):
        self.context = context
        self.rig = context.rig()
        self.dir = self.rig.dir
        self.timeout_s = context.timeout_s
        self.cutting = not context.options.no_cut
        self.resumes = 0                                      # that there must have been until now
        self.logs = {side: Log(os.path.join(self.dir, side + ".log")) for side in ("client", "server")}

    def path(self, name):
        return os.path.join(self.dir, name)

    def env(self, side):
        return {**shim_env(self.context.shim, self.logs[side].path), **PATIENT} if self.context.shim else {}

    def server(self, *argv, port=PORT):
        proc = self.rig.tage.start("server", argv, self.env("server"))
        wait_for("a listener", lambda: f":{port}" in self.rig.tage.run("ss", "-tlnH", f"sport = :{port}").stdout)
        return proc

    def client(self, *argv):
        return self.rig.troels.start("client", argv, self.env("client"))

    def protected(self, count=1):
        if self.context.shim:
            for log in self.logs.values():
                log.wait(ESTABLISHED, count, 10)

    def cut(self):
        """Cut the link in use, wait for the resume, put the link back."""
        if not self.cutting:
            return
        flows = wait_for("a connection", lambda: self.rig.troels.flows(PORT))
        link = link_of(self.rig.troels, flows[0][0])
        self.rig.troels.link_down(link)
        self.resumes += sum(link_of(self.rig.troels, f[0]) == link for f in flows)
        if self.context.shim:
            for log in self.logs.values():
                log.wait(RESUMED, self.resumes, self.timeout_s)
            self.rig.troels.link_up(link)

    def end(self, proc, expected=0):
        code = proc.wait(self.timeout_s)
        if code != expected:
            raise Wrong(f"{proc.name}: exit {code}, expected {expected}: {proc.stderr()[-300:]}")

    def same(self, what, got, expected):
        if got != expected:
            raise Wrong(f"{what}: other bytes than were sent")
        if self.context.shim:
            for log in self.logs.values():
                if log.count(DEMOTED):
                    raise Wrong(f"{os.path.basename(log.path)} says '{DEMOTED}'")


def telnet(context):
    need("telnet")
    s = Stage(context)
    s.server(context.traffic, "toy-echo", "serve", PORT)
    client = Terminal("client", s.rig.troels.argv(["telnet", "tage", str(PORT)], s.env("client")), s.dir)
    s.rig.procs.append(client)
    client.wait_text("Escape character")
    lines = [base64.b32encode(random_bytes(30, b"telnet%d" % n)).decode() for n in range(40)]
    for n, line in enumerate(lines):
        client.type(line + "\n")
        if n == 0:
            s.protected()
        if n % 10 == 5:
            s.cut()
        # Once as the terminal's own echo, once from the server.
        client.wait_text(line, 2, s.timeout_s)
    shown = [line for line in client.text.split("\n") if line in lines]
    s.same("echoed lines", digest("".join(shown[1::2]).encode()), digest("".join(lines).encode()))
    client.type("\x1d")
    client.wait_text("telnet>")
    client.type("quit\n")
    client.wait()


def feed(proc, data, cut, timeout_s):
    """Write `data` into a program's stdin, with cuts in between."""
    pipe = proc.p.stdin.fileno()
    os.set_blocking(pipe, False)
    cuts_at = [len(data) * n // (CUTS + 1) for n in range(1, CUTS + 1)]
    at = 0
    while at < len(data):
        if not select.select([], [pipe], [], timeout_s)[1]:
            raise Deadline(f"{proc.name} has not read its stdin for {timeout_s:g} s, at {at} of {len(data)} bytes")
        at += os.write(pipe, data[at:at + 65536])
        if cuts_at and at >= cuts_at[0]:
            cuts_at.pop(0)
            cut()
    os.set_blocking(pipe, True)


def nc(context):
    need("nc")
    s = Stage(context)
    data = random_bytes(8_000_000)
    target = s.path("target")
    # -k keeps the listener: without one there is nowhere to resume at.
    server = s.server("sh", "-c", f"exec nc -l -k {PORT} > {target}")
    client = s.client("nc", "-N", "-4", "tage", PORT)
    client.p.stdin.write(b"first line\n")
    client.p.stdin.flush()
    s.protected()
    wait_for("the first bytes", lambda: os.path.getsize(target) >= 11)
    feed(client, data, s.cut, s.timeout_s)
    client.close_stdin()
    wait_for("all bytes", lambda: os.path.getsize(target) >= 11 + len(data), s.timeout_s)
    s.end(client)
    s.same("what nc wrote", file_digest(target), digest(b"first line\n" + data))
    server.kill()


def curl(context):
    need("curl", "python3")
    s = Stage(context)
    os.mkdir(s.path("www"))
    data = random_bytes(24_000_000)
    with open(s.path("www/big"), "wb") as f:
        f.write(data)
    s.server("python3", "-u", "-m", "http.server", "--bind", "::", "-d", s.path("www"), PORT)
    target = s.path("target")
    client = s.client("curl", "-sS", "--limit-rate", "8M", "-o", target, f"http://tage:{PORT}/big")
    s.protected()
    for n in range(1, CUTS + 1):
        wait_for("some of the file", lambda n=n: os.path.exists(target) and
                 os.path.getsize(target) > n * len(data) // (CUTS + 3), s.timeout_s)
        s.cut()
    s.end(client)
    s.same("the file", file_digest(target), digest(data))


def socat(context):
    need("socat")
    s = Stage(context)
    s.server(context.traffic, "toy-echo", "serve", PORT)
    data = random_bytes(4_000_000)
    target = s.path("target")
    client = s.client("sh", "-c", f"exec socat -t 20 - TCP:tage:{PORT} > {target}")
    client.p.stdin.write(b"first line\n")
    client.p.stdin.flush()
    s.protected()
    wait_for("the first bytes", lambda: os.path.exists(target) and os.path.getsize(target) >= 11)
    feed(client, data, s.cut, s.timeout_s)
    client.close_stdin()
    s.end(client)
    s.same("the echo", file_digest(target), digest(b"first line\n" + data))


def redis(context):
    need("redis-server", "redis-cli")
    s = Stage(context)
    s.server("redis-server", "--port", PORT, "--bind", "*", "-::*", "--save", "", "--protected-mode", "no",
             "--dir", s.dir)
    client = s.client("redis-cli", "-h", "tage", "-p", PORT)
    values = [random_bytes(3000, b"redis%d" % n).hex() for n in range(200)]
    got = []
    for n, value in enumerate(values):
        client.send(f"SET key:{n} {value}")
        client.send(f"GET key:{n}")
        if n == 0:
            s.protected()
        if n % 50 == 25:
            s.cut()
        wait_for(f"answer {n}", lambda n=n: len([x for x in client.lines if x]) >= 2 * (n + 1), s.timeout_s)
    client.close_stdin()
    s.end(client)
    answers = [x for x in client.lines if x]
    got = [x.strip('"') for x in answers[1::2]]
    s.same("the values", digest("".join(got).encode()), digest("".join(values).encode()))
    if answers[0::2] != ["OK"] * len(values):
        raise Wrong("not every SET was answered OK")


def iperf3(context):
    need("iperf3")
    s = Stage(context)
    data = random_bytes(12 << 20)
    source, target = s.path("source"), s.path("target")
    with open(source, "wb") as f:
        f.write(data)
    server = s.server("iperf3", "-s", "-1", "-p", PORT, "-F", target)
    client = s.client("iperf3", "-c", "tage", "-p", PORT, "-F", source, "-b", "32M", "-l", IPERF3_BLOCK, "-n", len(data), "-J")
    s.protected(2)                                            # the control connection and the data connection
    for n in range(1, CUTS + 1):
        wait_for("some of the data", lambda n=n: os.path.exists(target) and
                 os.path.getsize(target) > n * len(data) // (CUTS + 3), s.timeout_s)
        s.cut()
    s.end(client)
    s.end(server)
    result = json.loads("\n".join(x for x in client.lines if x))
    if "error" in result or not result["end"]["sum_received"]["bytes"]:
        raise Wrong(f"iperf3: {result.get('error', 'nothing received')}")
    # The sender's word that it is done overtakes the last block or two, which iperf3 then leaves out.
    written = os.path.getsize(target)
    if written < len(data) - 2 * IPERF3_BLOCK:
        raise Wrong(f"iperf3 wrote {written} of {len(data)} bytes")
    s.same("the file", file_digest(target), digest(data[:written]))


CASES = {"telnet": telnet, "nc": nc, "curl": curl, "socat": socat, "redis": redis, "iperf3": iperf3}

if __name__ == "__main__":
    opts = options("Real programs with the link cut under them.",
                   lambda p: p.add_argument("--no-cut", action="store_true", help="leave the links alone"))
    if not opts.list:
        become_root()
    sys.exit(main(CASES, opts))
