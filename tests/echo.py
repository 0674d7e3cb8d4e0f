#!/usr/bin/env python3
"""An echo server that tells what it sees, for strangers.py: plain sockets, in every form of waiting.

echo.py PORT [--form poll|select|epoll|epoll-et|epoll-oneshot|blocking] [--iterative] [--hold] [--prefork N]
             [--reuseport] [--bind ADDRESS]

It says `listening`, and for each connection `N accepted`, `N got HEX`, `N end` or `N error NAME`; `full` when
accept finds no descriptor (select: it accepts no more). With --hold it
accepts, but reads nothing until it is told `go`. blocking: a thread for each connection; --iterative: one
connection at a time. It ends when its standard input does.
"""
import argparse
import errno
import itertools
import os
import select
import socket
import sys
import threading

numbers = itertools.count(1)
held = threading.Event()
NOBODY = socket.socketpair()[0]                               # never readable


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def take(listener):
    conn = listener.accept()[0]
    n = next(numbers)
    say(n, "accepted")
    return n, conn


def serve_once(n, conn):
    """One read; False at the end. Non-blocking: None when there was nothing."""
    try:
        data = conn.recv(65536)
    except BlockingIOError:
        return None
    except OSError as e:
        say(n, "error", type(e).__name__)
        return False
    if not data:
        say(n, "end")
        return False
    say(n, "got", data.hex())
    conn.setblocking(True)
    conn.sendall(data)
    return True


def talk(n, conn):
    held.wait()
    while serve_once(n, conn):
        pass
    conn.close()


def blocking(listener, iterative):
    while True:
        n, conn = take(listener)
        if iterative:
            talk(n, conn)
        else:
            threading.Thread(target=talk, args=(n, conn), daemon=True).start()


def selecting(listener):
    conns = {}
    while True:
        for s in select.select([listener, *(conns if held.is_set() else ())], [], [])[0]:
            if s is listener:
                try:
                    n, conn = take(listener)
                except OSError as e:
                    if e.errno != errno.EMFILE:
                        raise
                    say("full")
                    listener = NOBODY
                else:
                    conns[conn] = n
            elif not serve_once(conns[s], s):
                del conns[s]
                s.close()


def polling(listener):
    conns, p = {}, select.poll()
    p.register(listener, select.POLLIN)
    while True:
        for fd, _ in p.poll():
            if fd == listener.fileno():
                n, conn = take(listener)
                conns[conn.fileno()] = n, conn
                if held.is_set():
                    p.register(conn, select.POLLIN)
            elif not serve_once(*conns[fd]):
                p.unregister(fd)
                conns.pop(fd)[1].close()


def epolling(listener, extra):
    conns, p = {}, select.epoll()
    p.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in p.poll():
            if fd == listener.fileno():
                n, conn = take(listener)
                conns[conn.fileno()] = n, conn
                conn.setblocking(False)
                p.register(conn, select.EPOLLIN | extra)
                continue
            if fd not in conns:
                say("stale", fd)
                continue
            more = True
            while more:
                more = serve_once(*conns[fd])
                conns[fd][1].setblocking(False)
                if not extra & select.EPOLLET:
                    break
            if more is False:
                conns.pop(fd)[1].close()
            elif extra & select.EPOLLONESHOT:
                p.modify(fd, select.EPOLLIN | extra)


def commands():
    for line in sys.stdin:
        if line == "go\n":
            held.set()
    os._exit(0)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("port", type=int)
    p.add_argument("--form", default="poll")
    p.add_argument("--bind", default="::", metavar="ADDRESS")
    for name in ("--iterative", "--hold", "--reuseport"):
        p.add_argument(name, action="store_true")
    p.add_argument("--prefork", type=int, default=0)
    o = p.parse_args()
    listener = socket.socket(socket.AF_INET6 if ":" in o.bind else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if o.reuseport:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((o.bind, o.port))
    listener.listen(1024)
    if not o.hold:
        held.set()
    say("listening")
    for _ in range(o.prefork):
        if os.fork() == 0:
            break
    threading.Thread(target=commands, daemon=True).start()
    if o.form == "blocking":
        blocking(listener, o.iterative)
    elif o.form == "select":
        selecting(listener)
    elif o.form == "poll":
        polling(listener)
    else:
        epolling(listener, {"epoll": 0, "epoll-et": select.EPOLLET, "epoll-oneshot": select.EPOLLONESHOT}[o.form])


main()
