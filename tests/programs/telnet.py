"""A person at a telnet, and an echo: what is typed is short, and waited for."""
import base64

from rig import wait_for
from rig.pair import PORT
from rig.terminal import Terminal

from .stage import case, digest, random_bytes


@case("telnet", "telnet", ["telnet"], done="40 lines typed on a terminal, echoed by an echo server")
def telnet(s):
    s.server(s.context.traffic, "toy-echo", "serve", PORT)
    client = Terminal("client", s.rig.troels.argv(["telnet", "tage", str(PORT)], s.env("client")), s.dir)
    s.rig.procs.append(client)
    client.wait_text("Escape character", timeout_s=s.timeout_s)
    lines = [base64.b32encode(random_bytes(30, b"telnet%d" % n)).decode() for n in range(40)]
    for n, line in enumerate(lines):
        client.type(line + "\n")
        if n == 0:
            s.protected()
        if n % 10 == 5:
            s.cut()
        # Once as the terminal's own echo, once from the server.
        client.wait_text(line, 2, s.timeout_s)
    shown = [line for line in client.text.split("\n") if line in lines]
    sent = "".join(lines).encode()
    s.same("echoed lines", digest("".join(shown[1::2]).encode()), digest(sent), len(sent))
    client.type("\x1d")
    client.wait_text("telnet>", timeout_s=s.timeout_s)
    client.type("quit\n")
    wait_for("telnet's end", lambda: not client.alive(), s.timeout_s)
