"""Cases about connect under nsrun --gateway: held.py on troels. Each holds without nsrun too."""
import os
import sys

from .pair import ESTABLISHED, PATIENT, PORT, Wrong, shim_env
from .procs import Log, wait_for

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REFUSES = 7009


def connects(what, ports=(PORT,), far=True):
    """Nothing of tage's answers until the client says that it waits, if it is to be far."""
    def case(context):
        rig = context.rig()
        log, answer = Log(os.path.join(rig.dir, "client.log")), Log(os.path.join(rig.dir, "server.log"))
        env = {**shim_env(context.shim, answer.path), **PATIENT} if context.shim else {}
        server = rig.tage.start("server", [sys.executable, os.path.join(TESTS, "echo.py"), PORT], env)
        server.wait_line("listening")
        under, env = [], {}
        if context.shim:
            under = [context.built("src/daemon/nsrun"), "--gateway", "-o", log.path, "-l", "debug"]
            env = PATIENT
        if far:
            rig.tage.drop_incoming("link-a")
        client = rig.troels.start("client", [*under, sys.executable, os.path.join(TESTS, "held.py"), what,
                                             rig.tage.address("link-a", 4), *ports], env)
        if far:
            client.wait_line("waiting", context.timeout_s)
            rig.tage.pass_incoming("link-a")
        if client.wait(context.timeout_s) != 0:
            raise Wrong(f"client {client.ending()}: {client.stderr()[-300:]}")
        if context.shim:
            wait_for("a session", lambda: log.count(ESTABLISHED), context.timeout_s)
    return case


CASES = {
    "held-connect/non-blocking": connects("non-blocking"),
    "held-connect/refused": connects("refused", (REFUSES, PORT)),
    "held-connect/interrupted": connects("interrupted"),
    "held-connect/limited": connects("limited"),
    "held-connect/blocking": connects("blocking", far=False),
}
