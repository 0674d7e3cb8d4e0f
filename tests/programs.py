#!/usr/bin/env python3
"""Real programs, each with the link cut under it while data flows, the payload compared by hash.

Options as in faults.py (--list, -k, --no-shim, --hold, ...); --no-cut leaves the links alone; --strict has every
case protected and cut; --table FILE writes what came of it, a section of docs/compatibility.md. A program that is not
installed counts as skipped.
"""
import sys
import tempfile

sys.dont_write_bytecode = True
import programs                                                               # noqa: E402
from programs import stage, table                                             # noqa: E402
from rig import become_root                                                   # noqa: E402
from rig.report import main, options                                          # noqa: E402


def arguments(parser):
    parser.add_argument("--no-cut", action="store_true", help="leave the links alone")
    parser.add_argument("--strict", action="store_true", help="want sessions where plain TCP would do, and cut them")
    parser.add_argument("--table", metavar="FILE", help="write the table of compatibility there")
    # Long enough that only what hangs takes longer, whatever else the machine does.
    parser.set_defaults(timeout=60)


if __name__ == "__main__":
    opts = options("Real programs with the link cut under them.", arguments)
    cases = programs.load()
    if not opts.list:
        become_root()
    with tempfile.TemporaryDirectory(prefix="namesocket-table-") as stage.Case.records:
        status = main(cases, opts)
        if opts.table and not opts.list:
            table.write(opts.table, cases, stage.Case.records)
    sys.exit(status)
