"""OpenSSH, as Debian has it: a process for each connection, executed again, with privileges apart and a sandbox."""
import os

from rig import wait_for
from rig.pair import PORT, Wrong

from .stage import case, find, need_users, random_bytes, size

SHAPE = "fork, exec (`sshd -R`), a sandboxed child before the login, a process of the user's after it"
USER, UID = "thesis", 54321

CONFIG = """Port {port}
ListenAddress ::
ListenAddress 0.0.0.0
HostKey {dir}/hostkey
PidFile none
AuthorizedKeysFile {dir}/userkey.pub
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


def sshd(s):
    """sshd on tage. It knows one user, who is not root: so it has somebody to become."""
    need_users()
    for key in ("hostkey", "userkey"):
        s.rig.tage.run(find("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", s.path(key))
    home = s.path("home")
    os.mkdir(home)
    os.chown(home, UID, UID)
    with open("/etc/passwd") as f:
        s.file("passwd", f.read() + f"{USER}:*:{UID}:{UID}::{home}:/bin/sh\n")
    # In this host's own mounts: the user, and the directory that sshd locks its sandboxed child into.
    for argv in (["mount", "--bind", s.path("passwd"), "/etc/passwd"], ["mount", "-t", "tmpfs", "tmpfs", "/run"],
                 ["mkdir", "-m", "755", "/run/sshd"]):
        done = s.rig.tage.run(*argv)
        if done.returncode:
            raise Wrong(f"{argv}: {done.stderr}")
    s.server(find("sshd"), "-D", "-e", "-f", s.file("sshd_config", CONFIG.format(port=PORT, dir=s.dir)))
    return home


def options(s, port_option="-p"):
    return [port_option, PORT, "-F", "/dev/null", "-i", s.path("userkey"), "-o", "BatchMode=yes", "-o",
            "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]


@case("ssh", "ssh, sshd", ["sshd", "ssh", "ssh-keygen"], ("-V",), SHAPE,
      "login with a command: 4 MB into its standard input and back")
def command(s):
    sshd(s)
    data = b"first line\n" + random_bytes(4_000_000)
    target = s.path("target")
    client = s.client("sh", "-c", 'target=$1; shift; exec "$@" > "$target"', "sh", target,
                      "ssh", *options(s), f"{USER}@tage", "cat; exit 7")
    client.p.stdin.write(data[:11])
    client.p.stdin.flush()
    wait_for("the first bytes", lambda: size(target) >= 11, s.timeout_s)
    s.protected()
    s.feed(client, data[11:])
    client.close_stdin()
    s.end(client, 7)                                          # as the command did
    s.same_file(target, data)


@case("scp", "scp", ["sshd", "ssh", "scp", "ssh-keygen"], ("-V",), SHAPE, "8 MB copied to the server")
def scp(s):
    home = sshd(s)
    data = random_bytes(8_000_000)
    target = os.path.join(home, "target")
    client = s.client("scp", "-q", *options(s, "-P"), s.file("source", data), f"{USER}@tage:{target}")
    s.cuts_during("the file", lambda: size(target), len(data))
    s.end(client)
    s.same_file(target, data)


@case("scp-from", "scp", ["sshd", "ssh", "scp", "ssh-keygen"], ("-V",), SHAPE, "8 MB copied from the server")
def scp_from(s):
    sshd(s)
    data = random_bytes(8_000_000)
    source, target = s.file("source", data), s.path("target")
    client = s.client("scp", "-q", *options(s, "-P"), f"{USER}@tage:{source}", target)
    s.cuts_during("the file", lambda: size(target), len(data))
    s.end(client)
    s.same_file(target, data)


@case("ssh-forward", "ssh -L", ["sshd", "ssh", "ssh-keygen", "socat"], ("-V",), SHAPE,
      "4 MB through a forwarded port to an echo server and back")
def forward(s):
    sshd(s)
    data = random_bytes(4_000_000)
    echo = s.rig.tage.start("echo", ["socat", "TCP4-LISTEN:7100,fork,reuseaddr", "EXEC:cat"])
    client = s.client("ssh", *options(s), "-N", "-L", "7101:127.0.0.1:7100", f"{USER}@tage")
    wait_for("the forwarded port", lambda: ":7101" in s.rig.troels.run("ss", "-tlnH", "sport = :7101").stdout,
             s.timeout_s)
    target = s.path("target")
    through = s.rig.troels.start("through", ["sh", "-c", f"exec socat -t 60 - TCP4:127.0.0.1:7101 > {target}"])
    s.protected()
    s.feed(through, data)
    through.close_stdin()
    s.end(through)
    s.same_file(target, data)
    client.kill()
    echo.kill()


@case("ssh-control", "ssh ControlMaster", ["sshd", "ssh", "ssh-keygen"], ("-V",),
      SHAPE + "; the client's master goes into the background", "two commands and 8 MB over one master's connection")
def control(s):
    sshd(s)
    shared = [*options(s), "-o", f"ControlPath={s.path('control')}"]
    # -f: the master forks when it is logged in, and its parent ends.
    s.end(s.client("ssh", *shared, "-M", "-f", "-N", f"{USER}@tage", name="master"))
    try:
        said = s.client("ssh", *shared, f"{USER}@tage", "echo here; exit 3", name="command")
        s.end(said, 3)
        data, target = random_bytes(8_000_000), s.path("target")
        source = s.file("source", data)
        client = s.client("sh", "-c", 'target=$1; shift; exec "$@" > "$target"', "sh", target,
                          "ssh", *shared, f"{USER}@tage", f"cat {source}")
        s.cuts_during("the file", lambda: size(target), len(data))
        s.end(client)
        s.same("the command's words", said.lines[:1], ["here"], 5)
        s.same_file(target, data)
    finally:
        s.end(s.client("ssh", *shared, "-O", "exit", f"{USER}@tage", name="exit"))
