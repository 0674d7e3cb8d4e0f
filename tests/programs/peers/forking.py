#!/usr/bin/env python3
"""forking.py PORT: an echo with a process for each connection. Each of the two closes what is the other's."""
import os
import signal
import socket
import sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    conn = listener.accept()[0]
    if os.fork() == 0:
        listener.close()
        while data := conn.recv(65536):
            conn.sendall(data)
        conn.close()
        os._exit(0)
    conn.close()
