#!/usr/bin/env python3
"""check_namesocketd.py NAMESOCKETD: what it says to bad options, and what it relays on loopback.

How its sessions survive is in faults.py (gateway-*).
"""
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

DAEMON = sys.argv[1]
LIMIT_S = 20
failures = []
cases = 0


def check(name, true, detail=""):
    global cases
    cases += 1
    if not true:
        failures.append(name)
        print(f"not ok: {name}: {detail}")


def refuses(words, *args):
    done = subprocess.run([DAEMON, *args], capture_output=True, text=True, timeout=LIMIT_S)
    lines = done.stderr.splitlines()
    check(f"namesocketd {' '.join(args)[:60]}", done.returncode == 2 and len(lines) == 1 and words in lines[0],
          f"status {done.returncode}, said {done.stderr!r}, not '{words}'")


def bad_options():
    refuses("nothing to do")
    refuses("unknown option --nonsense", "--nonsense")
    refuses("needs a route", "--forward")
    refuses("unexpected argument x", "--forward", "1:a:2", "x")
    refuses("last part is no port", "--forward", "7000:host:http")
    refuses("last part is no port", "--forward", "7000:host:65536")
    refuses("last part is no port", "--accept", "7000:host:0")
    refuses("last part is no port", "--accept", "nothing")
    refuses("no host before", "--forward", "host:80")
    refuses("no host before", "--forward", "7000::80")
    refuses("no port to listen on", "--forward", "x:host:80")
    refuses("no port to listen on", "--forward", "x:7000x:host:80")
    refuses("no port to listen on", "--forward", "[::1]:host:80")
    refuses("address to listen on is malformed", "--forward", "::1:7000:host:80")
    refuses("too long", "--forward", "7" * 1000)
    for loop in ("5001:127.0.0.1:5001", "5001:localhost:05001", "[::1]:5001:[::1]:5001", "0.0.0.0:5001:[::1]:5001",
                 "localhost:5001:127.0.0.1:5001", "127.0.0.1:5001:localhost:5001", "x.example:5001:x.example:5001"):
        refuses("would relay to itself", "--accept", loop)
    refuses("would relay to itself", "--forward", "5001:127.0.0.1:5001")
    refuses("of at most 107 bytes", f"--broker=/{'x' * 107}")
    refuses("of at most 107 bytes", "--broker=here")
    done = subprocess.run([DAEMON, "--broker=/no-such-directory/broker"], capture_output=True, text=True, timeout=LIMIT_S)
    check("a broker without a directory", done.returncode == 1 and "give another place: --broker=WHERE" in done.stderr,
          done.stderr)
    refuses("more than 64 routes", *["--forward", "7000:host:80"] * 65)
    for option in ("--help", "--version"):
        done = subprocess.run([DAEMON, option], capture_output=True, text=True, timeout=LIMIT_S)
        check(option, done.returncode == 0 and "namesocketd" in done.stdout and not done.stderr)


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


class Daemon:
    def __init__(self, *args):
        self.p = subprocess.Popen([DAEMON, *args], stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.first = self.p.stderr.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()
        self.p.stderr.close()


def listener(family=socket.AF_INET, host="127.0.0.1"):
    s = socket.socket(family)
    s.settimeout(LIMIT_S)
    s.bind((host, 0))
    s.listen()
    return s


def dial(port, host="127.0.0.1"):
    s = socket.create_connection((host, port), LIMIT_S)
    s.settimeout(LIMIT_S)
    return s


def read_all(s):
    digest, total = hashlib.sha256(), 0
    while data := s.recv(65536):
        digest.update(data)
        total += len(data)
    return total, digest.hexdigest()


def both_ways(port, server, host="127.0.0.1"):
    """Each end sends, ends its stream, and reads the other's to its end."""
    up, down = os.urandom(3_000_000), os.urandom(2_000_001)
    got = {}

    def serve():
        c, _ = server.accept()
        with c:
            c.settimeout(LIMIT_S)
            got["up"] = read_all(c)                           # half closed: the answer follows the end
            c.sendall(down)

    thread = threading.Thread(target=serve)
    thread.start()
    with dial(port, host) as c:
        c.sendall(up)
        c.shutdown(socket.SHUT_WR)
        got["down"] = read_all(c)
    thread.join(LIMIT_S)
    return (got.get("up") == (len(up), hashlib.sha256(up).hexdigest()) and
            got.get("down") == (len(down), hashlib.sha256(down).hexdigest()))


def reset_of(s):
    try:
        while s.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return False


def dialled_and_reset(port):
    try:
        with dial(port) as c:
            return reset_of(c)
    except ConnectionResetError:                              # before connect had looked
        return True


def listening(port):
    with open("/proc/net/tcp") as f:
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in f)


def relaying():
    with listener() as server:
        port, refused, nowhere = free_port(), free_port(), free_port()
        with Daemon("--accept", f"127.0.0.1:{port}:127.0.0.1:{server.getsockname()[1]}",
                    "--accept", f"127.0.0.1:{refused}:127.0.0.1:{nowhere}") as d:
            check("ready", d.first == "namesocketd: ready\n", d.first)
            check("bytes both ways, one end after the other", both_ways(port, server))

            check("a server that refuses resets the client", dialled_and_reset(refused))
            said = d.p.stderr.readline()
            check("and is named", f"cannot connect to 127.0.0.1:{nowhere}: connection refused" in said, said)

            with dial(port) as c:
                s, _ = server.accept()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
                check("a reset passes through", reset_of(c))

            c = dial(port)
            s, _ = server.accept()
            d.p.send_signal(signal.SIGTERM)
            while listening(port):                            # it has not taken the signal yet
                os.sched_yield()
            c.sendall(b"after the signal")
            s.settimeout(LIMIT_S)
            check("SIGTERM lets what is open go on", s.recv(100) == b"after the signal")
            c.close()
            check("to its end", s.recv(100) == b"")
            s.close()
            check("and then ends it", d.p.wait(LIMIT_S) == 0)


def gateway_to_gateway():
    """As it is used: a session between the two gateways, plain connections outside."""
    with listener() as server:
        port, between = free_port(), free_port()
        with Daemon("--accept", f"127.0.0.1:{between}:127.0.0.1:{server.getsockname()[1]}"), \
                Daemon("--forward", f"{port}:127.0.0.1:{between}"):
            check("two gateways", all(both_ways(port, server) for _ in range(3)))


def version_six():
    with listener(socket.AF_INET6, "::1") as server:
        port = free_port(socket.AF_INET6, "::1")
        with Daemon("--accept", f"[::1]:{port}:[::1]:{server.getsockname()[1]}"):
            check("addresses in brackets", both_ways(port, server, "::1"))


def in_use():
    with listener() as taken:
        done = subprocess.run([DAEMON, "--accept", f"127.0.0.1:{taken.getsockname()[1]}:localhost:1"],
                              capture_output=True, text=True, timeout=LIMIT_S)
        check("an address in use", done.returncode == 1 and "cannot listen on 127.0.0.1" in done.stderr, done.stderr)


for variable in [v for v in os.environ if v.startswith("NAMESOCKET")]:
    del os.environ[variable]
bad_options()
relaying()
gateway_to_gateway()
version_six()
in_use()
print(f"{cases - len(failures)} of {cases} as they should be")
sys.exit(bool(failures))
