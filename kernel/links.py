#!/usr/bin/env python3
"""Two commands with two links between them: links.py FIRST... -- SECOND...

Descriptors 20 and 21 of each are the ends of the links, which keep Ethernet frames apart. When the first command ends, so
does the second, and the exit status is that of the first."""

import os
import signal
import socket
import subprocess
import sys


def main():
    at = sys.argv.index('--')
    links = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    running = []
    for end, command in enumerate((sys.argv[1:at], sys.argv[at + 1:])):
        for number, link in enumerate(links):
            os.dup2(link[end].fileno(), 20 + number)
        running.append(subprocess.Popen(command, pass_fds=(20, 21)))

    def stop(*_):
        for process in running:
            process.terminate()
    signal.signal(signal.SIGTERM, stop)
    status = running[0].wait()
    running[1].terminate()
    running[1].wait()
    return status


sys.exit(main())
