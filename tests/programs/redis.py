"""redis-server and redis-cli: request and answer."""
from rig import wait_for
from rig.pair import PORT, Wrong

from .stage import case, digest, random_bytes


@case("redis", "redis-server, redis-cli", ["redis-server", "redis-cli"], done="200 values of 6 kB set and got back")
def redis(s):
    s.server("redis-server", "--port", PORT, "--bind", "*", "-::*", "--save", "", "--protected-mode", "no",
             "--dir", s.dir)
    client = s.client("redis-cli", "-h", "tage", "-p", PORT)
    values = [random_bytes(3000, b"redis%d" % n).hex() for n in range(200)]
    for n, value in enumerate(values):
        client.send(f"SET key:{n} {value}")
        client.send(f"GET key:{n}")
        if n == 0:
            s.protected()
        if n % 50 == 25:
            s.cut()
        wait_for(f"answer {n}", lambda n=n: len([x for x in client.lines if x]) >= 2 * (n + 1), s.timeout_s)
    client.close_stdin()
    s.end(client)
    answers = [x for x in client.lines if x]
    got, sent = "".join(x.strip('"') for x in answers[1::2]), "".join(values)
    s.same("the values", digest(got.encode()), digest(sent.encode()), len(sent))
    if answers[0::2] != ["OK"] * len(values):
        raise Wrong("not every SET was answered OK")
