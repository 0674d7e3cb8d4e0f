"""Node: its HTTP server and client."""
import os

from rig.pair import PORT

from .stage import PEERS, case

SIZE = 8_000_000


@case("node", "Node", ["node"], shape="one process, libuv's loop, at either end",
      done="8 MB posted by HTTP and echoed, hashed as it comes")
def node(s):
    peer = os.path.join(PEERS, "http.js")
    s.server("node", peer, "serve", PORT)
    client = s.client("node", peer, "run", "tage", PORT, SIZE)
    s.cuts_during("the echo", lambda: s.told(client), SIZE)
    s.end(client)
    s.same_told(client, SIZE)
