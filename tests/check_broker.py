#!/usr/bin/env python3
"""check_broker.py NAMESOCKETD NSCTL: the broker between processes that this program plays, and nsctl's output.

The messages are put together here once more, from src/core/message.h.
"""
import array
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile

DAEMON, NSCTL = sys.argv[1:3]
LIMIT_S = 20
JOIN, SESSION, GONE, RESUME, FIND, TELL, ANSWER, REPORT, LIST, HOLDER, DUPLICATE = range(1, 12)
CLIENT, SERVER = 0, 1
CONNECTED, SUSPENDED = 4, 5
TAKEN, UNKNOWN, LATER, PERHAPS = range(4)
failures = []
cases = 0


def check(name, true, detail=""):
    global cases
    cases += 1
    if not true:
        failures.append(name)
        print(f"not ok: {name}: {detail}")


def is_(name, got, wanted):
    check(name, got == wanted, f"{got!r}, not {wanted!r}")


# ---- messages ----

def message(kind, body=b"", role=SERVER, serial=0, status=0, id=bytes(16)):
    return struct.pack(">HBBBIi16s", 0x4E42, 1, kind, role, serial, status, id) + body


def string(text):
    return struct.pack(">H", len(text)) + text


def about(proof=bytes(16), inherited=0, state=CONNECTED, sent=0, received=0, resumes=0, name=b"", since=0):
    ends = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1") + struct.pack(">H", 80) + \
        socket.inet_pton(socket.AF_INET6, "2001:db8::7") + struct.pack(">H", 4711)
    return proof + bytes([inherited, state]) + ends + struct.pack(">QQQI", since, sent, received, resumes) + string(name)


def data(kind, payload):
    return struct.pack(">BH", kind, len(payload)) + payload


class Message:
    def __init__(self, raw):
        magic, version, self.type, self.role, self.serial, self.status, self.id = \
            struct.unpack_from(">HBBBIi16s", raw)
        assert (magic, version) == (0x4E42, 1)
        self.body = raw[29:]


class Member:
    """A process under namesocket; or nsctl, when it does not join."""

    def __init__(self, broker, program="x", uid=None):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.settimeout(LIMIT_S)
        self.uid = uid
        self.s.connect(broker.address)
        if program:
            self.send(JOIN, string(program.encode()))
            assert self.silent()

    def send(self, kind, body=b"", fd=None, **more):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        if self.uid is not None:
            control.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iii", os.getpid(), self.uid, 0)))
        self.s.sendmsg([message(kind, body, **more)], control)

    def receive(self, kind):
        raw, control, _, _ = self.s.recvmsg(2048, 64)
        if not raw:
            raise EOFError("the broker has closed the connection")
        m = Message(raw)
        m.fd = struct.unpack("i", control[0][2])[0] if control else None
        if m.type != kind:
            raise AssertionError(f"message {m.type}, not {kind}")
        return m

    def silent(self):
        """Whether nothing has come, once the broker has read all that was sent to it before."""
        self.send(TELL, data(0, b""), serial=999, id=b"n" * 16)
        return self.receive(ANSWER).serial == 999

    def holds(self, id, **more):
        """Tells so; the broker has heard it before anything that another says after this."""
        self.tells(id, **more)
        assert self.silent()

    def tells(self, id, role=SERVER, **more):
        self.send(SESSION, about(**more), id=id, role=role)

    def closed(self):
        return select.select([self.s], [], [], LIMIT_S)[0] and self.s.recv(1) == b""


class Broker:
    def __init__(self, address, where=None):
        self.where, self.address = where or address, address.replace("@", "\0", 1)
        self.p = None
        self.start()

    def start(self):
        self.p = subprocess.Popen([DAEMON, f"--broker={self.where}"], stderr=subprocess.PIPE, text=True)
        line = self.p.stderr.readline()
        assert "ready" in line, line

    def kill(self):
        self.p.kill()
        self.p.wait()
        self.p.stderr.close()

    def grown_up(self):
        """Waits until it is old enough to say that nobody has a session."""
        m = Member(self)
        r, w = os.pipe()
        while True:
            m.send(RESUME, data(0, b""), fd=r, id=os.urandom(16), serial=1)
            if m.receive(ANSWER).status == UNKNOWN:
                break
            select.select([], [], [], 0.1)
        os.close(r), os.close(w)
        m.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def fresh():
    return os.urandom(16)


# ---- passing a connection on ----

def offered(asker, id, serial=7):
    """A connection offered to whoever has `id`: the end that is kept."""
    a, b = socket.socketpair()
    asker.send(RESUME, data(0, b"RESUME as it was read"), fd=b.fileno(), id=id, serial=serial)
    b.close()
    a.settimeout(LIMIT_S)
    return a


def resume_reaches_the_holder(broker):
    asker, holder, other = Member(broker), Member(broker), Member(broker)
    id = fresh()
    holder.holds(id)
    kept = offered(asker, id)
    m = holder.receive(RESUME)
    is_("what was read goes along", m.body[3:], b"RESUME as it was read")
    os.write(m.fd, b"through")
    is_("the descriptor is the connection", kept.recv(7), b"through")
    os.close(m.fd)
    holder.send(ANSWER, struct.pack(">I", 0), serial=m.serial, status=TAKEN)
    answer = asker.receive(ANSWER)
    is_("the asker hears that it was taken", (answer.serial, answer.status), (7, TAKEN))
    is_("nobody else has it open", kept.recv(1), b"")
    check("nobody else is asked", other.silent())


def resume_of_what_was_not_told(broker):
    asker, holder, other = Member(broker), Member(broker), Member(broker)
    id = fresh()
    offered(asker, id)
    for m, status in ((other, UNKNOWN), (holder, TAKEN)):
        question = m.receive(FIND)
        is_("it is this that is looked for", question.id, id)
        m.send(ANSWER, struct.pack(">I", 0), serial=question.serial, status=status)
    m = holder.receive(RESUME)
    check("it comes with the connection", m.fd is not None)
    os.close(m.fd)
    holder.send(ANSWER, struct.pack(">I", 0), serial=m.serial, status=TAKEN)
    is_("found by asking", asker.receive(ANSWER).status, TAKEN)
    check("the other is not asked twice", other.silent())


def resume_of_nothing(broker):
    asker, other = Member(broker), Member(broker)
    kept = offered(asker, fresh())
    question = other.receive(FIND)
    other.send(ANSWER, struct.pack(">I", 0), serial=question.serial, status=UNKNOWN)
    is_("nobody has it", asker.receive(ANSWER).status, UNKNOWN)
    is_("and nobody keeps it", kept.recv(1), b"")
    offered(asker, fresh())
    question = other.receive(FIND)
    other.send(ANSWER, struct.pack(">I", 0), serial=question.serial, status=LATER)
    is_("somebody may have it soon", asker.receive(ANSWER).status, LATER)
    offered(asker, fresh())
    question = other.receive(FIND)
    other.s.close()
    is_("who could have had it has gone", asker.receive(ANSWER).status, UNKNOWN)


def resume_nobody_answers(broker):
    asker, silent = Member(broker), Member(broker)
    id = fresh()
    silent.holds(id)
    offered(asker, id)
    os.close(silent.receive(RESUME).fd)
    is_("in time there is an answer, and it may have been taken", asker.receive(ANSWER).status, PERHAPS)
    gone = Member(broker)
    id = fresh()
    gone.holds(id)
    offered(asker, id)
    os.close(gone.receive(RESUME).fd)
    gone.s.close()
    is_("so it may by one that has gone since", asker.receive(ANSWER).status, PERHAPS)


def holder_gone(broker):
    """One that is told of and gone is not waited for; the other that has it gets it."""
    asker, first, second = Member(broker), Member(broker), Member(broker)
    id = fresh()
    first.holds(id)
    second.holds(id, inherited=1)
    first.s.close()
    offered(asker, id)
    m = second.receive(RESUME)
    os.close(m.fd)
    second.send(ANSWER, struct.pack(">I", 0), serial=m.serial, status=UNKNOWN)
    is_("its holder knows better", asker.receive(ANSWER).status, UNKNOWN)


def client_and_server_are_two(broker):
    """Both ends of a connection on this machine have one id."""
    asker, client, server = Member(broker), Member(broker), Member(broker)
    id = fresh()
    client.holds(id, role=CLIENT)
    server.holds(id, role=SERVER)
    offered(asker, id)
    m = server.receive(RESUME)
    os.close(m.fd)
    server.send(ANSWER, struct.pack(">I", 0), serial=m.serial, status=TAKEN)
    is_("the server's end", asker.receive(ANSWER).status, TAKEN)
    check("not the client's", client.silent())


# ---- telling the other holders ----

def tell_all(broker):
    a, b, c, stranger = (Member(broker) for _ in range(4))
    id = fresh()
    for m in a, b, c:
        m.holds(id, inherited=int(m is not a))
    r, w = os.pipe()
    a.send(TELL, data(3, b"payload"), fd=r, id=id, serial=21)
    for m, status in ((b, 0), (c, -11)):
        got = m.receive(TELL)
        is_("kind and payload", got.body, data(3, b"payload"))
        check("a descriptor each", got.fd is not None)
        os.close(got.fd)
        m.send(ANSWER, struct.pack(">I", 0), serial=got.serial, status=status)
    answer = a.receive(ANSWER)
    is_("all have answered", (answer.serial, answer.status, answer.body), (21, -11, struct.pack(">I", 2)))
    check("others are not told", stranger.silent())
    a.send(TELL, data(3, b""), id=id, serial=22)
    got = b.receive(TELL)
    b.send(ANSWER, struct.pack(">I", 0), serial=got.serial)
    c.s.close()
    answer = a.receive(ANSWER)
    is_("one that has gone is not waited for", (answer.status, answer.body), (0, struct.pack(">I", 1)))
    a.send(TELL, data(3, b""), id=id, serial=23)
    b.receive(TELL)
    is_("nor for ever", a.receive(ANSWER).status, -110)
    os.close(r), os.close(w)


def second_of_a_name(broker):
    """A NEW sent again to another process; and a process that has it by inheritance."""
    first, again, child = Member(broker), Member(broker), Member(broker)
    id = fresh()
    first.holds(id)
    child.holds(id, inherited=1)
    again.tells(id)
    is_("it hears that it is the second", again.receive(DUPLICATE).id, id)
    check("the first does not", first.silent())
    check("nor does an heir", child.silent())
    first.holds(id)
    check("who tells again is no second", first.silent())
    # An heir may be the first to come back to a new broker.
    id = fresh()
    child.holds(id, inherited=1)
    first.holds(id)
    check("the heir before the one it is from", first.silent() and child.silent())


# ---- what a hostile process sends ----

def nonsense(broker):
    good = Member(broker)
    for raw in (b"x", message(77), message(JOIN), message(SESSION, b"short"), message(TELL, data(1, b"x") + b"y"),
                message(SESSION, about(), role=9), message(HOLDER, struct.pack(">II", 1, 1) + string(b"x")), bytes(1000)):
        bad = Member(broker)
        bad.s.send(raw)
        check(f"cut off after {raw[:8].hex()}", bad.closed())
    bad = Member(broker)
    r, w = os.pipe()
    bad.s.sendmsg([message(TELL, data(0, b""), serial=5)],
                  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r, w]))])
    is_("two descriptors", bad.receive(ANSWER).serial, 5)
    bad.send(GONE, fd=r, id=fresh())
    bad.send(ANSWER, struct.pack(">I", 0), serial=12345)
    check("answers to nothing", bad.silent())
    os.close(w)
    os.close(r)
    check("the others go on", good.silent())


def deaf(broker):
    """Who asks without end, of one who never answers, is refused; the others go on."""
    teller, silent, a, b = (Member(broker) for _ in range(4))
    ids = fresh(), fresh()
    teller.holds(ids[0])
    silent.holds(ids[0], inherited=1)
    a.holds(ids[1])
    b.holds(ids[1], inherited=1)
    for n in range(200):
        teller.send(TELL, data(1, bytes(512)), id=ids[0], serial=n)
    is_("it is refused", teller.receive(ANSWER).status, -105)
    a.send(TELL, data(1, b""), id=ids[1], serial=1)
    m = b.receive(TELL)
    b.send(ANSWER, struct.pack(">I", 0), serial=m.serial)
    is_("others are not", a.receive(ANSWER).status, 0)


def flooded(broker):
    """Who does not read what he has asked for is cut off before it costs much."""
    greedy, m = Member(broker), Member(broker)
    for _ in range(2000):
        m.tells(fresh())
    check("told", m.silent())
    greedy.s.setblocking(False)
    sent = 0
    while sent < 1000000:
        try:
            greedy.send(GONE, id=fresh()) if sent % 2 else greedy.send(RESUME, data(0, b""), id=fresh())
            sent += 1
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    check("it is cut off", sent < 1000000, sent)
    check("the other goes on", m.silent())


# ---- nsctl ----

def ctl(broker, *args, **more):
    return subprocess.run([NSCTL, "list", "--broker", broker.where, *args], capture_output=True, text=True,
                          timeout=LIMIT_S, **more)


def answering(members):
    """Has the members answer REPORT by what they hold, in another process; the pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        pending = {m.s.fileno(): (m, held) for m, held in members}
        while True:
            for fd in select.select(list(pending), [], [])[0]:
                m, held = pending[fd]
                report = m.receive(REPORT)
                for id, more in held:
                    m.tells(id, **more)
                m.send(ANSWER, struct.pack(">I", 0), serial=report.serial)
    finally:
        os._exit(0)


def lists(broker):
    a, b = Member(broker, "server-one"), Member(broker, "evil\x1b\"x")
    ids = sorted(fresh() for _ in range(3))
    a.holds(ids[0])
    a.holds(ids[2])  # told of once, and not any more when asked: gone
    b.holds(ids[0], inherited=1)
    told = {"name": b"host.example", "state": SUSPENDED, "sent": 5, "received": 2**40, "resumes": 3, "since": 1}
    pid = answering([(a, [(ids[0], told), (ids[1], {"role": CLIENT})]), (b, [(ids[0], {**told, "inherited": 1})])])
    done = ctl(broker, "--json")
    is_("nsctl list --json", (done.returncode, done.stderr), (0, ""))
    rows = {r["id"]: r for r in json.loads(done.stdout)}
    is_("the sessions", sorted(rows), sorted(i.hex() for i in ids[:2]))
    r = rows[ids[0].hex()]
    is_("all about one", {k: r[k] for k in r if k not in ("age_seconds", "holders")}, {
        "broker": broker.where, "id": ids[0].hex(), "role": "server", "state": "suspended", "name": "host.example",
        "local": {"address": "192.0.2.1", "port": 80}, "peer": {"address": "2001:db8::7", "port": 4711},
        "established": 1, "sent_bytes": 5, "received_bytes": 2**40, "resumes": 3})
    check("its age", r["age_seconds"] > 10**9)
    is_("its holders", sorted((h["program"], h["pid"], h["uid"]) for h in r["holders"]),
        sorted([("evil\x1b\"x", pid, os.getuid()), ("server-one", pid, os.getuid())]))
    is_("the other's role", rows[ids[1].hex()]["role"], "client")
    done = ctl(broker)
    lines = done.stdout.splitlines()
    is_("nsctl list", (done.returncode, done.stderr, len(lines)), (0, "", 3))
    check("its heading", lines[0].split()[:4] == ["ROLE", "STATE", "PEER", "LOCAL"], lines[0])
    row = next((line for line in lines if "host.example" in line), "")
    for part in ("server", "suspended", "[2001:db8::7]:4711", "192.0.2.1:80", f"{pid}/server-one", f'{pid}/evil?"x'):
        check(f"a row has {part}", part in row, row)
    check("nothing that a terminal obeys", not re.search(r"[^ -~\n]", done.stdout))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def lists_without_an_answer(broker):
    """A process that is stopped is shown as it was last told of."""
    stopped = Member(broker)
    id = fresh()
    stopped.holds(id, sent=7)
    rows = {r["id"]: r for r in json.loads(ctl(broker, "--json").stdout)}
    is_("what is known", rows[id.hex()]["sent_bytes"], 7)


def lists_many(broker):
    """More than any queue holds."""
    m = Member(broker)
    ids = {fresh() for _ in range(5000)}
    for id in ids:
        m.tells(id)
    check("told", m.silent())
    rows = {bytes.fromhex(r["id"]) for r in json.loads(ctl(broker, "--json").stdout)}
    is_("all of them", len(ids & rows), len(ids))


def ctl_options(broker):
    for args, status, words in ((["list", "x"], 2, "write: nsctl list"), (["show"], 2, "write: nsctl list"), ([], 2, "nsctl"),
                                (["list", "-b"], 2, "needs a value"), (["list", "--nonsense"], 2, "unknown option"),
                                (["list", "-b", "@nobody-is-here"], 1, "refused"), (["list", "-b", "relative"], 2, "107 bytes")):
        done = subprocess.run([NSCTL, *args], capture_output=True, text=True, timeout=LIMIT_S)
        check(f"nsctl {' '.join(args)}", done.returncode == status and words in done.stderr and not done.stdout, done)
    for option in ("--help", "--version"):
        done = subprocess.run([NSCTL, option], capture_output=True, text=True, timeout=LIMIT_S)
        check(f"nsctl {option}", done.returncode == 0 and "nsctl" in done.stdout and not done.stderr, done)
    with open("/dev/full", "w") as full:
        done = subprocess.run([NSCTL, "list", "-j", "-b", broker.where], stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S)
    check("nsctl that cannot write", done.returncode == 1 and "standard output: No space" in done.stderr, done)


# ---- users ----

NOBODY = 65534


def users(broker):
    """Root may say that it is another (unix(7), SCM_CREDENTIALS): so one process plays all."""
    root, user, other = Member(broker), Member(broker, uid=NOBODY), Member(broker, uid=NOBODY - 1)
    roots, users_ = fresh(), fresh()
    root.holds(roots)
    user.holds(users_, proof=b"p" * 16)
    check("told", root.silent() and user.silent())
    kept = offered(other, users_)
    is_("another user's session is unknown", other.receive(ANSWER).status, UNKNOWN)
    is_("and he does not get the connection", kept.recv(1), b"")
    check("nor is its holder asked", user.silent())
    offered(user, roots)
    is_("nor may a user reach root's", user.receive(ANSWER).status, UNKNOWN)
    offered(root, users_)
    m = user.receive(RESUME)
    os.close(m.fd)
    user.send(ANSWER, struct.pack(">I", 0), serial=m.serial, status=TAKEN)
    is_("root reaches all", root.receive(ANSWER).status, TAKEN)
    other.send(TELL, data(1, b""), id=users_, serial=31)
    is_("another user tells nobody", other.receive(ANSWER).body, struct.pack(">I", 0))
    check("nobody heard", user.silent())
    other.tells(users_, inherited=1, proof=b"q" * 16)
    other.send(TELL, data(1, b""), id=users_, serial=32)
    is_("nor joins what is not his", other.receive(ANSWER).body, struct.pack(">I", 0))
    other.holds(users_, inherited=1, proof=b"p" * 16)
    other.send(TELL, data(1, b""), id=users_, serial=33)
    m = user.receive(TELL)
    user.send(ANSWER, struct.pack(">I", 0), serial=m.serial)
    is_("but with its keys he does: it was root's child", other.receive(ANSWER).body, struct.pack(">I", 1))
    other.send(GONE, id=users_)
    check("gone", other.silent())
    rows = json.loads(ctl(broker, "--json").stdout)
    check("root sees both", {roots.hex(), users_.hex()} <= {r["id"] for r in rows})
    for uid, sees in ((NOBODY, {users_.hex()}), (NOBODY - 1, set())):
        done = ctl(broker, "--json", user=uid, group=NOBODY)
        is_(f"user {uid} sees his", {r["id"] for r in json.loads(done.stdout)}, sees)


def ends_of_the_daemon(directory):
    path = os.path.join(directory, "broker")
    with Broker(path) as broker:
        is_("anybody may connect", oct(os.stat(path).st_mode & 0o777), oct(0o666))
        done = subprocess.run([DAEMON, f"--broker={path}"], capture_output=True, text=True, timeout=LIMIT_S)
        check("a second one", done.returncode == 1 and "in use" in done.stderr, done)
        m = Member(broker)
        broker.kill()
        check("a connection ends", m.closed())
        broker.start()
        check("it starts where one was killed", Member(broker).silent())
        id = fresh()
        asker, holder = Member(broker), Member(broker)
        offered(asker, id)
        question = holder.receive(FIND)
        holder.send(ANSWER, struct.pack(">I", 0), serial=question.serial, status=UNKNOWN)
        is_("a young one does not say that nobody has it", asker.receive(ANSWER).status, LATER)
        holder.holds(id)
        broker.p.terminate()
        is_("SIGTERM ends it", broker.p.wait(LIMIT_S), 0)
    regular = os.path.join(directory, "regular")
    open(regular, "w").close()
    done = subprocess.run([DAEMON, f"--broker={regular}"], capture_output=True, text=True, timeout=LIMIT_S)
    check("a file is not replaced", done.returncode == 1 and os.path.isfile(regular), done)
    done = subprocess.run([DAEMON, "--broker=relative"], capture_output=True, text=True, timeout=LIMIT_S)
    check("nor is a name understood that is none", done.returncode == 2 and "neither" in done.stderr, done)


def main():
    name = f"@check-broker/{os.urandom(8).hex()}"
    with tempfile.TemporaryDirectory() as directory:
        ends_of_the_daemon(directory)
    for case in (client_and_server_are_two, resume_reaches_the_holder, resume_of_what_was_not_told, resume_of_nothing,
                 resume_nobody_answers, holder_gone, tell_all, second_of_a_name, nonsense, deaf, flooded, lists,
                 lists_without_an_answer, lists_many, users):
        if case is users and os.getuid() != 0:
            print("# not tested as this user: what other users may do")
            continue
        with Broker(name) as broker:
            if case in (resume_of_nothing, holder_gone, users):
                broker.grown_up()
            try:
                case(broker)
            except Exception as e:  # noqa: BLE001: the other cases are worth running
                check(case.__name__, False, repr(e))
    with Broker(name) as broker:
        ctl_options(broker)
    print(f"{cases} checks, {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
