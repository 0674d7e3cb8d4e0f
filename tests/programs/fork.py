"""A toy server that forks for each connection, as the textbooks do."""
import os

from rig.pair import PORT

from .stage import PEERS, case
from .python import exchanged


@case("fork", "a toy server", ["python3"], shape="a process for each connection",
      done="4 connections at a time, 1.5 MB each to an echo and back")
def fork(s):
    s.server("python3", os.path.join(PEERS, "forking.py"), PORT)
    exchanged(s, "threads.py")
