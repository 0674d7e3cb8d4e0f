"""Options and requests."""
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import termios

from .cases import all_of, becomes, case, libc, moves, moving, protected, session, told
from .data import unread

SIOCOUTQ = 0x5411
OPTIONS = [(socket.SOL_SOCKET, name) for name in (
    "SO_OOBINLINE", "SO_RCVLOWAT", "SO_PRIORITY", "SO_MARK", "SO_TIMESTAMP", "SO_KEEPALIVE", "SO_REUSEADDR", "SO_TYPE",
    "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN", "SO_SNDBUF", "SO_RCVBUF", "SO_ERROR", "SO_INCOMING_CPU")]
OPTIONS += [(socket.IPPROTO_TCP, name) for name in (
    "TCP_NODELAY", "TCP_CORK", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_LINGER2", "TCP_SYNCNT",
    "TCP_USER_TIMEOUT", "TCP_NOTSENT_LOWAT", "TCP_DEFER_ACCEPT", "TCP_WINDOW_CLAMP", "TCP_FASTOPEN", "TCP_FASTOPEN_CONNECT")]
OPTIONS += [(socket.IPPROTO_IP, name) for name in ("IP_TOS", "IP_TTL", "IP_RECVTTL", "IP_RECVTOS", "IP_TRANSPARENT")]
SET = {"SO_OOBINLINE": 1, "SO_RCVLOWAT": 3, "SO_PRIORITY": 5, "SO_MARK": 9, "SO_TIMESTAMP": 1, "SO_KEEPALIVE": 1,
       "SO_SNDBUF": 50_000, "SO_RCVBUF": 60_000, "TCP_NODELAY": 1, "TCP_CORK": 1, "TCP_KEEPIDLE": 77, "TCP_KEEPINTVL": 7,
       "TCP_KEEPCNT": 4, "TCP_LINGER2": 30, "TCP_SYNCNT": 3, "TCP_USER_TIMEOUT": 60_000, "TCP_NOTSENT_LOWAT": 5000,
       "IP_TOS": 8, "IP_TTL": 99, "IP_RECVTTL": 1, "IP_RECVTOS": 1}


def values(s):
    told_of = {}
    for level, name in OPTIONS:
        number = getattr(socket, name, {"SO_TIMESTAMP": 29, "TCP_FASTOPEN_CONNECT": 30, "IP_RECVTTL": 12, "TCP_NOTSENT_LOWAT": 25,
                                        "IP_TRANSPARENT": 19, "SO_INCOMING_CPU": 49}.get(name))
        if name not in ("SO_INCOMING_CPU", "TCP_WINDOW_CLAMP"):
            told_of[name] = told(s.getsockopt, level, number)
    return told_of


def numbers(name):
    level = next(level for level, n in OPTIONS if n == name)
    return level, getattr(socket, name, {"SO_TIMESTAMP": 29, "IP_RECVTTL": 12, "TCP_NOTSENT_LOWAT": 25}.get(name))


@moving
def options_kept():
    """Each option is what the application made it, on the next connection too."""
    a, b = session()
    print({k: v for k, v in values(a).items() if k not in ("SO_SNDBUF", "SO_RCVBUF")})
    moves(a)
    print({k: v for k, v in values(a).items() if k not in ("SO_SNDBUF", "SO_RCVBUF")})
    for name, value in SET.items():
        told(a.setsockopt, *numbers(name), value)
        told(b.setsockopt, *numbers(name), value)
    print(values(a))
    moves(a)
    print(values(a))
    print(values(b))
    print(told(a.setsockopt, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 0), told(a.setsockopt, socket.SOL_SOCKET, 9999, 1),
          told(a.getsockopt, socket.SOL_SOCKET, 9999), told(a.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, b""))
    for name in ("SO_LINGER", "SO_RCVTIMEO", "SO_SNDTIMEO"):
        size = 8 if name == "SO_LINGER" else 16
        value = struct.pack("ii", 1, 5) if name == "SO_LINGER" else struct.pack("ll", 3, 500_000)
        a.setsockopt(socket.SOL_SOCKET, getattr(socket, name, {"SO_RCVTIMEO": 20, "SO_SNDTIMEO": 21}.get(name)), value)
        moves(a)
        print(name, a.getsockopt(socket.SOL_SOCKET, getattr(socket, name, {"SO_RCVTIMEO": 20, "SO_SNDTIMEO": 21}.get(name)), size))


@moving
def options_seldom_set():
    """The same for those that Python has no name for."""
    a, b = session()
    names = {"SO_RXQ_OVFL": (socket.SOL_SOCKET, 40), "SO_PREFER_BUSY_POLL": (socket.SOL_SOCKET, 69),
             "TCP_TX_DELAY": (socket.IPPROTO_TCP, 37), "IP_BIND_ADDRESS_NO_PORT": (socket.IPPROTO_IP, 24)}
    for s in a, b:
        for number in names.values():
            told(s.setsockopt, *number, 1)
    moves(a)
    print([{name: told(s.getsockopt, *number) for name, number in names.items()} for s in (a, b)])


# Not tried, by level and number: what names a path (SO_BINDTODEVICE, SO_BINDTOIFINDEX, IP_OPTIONS, IP_UNICAST_IF), what
# is done to a socket rather than set on it (filters, SO_BUF_LOCK, TCP_QUICKACK, TCP_REPAIR and its queues, TCP_ULP), what is
# for listeners (TCP_SAVE_SYN) or datagrams alone, what would end the session (TCP_USER_TIMEOUT, IP_MINTTL), and where a peek
# begins (SO_PEEK_OFF).
NOT_TRIED = {(socket.SOL_SOCKET, n) for n in (4, 11, 13, 25, 26, 27, 41, 42, 43, 44, 62, 72)} | \
    {(socket.IPPROTO_TCP, n) for n in (12, 14, 18, 19, 20, 21, 27, 31)} | \
    {(socket.IPPROTO_IP, n) for n in (4, 18, 20, 21, 23, 26, 34, 49, 50)}


@moving
def every_option():
    """What is a number, and can be set and read, is the same on the next connection, whatever its name."""
    a, b = session()
    tried = []
    for level, last in (socket.SOL_SOCKET, 90), (socket.IPPROTO_TCP, 50), (socket.IPPROTO_IP, 60):
        for number in range(1, last):
            if (level, number) in NOT_TRIED:
                continue
            is_now = told(a.getsockopt, level, number)
            for value in (100, 70000, 5000, 1, 0, 2, 3, 8):
                if isinstance(is_now, int) and value != is_now and told(a.setsockopt, level, number, value) is None and \
                        told(a.getsockopt, level, number) != is_now:
                    tried.append((level, number))
                    break
    print(tried)
    before = {option: told(a.getsockopt, *option) for option in tried}
    moves(a)
    print({option: (v, told(a.getsockopt, *option)) for option, v in before.items() if told(a.getsockopt, *option) != v})


@moving
def options_before_connecting():
    """Options that were set before the connection was made."""
    listener = socket.create_server(("127.0.0.1", 0))
    a = socket.socket()
    for name, value in SET.items():
        told(a.setsockopt, *numbers(name), value)
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    a.connect(listener.getsockname())
    b, _ = listener.accept()
    a.send(b"?")
    b.recv(1)
    protected(2)
    session.listeners.append(listener)
    print(values(a))
    moves(a)
    print(values(a))


@moving
def information():
    """TCP_INFO's state and FIONREAD, SIOCOUTQ, SIOCOUTQNSD."""
    a, b = session()
    for _ in range(2):
        print(a.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1), b.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
        print(told(a.getsockopt, socket.IPPROTO_TCP, socket.TCP_INFO, 232)[0], len(a.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)))
        becomes("all acknowledged", lambda: struct.unpack("i", fcntl.ioctl(a, SIOCOUTQ, bytes(4)))[0] == 0)
        print(struct.unpack("i", fcntl.ioctl(a, 0x894B, bytes(4)))[0])
        a.send(b"12345")
        becomes("unread", lambda: unread(b) == 5)
        print(b.recv(2), unread(b), unread(a))
        moves(a)
        print(unread(b), b.recv(10), unread(b))
    print(told(fcntl.ioctl, a, 0x5401, bytes(60)), os.isatty(a.fileno()), told(fcntl.ioctl, a, 0x1234, 0))
    print(told(os.lseek, a.fileno(), 0, 0), oct(os.fstat(a.fileno()).st_mode & 0o170000))


@moving
def low_water():
    """SO_RCVLOWAT holds for poll and for blocking reads, after a move as before."""
    import threading
    a, b = session()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    for _ in range(2):
        a.send(b"four")
        becomes("unread", lambda: unread(b) == 4)
        moves(a)
        print(select.select([b], [], [], 0)[0], b.recv(100, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        got = []
        t = threading.Thread(target=lambda: got.append(b.recv(100)))
        t.start()
        a.send(b"and eleven")    # the kernel wakes a read that has taken four for ten more
        t.join()
        print(got, b.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
        moves(a)


@moving
def time_outs():
    """SO_RCVTIMEO and SO_SNDTIMEO end a call with EAGAIN, or with what it has done."""
    a, b = session()
    short = struct.pack("ll", 0, 50_000)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, short)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, short)
    moves(a)
    print(told(a.recv, 1))
    while isinstance(n := told(a.send, bytes(1_000_000)), int):
        pass
    print(n)
    while select.select([b], [], [], 0)[0]:
        b.recv(1 << 20)
    print(select.select([], [a], [], 10)[1] == [a])


@moving
def non_blocking():
    """O_NONBLOCK by fcntl, ioctl and accept4's and the flag's sight from a copy of the descriptor."""
    a, b = session()
    copy = os.dup(a.fileno())
    print(fcntl.fcntl(a, fcntl.F_GETFL), fcntl.fcntl(copy, fcntl.F_GETFL))
    fcntl.fcntl(a, fcntl.F_SETFL, fcntl.fcntl(a, fcntl.F_GETFL) | os.O_NONBLOCK)
    moves(a)
    print(fcntl.fcntl(a, fcntl.F_GETFL), fcntl.fcntl(copy, fcntl.F_GETFL), told(a.recv, 1), told(os.read, copy, 1))
    fcntl.ioctl(copy, termios.FIONBIO, struct.pack("i", 0))
    print(fcntl.fcntl(a, fcntl.F_GETFL), told(a.recv, 1, socket.MSG_DONTWAIT))
    fcntl.ioctl(a, termios.FIONBIO, struct.pack("i", 1))
    print(told(a.recv, 1), fcntl.fcntl(a, fcntl.F_GETFD), fcntl.fcntl(copy, fcntl.F_GETFD))
    os.set_inheritable(copy, True)
    moves(a)
    print(fcntl.fcntl(a, fcntl.F_GETFD), fcntl.fcntl(copy, fcntl.F_GETFD))
    b.send(b"x")
    print(select.select([a], [], [], 5)[0] == [a], os.read(copy, 10))


@moving
def signal_driven():
    """O_ASYNC: a signal for each arrival, on the next connection too."""
    a, b = session()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO, signal.SIGRTMIN])
    fcntl.fcntl(b, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(b, fcntl.F_SETFL, fcntl.fcntl(b, fcntl.F_GETFL) | os.O_ASYNC)
    a.send(b"x")
    print(signal.sigwait([signal.SIGIO]) == signal.SIGIO, b.recv(1))
    moves(a)
    while signal.sigtimedwait([signal.SIGIO], 0):
        pass
    print(fcntl.fcntl(b, fcntl.F_GETOWN) == os.getpid(), fcntl.fcntl(b, fcntl.F_GETFL))
    a.send(b"y")
    print(signal.sigtimedwait([signal.SIGIO], 5).si_signo == signal.SIGIO, b.recv(1))
    fcntl.fcntl(b, fcntl.F_SETSIG, signal.SIGRTMIN)
    moves(a)
    a.send(b"z")
    info = signal.sigtimedwait([signal.SIGRTMIN], 5)
    print(info and info.si_signo == signal.SIGRTMIN, fcntl.fcntl(b, 11), b.recv(1))                        # F_GETSIG
    fcntl.fcntl(b, fcntl.F_SETFL, fcntl.fcntl(b, fcntl.F_GETFL) & ~os.O_ASYNC)
    moves(a)
    while signal.sigtimedwait([signal.SIGRTMIN], 0):
        pass
    a.send(b"q")
    becomes("unread", lambda: unread(b) == 1)
    print(signal.sigtimedwait([signal.SIGRTMIN, signal.SIGIO], 0), b.recv(1))


@moving
def signal_driven_tells_the_number():
    """F_SETSIG: the signal has the descriptor by which O_ASYNC was set."""
    RT = signal.SIGRTMIN

    def signalled():
        """The descriptor that the next signal tells of."""
        info = ctypes.create_string_buffer(128)
        r = libc.sigtimedwait(ctypes.create_string_buffer(struct.pack("Q", 1 << RT - 1), 128), info,
                              ctypes.create_string_buffer(struct.pack("ll", 5, 0)))
        return r == RT, struct.unpack_from("i", info, 24)[0] == b.fileno()
    a, b = session()
    signal.pthread_sigmask(signal.SIG_BLOCK, [RT])
    fcntl.fcntl(b, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(b, fcntl.F_SETSIG, RT)
    fcntl.fcntl(b, fcntl.F_SETFL, fcntl.fcntl(b, fcntl.F_GETFL) | os.O_ASYNC)
    for _ in range(3):
        a.send(b"x")
        print(signalled(), b.recv(1))
        moves(a)
        while signal.sigtimedwait([RT], 0):
            pass


@case(stays=True)
def user_timeout_is_told():
    a, b = session()
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12345)
    print(a.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), all_of(b, 0))
