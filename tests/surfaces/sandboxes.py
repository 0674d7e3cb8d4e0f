"""Sandboxes and privileges. What is in a sandbox is tests/sandbox.c."""
import os
import socket

from .cases import CASES, Case, all_of, moves, moving, session, told

for _name in ("sandbox-filter", "sandbox-all-threads", "sandbox-strict"):
    CASES[_name] = Case(_name, None, program="sandbox")


@moving
def changing_users():
    """setuid and its kin reach every thread of the process, the helper among them: libc waits for each."""
    a, b = session()
    for n in range(100):
        print(told(os.setresgid, -1, 65534, -1), told(os.setresuid, -1, 65534, -1), os.geteuid(), os.getegid())
        print(told(os.setresuid, -1, 0, -1), told(os.setresgid, -1, 0, -1), told(os.setgroups, [n]))
        if n % 40 == 0:
            moves(a)
        a.send(b"as anybody")
        print(all_of(b, 10))
    print(told(os.setgid, 65534), told(os.setuid, 65534), told(os.setuid, 0))
    a.send(b"as nobody")
    print(all_of(b, 9))
    a.shutdown(socket.SHUT_WR)
    print(b.recv(1))
