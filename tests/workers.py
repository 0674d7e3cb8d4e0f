#!/usr/bin/env python3
"""Both ends of prefork.py, in plain sockets.

workers.py serve PORT --workers N [--form blocking|poll|epoll] [--leave-open]
    One process listens and forks workers that all accept, and echo. blocking: one connection at a time each. It says
    `worker PID`, and `PID accepted`, `PID over` of each connection. `stop` ends it.
workers.py run HOST PORT --connections N [--short M]
    Sends random bytes on each connection and compares every one that comes back. Says `connected N`, and
    `served N` from time to time; `more N` makes N more; after `stop` `done BYTES`. Status 1 for a wrong byte. --short: M
    connections one after the other in the place of each, and the end without being told.
"""
import argparse
import ctypes
import os
import random
import select
import signal
import socket
import sys
import threading
import time

CHUNK = 8192
SAY_S = 0.02
PR_SET_PDEATHSIG = 1  # prctl(2)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


# -- server ---------------------------------------------------------------------------------------------------------

def echo(conn):
    try:
        while data := conn.recv(65536):
            conn.sendall(data)
    except OSError as e:
        say(os.getpid(), "error", type(e).__name__)
    conn.close()
    say(os.getpid(), "over")


def work_blocking(listener, busy_ms):
    rnd = random.Random(os.getpid())
    while True:
        conn = listener.accept()[0]
        say(os.getpid(), "accepted")
        time.sleep(rnd.uniform(0, busy_ms / 1000))
        echo(conn)


class Eager:
    """What was read and not sent back yet, of one connection."""

    def __init__(self, conn):
        conn.setblocking(False)
        self.conn, self.owed = conn, b""

    def turn(self):
        """False when it is over."""
        try:
            if not self.owed:
                self.owed = self.conn.recv(65536)
                if not self.owed:
                    return False
            self.owed = self.owed[self.conn.send(self.owed):]
        except BlockingIOError:
            pass
        except OSError as e:
            say(os.getpid(), "error", type(e).__name__)
            return False
        return True


def accept_all(listener):
    while True:
        try:
            conn = listener.accept()[0]
        except BlockingIOError:
            return
        say(os.getpid(), "accepted")
        yield conn


def work_waiting(listener, poller, reading, writing):
    conns = {}
    listener.setblocking(False)
    poller.register(listener, reading)
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                for conn in accept_all(listener):
                    conns[conn.fileno()] = Eager(conn)
                    poller.register(conn, reading)
                continue
            eager = conns[fd]
            if eager.turn():
                poller.modify(fd, writing if eager.owed else reading)
                continue
            poller.unregister(fd)
            del conns[fd]
            eager.conn.close()
            say(os.getpid(), "over")


def serve(args):
    listener = socket.create_server(("::", args.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    if args.leave_open:
        listener.set_inheritable(True)
    pids = []
    for _ in range(args.workers):
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            say("worker", os.getpid())
            if args.form == "blocking":
                work_blocking(listener, args.busy_ms)
            elif args.form == "poll":
                work_waiting(listener, select.poll(), select.POLLIN, select.POLLOUT)
            else:
                work_waiting(listener, select.epoll(), select.EPOLLIN, select.EPOLLOUT)
        pids.append(pid)
    if args.master_leaves:
        listener.close()
    say("listening")
    for line in sys.stdin:
        if line == "stop\n":
            break
        if line == "exec\n" and os.fork() == 0:
            os.execvp("cat", ["cat"])
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


# -- client ---------------------------------------------------------------------------------------------------------

stopping = threading.Event()
total = 0
lock = threading.Lock()


def read_whole(conn, n):
    got = b""
    while len(got) < n:
        part = conn.recv(n - len(got))
        if not part:
            raise EOFError(f"the stream ended {n - len(got)} bytes early")
        got += part
    return got


def talk(args, number):
    for _ in range(args.short):
        talk_once(args, number, lambda: True)
    if not args.short:
        talk_once(args, number, stopping.is_set)


def talk_once(args, number, over):
    global total
    rnd = random.Random(number)
    with socket.create_connection((args.host, args.port), timeout=args.timeout) as conn:
        say("connected", number)
        said = 0
        while True:
            data = rnd.randbytes(rnd.randrange(1, CHUNK))
            conn.sendall(data)
            if read_whole(conn, len(data)) != data:
                raise ValueError("wrong bytes came back")
            with lock:
                total += len(data)
            if time.monotonic() > said + SAY_S:
                said = time.monotonic()
                say("served", number)
            if over():
                break
        conn.shutdown(socket.SHUT_WR)
        if conn.recv(1):
            raise ValueError("more came back than was sent")


def run(args):
    failed = []

    def guarded(number):
        try:
            talk(args, number)
        except Exception as e:  # noqa: BLE001: whatever it is, it is the end
            failed.append(e)
            say("failed", number, type(e).__name__, e)

    threads = []

    def start(n):
        for _ in range(n):
            threads.append(threading.Thread(target=guarded, args=(len(threads),)))
            threads[-1].start()

    start(args.connections)
    for line in [] if args.short else sys.stdin:
        words = line.split()
        if words[0] == "more":
            start(int(words[1]))
        if words[0] == "stop":
            break
    stopping.set()
    for t in threads:
        t.join()
    say("done", total)
    return bool(failed)


def main():
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    s = roles.add_parser("serve")
    s.add_argument("port", type=int)
    s.add_argument("--workers", type=int, default=4)
    s.add_argument("--form", choices=("blocking", "poll", "epoll"), default="blocking")
    s.add_argument("--leave-open", action="store_true", help="programs that it starts inherit the listener")
    s.add_argument("--busy-ms", type=float, default=0, help="what a connection takes, up to this")
    s.add_argument("--master-leaves", action="store_true", help="the first process closes its listener")
    r = roles.add_parser("run")
    r.add_argument("host")
    r.add_argument("port", type=int)
    r.add_argument("--connections", type=int, default=1)
    r.add_argument("--short", type=int, default=0, metavar="M")
    r.add_argument("--timeout", type=float, default=120)
    args = parser.parse_args()
    return serve(args) if args.role == "serve" else run(args)


if __name__ == "__main__":
    sys.exit(main())
