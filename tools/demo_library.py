"""What demo-library.sh runs: the conversation of the thesis's 6.2 between two hosts of the rig."""
import os
import sys
import textwrap

from rig.hosts import PREFIX, PREFIX4, Rig, RigError, become_root
from rig.procs import Deadline, Proc

PORT = 1234


class Actor:
    """A program on a host, whose output and log appear in the order in which it wrote them."""

    def __init__(self, host, argv):
        self.name = host.name
        self.shown = 0
        print(f"\n[troels@{host.name} namesocket]$ {' '.join([os.path.basename(argv[0]), *argv[1:]])}")
        self.proc: Proc = host.start(os.path.basename(argv[0]), ["sh", "-c", 'exec "$0" "$@" 2>&1', *argv])

    def type(self, line):
        print(f"\n{self.name} types: {line}")
        self.proc.send(line)

    def until(self, pattern, timeout_s=10.0):
        self.proc.wait_line(pattern, timeout_s)
        self.show()

    def show(self):
        with self.proc.changed:
            new = [line for line in self.proc.lines[self.shown:] if line is not None]
            self.shown += len(new)
        if new:
            print(f"--- {self.name}")
            print("\n".join(new))


def say(text):
    print("\n" + textwrap.fill(text, 76))


def link_in_use(host):
    """Which link the session runs over. The connection that asked for namesocket is half closed by now."""
    out = host.run("ss", "-tnH", "state", "established", f"( dport = :{PORT} )").stdout
    for line in out.splitlines():
        local = line.split()[2].strip("[").replace("::ffff:", "")
        for link in PREFIX:
            if local.startswith((PREFIX[link].rstrip(":"), PREFIX4[link])):
                return link
    raise RigError(f"{host.name} has no connection to port {PORT}")


def demonstrate(rig, build):
    example = lambda name: os.path.join(os.path.abspath(build), "examples", name)

    say("Two hosts, troels and tage, and two links between them (figure 6.1). The server is started on tage.")
    server = Actor(rig.tage, [example("nsserver"), str(PORT)])
    server.until("Binding socket")

    say("The client is started on troels. It looks the name up and connects.")
    client = Actor(rig.troels, [example("nsclient"), "tage", str(PORT)])
    server.until("Client 0: Connected")
    client.type("helo")
    client.until("^helo$")
    server.until("Client 0: Got 5 bytes")

    link = link_in_use(rig.troels)
    say(f"The connection runs over {link}, which is now cut. Then another line is typed.")
    rig.troels.link_down(link)
    client.type("come again")
    client.until("^come again$", 30)
    server.until("Client 0: Got 11 bytes")
    now = link_in_use(rig.troels)
    if now == link:
        raise RigError(f"the connection still runs over {link}")

    say("That is all the user sees: the echo has come. The session is resumed; the client ends.")
    client.proc.close_stdin()
    status = client.proc.wait()
    client.show()
    server.until("Client 0: Disconnected")
    if status != 0:
        raise RigError(f"nsclient ended with status {status}")
    say(f"Both lines came back, the second over {now}.")


def main():
    become_root()
    rig = Rig(names="both")
    try:
        demonstrate(rig, sys.argv[1])
    except Deadline as late:
        for proc in rig.procs[-2:]:
            print(f"\n{proc.name} had said:")
            print("\n".join(line for line in proc.lines if line))
        print(f"\ndemo-library: failed: {late}", file=sys.stderr)
        return 1
    finally:
        rig.close()
    return 0


try:
    sys.exit(main())
except RigError as wrong:
    print(f"\ndemo-library: failed: {wrong}", file=sys.stderr)
    sys.exit(1)
