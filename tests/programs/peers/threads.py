#!/usr/bin/env python3
"""threads.py serve PORT | run HOST PORT CONNECTIONS SIZE: an echo with a thread for each connection, and blocking
calls. The client says `at N`, and at the end `hash` of what it got back: see ../stage.py for the payload."""
import hashlib
import socket
import sys
import threading


def echo(conn):
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def write(conn, data):
    conn.sendall(data)
    conn.shutdown(socket.SHUT_WR)


def talk(host, port, data, n, got, told):
    with socket.create_connection((host, port)) as conn:
        writer = threading.Thread(target=write, args=(conn, data))
        writer.start()
        while piece := conn.recv(65536):
            with told:
                got[n] += piece
                print("at", sum(map(len, got)), flush=True)
        writer.join()


def run(host, port, connections, size):
    data = hashlib.shake_128(b"payload").digest(connections * size)
    got, told = [b""] * connections, threading.Lock()
    threads = [threading.Thread(target=talk, args=(host, port, data[n * size:(n + 1) * size], n, got, told))
               for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("hash", hashlib.sha256(b"".join(got)).hexdigest(), flush=True)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    run(sys.argv[2], *map(int, sys.argv[3:6]))
