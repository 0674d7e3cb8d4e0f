#!/usr/bin/env python3
"""Writes v1.txt, v2.txt and bad.txt, and the packets in them as a fuzzing corpus.

A second implementation of docs/protocol.md, on Python's own BLAKE2b and an
X25519 of its own, so that the vectors do not merely repeat what the C code does.
All "randomness" is counted up, so that a run always writes the same files.

usage: make.py [directory of the vectors [directory of the corpus]]
"""
import hashlib
import ipaddress
import pathlib
import struct
import sys

# ---- X25519, RFC 7748 section 5

P = 2**255 - 19


def x25519(scalar, point):
    k = int.from_bytes(scalar, "little")
    k = k & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(point, "little") % 2**255
    x1, x2, z2, x3, z3 = u, 1, 0, u, 1
    for bit in range(254, -1, -1):
        swap = k >> bit & 1
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")

# the secret keys and the result of RFC 7748, 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
assert x25519(ALICE, x25519(BOB, BASE)) == SHARED


def count(start, n):
    return bytes((start + i) % 256 for i in range(n))


def h(size, key, *parts):
    return hashlib.blake2b(b"".join(parts), digest_size=size, key=key).digest()


# ---- output

HEAD = """# {title}
#
# Written by make.py from docs/protocol.md; change that, not this.
#
# A record is a name in brackets and a field a line: numbers in decimal, bytes in
# hexadecimal. "hex" is the whole packet, over as many lines as it takes.
"""


class Out:
    def __init__(self, title, notes=""):
        self.text = HEAD.format(title=title) + notes
        self.packets = []

    def record(self, name, about, fields, packet=None):
        self.text += f"\n[{name}]\nabout {about}\n"
        for key, value in fields:
            self.text += f"{key} {value.hex() if isinstance(value, bytes) else value}\n"
        if packet is not None:
            self.packets.append(packet)
            for at in range(0, max(len(packet), 1), 32):
                self.text += f"hex {packet[at:at + 32].hex()}".rstrip() + "\n"


def header(version, kind):
    return struct.pack(">HBB", 0x4E53, version, kind)


# ---- version 1, thesis 4.2.3

def v1_resume(client, client_port, server, server_port, received):
    c, s = ipaddress.ip_address(client).packed, ipaddress.ip_address(server).packed
    packet = header(1, 2 if len(c) == 16 else 4) + struct.pack(">HH", client_port, server_port)
    packet += c + s + struct.pack(">I", received)
    fields = [("client_port", client_port), ("server_port", server_port), ("client", c), ("server", s),
              ("received", received)]
    return "v1_resume6" if len(c) == 16 else "v1_resume4", fields, packet


def version_1():
    out = Out("Version 1: the thesis, byte for byte")

    def put(about, name, fields, packet):
        out.record(name, about, fields, packet)

    put("the only one there is", "v1_new", [], header(1, 1))
    put("the addresses and ports of thesis 6.2, after \"helo\\r\\n\" came back", *v1_resume(
        "3ffe:2a00:100:3100::f00d:cafe", 1040, "3ffe:2a00:100:3100::dead:beef", 1234, 6))
    put("counter about to wrap", *v1_resume("2001:db8::1", 65535, "2001:db8:ffff::2", 1, 0xFFFFFFFF))
    put("IPv4", *v1_resume("192.0.2.1", 49152, "198.51.100.7", 23, 0x01020304))
    put("IPv4, nothing received", *v1_resume("192.0.2.255", 1024, "203.0.113.200", 80, 0))
    for received in (0, 6, 0x80000000, 0xFFFFFFFF):
        out.record("v1_resume_ack", "counter %#x" % received, [("received", received)],
                   header(1, 3) + struct.pack(">I", received))
    return out


# ---- version 2

class Keys:
    def __init__(self, out, about, client_random, server_random, psk, session_id, version=2):
        self.client_key = x25519(client_random[:32], BASE)
        self.server_key = x25519(server_random[:32], BASE)
        self.instance, self.session_id, self.psk = server_random[32:], session_id, psk
        shared = x25519(client_random[:32], self.server_key)
        assert shared == x25519(server_random[:32], self.client_key)
        master = h(32, psk, b"namesocket v2", shared, self.client_key, self.server_key)
        both = h(64, master, b"session", session_id, self.instance, bytes([version]))
        self.c2s, self.s2c = both[:32], both[32:]
        fields = [("client_random", client_random), ("server_random", server_random)]
        fields += [("psk", psk)] if psk else []
        fields += [("session_id", session_id), ("version", version), ("client_key", self.client_key),
                   ("server_key", self.server_key), ("instance", self.instance), ("shared", shared),
                   ("master", master), ("c2s", self.c2s), ("s2c", self.s2c)]
        out.record("keys", about, fields)


LAYOUT = {  # name: type, [(field, bytes, or format)]
    "new": (1, [("flags", ">I"), ("session_id", 16), ("client_key", 32), ("instance8", 8)]),
    "resume": (2, [("flags", ">I"), ("session_id", 16), ("epoch", ">Q"), ("receive_offset", ">Q"),
                   ("nonce", 16)]),
    "resume_ack": (3, [("status", "B"), ("reserved", 3), ("epoch", ">Q"), ("receive_offset", ">Q"),
                       ("send_offset", ">Q"), ("nonce", 16)]),
    "confirm": (5, [("flags", ">I"), ("receive_offset", ">Q"), ("start_offset", ">Q")]),
    "done": (6, [("flags", ">I"), ("receive_offset", ">Q")]),
}


def tagged(out, about, name, values, keys=None, direction=None, over=b""):
    """One packet of LAYOUT; with a zero tag when it has no direction."""
    kind, layout = LAYOUT[name]
    packet, fields = header(2, kind), []
    for field, form in layout:
        value = values.get(field, bytes(form) if isinstance(form, int) else 0)
        packet += value if isinstance(form, int) else struct.pack(form, value)
        if field != "reserved":
            fields.append((field, value))
    tag = h(16, getattr(keys, direction), over, packet) if direction else bytes(16)
    fields.append(("tag", tag))
    if direction:
        fields.append(("key", direction))
    if over:
        fields.append(("over", over))
    if values.get("reserved"):
        fields.append(("reserved", "set"))
    out.record(name, about, fields, packet + tag)
    return packet + tag


def key_check(keys):
    first = int.from_bytes(h(16, keys.psk, b"key check", keys.instance, keys.server_key)[:2], "big")
    return (first or 1) if keys.psk else 0


def hello_ack(out, about, keys, addresses, park=600, lease=300, highest=2):
    packet = header(2, 7) + struct.pack(">BBH", highest, len(addresses), key_check(keys)) + keys.instance + keys.server_key
    packet += struct.pack(">II", park, lease)
    fields = [("highest_version", highest), ("count", len(addresses)),
              ("key_check", key_check(keys)), ("instance", keys.instance),
              ("public_key", keys.server_key), ("park_s", park), ("lease_s", lease)]
    for text, scope, priority in addresses:
        address = ipaddress.ip_address(text)
        raw = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
        packet += struct.pack(">BBBB", address.version, scope, priority, 0) + raw
        fields.append(("address", f"{address.version} {scope} {priority} {raw.hex()}"))
    out.record("hello_ack", about, fields, packet)
    return packet


def exchange(out, keys, epoch, there, back, nonces):
    """NEW, then one RESUME from beginning to end. `there` and `back` are
    (sent, received) of the client's and of the server's stream."""
    client_nonce, server_nonce = nonces
    tagged(out, "first contact", "new", {"session_id": keys.session_id, "client_key": keys.client_key,
                                         "instance8": keys.instance[:8]}, keys, "c2s")
    tagged(out, "the client's question", "resume", {
        "session_id": keys.session_id, "epoch": epoch, "receive_offset": back[1],
        "nonce": client_nonce}, keys, "c2s")
    tagged(out, "the server's answer, over the client's nonce", "resume_ack", {
        "epoch": epoch, "receive_offset": there[1], "send_offset": back[0], "nonce": server_nonce},
        keys, "s2c", client_nonce)
    tagged(out, "over the server's nonce", "confirm", {"receive_offset": back[1], "start_offset": there[1]},
           keys, "c2s", server_nonce)
    tagged(out, "over the client's nonce", "done", {"receive_offset": there[1]}, keys, "s2c", client_nonce)


NOTES = """# "[keys]" holds for the packets after it, up to the next one: secret key and
# instance id of both sides as their 48 random bytes, what follows from them, and
# the keys of one session. A packet with "key" has a true tag, made with that key
# over "over" (a nonce), if given, and the packet. A packet with "reserved set"
# has reserved fields that are not zero: read it, but nobody writes it.
"""


def version_2():
    out = Out("Version 2", NOTES)
    keys = Keys(out, "no pre-shared key", ALICE + count(0xA0, 16), BOB + count(0xB0, 16), b"",
                count(0xC0, 16))
    nonces = count(0xD0, 16), count(0xE0, 16)
    hello_ack(out, "no addresses, lease 0", keys, [], lease=0)
    hello_ack(out, "two links", keys, [("2001:db8:1::dead:beef", 14, 1), ("192.0.2.1", 14, 2)])
    hello_ack(out, "as many addresses as there can be, of all scopes", keys,
              [(f"2001:db8:{i:x}::1" if i % 2 else f"198.51.100.{i}", i, 255 - i) for i in range(16)],
              park=0xFFFFFFFF, lease=0xFFFFFFFF, highest=255)
    exchange(out, keys, 1, (4000, 1000), (2000, 2000), nonces)
    tagged(out, "an idle session that ended without a byte", "resume", {
        "session_id": keys.session_id, "epoch": 2, "nonce": nonces[1]}, keys, "c2s")
    tagged(out, "flags that mean nothing yet, numbers at their ends", "resume", {
        "flags": 0xFFFFFFFF, "session_id": bytes(16), "epoch": 2**64 - 1, "receive_offset": 2**64 - 1,
        "nonce": b"\xff" * 16}, keys, "c2s")
    tagged(out, "flags that mean nothing yet", "new", {
        "flags": 0x80000001, "session_id": keys.session_id, "client_key": keys.client_key,
        "instance8": keys.instance[:8]}, keys, "c2s")
    tagged(out, "all bytes of all fields different", "resume_ack", {
        "epoch": 0x0102030405060708, "receive_offset": 0x1112131415161718, "send_offset": 0x2122232425262728,
        "nonce": nonces[0]}, keys, "s2c", nonces[1])
    tagged(out, "the same, with reserved bytes that the tag covers", "resume_ack", {
        "reserved": b"\x01\x02\x03", "epoch": 0x0102030405060708, "receive_offset": 0x1112131415161718,
        "send_offset": 0x2122232425262728, "nonce": nonces[0]}, keys, "s2c", nonces[1])
    tagged(out, "numbers at their ends", "confirm", {
        "flags": 0xFFFFFFFF, "receive_offset": 2**64 - 1, "start_offset": 2**63}, keys, "c2s", nonces[0])
    tagged(out, "beyond 32 bits", "done", {"flags": 0x01020304, "receive_offset": 2**32}, keys, "s2c", nonces[0])
    for status, why in enumerate(("unknown session, or bad tag", "an offset that was never sent",
                                  "the epoch did not rise", "try later"), 1):
        tagged(out, f"refusal: {why}; the refuser's instance id, and no tag", "resume_ack",
               {"status": status, "nonce": keys.instance})
    keys = Keys(out, "a pre-shared key of 32 bytes", count(0x21, 48), count(0x61, 48), count(0x80, 32),
                count(0x10, 16))
    exchange(out, keys, 7, (2**40 + 5, 2**40), (2**33, 2**33 - 1), (count(0x20, 16), count(0x30, 16)))
    hello_ack(out, "a pre-shared key of 32 bytes", keys, [])
    keys = Keys(out, "a pre-shared key of 1 byte", count(0x21, 48), count(0x61, 48), b"k", count(0x10, 16))
    hello_ack(out, "a pre-shared key of 1 byte", keys, [])
    keys = Keys(out, "a pre-shared key of 64 bytes", count(0x21, 48), count(0x61, 48), count(0x80, 64),
                count(0x10, 16))
    hello_ack(out, "a pre-shared key of 64 bytes", keys, [])
    Keys(out, "another version", count(0x21, 48), count(0x61, 48), b"", count(0x10, 16), version=3)
    Keys(out, "secret keys with every bit that clamping changes the wrong way",
         b"\xff" * 32 + count(0, 16), b"\x07" + bytes(30) + b"\x80" + count(0x10, 16), b"", count(0x10, 16))
    low_order(out)
    return out


def low_order(out):
    """Every u for which 8 times the point is the neutral element (RFC 7748, 6.1),
    with those that are written as p or more."""
    found = {0, 1, P - 1, P, P + 1}
    for start in range(2, 40):
        # a point times the large prime orders lies in the small subgroup
        for order in (2**252 + 27742317777372353535851937790883648493,
                      2**253 - 55484635554744707071703875581767296995):
            u = ladder(order, start)
            if ladder(8, u) == 0:  # not so when the point is of the twist and the order of the curve, or vice versa
                found.add(u)
    for u in sorted(found):
        raw = u.to_bytes(32, "little")
        for top in (0, 0x80):  # the highest bit is not looked at
            peer = raw[:31] + bytes([raw[31] | top])
            assert x25519(count(1, 32), peer) == bytes(32)
            out.record("low_order", "a peer key to refuse", [("peer_key", peer)])


def ladder(k, u):
    """k times the point of x-coordinate u, without clamping; 0 for the neutral element."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(k.bit_length() - 1, -1, -1):
        if k >> bit & 1:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb = a * a % P, b * b % P
        x3, z3 = (d * a + c * b) ** 2 % P, u * (d * a - c * b) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if k >> bit & 1:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return x2 * pow(z2, P - 2, P) % P


# ---- what must not be taken for a packet

BAD_NOTES = """# "[x]" is what the reader expects: ask the reader of packet x. "result" is what
# it says ("more" bytes are needed, or "refused"), "length" what a reader says that
# takes any packet ("more", "refused", or the length of the packet).
"""


def bad(v1, v2):
    out = Out("Bytes that are no packet, or not yet", BAD_NOTES)

    def record(name, about, result, length, packet):
        out.record(name, about, [("result", result), ("length", length)], packet)

    def first(of, kind):
        return next(p for p in of.packets if p[3] == kind)

    resume, hello = first(v2, 2), v2.packets[1]
    record("resume", "nothing", "more", "more", b"")
    record("resume", "one byte, and not ours", "refused", "refused", b"G")
    record("resume", "one byte, of the other byte order", "refused", "refused", b"S")
    record("resume", "the wrong second byte", "refused", "refused", b"NN")
    record("resume", "version 0", "refused", "refused", b"NS\0")
    record("resume", "version 3", "refused", "refused", b"NS\3")
    record("resume", "version 255, in full length", "refused", "refused", b"NS\xff" + resume[3:])
    record("resume", "version 1, where version 2 is expected", "refused", "more", b"NS\1")
    record("v1_resume6", "version 2, where version 1 is expected", "refused", "more", b"NS\2")
    record("v1_resume6", "version 2, in full length", "refused", "72", resume)
    for kind in (0, 8, 0x82, 255):
        record("resume", f"type {kind}", "refused", "refused", header(2, kind))
    record("resume", "type 4 is version 1's", "refused", "refused", header(2, 4) + resume[4:])
    for kind in (0, 5, 6, 7, 8):
        record("v1_resume6", f"type {kind}, which version 1 does not have", "refused", "refused", header(1, kind))
    record("resume", "another type", "refused", "80", header(2, 1))
    record("resume", "another type, in full length", "refused", "64", header(2, 3) + resume[4:])
    record("done", "a longer packet than expected", "refused", "72", resume)
    record("v1_resume_ack", "another type", "refused", "4", header(1, 1))
    for name, kind, length in (("new", 1, 80), ("resume", 2, 72), ("resume_ack", 3, 64), ("confirm", 5, 40),
                               ("done", 6, 32)):
        packet = first(v2, kind)
        assert len(packet) == length
        record(name, "one byte short", "more", length, packet[:-1])
        record(name, "the header alone", "more", length, packet[:4])
    for name, kind, length in (("v1_resume6", 2, 44), ("v1_resume4", 4, 20), ("v1_resume_ack", 3, 8)):
        packet = first(v1, kind)
        assert len(packet) == length
        record(name, "one byte short", "more", length, packet[:-1])
        record(name, "the header alone", "more", length, packet[:4])
    record("v1_new", "one byte short", "more", "more", b"NS\1")
    record("hello_ack", "no count yet", "more", "more", hello[:5])
    record("hello_ack", "the count, and no more", "more", 104, hello[:6])
    record("hello_ack", "one byte of the second address missing", "more", 104, hello[:-1])
    record("hello_ack", "the count says one more than there are", "more", 124, hello[:5] + b"\3" + hello[6:])
    record("hello_ack", "17 addresses", "refused", "refused", hello[:5] + b"\x11")
    record("hello_ack", "255 addresses, in full length", "refused", "refused",
           hello[:5] + b"\xff" + hello[6:] + bytes(20 * 253))
    for family in (0, 5, 10, 255):
        record("hello_ack", f"family {family}", "refused", 104, hello[:64] + bytes([family]) + hello[65:])
    record("hello_ack", "family 4, address not ::ffff:a.b.c.d", "refused", 104, hello[:64] + b"\4" + hello[65:])
    return out


def main():
    here = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    corpus = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else here.parent / "corpus" / "packet"
    v1, v2 = version_1(), version_2()
    files = {"v1": v1, "v2": v2, "bad": bad(v1, v2)}
    for name, out in files.items():
        (here / f"{name}.txt").write_text(out.text)
        for i, packet in enumerate(out.packets):
            (corpus / f"{name}-{i:02}").write_bytes(packet)


if __name__ == "__main__":
    main()
