#!/usr/bin/python3
"""netstat.py PID: the TCP connection of a process, with the addresses that its segments have now (TCP_PRESERVE_INFO),
in netstat's words. What the process itself sees of the addresses (getsockname, getpeername) does not change."""
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import sys
import termios

TCP_PRESERVE_INFO, ADDRESSES = 61, 8
PIDFD_OPEN, PIDFD_GETFD = 434, 438
STATES = {1: "ESTABLISHED", 2: "SYN_SENT", 8: "CLOSE_WAIT"}


def connection(pid):
    call = ctypes.CDLL(None, use_errno=True).syscall
    process = call(PIDFD_OPEN, pid, 0)
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            copy = call(PIDFD_GETFD, process, int(fd), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            return socket.socket(fileno=copy)
    sys.exit(f"netstat.py: {pid} has no socket")


def queued(connection, request):
    return struct.unpack("i", fcntl.ioctl(connection, request, b"\0" * 4))[0]


def main():
    tcp = connection(int(sys.argv[1]))
    info = tcp.getsockopt(socket.IPPROTO_TCP, TCP_PRESERVE_INFO, 512)
    local, remote = info[3:5]
    at = 16 + 16 * local, 16 + 16 * (ADDRESSES + remote)
    state = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]
    ends = [f"{ipaddress.IPv6Address(info[a:a + 16])}.{name[1]}"
            for a, name in zip(at, (tcp.getsockname(), tcp.getpeername()))]
    row = "  {:5} {:>6} {:>6} {:36} {:36} {}".format
    print(row("Proto", "Recv-Q", "Send-Q", "Local Address", "Foreign Address", "(state)"))
    print(row("tcp6", queued(tcp, termios.FIONREAD), queued(tcp, termios.TIOCOUTQ), *ends, STATES.get(state, state)))


main()
