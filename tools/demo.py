"""What demo.sh runs: telnet under the shim, an echo server under nsrun, a cut link, and the time line."""
import os
import re
import sys
import textwrap
import time

from rig import Deadline, RigError, become_root, Rig, Log, wait_for
from rig.pair import ESTABLISHED, shim_env
from rig.terminal import Terminal
from rig.wire import link_of

PORT = 1234
LINES = ("helo", "come again")
BOLD, DIM, END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


STAMP = re.compile(r" - \w+ (\w+ +\d+ \d+:\d+:\d+)(\.\d+) (\d+) - ")


class Stamped(Log):
    """A log whose lines say to the microsecond when they were written."""

    def lines(self):
        """(when, line) of each, in seconds since 1970."""
        for line in self.text().splitlines():
            second, fraction, year = STAMP.search(line).groups()
            yield time.mktime(time.strptime(f"{second} {year}", "%b %d %H:%M:%S %Y")) + float(fraction), line

    def first(self, pattern, since):
        """(when, match) of the first line from `since` on that matches, or None."""
        for when, line in self.lines():
            m = re.search(pattern, line)
            if m and when >= since:
                return when, m
        return None


def say(text=""):
    print("\n".join(textwrap.wrap(text, 88)), flush=True)


def title(text):
    print(f"\n{BOLD}{text}{END}", flush=True)


def screen(terminal):
    for line in terminal.text.rstrip("\n").split("\n"):
        print(f"    | {line}")


def figure(rig):
    print()
    for link in ("link-a", "link-b"):
        left, right = (f"{h.addresses[link][0]}  {h.addresses[link][1]}" for h in (rig.troels, rig.tage))
        print(f"    troels --- {link} --- tage      troels: {left}\n{' ' * 36}tage:   {right}")
    print()


def time_line(client, server, cut, echoed, link):
    """What happened, in order, in words."""
    src, dst, again = client.first(r"session resumed after .* over (\S+) -> (\S+), (\d+) bytes", cut)[1].groups()
    swapped, in_place = "suspended, resumed, now connected", "has put the new connection in the old one's place"
    steps = [("troels", client, r"path .*attempting resume", "notices that the connection's path is dead"),
             ("troels", client, f"Attempting connection with address pair.*src: {src} dst: {dst}",
              f"connects from {src} to {dst}"),
             ("troels", client, r"Sending NSPT_RESUME", "is connected, and asks for the session"),
             ("tage", server, r"Got RESUME connection", "finds the session, proves who it is, says what it has"),
             ("tage", server, swapped, in_place),
             ("troels", client, swapped, f"{in_place}; {again} bytes are sent again")]
    events = [(cut, "troels", f"{link} is cut"), (echoed, "troels", f"telnet shows the echo of \"{LINES[1]}\"")]
    for host, log, pattern, words in steps:
        found = log.first(pattern, cut)
        if found:
            events.append((found[0], host, words))
    for when, host, words in sorted(events, key=lambda e: e[0]):
        print(f"    {(when - cut) * 1000:8.1f} ms  {host:6}  {words}")
    say()
    if again != "0":
        say(f"({again} bytes: telnet had written the line, and its end, to the connection over {link}, which lost them. "
            "The shim had kept a copy, for tage had not acknowledged them.)")
    say("(The times are those of the logs' own lines; both hosts share a clock here.)")


def show_log(name, log):
    title(f"The log of {name}")
    for line in log.text().splitlines():
        print(f"{DIM}    {line}{END}")


def shown(terminal):
    return [line for line in terminal.text.split("\n") if line in LINES]


def demonstrate(rig, build, plain):
    shim = os.path.join(build, "src/preload/libnsshim.so")
    nsrun = os.path.join(build, "src/daemon/nsrun")
    echo_server = os.path.join(build, "examples/echo-server")
    logs = [Stamped(os.path.join(rig.dir, name)) for name in ("troels.log", "tage.log")]
    client_log, server_log = logs

    title("1. Two hosts, two links")
    figure(rig)
    say("Names come from DNS (dnsmasq) and /etc/hosts, as anywhere.")

    title("2. An echo server on tage, telnet on troels")
    under = [] if plain else [nsrun, "-l", "debug", "-o", server_log.path, "--"]
    print(f"    tage$   {'' if plain else 'nsrun -- '}echo-server {PORT}")
    stamps = {"NAMESOCKET_LOG_TIME": "us"}
    rig.tage.start("echo-server", [*under, echo_server, PORT], stamps)
    wait_for("the server listens", lambda: f":{PORT}" in rig.tage.run("ss", "-tlnH", f"sport = :{PORT}").stdout, 10)
    print(f"    troels$ {'' if plain else 'LD_PRELOAD=libnsshim.so '}telnet tage {PORT}\n")
    env = {} if plain else {**shim_env(shim, client_log.path), **stamps}
    telnet = Terminal("telnet", rig.troels.argv(["telnet", "tage", str(PORT)], env), rig.dir)
    rig.procs.append(telnet)
    telnet.wait_text("Escape character")
    telnet.type(LINES[0] + "\n")
    telnet.wait_text(LINES[0] + "\n", 2)
    screen(telnet)
    if not plain:
        for log in logs:
            log.wait(ESTABLISHED)

    link = link_of(rig.troels, rig.troels.flows(PORT)[0][0])
    title(f"3. The connection runs over {link}. It is cut, and a line typed")
    already = len(telnet.text)
    cut = time.time()
    rig.troels.link_down(link)
    telnet.type(LINES[1] + "\n")
    try:
        telnet.wait_text(LINES[1] + "\n", 2, 5 if plain else 30)
        echoed = telnet.when(LINES[1] + "\n", 2)
    except Deadline:
        echoed = None
    print("\n".join(f"    | {line}" for line in telnet.text[already:].rstrip("\n").split("\n")))
    if echoed is None:
        say()
        say("No echo comes." + (" That is TCP: the connection belongs to the link's address." if plain else ""))
    else:
        client_log.wait("session resumed after")
        server_log.wait("Successfully resumed at server")
        now = link_of(rig.troels, rig.troels.flows(PORT)[0][0])
        say()
        say(f"The echo came. The connection runs over {now}; telnet and the server know nothing of it.")
        telnet.type("\x1d")
        telnet.wait_text("telnet>")
        telnet.type("quit\n")
        telnet.wait()
    if echoed is not None:
        title("4. The time line")
        time_line(client_log, server_log, cut, echoed, link)
    if not plain:
        show_log("telnet, on troels", client_log)
        show_log("the echo server, on tage", server_log)

    # Each line twice: the terminal's own echo while it was typed, and the server's.
    right = shown(telnet) == [line for line in LINES for _ in range(2)]
    title("Every byte came back." if right and echoed else "Not every byte came back.")
    return 0 if right and echoed else 1


def main():
    plain, build = "--plain" in sys.argv, os.path.abspath(sys.argv[-1])
    try:
        become_root()
        with Rig(names="both") as rig:
            return demonstrate(rig, build, plain)
    except (RigError, Deadline, OSError) as e:
        print(f"demo.sh: failed: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
