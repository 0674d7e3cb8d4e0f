#!/usr/bin/env python3
"""Connections that wait for a server which, before it accepts, forks or becomes another program. The helper, or a wait
of the server's, has accepted them already, to see whether they are any of the server's business; whoever accepts next
has to get them. Each case drives both ends call by call (rig/puppet.py).

    backlog.py --list
    backlog.py -k exec -x
"""
import os
import signal
import sys

sys.dont_write_bytecode = True
from rig import become_root, wait_for                                                             # noqa: E402
from rig.pair import PORT, SUSPENDED, Wrong                                                       # noqa: E402
from rig.puppet import ANSWERED, Puppet                                                           # noqa: E402
from rig.report import main, options                                                              # noqa: E402

CASES = {}
PPOLL = 271

FUNCTIONS = """
import ctypes, resource, sys
def serve():
    conn = l.accept()[0]
    conn.sendall(b'served')
    conn.close()
def child(*way):
    '''A forked child that accepts one, in such a way, and says a word to it; or what has gone wrong.'''
    pid = os.fork()
    if pid:
        return pid
    try:
        for step in way:
            exec(step, globals())
        serve()
        os._exit(0)
    except BaseException as e:
        os.write(2, repr(e).encode())
        os._exit(1)
def ended(pid):
    return os.waitpid(pid, 0)[1]
def idle(*way):
    '''A forked child that has gone this way, and stays, and accepts nothing.'''
    r, w = os.pipe()
    child(*way, f'os.write({w}, b"."); signal.pause()')
    os.close(w)
    assert os.read(r, 1)
def sandbox():
    '''A filter that lets everything through: but the shim makes no call of its own there.'''
    own = ctypes.CDLL(None)
    ret = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxN', 1, ctypes.addressof(ret)))
    assert not own.prctl(38, 1, 0, 0, 0) and not own.prctl(22, 2, program, 0, 0)
def watch(events=0):
    global e
    e = select.epoll()
    e.register(l, select.EPOLLIN | events)
quiet = 0.02                                                  # what is not reported for so long is not
def told(timeout=20):
    found = e.poll(timeout)
    assert found in ([], [(l.fileno(), select.EPOLLIN)]), found
    return bool(found)
def readable(timeout=20):
    return bool(select.select([l], [], [], timeout)[0])
"""

# A program that begins with a listener: what it is given after its name is the number, and a wait to go through first.
PROGRAM = """
import select, socket, sys
l = socket.socket(fileno=int(sys.argv[1]))
exec(sys.argv[2])
conn = l.accept()[0]
conn.sendall(b'served')
"""

WAITS = {
    "accept": "pass",
    "poll": "p = select.poll(); p.register(l, select.POLLIN); assert p.poll(20000)",
    "select": "assert select.select([l], [], [], 20)[0]",
    "epoll": "e = select.epoll(); e.register(l, select.EPOLLIN); assert e.poll(20)",
    "epoll-et": "e = select.epoll(); e.register(l, select.EPOLLIN | select.EPOLLET); assert e.poll(20)",
}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def with_a_broker_too(function):
    """Then the listener is protected in every process that has it."""
    name = function.__name__.replace("_", "-")
    CASES[name] = lambda context: function(context, False)
    CASES[name + "/broker"] = lambda context: function(context, True)
    return function


class Stage:
    """A server, as a puppet on tage, that has not accepted yet; clients on troels come when they are called."""

    def __init__(self, context, clients_shim=None, broker=False):
        self.rig, self.shim, self.clients_shim = context.rig(), context.shim, clients_shim
        nsrun = (context.built("src/daemon/nsrun"), "--") if broker and self.shim else ()
        self.server = Puppet(self.rig.tage, "server", self.shim, under=nsrun)
        self.server.do(FUNCTIONS)
        self.server.do(f"l = socket.create_server(('0.0.0.0', {PORT}))")
        self.clients = []

    def client(self, shim=None):
        c = Puppet(self.rig.troels, f"client{len(self.clients)}", shim)
        self.clients.append(c)
        c.do(f"s = socket.create_connection(('10.31.0.2', {PORT}), 20)")
        if shim:
            c.log.wait(ANSWERED)
        return c

    def taken(self):
        """None waits in the kernel any more."""
        def look():
            return len(self.rig.tage.flows(PORT, ("ESTAB",))) == len(self.clients) and self.rig.tage.backlog(PORT) == 0
        wait_for("the connections to be taken", look)

    def queued(self, count=1):
        for _ in range(count):
            self.client(self.clients_shim)
        if self.shim:
            self.taken()
        return self.clients

    def another_is_served(self):
        """By whoever has been served by nobody: one that comes later."""
        self.server.do("pid = child()")
        self.client().says("s.recv(6, socket.MSG_WAITALL)", b"served")
        self.server.says("ended(pid)", 0)


def served(client):
    client.says("s.recv(6, socket.MSG_WAITALL)", b"served")
    client.says("s.recv(1)", b"")


def to_a_child(context, way, clients_shim=None):
    """Whoever accepts has it alone: its end is the end that the client gets."""
    x = Stage(context, clients_shim)
    x.queued()
    x.server.do(f"pid = child({way!r})")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)
    x.another_is_served()


def with_what_it_says(context):
    """A client under the shim that has spoken already: NEW is taken off, by whoever accepts."""
    x = Stage(context, context.shim)
    client, = x.queued()
    client.do("s.sendall(b'first words')")
    x.server.do("pid = child('conn = l.accept()[0]',"
                " 'assert conn.recv(11, socket.MSG_WAITALL) == b\"first words\"', 'conn.sendall(b\"heard\")', 'os._exit(0)')")
    client.says("s.recv(5, socket.MSG_WAITALL)", b"heard")
    client.says("s.recv(1)", b"")
    x.server.says("ended(pid)", 0)


for name, wait in WAITS.items():
    CASES[f"fork/{name}"] = lambda context, wait=wait: to_a_child(context, wait)
    CASES[f"fork/{name}/namesocket"] = lambda context, wait=wait: to_a_child(context, wait, context.shim)
CASES["fork/first-words/namesocket"] = with_what_it_says


@case
def fork_after_a_wait(context):
    """As inetd does for a service with `wait`: it is told of a connection, and leaves it to a child."""
    x = Stage(context)
    x.client()
    x.server.says("readable()", True)
    x.server.do("pid = child()")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)
    x.another_is_served()


@case
def fork_to_one_each(context):
    """Several children, several connections: each is somebody's, and nobody's twice."""
    x = Stage(context)
    x.queued(4)
    x.server.do("pids = [child() for _ in range(4)]")
    for client in x.clients:
        served(client)
    x.server.says("[ended(pid) for pid in pids]", [0] * 4)


@case
def fork_and_the_parent_accepts(context):
    """The child, which asks after it, finds nothing, whatever it asks with."""
    x = Stage(context)
    x.queued()
    x.server.do("r, w = os.pipe(); l.setblocking(False)")
    x.server.do("""pid = os.fork()
if pid == 0:
    watch()
    os.read(r, 1)
    try:
        found = [told(0), told(quiet), readable(0)]
        try:
            l.accept()
        except BlockingIOError:
            os._exit(0 if not any(found) else 2)
    finally:
        os._exit(1)""")
    x.server.do("serve()")
    x.server.do("os.write(w, b'.')")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


@case
def fork_with_the_parents_epoll(context):
    """It is one epoll descriptor for both. What the child has taken is not reported any more."""
    x = Stage(context)
    x.server.do("l.setblocking(False); watch()")
    x.queued()
    x.server.do("""pid = os.fork()
if pid == 0:
    try:
        first = told()
        serve()
        os._exit(0 if first and not told(quiet) else 2)
    finally:
        os._exit(1)""")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)
    x.server.says("told(quiet)", False)


@case
def fork_and_the_parent_goes(context):
    x = Stage(context)
    x.queued()
    x.server.do("r, w = os.pipe()")
    x.server.do("pid = child('os.read(r, 1)'); l.close(); os.write(w, b'.')")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


@case
def fork_and_all_close(context):
    """Then nobody can accept it, and the client is told."""
    x = Stage(context)
    client, = x.queued()
    x.server.do("pid = child('l.close()', 'os._exit(0)')")
    x.server.says("ended(pid)", 0)
    x.server.do("l.close()")
    if client.do("""
try:
    got = s.recv(1)
except ConnectionResetError:
    got = b''""") is not None or client.do("got") != b"":
        raise Wrong("the client was not told")


@case
def fork_twice(context):
    """What waits is for the children of a later fork, too, and what has come since the first."""
    x = Stage(context)
    x.queued()
    x.server.do("r, w = os.pipe()")
    x.server.do("idle = child('os.read(r, 1)', 'os._exit(0)')")
    x.client()
    x.server.says("readable()", True)
    x.server.do("pids = [child(), child()]")
    for client in x.clients:
        served(client)
    x.server.says("[ended(pid) for pid in pids]", [0, 0])
    x.server.do("os.write(w, b'.')")
    x.server.says("ended(idle)", 0)


@case
def fork_without_a_number(context):
    """accept says EMFILE, and the connection is there when a number is free."""
    x = Stage(context)
    x.queued()
    x.server.do("""pid = os.fork()
if pid == 0:
    try:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        try:
            l.accept()
        except OSError as e:
            said = e.errno
        os.close(taken.pop())
        serve()
        os._exit(0 if said == errno.EMFILE else 2)
    finally:
        os._exit(1)""")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


@case
def fork_into_a_sandbox(context):
    """As a daemon goes, whose parent is no more. (A child of one that lives leaves what waits to that.)"""
    x = Stage(context)
    x.queued()
    x.server.do("pid = child('import time; before = os.getpid()', 'if os.fork(): os._exit(0)',"
                " 'while os.getppid() == before: time.sleep(0.001)', 'sandbox()')")
    x.server.says("ended(pid)", 0)
    served(x.clients[0])


@case
def fork_beside_a_sandbox(context):
    """A helper with few rights, which has the listener and accepts nothing: it takes nothing away."""
    x = Stage(context)
    x.queued()
    x.server.do("idle('sandbox()')")
    x.server.says("readable()", True)
    x.server.do("serve()")
    served(x.clients[0])
    x.server.says("readable(quiet)", False)


@case
def fork_in_a_sandbox(context):
    """What waits is somebody's, and nobody's twice."""
    x = Stage(context)
    x.queued()
    x.server.do("l.setblocking(False); sandbox()")
    by_child = x.server.do("ended(child())") == 0
    if by_child:
        x.server.says("l.accept()", "BlockingIOError EAGAIN")
    else:
        x.server.do("serve()")
    served(x.clients[0])


@case
def fork_then_into_a_sandbox(context):
    """The server itself, which has an epoll descriptor from before."""
    x = Stage(context)
    x.server.do("watch()")
    x.queued()
    x.server.do("idle(); sandbox()")
    x.server.says("told()", True)
    x.server.do("serve()")
    served(x.clients[0])
    x.server.says("told(quiet)", False)


def as_a_daemon(context, off, on):
    """The parent goes, and with it who registered the listener. The child puts off accepting."""
    x = Stage(context)
    x.server.do("watch()")
    x.queued()
    x.server.do("if os.fork(): os._exit(0)")
    wait_for("the parent to go", lambda: not x.server.proc.alive())
    x.server.do(off)
    x.server.says("told(quiet)", False)
    x.server.do(on)
    x.server.says("told()", True)
    x.server.do("serve()")
    served(x.clients[0])
    x.server.says("told(quiet)", False)


CASES["fork/daemon/del"] = lambda context: as_a_daemon(context, "e.unregister(l)", "e.register(l, select.EPOLLIN)")
CASES["fork/daemon/mod"] = lambda context: as_a_daemon(context, "e.modify(l, 0)", "e.modify(l, select.EPOLLIN)")


@case
def fork_and_the_child_registers_anew(context):
    """In the parent's epoll descriptor, and closes the listener: the parent is told all the same."""
    x = Stage(context)
    x.server.do("watch()")
    x.queued()
    x.server.says("ended(child('e.modify(l, select.EPOLLIN)', 'l.close()', 'os._exit(0)'))", 0)
    x.server.says("told()", True)
    x.server.do("serve()")
    served(x.clients[0])
    x.server.says("told(quiet)", False)


@case
def fork_after_one_shot(context):
    """The one event has been delivered. A fork is no reason for another."""
    x = Stage(context)
    x.server.do("watch(select.EPOLLONESHOT)")
    x.queued()
    x.server.says("told()", True)
    x.server.do("idle()")
    x.server.says("told(quiet)", False)
    x.server.do("e.modify(l, select.EPOLLIN | select.EPOLLONESHOT)")
    x.server.says("told()", True)
    x.server.do("serve()")
    served(x.clients[0])


@case
def fork_with_one_shot(context):
    """The child arms the parent's registration again for each that it accepts."""
    x = Stage(context)
    x.server.do("watch(select.EPOLLONESHOT)")
    x.queued(3)
    x.server.do('''pid = child(*["assert told()", "serve()", "assert not told(quiet)",
                                 "e.modify(l, select.EPOLLIN | select.EPOLLONESHOT)"] * 3, "os._exit(told(quiet))")''')
    for client in x.clients:
        served(client)
    x.server.says("ended(pid)", 0)


@with_a_broker_too
def fork_and_told_again(context, broker):
    """A child has taken the one before; what comes later is told for as long as it waits, however it is registered."""
    x = Stage(context, broker=broker)
    x.server.do("watch()")
    x.queued()
    x.server.says("told()", True)
    x.server.says("ended(child())", 0)
    served(x.clients[0])
    for way in ("e.modify(l, select.EPOLLIN)", "e.unregister(l); e.register(l, select.EPOLLIN)", "watch()"):
        x.server.do(way)
        client = x.client()
        x.server.says("[told(), told()]", [True, True])
        x.server.says("told()", True)
        x.server.do("serve()")
        served(client)
        x.server.says("told(quiet)", False)


@with_a_broker_too
def fork_and_taken_out(context, broker):
    """A child has taken one of three, and ended. A listener that is in no epoll descriptor is not told of."""
    x = Stage(context, broker=broker)
    x.server.do("watch()")
    x.queued(3)
    x.server.says("ended(child())", 0)
    x.server.do("e.unregister(l)")
    x.server.says("told(quiet)", False)
    x.server.do("e.register(l, select.EPOLLIN)")
    for _ in range(2):
        x.server.says("told()", True)
        x.server.do("serve()")
    x.server.says("told(quiet)", False)
    for client in x.clients:
        served(client)


@with_a_broker_too
def fork_by_a_child(context, broker):
    """A worker with an epoll descriptor of its own, whose child takes one of three and closes the listener."""
    x = Stage(context, broker=broker)
    x.queued(3)
    x.server.do("""pid = os.fork()
if pid == 0:
    try:
        watch()
        assert told() and ended(child('serve(); l.close(); os._exit(0)')) == 0
        for _ in range(2):
            assert told()
            serve()
        os._exit(1 if told(quiet) else 0)
    finally:
        os._exit(2)""")
    for client in x.clients:
        served(client)
    x.server.says("ended(pid)", 0)


def executes(wait):
    return (f"import sys; os.set_inheritable(l.fileno(), True); "
            f"os.execv(sys.executable, [sys.executable, '-c', {PROGRAM!r}, str(l.fileno()), {wait!r}])")


def to_the_next_program(context, wait, broker=False):
    x = Stage(context, broker=broker)
    x.queued()
    x.server.do(f"pid = child({executes(wait)!r})")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


for name, wait in WAITS.items():
    CASES[f"exec/{name}"] = lambda context, wait=wait: to_the_next_program(context, wait)
CASES["exec/accept/broker"] = lambda context: to_the_next_program(context, WAITS["accept"], True)
CASES["exec/poll/broker"] = lambda context: to_the_next_program(context, WAITS["poll"], True)


@case
def exec_after_a_wait(context):
    """inetd's `wait`, with a program."""
    x = Stage(context)
    x.client()
    x.server.says("readable()", True)
    x.server.do(f"pid = child({executes('pass')!r})")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


@with_a_broker_too
def exec_and_nothing_is_left(context, broker):
    """For neither the parent nor a child of its that comes after. The next program has the next one."""
    x = Stage(context, broker=broker)
    x.queued()
    x.server.do(f"way = {executes('pass')!r}")
    x.server.says("ended(child(way))", 0)
    served(x.clients[0])
    x.server.says("readable(quiet)", False)
    x.server.says("ended(child('os._exit(readable(quiet))'))", 0)
    client = x.client()
    x.server.says("readable()", True)
    x.server.says("ended(child(way))", 0)
    served(client)
    x.server.says("readable(quiet)", False)


@with_a_broker_too
def exec_for_each(context, broker):
    """inetd's `wait`, with a program that ends when it has accepted all there is: each client is one start of it."""
    x = Stage(context, broker=broker)
    x.server.do(f"way = {executes('l.setblocking(False)')!r}")
    for _ in range(3):
        client = x.client()
        x.server.says("readable()", True)
        x.server.says("ended(child(way))", 0)
        served(client)
        x.server.says("readable(quiet)", False)


@case
def exec_with_many_listeners(context):
    x = Stage(context)
    ports = range(PORT + 1, PORT + 20)
    x.server.do(f"others = [socket.create_server(('0.0.0.0', port)) for port in {ports}]")
    x.queued()
    client, = x.clients
    client.do(f"more = [socket.create_connection(('10.31.0.2', port), 20) for port in {ports}]")
    if x.shim:
        wait_for("the connections to be taken", lambda: not any(map(x.rig.tage.backlog, ports)))
    x.server.do("for each in others: os.set_inheritable(each.fileno(), True)")
    numbers = x.server.do("[each.fileno() for each in others]")
    x.server.begin(executes(f"for n in {numbers}: socket.socket(fileno=n).accept()[0].sendall(b'served')"), False)
    served(client)
    client.says("[each.recv(6, socket.MSG_WAITALL) for each in more]", [b"served"] * len(ports))


@case
def exec_that_waits_for_a_session(context):
    """It has no connection, and the client lacks something. Who comes meanwhile is for the next program."""
    x = Stage(context)
    first = x.client(x.shim)
    first.do("s.sendall(b'?')")
    x.server.do("conn = l.accept()[0]")
    x.server.says("conn.recv(1)", b"?")
    x.server.do("conn.setblocking(False); n = 0")
    x.server.says("while True: n += conn.send(bytes(1 << 20))", "BlockingIOError EAGAIN")
    written = x.server.do("n")
    os.kill(first.pid, signal.SIGSTOP)
    x.rig.reset_flows([x.rig.tage], PORT)
    if x.shim:
        x.server.log.wait(SUSPENDED)
    call = x.server.begin(executes("pass"), False)
    if x.shim:
        call.asleep(PPOLL)
    late = x.client()
    os.kill(first.pid, signal.SIGCONT)
    if x.shim:
        first.says("sum(iter(lambda: len(s.recv(1 << 20)), 0))", written)
    served(late)


@case
def exec_of_the_server_itself(context):
    """As one that is upgraded in place."""
    x = Stage(context)
    x.queued(2)
    x.server.begin(executes("n = l.accept()[0]; n.sendall(b'served'); n.close()"), False)
    for client in x.clients:
        served(client)


@case
def exec_that_fails(context):
    x = Stage(context)
    x.queued()
    x.server.says("os.set_inheritable(l.fileno(), True)", None)
    x.server.says("os.execv('/etc/passwd', ['passwd'])", "PermissionError EACCES")
    x.server.do("serve()")
    served(x.clients[0])


@with_a_broker_too
def exec_that_fails_late(context, broker):
    """The file is there, but is no program: all has been handed down by then. Nothing is left once it is accepted."""
    x = Stage(context, broker=broker)
    x.queued()
    garbage = os.path.join(x.rig.dir, "garbage")
    with open(garbage, "wb") as f:
        f.write(b"\0garbage")
    os.chmod(garbage, 0o755)
    x.server.do("os.set_inheritable(l.fileno(), True)")
    x.server.says(f"os.execv({garbage!r}, ['garbage'])", "OSError ENOEXEC")
    x.server.do("idle()")
    x.server.says("readable()", True)
    x.server.do("serve()")
    served(x.clients[0])
    x.server.says("readable(quiet)", False)


@case
def exec_again(context):
    """A program that executes another one in turn, as a shell does."""
    x = Stage(context)
    x.queued()
    again = executes("pass")
    first = (f"import os, sys; os.execv('/bin/sh', ['sh', '-c', 'exec \"$@\"', 'sh', sys.executable, '-c', {PROGRAM!r}, "
             "str(l.fileno()), 'pass'])")
    x.server.do(f"pid = child({again.replace(repr(PROGRAM), repr(PROGRAM.replace('exec(sys.argv[2])', first)))!r})")
    served(x.clients[0])
    x.server.says("ended(pid)", 0)


if __name__ == "__main__":
    become_root()
    sys.exit(main(CASES, options(__doc__)))
