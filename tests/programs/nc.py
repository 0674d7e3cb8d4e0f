"""OpenBSD's netcat, one way."""
from rig import wait_for
from rig.pair import PORT

from .stage import case, random_bytes, size


@case("nc", "nc (OpenBSD)", ["nc"], ("-h",), done="8 MB from a pipe to `nc -l -k`, then FIN")
def nc(s):
    data = b"first line\n" + random_bytes(8_000_000)
    target = s.path("target")
    # -k keeps the listener: without one there is nowhere to resume at.
    server = s.server("sh", "-c", f"exec nc -l -k {PORT} > {target}")
    client = s.client("nc", "-N", "-4", "tage", PORT)
    client.p.stdin.write(data[:11])
    client.p.stdin.flush()
    s.protected()
    wait_for("the first bytes", lambda: size(target) >= 11, s.timeout_s)
    s.feed(client, data[11:])
    client.close_stdin()
    wait_for("all bytes", lambda: size(target) >= len(data), s.timeout_s)
    s.end(client)
    s.same_file(target, data)
    server.kill()
