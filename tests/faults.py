#!/usr/bin/env python3
"""The fault matrix: every fault under every pattern of traffic, in every form of client and server.

    faults.py --list                    what there is
    faults.py -k rst-client -x          the cases whose name contains this, up to the first failure
    faults.py --hold -k NAME            keep the two hosts after a failure, to look around in them
    faults.py --no-shim                 see them fail on plain TCP
    faults.py --control                 the same as a test: passes where plain TCP fails
    faults.py --full                    every form of client with every form of server

A case's name is fault/mode/client's form/server's form. The files of a failed case (logs of the shim, output
of the programs, sockets and stacks of both hosts) are left where its line says.
"""
import contextlib
import hashlib
import itertools
import os
import shutil
import sys
import time

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                         # noqa: E402
from rig.pair import (ESTABLISHED, FORMS, MODES, NOW_PLAIN, PORT, RESUMED, AcceptPair, ForwardPair, GatewayPair,   # noqa: E402
                      HeldPair, Pair, Wrong, shim_env)
from rig.procs import Deadline, Log                                           # noqa: E402
from rig.report import Skip, main, options                                    # noqa: E402
from rig import held_cases, signal_cases                                      # noqa: E402
from rig.wire import FIN, RST, SYN, Capture                                   # noqa: E402

OUTAGE_S = 2.0
LOST = 3                                                      # the status of a traffic program whose connection failed
MOMENT_S = 0.3                                                # longer than until TCP sends again for the first time
TO_AND_FRO = 100


# -- faults: each is a context manager over a pair; entering injects, leaving restores ------------------------------

@contextlib.contextmanager
def link_down(p, host):
    host(p).link_down(p.link)
    yield
    host(p).link_up(p.link)


@contextlib.contextmanager
def address_gone(p, host):
    host(p).address_del(p.link)
    yield
    host(p).address_add(p.link)


@contextlib.contextmanager
def black_hole(p, *hosts):
    for host in hosts:
        host(p).drop_incoming(p.link)
    yield
    for host in hosts:
        host(p).pass_incoming(p.link)


@contextlib.contextmanager
def reset(p, *hosts):
    p.rig.reset_flows([host(p) for host in hosts], PORT)
    yield


@contextlib.contextmanager
def renumbered(p):
    p.rig.renumber(p.rig.tage)
    yield


@contextlib.contextmanager
def both_links_gone(p):
    for link in ("link-a", "link-b"):
        p.rig.troels.link_down(link)
    time.sleep(OUTAGE_S)                                      # the fault itself lasts this long
    for link in ("link-b", "link-a"):
        p.rig.troels.link_up(link)
    yield


@contextlib.contextmanager
def second_cut(p, after_ms):
    """The link that the session moves to is cut while it moves, and comes back."""
    first, second = p.link, p.other_link
    p.rig.troels.link_down(first)
    time.sleep(after_ms / 1000)                               # the moment is what differs between the cases
    p.rig.troels.link_down(second)
    time.sleep(MOMENT_S)                                      # so does this one
    p.rig.troels.link_up(second)
    yield
    p.rig.troels.link_up(first)


@contextlib.contextmanager
def packet_of_resume_lost(p, receiver, number, how):
    """The `number`th data segment that arrives at `receiver` over the other link is reset or vanishes with all
    that follow. RESUME and CONFIRM go to tage, RESUME_ACK and DONE to troels."""
    host, link = receiver(p), p.other_link
    verdict = "reject with tcp reset" if how == "reset" else "drop"
    which = f"numgen inc mod 1000000 {'==' if how == 'reset' else '>='} {number}"
    host.nft(f"""table inet resume {{
        counter hits {{
        }}
        chain in {{
            type filter hook input priority 0;
            iifname "{link}" tcp flags & psh == psh {which} counter name hits {verdict};
        }}
    }}""")
    p.rig.troels.link_down(p.link)
    wait_for("the packet that is to be lost", lambda: "packets 0" not in host.nft_list("counter", "inet", "resume", "hits"))
    if how == "drop":
        time.sleep(MOMENT_S)                                  # what is sent again is lost, too
    host.nft("delete table inet resume")
    yield
    p.rig.troels.link_up(p.link)


@contextlib.contextmanager
def nat_changed(p):
    p.rig.change_nat_ports()
    yield


@contextlib.contextmanager
def nothing(p):
    yield


def troels(p):
    return p.rig.troels


def tage(p):
    return p.rig.tage


# Those of traffic.h that are not in the matrix by themselves.
CLIENT_SHAPES = ("daemon", "inetd", "vfork", "setuid")
SERVER_SHAPES = ("prefork", "daemon", "inetd", "vfork", "setuid", "privsep")
PLAIN_SHAPES = ("spawn", "passed")


class Fault:
    """seen: the client's kernel tells at once, so an idle session moves too. bites: plain TCP does not survive it."""

    def __init__(self, inject, seen=True, bites=True, resumes=True, nat=False):
        self.inject, self.seen, self.bites, self.resumes, self.nat = inject, seen, bites, resumes, nat


FAULTS = {
    "none": Fault(nothing, bites=False, resumes=False),
    "link-down-client": Fault(lambda p: link_down(p, troels)),
    "link-down-server": Fault(lambda p: link_down(p, tage)),
    "address-gone-client": Fault(lambda p: address_gone(p, troels)),
    "address-gone-server": Fault(lambda p: address_gone(p, tage), seen=False),
    "black-hole": Fault(lambda p: black_hole(p, troels, tage), seen=False),
    "black-hole-up": Fault(lambda p: black_hole(p, tage), seen=False),
    "black-hole-down": Fault(lambda p: black_hole(p, troels), seen=False),
    "rst-client": Fault(lambda p: reset(p, troels)),
    "rst-server": Fault(lambda p: reset(p, tage), seen=False),
    "rst-both": Fault(lambda p: reset(p, troels, tage)),
    "renumbered": Fault(renumbered, seen=False),
    "nat-changed": Fault(nat_changed, seen=False, nat=True),
    # Plain TCP survives it too: whichever is back first goes on, the old connection or a new one.
    "both-links-gone": Fault(both_links_gone, bites=False, resumes=False),
    "second-cut-0ms": Fault(lambda p: second_cut(p, 0)),
    "second-cut-1ms": Fault(lambda p: second_cut(p, 1)),
    "second-cut-3ms": Fault(lambda p: second_cut(p, 3)),
    "second-cut-10ms": Fault(lambda p: second_cut(p, 10)),
    "resume-reset": Fault(lambda p: packet_of_resume_lost(p, tage, 0, "reset")),
    "resume-ack-reset": Fault(lambda p: packet_of_resume_lost(p, troels, 0, "reset")),
    "confirm-reset": Fault(lambda p: packet_of_resume_lost(p, tage, 1, "reset")),
    "done-reset": Fault(lambda p: packet_of_resume_lost(p, troels, 1, "reset")),
    "resume-lost": Fault(lambda p: packet_of_resume_lost(p, tage, 0, "drop")),
    "resume-ack-lost": Fault(lambda p: packet_of_resume_lost(p, troels, 0, "drop")),
    "confirm-lost": Fault(lambda p: packet_of_resume_lost(p, tage, 1, "drop")),
    "done-lost": Fault(lambda p: packet_of_resume_lost(p, troels, 1, "drop")),
}


# -- one case of the matrix -----------------------------------------------------------------------------------------

def matrix_case(fault_name, mode, forms, pair=Pair, **pair_args):
    fault = FAULTS[fault_name]

    def case(context):
        if any(form.startswith("setuid-") for form in forms) and os.environ.get("NS_RIG_USERNS"):
            raise Skip("takes root: a user namespace of one's own has one user")
        if any(form.startswith("inetd-") for form in forms) and os.environ.get("NS_PRELOAD_FIRST"):
            raise Skip("with the sanitizer's runtime comes libstdc++, which keeps the standard streams (docs/limits.md)")
        if any(form.startswith("daemon-") for form in forms) and os.environ.get("NS_PRELOAD_FIRST"):
            raise Skip("a fork while the helper allocates leaves the sanitizer's allocator locked in the child")
        if any(form.startswith("pair-") for form in forms) and os.environ.get("NS_PRELOAD_FIRST"):
            raise Skip("the broker starts the relay without the sanitizer's runtime")
        rig = context.rig(nat=fault.nat, names=pair_args.get("names", "dns"))
        args = {k: v for k, v in pair_args.items() if k != "names"}
        p = pair(rig, context.traffic, context.shim, mode, forms, timeout_s=context.timeout_s, **args).start()
        with fault.inject(p):
            if fault.seen and fault.resumes:
                p.resumed()
            p.go()
            if fault.resumes:
                p.resumed()
            p.flow()
            if mode == "idle":
                p.finish()
        if mode != "idle":
            p.flow()
            p.stop()
            p.finish()
    return case


def to_and_fro(mode, forms):
    def case(context):
        p = Pair(context.rig(), context.traffic, context.shim, mode, forms, timeout_s=context.timeout_s).start()
        for n in range(1, TO_AND_FRO + 1):
            link = p.where()
            p.rig.troels.link_down(link)
            p.resumed(n)
            p.rig.troels.link_up(link)
            if mode != "idle":
                p.flow()
        p.go()
        p.stop()
        p.finish()
    return case


def control_case(fault_name, mode):
    """Plain TCP under the fault must fail: else the fault is none."""
    def case(context):
        fault = FAULTS[fault_name]
        p = Pair(context.rig(nat=fault.nat), context.traffic, None, mode, ("poll", "poll"), timeout_s=2).start()
        try:
            with fault.inject(p):
                p.go()
                p.flow()
                p.stop()
                p.finish()
        except (Wrong, Deadline):
            return
        raise Wrong("plain TCP survived")
    return case


# -- cases of their own ---------------------------------------------------------------------------------------------

def plain_peer(shim_at, mode, forms):
    def case(context):
        p = Pair(context.rig(), context.traffic, context.shim, mode, forms, shim_at=(shim_at,),
                 timeout_s=context.timeout_s)
        p.start()
        p.go()
        p.flow()
        p.stop()
        p.finish()
    return case


# Version 1 of the protocol knows no HELLO: the client must be told who speaks it.
VERSION_1 = {"client": {"NAMESOCKET_VERSION": "1", "NAMESOCKET_KNOWN": "*"}, "server": {"NAMESOCKET_VERSION": "1"}}
KEY, OTHER_KEY = "correct horse battery staple", "hex:" + "5a" * 32


def keys(client, server):
    return {side: {"NAMESOCKET_PSK": key} for side, key in (("client", client), ("server", server)) if key}


def plain_shape(fault_name, shape, side):
    """A connection that goes where the engine cannot follow is plain TCP before that, and the log says so: every byte
    comes, or TCP's own error."""
    def case(context):
        if not context.shim:
            raise Skip("needs the shim")
        fault = FAULTS[fault_name]
        forms = {"client": ("poll", "epoll"), "server": ("epoll", "poll")}[side]
        forms = tuple(f"{shape}-{form}" if at == side else form for at, form in zip(("client", "server"), forms))
        p = Pair(context.rig(), context.traffic, context.shim, "stream", forms, timeout_s=context.timeout_s, plain=True,
                 settings={"NAMESOCKET_PARK": "1s"})          # who takes it for a session waits for its client
        log = {"client": p.client_log, "server": p.server_log}[side]
        p.start()
        log.wait(NOW_PLAIN)                                   # before its first bytes, or as a session
        with fault.inject(p):
            if not fault.bites:
                p.flow()
                p.stop()
                p.finish(demoted=True)
            elif sorted((p.client.wait(context.timeout_s), p.server.wait(context.timeout_s))) != [LOST, LOST]:
                raise Wrong(f"client {p.client.ending()}, server {p.server.ending()}: {p.said(p.client)}{p.said(p.server)}")
    return case


def no_key(client, server, mode, forms, said="pre-shared key"):
    """Ends that do not share their key, or whose key is none, speak plain TCP, and the client's user is told."""
    def case(context):
        if not context.shim:
            raise Skip("needs the shim")
        p = Pair(context.rig(), context.traffic, context.shim, mode, forms, timeout_s=context.timeout_s, connections=3,
                 own_settings=keys(client, server), plain=True)
        p.start()
        p.go()
        p.flow()
        p.stop()
        p.finish()
        if not p.client_log.count(said):
            raise Wrong(f"the client's log does not say '{said}'")
    return case


def listening(rig, port=PORT):
    wait_for("a listener", lambda: f":{port}" in rig.tage.run("ss", "-tlnH", f"sport = :{port}").stdout)


def one_shot(shim_at, length):
    """`nc -l`, which accepts once: the application's connection must be the one that it gets."""
    def case(context):
        rig = context.rig()
        data = hashlib.shake_128(b"one-shot").digest(length)
        source = os.path.join(context.dir, "source")
        with open(source, "wb") as f:
            f.write(data)
        env = {side: shim_env(context.shim, os.path.join(context.dir, side + ".log")) if side in shim_at and context.shim
               else {} for side in ("client", "server")}
        target = os.path.join(context.dir, "target")
        server = rig.tage.start("server", ["sh", "-c", f"exec nc -l -N {PORT} > {target} < /dev/null"], env["server"])
        listening(rig)
        client = rig.troels.start("client", ["sh", "-c", f"exec nc -4 -N tage {PORT} < {source}"], env["client"])
        if client.wait(context.timeout_s) != 0 or server.wait(context.timeout_s) != 0:
            raise Wrong(f"client {client.ending()}, server {server.ending()}: {client.stderr()}{server.stderr()}")
        with open(target, "rb") as f:
            if f.read() != data:
                raise Wrong("the server got other bytes")
    return case


def sendfile(context):
    """A file that is shorter than what sendfile is asked for: its end goes out at once."""
    p = Pair(context.rig(), context.traffic, context.shim)
    server = p.rig.tage.start("server", [context.traffic, "toy-echo", "serve", PORT], p.env("server"))
    server.wait_line("listening")
    program = os.path.join(os.path.dirname(context.traffic), "sendfile")
    client = p.rig.troels.start("client", [program, "tage", PORT], p.env("client"))
    if client.wait(context.timeout_s) != 0:
        raise Wrong(f"client {client.ending()}: {p.said(client)}")
    if p.protected and not p.client_log.count(ESTABLISHED):
        raise Wrong("no session")


LINES = ["helo", "a longer line of text, to see more than one size", "x"] + [f"line {i} " + "." * i for i in range(0, 60, 7)]


def talk(rig, traffic, lines, client_env, server_env):
    """The toy client and the toy server; one line after the other."""
    server = rig.tage.start("server", [traffic, "toy-echo", "serve", PORT], server_env)
    server.wait_line("listening")
    client = rig.troels.start("client", [traffic, "toy-echo", "run", "tage", PORT], client_env)
    client.wait_line("connected")
    for line in lines:
        client.send(line)
        client.wait_line("^echo " + line + "$")
    client.close_stdin()
    if client.wait() != 0:
        raise Wrong(f"client {client.ending()}: {client.stderr()}")
    server.wait_line("closed")
    server.kill()


def capture_of(context, shim_at):
    rig = context.rig()
    env = {side: shim_env(context.shim, os.path.join(rig.dir, side + ".log")) if side in shim_at and context.shim else {}
           for side in ("client", "server")}
    capture = Capture(rig.troels, "link-a", PORT)
    talk(rig, context.traffic, LINES, env["client"], env["server"])
    capture.close()
    with open(os.path.join(rig.dir, "capture.txt"), "w") as f:
        for conn in capture.connections():
            for p in conn:
                f.write(f"{p.src}.{p.sport} > {p.dst}.{p.dport} {p.flag_text():4} {p.payload!r}\n")
            f.write("\n")
    return capture.connections()


def exchange(packets):
    """A connection as a list of (to the server?, flags, options of a SYN, payload), bare ACKs left out: when the
    kernel sends those is a matter of its clock."""
    return [(p.dport == PORT, p.flag_text(), p.options if p.flags & SYN else (), p.payload)
            for p in packets if p.payload or p.flags & (SYN | FIN | RST)]


def payload(packets, to_server):
    return b"".join(p.payload for p in packets if (p.dport == PORT) == to_server)


def capture_compared(shim_at):
    def case(context):
        without, with_shim = capture_of(context, ()), capture_of(context, shim_at)
        if not context.shim:
            raise Skip("needs the shim")
        plain, shimmed = without[0], with_shim[0]
        for to_server in (True, False):
            if payload(plain, to_server) != payload(shimmed, to_server):
                raise Wrong(f"the payload {'to' if to_server else 'from'} the server differs")
        a, b = exchange(plain), exchange(shimmed)
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            raise Wrong(f"packet {at}: {a[at:at + 1]} without, {b[at:at + 1]} with the shim")
        if shim_at == ("server",) and len(with_shim) != 1:
            raise Wrong(f"{len(with_shim)} connections for one")
    return case


def one_at_a_time(shim_at):
    """Three clients, one after the other, at a server that handles one at a time."""
    def case(context):
        rig = context.rig()
        env = {side: shim_env(context.shim, os.path.join(rig.dir, side + ".log"))
               if side in shim_at and context.shim else {} for side in ("client", "server")}
        server = rig.tage.start("server", [context.traffic, "toy-echo", "serve", PORT], env["server"])
        server.wait_line("listening")
        for n in range(3):
            client = rig.troels.start(f"client{n}", [context.traffic, "toy-echo", "run", "tage", PORT], env["client"])
            client.wait_line("connected", context.timeout_s)
            for line in LINES:
                client.send(line)
                client.wait_line("^echo " + line + "$", context.timeout_s)
            client.close_stdin()
            if client.wait(context.timeout_s) != 0:
                raise Wrong(f"client {n} {client.ending()}: {client.stderr()}")
    return case


def iterative(fault):
    """A server that is blocked reading the very session that is to be resumed: nobody calls accept."""
    def case(context):
        if not context.shim:
            raise Skip("needs the shim")
        rig = context.rig()
        logs = {side: Log(os.path.join(rig.dir, side + ".log")) for side in ("client", "server")}
        server = rig.tage.start("server", [context.traffic, "toy-echo", "serve", PORT],
                                shim_env(context.shim, logs["server"].path))
        server.wait_line("listening")
        client = rig.troels.start("client", [context.traffic, "toy-echo", "run", "tage", PORT],
                                  shim_env(context.shim, logs["client"].path))
        for n in range(1, 6):
            client.send(f"line {n}")
            client.wait_line(f"^echo line {n}$", context.timeout_s)
            for log in logs.values():
                log.wait(ESTABLISHED, 1, context.timeout_s)
            local = wait_for("a connection", lambda: rig.troels.flows(PORT))[0][0]
            link = next(link for link, a in rig.troels.addresses.items() if any(x.split("/")[0] == local for x in a))
            if fault == "link-down":
                rig.troels.link_down(link)
            else:
                rig.reset_flows([rig.troels], PORT)
                # Nobody is told of a reset on a connection that nobody uses.
                client.send(f"after reset {n}")
                client.wait_line(f"^echo after reset {n}$", context.timeout_s)
            for log in logs.values():
                log.wait(RESUMED, n, context.timeout_s)
            rig.troels.link_up(link)
        client.close_stdin()
        if client.wait(context.timeout_s) != 0:
            raise Wrong(f"client {client.ending()}: {client.stderr()}")
        server.wait_line("closed")
    return case


def server_restarted(shim_again, **pair_args):
    """Another process answers at the server's address: the client gets the error that TCP would have given."""
    def case(context):
        p = Pair(context.rig(), context.traffic, context.shim, "stream", ("poll", "poll"), timeout_s=context.timeout_s,
                 **pair_args)
        p.start()
        p.server.kill()
        p.shim_at = p.shim_at if shim_again else ("client",)
        p.start_server("server2")
        code = p.client.wait(30)
        if code == 0 or not any("Connection reset" in (x or "") or "Broken pipe" in (x or "") or "the stream ended" in
                                (x or "") for x in p.client.lines):
            raise Wrong(f"client {p.client.ending()}: {p.said(p.client)}")
    return case


def under_valgrind(form):
    """The client under valgrind, which must find nothing."""
    def case(context):
        if not shutil.which("valgrind"):
            raise Skip("valgrind is not installed")
        # Quiet, because valgrind is slower than the time for which first bytes wait for HELLO's answer.
        p = Pair(context.rig(), context.traffic, context.shim, "records", (form, "poll"), timeout_s=60, quiet=True,
                 client_under=("valgrind", "-q", "--error-exitcode=9")).start()
        with link_down(p, troels):
            p.resumed()
            p.flow()
        p.stop()
        p.finish()
    return case


# -- the table ------------------------------------------------------------------------------------------------------

def all_cases(full):
    cases = {}

    def add(fault, mode, forms, prefix="", **kw):
        name = f"{prefix}{fault}/{mode}/{forms[0]}/{forms[1]}"
        cases[name] = matrix_case(fault, mode, forms, **kw)

    pairs = list(itertools.product(FORMS, FORMS))
    # Reduced: every fault with every mode, the forms taken in turn so that each meets each in the long run.
    turn = itertools.cycle(pairs[(i * 7) % 36] for i in range(36))
    for fault in FAULTS:
        for mode in MODES:
            for forms in pairs if full else [next(turn)]:
                add(fault, mode, forms)
        # The programs' own forms mean nothing to a gateway between them; it relays no urgent data.
        add(fault, "records", ("poll", "poll"), "gateway-", pair=GatewayPair)
        add(fault, "halfclose", ("threads", "threads"), "gateway-", pair=GatewayPair)
        add(fault, "stream", ("epoll", "epoll"), "gateway-", pair=GatewayPair)
        if fault != "renumbered":                             # nsrun is not told the name that its command looked up
            add(fault, "stream", ("poll", "epoll"), "held-", pair=HeldPair)
            add(fault, "halfclose", ("threads", "select"), "held-", pair=HeldPair)
    # A server with a process for each connection; a client whose child goes on; both.
    for n, fault in enumerate(FAULTS):
        form, other = FORMS[n % len(FORMS)], FORMS[(n + 1 + n // len(FORMS)) % len(FORMS)]
        add(fault, MODES[n % len(MODES)], (other, f"fork-{form}"))
        add(fault, MODES[(n + 2) % len(MODES)], (f"fork-{form}", other))
        add(fault, MODES[(n + 4) % len(MODES)], (f"fork-{other}", f"fork-{form}"))
        # The same, and then another program.
        add(fault, MODES[(n + 1) % len(MODES)], (other, f"exec-{form}"))
        add(fault, MODES[(n + 3) % len(MODES)], (f"exec-{form}", other))
        add(fault, MODES[(n + 5) % len(MODES)], (f"exec-{other}", f"exec-{form}"))
    # Every other shape of process, at both ends where there is one, and a gateway at one end.
    for n, fault in enumerate(FAULTS):
        for k, server in enumerate(SERVER_SHAPES):
            client = CLIENT_SHAPES[(n + k) % len(CLIENT_SHAPES)]
            forms = FORMS[(n + k) % len(FORMS)], FORMS[(n + 2 * k + n // len(FORMS)) % len(FORMS)]
            add(fault, "stream", (f"{client}-{forms[0]}", f"{server}-{forms[1]}"))
        add(fault, "stream", (FORMS[n % len(FORMS)], "poll"), "accept-", pair=AcceptPair)
        add(fault, "stream", ("poll", FORMS[n % len(FORMS)]), "forward-", pair=ForwardPair)
    # Two processes use it at once, at either end and at both. (With "up" a server's writer has nothing to write.)
    used = [mode for mode in MODES if mode != "up"]
    for n, fault in enumerate(FAULTS):
        form = FORMS[n % len(FORMS)]
        add(fault, MODES[n % len(MODES)], ("pair-threads", form))
        add(fault, used[n % len(used)], (form, "pair-threads"))
        add(fault, "stream", ("pair-threads", "pair-threads"))
    for shape in PLAIN_SHAPES:
        for side in ("client", "server"):
            for fault in ("none", "rst-both"):
                cases[f"plain-shape/{fault}/{shape}/{side}"] = plain_shape(fault, shape, side)
    for form in FORMS:
        for fault in ("none", "link-down-client", "rst-both"):
            add(fault, "urgent", (form, form))
    # Every form with every form where the application is most likely to notice.
    for forms in pairs:
        add("link-down-client", "stream", forms)
        add("rst-both", "idle", forms)
    for form in FORMS:
        add("link-down-server", "stream", (form, form), "many-", connections=16)
        add("black-hole", "records", (form, form), "many-", connections=16)
        add("link-down-client", "records", (form, form), "speaks-first-", first=True)
        add("none", "stream", (form, form), "speaks-first-", first=True)
        add("black-hole", "stream", (form, form), "small-ring-", settings={"NAMESOCKET_RING": "64K"})
        if form != "blocking":
            add("rst-client", "stream", (form, form), "quiet-", quiet=True)
    for names in ("hosts", "both"):
        add("link-down-client", "stream", ("poll", "epoll"), f"names-{names}-", names=names)
        add("renumbered", "records", ("blocking", "blocking"), f"names-{names}-", names=names)
    for mode, forms in (("stream", ("poll", "epoll-et")), ("records", ("blocking", "blocking")),
                        ("idle", ("epoll-et", "threads")), ("halfclose", ("threads", "select"))):
        cases[f"to-and-fro-{TO_AND_FRO}/{mode}/{forms[0]}/{forms[1]}"] = to_and_fro(mode, forms)
    # The protocol's other forms, each fault with two pairs of forms.
    for fault in FAULTS:
        for mode in ("stream", "records"):
            if fault != "nat-changed":                        # a NAT changes what version 1 finds a session by
                add(fault, mode, next(turn), "v1-", own_settings=VERSION_1)
            add(fault, mode, next(turn), "psk-", own_settings=keys(KEY, KEY))
    for name, client, server in (("other", KEY, OTHER_KEY), ("client-only", KEY, None), ("server-only", None, KEY)):
        for mode in ("stream", "idle"):
            cases[f"psk-{name}/{mode}/poll/epoll"] = no_key(client, server, mode, ("poll", "epoll"))
    for name, server in (("bad", "short"), ("client-bad", KEY)):
        cases[f"psk-{name}/stream/poll/epoll"] = no_key("short", server, "stream", ("poll", "epoll"),
                                                        "nothing is protected: the pre-shared key is bad")
    for side in ("client", "server"):
        for mode, form in zip(MODES, FORMS):
            cases[f"plain-peer/shim-at-{side}/{mode}/{form}"] = plain_peer(side, mode, (form, form))
        cases[f"plain-peer/capture-shim-at-{side}"] = capture_compared((side,))
    for shim_at in (("client",), ("server",), ("client", "server")):
        at = "+".join(shim_at)
        for length in (0, 1, 5_000_000):
            cases[f"one-shot-nc/shim-at-{at}/{length}"] = one_shot(shim_at, length)
        cases[f"one-at-a-time/shim-at-{at}"] = one_at_a_time(shim_at)
    for fault in ("link-down", "rst"):
        cases[f"iterative/{fault}"] = iterative(fault)
    for form in ("epoll", "threads"):
        cases[f"valgrind/{form}"] = under_valgrind(form)
    cases.update(signal_cases.CASES)
    cases.update(held_cases.CASES)
    cases["sendfile"] = sendfile
    cases["server-restarted/shim"] = server_restarted(True)
    cases["server-restarted/v1"] = server_restarted(True, own_settings=VERSION_1)
    cases["server-restarted/plain"] = server_restarted(False)
    return cases


def control_cases():
    return {f"control/{fault}/{mode}": control_case(fault, mode) for fault, f in FAULTS.items() if f.bites
            for mode in ("stream", "idle")
            # Without a session to resume, no packet of a resume is there to be lost.
            if not fault.startswith(("resume", "confirm", "done"))}


def extra(p):
    p.add_argument("--full", action="store_true", help="the whole product of forms")
    p.add_argument("--control", action="store_true", help="plain TCP must fail under each fault")


if __name__ == "__main__":
    opts = options("The fault matrix between two hosts (network namespaces).", extra)
    if not opts.list:
        become_root()
    sys.exit(main(control_cases() if opts.control else all_cases(opts.full), opts))
