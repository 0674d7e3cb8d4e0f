"""Packets by hand: one stray TCP segment out of a link, and the capture of what passes on one."""
import fcntl
import socket
import struct
import threading
import time

from . import netns

SIOCGIFHWADDR = 0x8927
ETH_ALL, ETH_IP, ETH_IP6 = 3, 0x0800, 0x86DD
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(src, sport, dst, dport, seq, ack, flags):
    """An IP packet (either family) with a bare TCP segment."""
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    s, d = socket.inet_pton(family, src), socket.inet_pton(family, dst)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 1024, 0, 0)
    pseudo = s + d + (struct.pack("!II", len(tcp), 6) if family == socket.AF_INET6 else struct.pack("!HH", 6, len(tcp)))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if family == socket.AF_INET6:
        return ETH_IP6, struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + s + d + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + s + d
    return ETH_IP, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def link_of(host, address):
    for link, addresses in host.addresses.items():
        if any(a.split("/")[0] == address for a in addresses):
            return link
    raise KeyError(address)


def stray_segment(victim, sender, flow):
    """An ACK far out of the window, from `sender` in the name of the flow's remote end."""
    local, lport, remote, rport = flow
    link = link_of(victim, local)
    with netns.inside(sender.net):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with raw:
        for seq_shift in (0, 1 << 30, 2 << 30, 3 << 30):      # at least one of these is outside any window
            ethertype, packet = segment(remote, rport, local, lport, (0x12345678 + seq_shift) & 0xFFFFFFFF,
                                        0x12345678, ACK)
            raw.sendto(packet, (link, ethertype, 0, 0, hardware_address(victim, link)))


def hardware_address(host, link):
    request = struct.pack("16s16x", link.encode())
    return fcntl.ioctl(host.socket, SIOCGIFHWADDR, request)[18:24]


class Packet:
    """One captured TCP segment."""

    def __init__(self, when, src, sport, dst, dport, seq, ack, flags, options, payload):
        self.when, self.src, self.sport, self.dst, self.dport = when, src, sport, dst, dport
        self.seq, self.ack, self.flags, self.options, self.payload = seq, ack, flags, options, payload

    def flag_text(self):
        return "".join(c for bit, c in ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "A"), (URG, "U"))
                       if self.flags & bit)


def parse(frame, when):
    """A Packet, or None for what is not TCP."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == ETH_IP:
        size, total, proto = (frame[14] & 15) * 4, struct.unpack_from("!H", frame, 16)[0], frame[23]
        src, dst = (socket.inet_ntop(socket.AF_INET, frame[i:i + 4]) for i in (26, 30))
    elif kind == ETH_IP6:
        size, total, proto = 40, 40 + struct.unpack_from("!H", frame, 18)[0], frame[20]
        src, dst = (socket.inet_ntop(socket.AF_INET6, frame[i:i + 16]) for i in (22, 38))
    else:
        return None
    if proto != 6:
        return None
    tcp = frame[14 + size:14 + total]
    sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", tcp)
    head = (offset >> 4) * 4
    return Packet(when, src, sport, dst, dport, seq, ack, flags & 63, option_kinds(tcp[20:head]), tcp[head:])


def option_kinds(raw):
    kinds, i = [], 0
    while i < len(raw) and raw[i]:
        kinds.append(raw[i])
        i += 1 if raw[i] == 1 else max(raw[i + 1], 2) if i + 1 < len(raw) else len(raw)
    return tuple(kinds)


class Capture:
    """Every TCP segment with `port` at either end that passes `host`'s `link`."""

    def __init__(self, host, link, port):
        with netns.inside(host.net):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)          # SO_RCVBUFFORCE
        self.sock.bind((link, ETH_ALL))
        self.sock.settimeout(0.05)
        self.port = port
        self.packets = []
        self.stop = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            try:
                frame = self.sock.recv(1 << 17)
            except TimeoutError:
                if self.stop:
                    return
                continue
            p = parse(frame, time.monotonic())
            if p and self.port in (p.sport, p.dport):
                self.packets.append(p)

    def close(self):
        self.stop = True
        self.thread.join()
        self.sock.close()
        return self.packets

    def connections(self):
        """Packets by connection, in order of the first packet; those of the client first told by its SYN."""
        found = {}
        for p in self.packets:
            client = (p.src, p.sport) if p.dport == self.port else (p.dst, p.dport)
            found.setdefault(client, []).append(p)
        return list(found.values())
