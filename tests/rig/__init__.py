"""Two hosts in network namespaces, what can go wrong between them, and programs to run on them."""
from .hosts import Rig, Host, RigError, become_root          # noqa: F401
from .procs import Proc, Log, Deadline, wait_for              # noqa: F401
