"""Run one module of CPython's own test suite and append what became of each test to a file, one JSON list a line.

    suites_run.py RESULTS MODULE [LEFT_OUT...] [--only TEST...]

A line is [name, outcome, text]; a subtest that failed counts as its test. Each test's name is also written with
"begin" before it runs, so that a run that hangs or dies says in which test. Started again with the same file it
goes on behind that one. LEFT_OUT: beginnings of the names of tests that are not to be run. With --only, no others
than these are run.
"""
import contextlib
import faulthandler
import json
import os
import sys
import tempfile
import unittest

TEST_LIMIT_S = float(os.environ.get("NS_SUITES_LIMIT", 60))


class Record(unittest.TestResult):
    def __init__(self, out):
        super().__init__()
        self.out = out
        self.name = ""
        self.outcome = None
        self.text = ""

    def say(self, name, outcome, text=""):
        self.out.write(json.dumps([name, outcome, text]) + "\n")
        self.out.flush()

    def note(self, outcome, text=""):
        if self.outcome != "failed":                          # the first failure stands
            self.outcome, self.text = outcome, text

    def startTest(self, test):
        super().startTest(test)
        self.name, self.outcome, self.text = test.id(), None, ""
        self.say(self.name, "begin")
        faulthandler.dump_traceback_later(TEST_LIMIT_S, exit=True)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.say(self.name, self.outcome or "passed", self.text)

    def failed(self, test, err):
        text = self._exc_info_to_string(err, test)
        if isinstance(test, unittest.suite._ErrorHolder):     # setUpClass, setUpModule
            self.say(test.id(), "failed", text)
        else:
            self.note("failed", text)

    def addError(self, test, err):
        super().addError(test, err)
        self.failed(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.failed(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if isinstance(test, unittest.suite._ErrorHolder):
            self.say(test.id(), "skipped", reason)
        else:
            self.note("skipped", reason)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note("failed", "unexpected success")


def begun(results):
    with contextlib.suppress(FileNotFoundError), open(results) as f:
        return {name for name, outcome, _ in map(json.loads, f) if outcome == "begin"}
    return set()


def without(suite, unwanted):
    kept = [without(t, unwanted) if isinstance(t, unittest.TestSuite) else t
            for t in suite if isinstance(t, unittest.TestSuite) or not unwanted(t.id())]
    return type(suite)(kept)


def main():
    results, module, left_out = sys.argv[1], sys.argv[2], sys.argv[3:]
    only = None
    if "--only" in left_out:
        at = left_out.index("--only")
        left_out, only = left_out[:at], set(left_out[at + 1:])
    left_out = tuple(left_out)
    faulthandler.enable()
    from test import support
    # test_socketserver asks for "network" and means the loopback interface.
    support.use_resources = ["network"] if module.endswith("test_socketserver") else []
    done = begun(results)
    with open(results, "a") as out, tempfile.TemporaryDirectory(dir=os.getcwd()) as cwd:
        os.chdir(cwd)                                         # the tests make files called @test_...
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
        record = Record(out)
        without(suite, lambda name: name in done or name.startswith(left_out) or
                (only is not None and name not in only)).run(record)
        record.say("", "end")
        os.chdir("..")


if __name__ == "__main__":
    main()
