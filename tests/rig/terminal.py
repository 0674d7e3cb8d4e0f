"""A program on a terminal of its own, as a person would run it."""
import fcntl
import os
import pty
import re
import subprocess
import termios
import threading
import time

from . import netns
from .procs import DEADLINE_S, Deadline


class Terminal:
    """Like Proc, but stdin, stdout and stderr are a pseudo terminal. `text` is all it has shown."""

    def __init__(self, name, argv, outdir):
        self.name = name
        self.master, slave = pty.openpty()
        self.text = ""
        self.shown = []                                       # (when, length of the text then)
        self.changed = threading.Condition()

        def own_terminal():
            netns.die_with_parent()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.p = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
        os.close(slave)
        self.copy_path = os.path.join(outdir, name + ".tty")
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with open(self.copy_path, "ab", buffering=0) as copy:
            while True:
                try:
                    raw = os.read(self.master, 65536)
                except OSError:                               # EIO: the program has gone
                    raw = b""
                now = time.time()
                if not raw:
                    return
                copy.write(raw)
                with self.changed:
                    self.text += raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "")
                    self.shown.append((now, len(self.text)))
                    self.changed.notify_all()

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_text(self, text, count=1, timeout_s=DEADLINE_S):
        """Until `text` was shown `count` times."""
        end = time.monotonic() + timeout_s
        with self.changed:
            while self.text.count(text) < count:
                left = end - time.monotonic()
                if left <= 0 or (self.p.poll() is not None and not self.reader.is_alive()):
                    raise Deadline(f"{self.name} did not show {text!r} x {count}; last: {self.text[-200:]!r}")
                self.changed.wait(min(left, 0.1))

    def when(self, text, count=1):
        """The time at which `text`, which was shown as often, was shown the `count`th time."""
        with self.changed:
            end = [m.end() for m in re.finditer(re.escape(text), self.text)][count - 1]
            return next(at for at, length in self.shown if length >= end)

    def alive(self):
        return self.p.poll() is None

    def wait(self, timeout_s=DEADLINE_S):
        try:
            return self.p.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Deadline(f"{self.name} did not end within {timeout_s:g} s") from None

    def kill(self, _=None):
        if self.alive():
            self.p.kill()
        self.p.wait()
        self.reader.join(2)
        try:
            os.close(self.master)
        except OSError:
            pass
