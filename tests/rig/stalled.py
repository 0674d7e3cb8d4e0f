"""A relay that takes its time: the test plays broker and relay itself, in a puppet without the shim, and says when the
answer comes (engine/handover.h). And a thread that is stopped, and no other of its process."""
import ctypes
import os

from .procs import DEADLINE_S, wait_for
from .puppet import Puppet

NAME = "namesocket-test"                                      # abstract, and so of the host's network alone (unix(7))
JOIN, ADOPT = 1, 12                                           # core/message.h
PPOLL = 271

PROGRAM = f"""
import array
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(chr(0) + {NAME!r})
listening.listen(16)
members = []
def record(s, count):
    data, beside, _, _ = s.recvmsg(1024, socket.CMSG_SPACE(4 * count))
    fds = array.array("i")
    for level, kind, bytes_ in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(bytes_)
    return data, list(fds)
def adopt():
    "Returns when a session has been handed over, and nothing was answered."
    global pair, fds
    while True:
        s = listening.accept()[0]
        members.append(s)
        data, fds = record(s, 1)
        if data[3] == {ADOPT}:
            break
    pair = socket.socket(fileno=fds[0])
    pair.send(b"R")
    data, fds = record(pair, 6)
    return chr(data[0])
def answer(byte):
    if byte != b"T":
        for fd in fds:
            os.close(fd)
    pair.send(byte)
def end():
    "The relay's end of what the users have instead."
    s = socket.socket(fileno=os.dup(fds[2]))
    s.settimeout({DEADLINE_S})
    return s
"""

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
PTRACE_PEEKUSER, PTRACE_SYSCALL, SYSGOOD = 3, 24, 1
RDX, RSI, ORIG_RAX = 12 * 8, 13 * 8, 15 * 8
WRITE = 1
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, tid, at=None, data=None):
    ctypes.set_errno(0)
    got = libc.ptrace(request, tid, at, data)
    if got < 0 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")
    return got


class StoppedThread:
    """It does nothing from here to go_on(), in whatever it was."""

    def __init__(self, tid):
        self.tid = tid
        ptrace(PTRACE_SEIZE, tid, None, SYSGOOD)
        ptrace(PTRACE_INTERRUPT, tid)
        os.waitpid(tid, WALL)

    def goes_to(self, call):  # a thread that does not end
        """Up to the beginning of this system call."""
        while ptrace(PTRACE_PEEKUSER, self.tid, ORIG_RAX) != call:
            ptrace(PTRACE_SYSCALL, self.tid)
            wait_for("a system call", lambda: os.waitpid(self.tid, WALL | os.WNOHANG)[0], step_s=0)

    def writes(self, text):
        """Up to a write of this, which has not begun."""
        with open(f"/proc/{self.tid}/mem", "rb", buffering=0) as memory:
            while True:
                ptrace(PTRACE_SYSCALL, self.tid)
                wait_for("a system call", lambda: os.waitpid(self.tid, WALL | os.WNOHANG)[0], step_s=0)
                if ptrace(PTRACE_PEEKUSER, self.tid, ORIG_RAX) != WRITE:
                    continue
                memory.seek(ptrace(PTRACE_PEEKUSER, self.tid, RSI))
                if text.encode() in memory.read(ptrace(PTRACE_PEEKUSER, self.tid, RDX)):
                    return

    def go_on(self):
        """Has to come: nobody else could even end the process."""
        if self.tid:
            ptrace(PTRACE_DETACH, self.tid)
        self.tid = None


class Relay(Puppet):
    """Broker and relay of a host: whoever has NAMESOCKET_BROKER=@NAME there comes here."""

    def __init__(self, host):
        super().__init__(host, "relay", None)
        self.do(PROGRAM)
        self.call = self.begin("adopt()")

    def has_it(self):
        """A session has come."""
        assert self.call.result() == "J"

    def answers(self, byte):
        self.do(f"answer({byte!r})")
        if byte == b"T":
            self.do("end_ = end()")

    def hears(self, text):
        got = self.do(f"end_.recv({len(text)}, socket.MSG_WAITALL)")
        assert got == text, got


def helper_of(pid, call=PPOLL):
    """The thread that waits for the relay's answer, or for anything, of a puppet that does not wait so itself."""
    def look():
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/syscall") as f:
                if f.read().split()[0] == str(call):
                    return int(tid)
        return None
    return wait_for("a thread that waits so", look)
