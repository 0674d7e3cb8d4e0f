#!/usr/bin/env python3
"""Connections a second of servers that people use and that make a process for each connection, as processes.py does
for its own: socat, which executes a program; git's daemon, asked for what it has; OpenSSH, a login and a command.

What is not installed is left out, and standard error says so. Everything runs on loopback, with keys, configuration
and repository made for it in a directory of its own.
"""
import argparse
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from processes import PATIENCE_S, Driver, Failure, Pair, Server, measure, under_shim

SSHD_CONFIG = """ListenAddress 127.0.0.1
HostKey {directory}/hostkey
PidFile none
AuthorizedKeysFile {directory}/userkey.pub
StrictModes no
UsePAM no
UseDNS no
MaxStartups 100
"""


class Missing(Exception):
    pass


def find(*programs):
    """Where they are. Those for the system's start are not in every user's path."""
    path = os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = [shutil.which(program, path=path) for program in programs]
    for program, where in zip(programs, found):
        if not where:
            raise Missing(f"{program} is not installed")
    return found


def run(*command, **settings):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, **settings)
    if done.returncode:
        raise Failure(f"{command[0]}: {done.stderr.strip()}")


def free_port():
    """Not an ephemeral one: clients do not ask there."""
    for port in range(22900, 23900):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise Failure("no port is free from 22900 to 23899")


def wait_until_it_listens(server, port):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise Failure(f"{server.process.args[0]} does not listen")


class Commands:
    """Connections of a client that is a program, run again for each."""

    def __init__(self, command, environment):
        self.command, self.environment = command, {**os.environ, **environment}

    def sample(self, connections):
        began = time.monotonic()
        for _ in range(connections):
            run(*self.command, env=self.environment)
        return connections / (time.monotonic() - began)

    def end(self):
        pass


# Each returns the server's command, for a port, and the client, for a port and an environment.


def socat(options, _):
    program, cat = find("socat", "cat")
    return (lambda port: [program, f"TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=128", f"EXEC:{cat},nofork"],
            lambda port, environment: Driver(os.path.abspath(options.processes), port, environment))


def git(_, directory):
    program, = find("git")
    run(program, "init", "-q", "-b", "main", os.path.join(directory, "repo.git"))
    run(program, "-C", os.path.join(directory, "repo.git"), "-c", "user.name=n", "-c", "user.email=n@example.org", "commit",
        "-q", "--allow-empty", "-m", "empty")
    return (lambda port: [program, "daemon", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr", "--export-all",
                          f"--base-path={directory}"],
            lambda port, environment: Commands([program, "ls-remote", f"git://127.0.0.1:{port}/repo.git"], environment))


def ssh(_, directory):
    sshd, client, keygen = find("sshd", "ssh", "ssh-keygen")
    if os.geteuid() == 0 and not os.path.isdir("/run/sshd"):
        raise Missing("sshd needs the directory /run/sshd; mkdir /run/sshd")
    for key in ("hostkey", "userkey"):
        run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(directory, key))
    config = os.path.join(directory, "config")
    with open(config, "w") as f:
        f.write(SSHD_CONFIG.format(directory=directory))
    asks = [client, "-F", "/dev/null", "-i", os.path.join(directory, "userkey"), "-o", "BatchMode=yes", "-o",
            "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return (lambda port: [sshd, "-D", "-q", "-f", config, "-p", str(port)],
            lambda port, environment: Commands([*asks, "-p", str(port), f"{getpass.getuser()}@127.0.0.1", "true"], environment))


# Form, what it is made by, connections in a sample.
SERVERS = {"socat": (socat, 100), "git": (git, 10), "ssh": (ssh, 3)}


def pair(command, client, environment):
    port = free_port()
    server = Server(command(port), environment)
    try:
        wait_until_it_listens(server, port)
    except Failure:
        server.end()
        raise
    return Pair(environment, server, client(port, environment))


def measure_server(options, form, directory):
    make, connections = SERVERS[form]
    home = os.path.join(directory, form)
    os.mkdir(home)
    command, client = make(options, home)
    log = os.path.join(home, "log")
    with open(log, "w"):
        os.chmod(log, 0o666)                        # sshd's process without privileges writes there, too
    plain = pair(command, client, {})
    try:
        shim = pair(command, client, under_shim(options.shim, log))
    except Failure:
        plain.end()
        raise
    return measure({"plain": plain, "shim": shim}, options.rounds, connections)


def main():
    parser = argparse.ArgumentParser(description="Servers that people use, with a process for each connection.")
    parser.add_argument("--processes", required=True)
    parser.add_argument("--shim", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    result = {}
    try:
        with tempfile.TemporaryDirectory(prefix="namesocket-servers-") as directory:
            os.chmod(directory, 0o755)
            for form in SERVERS:
                try:
                    result[form] = measure_server(options, form, directory)
                except Missing as why:
                    print(f"servers.py: left out: {form}: {why}", file=sys.stderr)
    except (Failure, OSError, subprocess.TimeoutExpired) as why:
        print(f"servers.py: {why}", file=sys.stderr)
        return 1
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
