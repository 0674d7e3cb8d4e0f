"""Programs that run on a host, and waiting for what they say. Everything here waits for a condition."""
import os
import re
import signal
import subprocess
import threading
import time

from . import netns

DEADLINE_S = 40.0                                             # against hanging; it measures nothing


class Deadline(Exception):
    """A condition did not come true in time."""


class Ended(Deadline):
    """Nor can it any more: the program that should have made it true has ended."""


def wait_for(what, condition, timeout_s=DEADLINE_S, step_s=0.002):
    """Return the first true value of condition(); raise Deadline naming `what`."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Deadline(f"not within {timeout_s:g} s: {what}")
        time.sleep(step_s)


class Log:
    """A log file that somebody else writes."""

    def __init__(self, path):
        self.path = path

    def text(self):
        try:
            with open(self.path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def count(self, marker):
        """How often the regular expression `marker` matches."""
        return len(re.findall(marker, self.text()))

    def wait(self, marker, count=1, timeout_s=DEADLINE_S):
        name = os.path.basename(self.path)
        wait_for(f"{count} x '{marker}' in {name}", lambda: self.count(marker) >= count, timeout_s)


class Proc:
    """A program with its stdout read line by line; stderr goes to a file beside its log."""

    def __init__(self, name, argv, outdir, env=None, stdin=subprocess.PIPE):
        self.name = name
        self.argv = argv
        self.lines = []
        self.changed = threading.Condition()
        self.err_path = os.path.join(outdir, name + ".err")
        self.out_path = os.path.join(outdir, name + ".out")
        with open(self.err_path, "ab") as err:
            self.p = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=err, env=env,
                                      preexec_fn=netns.die_with_parent)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with open(self.out_path, "ab", buffering=0) as copy:
            for raw in self.p.stdout:
                copy.write(raw)
                with self.changed:
                    self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                    self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def last(self, pattern):
        """The newest line that matches, as a match object, or None."""
        with self.changed:
            for line in reversed(self.lines):
                if line is not None:
                    m = re.search(pattern, line)
                    if m:
                        return m
        return None

    def wait_line(self, pattern, timeout_s=DEADLINE_S, accept=lambda m: True):
        """The first line that matches and is accepted."""
        end = time.monotonic() + timeout_s
        seen = 0
        with self.changed:
            while True:
                while seen < len(self.lines):
                    line = self.lines[seen]
                    seen += 1
                    if line is None:
                        raise Ended(f"{self.name} ended ({self.ending()}) before it said /{pattern}/")
                    m = re.search(pattern, line)
                    if m and accept(m):
                        return m
                left = end - time.monotonic()
                if left <= 0:
                    raise Deadline(f"{self.name} did not say /{pattern}/ within {timeout_s:g} s")
                self.changed.wait(left)

    def send(self, line):
        try:
            self.p.stdin.write((line + "\n").encode())
            self.p.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def close_stdin(self):
        try:
            self.p.stdin.close()
        except BrokenPipeError:
            pass

    def ending(self):
        try:
            code = self.p.wait(1)
        except subprocess.TimeoutExpired:
            return "still there"
        return f"exit {code}" if code >= 0 else f"signal {-code}"

    def wait(self, timeout_s=DEADLINE_S):
        """The exit status; Deadline if it goes on."""
        try:
            code = self.p.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Deadline(f"{self.name} did not end within {timeout_s:g} s") from None
        self.reader.join(2)
        return code

    def alive(self):
        return self.p.poll() is None

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            self.p.send_signal(sig)
        if sig == signal.SIGKILL:
            self.p.wait()
            self.reader.join(2)

    def stderr(self):
        return Log(self.err_path).text()
