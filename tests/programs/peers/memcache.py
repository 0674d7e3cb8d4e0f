#!/usr/bin/env python3
"""memcache.py HOST PORT VALUES SIZE: sets values, each waiting for the answer to the one before, and gets them back.

It says `at N` after each and, at the end, `hash` of what it got: see ../stage.py for the payload.
"""
import hashlib
import socket
import sys

host, port, values, size = sys.argv[1], *map(int, sys.argv[2:5])
data = hashlib.shake_128(b"payload").digest(values * size)
conn = socket.create_connection((host, port))
stream = conn.makefile("rb")
got = hashlib.sha256()
for n in range(values):
    value = data[n * size:(n + 1) * size]
    conn.sendall(b"set key%d 0 0 %d\r\n%b\r\n" % (n, size, value))
    assert stream.readline() == b"STORED\r\n"
for n in range(values):
    conn.sendall(b"get key%d\r\n" % n)
    assert stream.readline() == b"VALUE key%d 0 %d\r\n" % (n, size)
    got.update(stream.read(size))
    assert stream.readline() == b"\r\n" and stream.readline() == b"END\r\n"
    print("at", (n + 1) * size, flush=True)
print("hash", got.hexdigest(), flush=True)
