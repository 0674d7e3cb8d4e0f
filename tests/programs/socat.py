"""socat: as a client, and as inetd, which gives each connection to a program as its standard input and output."""
from rig import wait_for
from rig.pair import PORT

from .stage import case, random_bytes, size


def echoed(s):
    """4 MB through socat and back, half-closed at the end."""
    data = b"first line\n" + random_bytes(4_000_000)
    target = s.path("target")
    client = s.client("sh", "-c", f"exec socat -t 60 - TCP:tage:{PORT} > {target}")
    client.p.stdin.write(data[:11])
    client.p.stdin.flush()
    wait_for("the first bytes", lambda: size(target) >= 11, s.timeout_s)
    s.protected()
    s.feed(client, data[11:])
    client.close_stdin()
    s.end(client)
    s.same_file(target, data)


@case("socat", "socat", ["socat"], ("-V",), done="4 MB to an echo server and back, half-closed")
def client(s):
    s.server(s.context.traffic, "toy-echo", "serve", PORT)
    echoed(s)


@case("socat-exec", "socat EXEC", ["socat"], ("-V",), "a process for each connection, with a program behind a pair",
      "4 MB to `socat ... EXEC:cat` and back, half-closed")
def behind_a_pair(s):
    s.server("socat", f"TCP6-LISTEN:{PORT},ipv6only=0,fork,reuseaddr", "EXEC:cat")
    echoed(s)


@case("socat-inetd", "socat EXEC,nofork", ["socat"], ("-V",), "inetd style: fork, dup onto 0 and 1, exec",
      "4 MB to `socat ... EXEC:cat,nofork` and back, half-closed")
def as_inetd(s):
    s.server("socat", f"TCP6-LISTEN:{PORT},ipv6only=0,fork,reuseaddr", "EXEC:cat,nofork")
    echoed(s)
