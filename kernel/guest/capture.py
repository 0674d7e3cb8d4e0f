#!/usr/bin/python3
"""Shows TCP over IPv6 as it goes over the devices of a network namespace: addresses, flags, data, and the options of
the handshake decoded (figure 4.5 and table 4.2 of the thesis). "ready" goes to standard output, the rest to
descriptor 3."""
import ipaddress
import os
import socket
import struct

out = os.fdopen(3, "a")
NAMES = {11: "PREFIX_SYN", 12: "PREFIX_ACK"}


def prefixes(data):
    out = []
    while data:
        length, size = data[0], (data[0] + 7) // 8
        if length > 128:
            out.append(f"extension {length:#x}")
            data = data[2 + data[1]:]
            continue
        address = data[1:1 + size] + bytes(16 - size)
        out.append(f"{ipaddress.IPv6Address(address)}/{length}")
        data = data[1 + size:]
    return ", ".join(out)


def options(header):
    at = 2
    while at < len(header):
        kind = header[at]
        if kind == 0:
            at += 1
            continue
        size = header[at + 1]
        if kind in NAMES:
            yield f"{NAMES[kind]} {prefixes(header[at + 2:at + 2 + size])}"
        at += 2 + size


def show(device, packet):
    follows, at, notes = packet[6], 40, []
    source, target = (ipaddress.IPv6Address(packet[a:a + 16]) for a in (8, 24))
    while follows == 60:
        size = (packet[at + 1] + 1) * 8
        header = packet[at:at + size]
        notes += [f"    bytes {header.hex(' ')}"] + [f"    {o}" for o in options(header)]
        follows, at = packet[at], at + size
    if follows != 6:
        return
    sport, dport, _, _, offset, flags = struct.unpack_from("!HHIIBB", packet, at)
    data = packet[at + (offset >> 4) * 4:40 + struct.unpack_from("!H", packet, 4)[0]]
    names = " ".join(n for bit, n in ((2, "SYN"), (1, "FIN"), (4, "RST"), (16, "ACK")) if flags & bit)
    text = f" {data.decode(errors='replace').rstrip()!r}" if data else ""
    print(f"  {device}: {source}.{sport} > {target}.{dport} {names}{text}", *notes, sep="\n", file=out, flush=True)


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    print("ready", flush=True)
    while True:
        packet, where = wire.recvfrom(65536)
        if where[1] == 0x86DD and where[0] != "lo" and len(packet) >= 60:
            show(where[0], packet)


main()
