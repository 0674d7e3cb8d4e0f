"""Python: asyncio at both ends, threads at both ends."""
import os

from rig.pair import PORT

from .stage import PEERS, case

CONNECTIONS, SIZE = 4, 1_500_000


def exchanged(s, peer):
    client = s.client("python3", os.path.join(PEERS, peer), "run", "tage", PORT, CONNECTIONS, SIZE)
    s.protected(CONNECTIONS)
    s.cuts_during("the echo", lambda: s.told(client), CONNECTIONS * SIZE)
    s.end(client)
    s.same_told(client, CONNECTIONS * SIZE)


@case("python-asyncio", "Python asyncio", ["python3"], shape="one process, one loop at either end",
      done="4 connections at a time, 1.5 MB each to an echo and back")
def with_asyncio(s):
    s.server("python3", os.path.join(PEERS, "streams.py"), "serve", PORT)
    exchanged(s, "streams.py")


@case("python-threads", "Python threads", ["python3"], shape="one process, a thread for each connection at either end",
      done="4 connections at a time, 1.5 MB each to an echo and back")
def with_threads(s):
    s.server("python3", os.path.join(PEERS, "threads.py"), "serve", PORT)
    exchanged(s, "threads.py")
