"""The protocol once more, in Python, as a client that can also break every rule of it. Keys, tags and layouts are
those of vectors/make.py, which shares no code with the program."""
import errno
import os
import socket
import struct

from vectors.make import BASE, h, header, x25519

from . import netns
from .pair import PORT
from .procs import wait_for

NEW, RESUME, RESUME_ACK, CONFIRM, DONE, HELLO_ACK = 1, 2, 3, 5, 6, 7
GO_ON, UNKNOWN, GAP, EPOCH = 0, 1, 2, 3
TIMEOUT_S = 10
ATTEMPT_S = 4                                                 # the engine's own, for one attempt


def connect(host, to, port=PORT, source=None, talks=True):
    """A connection from `host`; blocking, with a deadline for every call. talks: the handshake's last
    acknowledgement is held back for the first bytes (docs/architecture.md, "Listeners and take-over")."""
    with netns.inside(host.net):
        s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT_S)
    if talks:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    if source:
        s.bind((source, 0))
    s.connect((to, port))
    return s


def read(s, count):
    """Exactly `count` bytes, or what came before the end."""
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            break
        data += more
    return data


def ended(s):
    """Whether the peer has ended it, either way, and said no more."""
    try:
        return s.recv(1) == b""
    except ConnectionError:
        return True


class Hello:
    """The answer to HELLO, and the connection that is its lease."""

    def __init__(self, host, to, port=PORT, source=None, urgent=True):
        self.lease = connect(host, to, port, source)
        self.answered = False
        try:
            self.lease.send(b"N", socket.MSG_OOB if urgent else 0)
            self.lease.shutdown(socket.SHUT_WR)
            self.read()
        except OSError as e:
            if e.errno not in (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE):        # that is a no
                raise

    def read(self):
        head = read(self.lease, 64)
        self.answered = len(head) == 64 and head[:4] == header(2, HELLO_ACK)
        if not self.answered:
            return
        self.instance, self.key = head[8:24], head[24:56]
        self.lease_s = struct.unpack(">I", head[60:64])[0]
        listed = read(self.lease, 20 * head[5])
        self.addresses = []
        for at in range(0, len(listed), 20):
            raw = listed[at + 4:at + 20]
            self.addresses.append(socket.inet_ntop(socket.AF_INET, raw[12:]) if listed[at] == 4 else
                                  socket.inet_ntop(socket.AF_INET6, raw))

    def open(self):
        """Whether the lease still stands."""
        self.lease.setblocking(False)
        try:
            return self.lease.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False


class Client:
    """One session, and everything that can be said about it."""

    secret, key, masters = os.urandom(32), None, {}

    def __init__(self, host, to, hello, port=PORT):
        self.host, self.to, self.port, self.hello = host, to, port, hello
        if not Client.key:
            Client.key = x25519(Client.secret, BASE)
        if hello.key not in Client.masters:
            Client.masters[hello.key] = h(32, b"", b"namesocket v2", x25519(Client.secret, hello.key), Client.key,
                                          hello.key)
        self.id = os.urandom(16)
        both = h(64, Client.masters[hello.key], b"session", self.id, hello.instance, b"\2")
        self.c2s, self.s2c = both[:32], both[32:]
        self.epoch = self.sent = self.received = 0
        self.conn = None

    def new(self):
        packet = header(2, NEW) + bytes(4) + self.id + self.key + self.hello.instance[:8]
        return packet + h(16, self.c2s, packet)

    def begin(self, data=b""):
        self.conn = connect(self.host, self.to, self.port)
        self.conn.sendall(self.new() + data)
        self.sent += len(data)
        return self

    def echo(self, data):
        """Says it and wants it back."""
        self.conn.sendall(data)
        self.sent += len(data)
        self.expect(data)

    def expect(self, data):
        back = read(self.conn, len(data))
        self.received += len(back)
        if back != data:
            raise AssertionError(f"{back[:60]!r} came, not {data[:60]!r}")

    # -- packets --------------------------------------------------------------------------------------------

    def resume(self, epoch=None, received=None, nonce=None, key=None):
        if epoch is None:
            self.epoch += 1
            epoch = self.epoch
        self.nonce = nonce or os.urandom(16)
        packet = header(2, RESUME) + bytes(4) + self.id + struct.pack(
            ">QQ", epoch, self.received if received is None else received) + self.nonce
        return packet + h(16, key or self.c2s, packet)

    def confirm(self, ack, received=None, start=None, key=None):
        packet = header(2, CONFIRM) + bytes(4) + struct.pack(
            ">QQ", self.received if received is None else received, ack.received if start is None else start)
        return packet + h(16, key or self.c2s, ack.nonce, packet)

    def ack(self, raw):
        return Ack(raw, self.s2c, self.nonce)

    # -- the exchange ---------------------------------------------------------------------------------------

    def ask(self, **kw):
        """A connection on which RESUME was said, and its answer.

        Once more, as a client does, where none comes: on a busy machine RESUME can come so late that the
        application has accepted the connection, and it may never read it.
        """
        for last in (False, False, True):
            conn = connect(self.host, self.to, self.port)
            if not last:
                conn.settimeout(ATTEMPT_S)
            conn.sendall(self.resume(**kw))
            try:
                answer = read(conn, 64)
            except TimeoutError:
                if last:
                    raise
                conn.close()
                continue
            conn.settimeout(TIMEOUT_S)
            return conn, self.ack(answer)

    def move(self, pending=b""):
        """The whole exchange. `pending`: what was sent before and may not have come."""
        conn, ack = self.ask()
        if ack.status != GO_ON or not ack.proved:
            raise AssertionError(f"RESUME is answered by status {ack.status}")
        conn.sendall(self.confirm(ack))
        done = read(conn, 32)
        if done[:4] != header(2, DONE) or done[16:] != h(16, self.s2c, self.nonce, done[:16]):
            raise AssertionError(f"{done.hex()} is no DONE")
        if self.conn:
            self.conn.close()
        self.conn = conn
        lacking = self.sent - ack.received
        if lacking:
            conn.sendall(pending[-lacking:])
        return self

    def close(self):
        if self.conn:
            self.conn.close()


class Ack:
    """RESUME_ACK; status None when there was none."""

    def __init__(self, raw, key, client_nonce):
        self.raw = raw
        self.status = None
        if len(raw) != 64 or raw[:4] != header(2, RESUME_ACK):
            return
        self.status = raw[4]
        self.epoch, self.received, self.sent = struct.unpack(">QQQ", raw[8:32])
        self.nonce = raw[32:48]
        self.proved = raw[48:] == h(16, key, client_nonce, raw[:48])


def reset(conn):
    """Ends it by RST."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


__all__ = ["Hello", "Client", "Ack", "connect", "read", "ended", "reset", "header", "wait_for", "NEW", "RESUME",
           "RESUME_ACK", "CONFIRM", "DONE", "HELLO_ACK", "GO_ON", "UNKNOWN", "GAP", "EPOCH"]
