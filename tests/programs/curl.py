"""curl, from Python's own web server: a thread for each connection, sendfile at neither end."""
from rig.pair import PORT

from .stage import case, random_bytes, size


@case("curl", "curl", ["curl"], done="8 MB by HTTP from Python's http.server")
def curl(s):
    data = random_bytes(8_000_000)
    s.file("www/big", data)
    s.server("python3", "-u", "-m", "http.server", "--bind", "::", "-d", s.path("www"), PORT)
    target = s.path("target")
    client = s.client("curl", "-sS", "-o", target, f"http://tage:{PORT}/big")
    s.cuts_during("the file", lambda: size(target), len(data))
    s.end(client)
    s.same_file(target, data)
