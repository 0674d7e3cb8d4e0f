"""memcached: threads that each have an event loop, and take over connections that another has accepted."""
import os

from rig.pair import PORT

from .stage import PEERS, case, find

VALUES, SIZE = 16, 500_000


@case("memcached", "memcached", ["memcached"], ("-V",), "one process, four threads",
      "16 values of 500 kB set and got back by a Python client")
def memcached(s):
    s.server(find("memcached"), "-u", "root", "-p", PORT, "-U", 0, "-m", 64, "-t", 4)
    client = s.client("python3", os.path.join(PEERS, "memcache.py"), "tage", PORT, VALUES, SIZE)
    s.cuts_during("the values", lambda: s.told(client), VALUES * SIZE)
    s.end(client)
    s.same_told(client, VALUES * SIZE)
