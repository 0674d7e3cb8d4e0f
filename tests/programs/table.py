"""The programs' section of docs/compatibility.md, from what the cases have left."""
import json
import os

from rig import page

SECTION = """Written by `tests/programs.py --table docs/compatibility.md`. Each row is a case of that test
(`tests/programs.py -k NAME`): both programs as Debian 12 has them, unmodified, the server under nsrun and the client
under the shim, each on a host of its own, with two links between the hosts. Whether there are sessions is read from
the logs of both ends. Where there are, the link in use is cut while data flows, and put back when the sessions have
moved to the other. Then the payload is compared by hash, and the exit status with what it is without the shim. A
program that is only *plain* runs as well as without namesocket, and its connections die with their link.

{protected} of {rows} are protected.

{table}"""
HEAD = ("name", "programs", "version", "shape of the server", "what was done", "sessions", "cuts survived", "bytes")


def row(case, record):
    """`record` is None when the case failed or was left out."""
    if record is None:
        return [case.name, case.program, "", case.shape, case.done, "not run", "", ""]
    if record["plain"]:
        found = [f"plain: {record['plain']}", ""]
    else:
        found = [f"{record['sessions']}, protected", str(record["cuts"])]
    return [case.name, case.program, record["version"], case.shape, case.done, *found, f"{record['bytes']:,}"]


def records_of(directory, cases):
    found = {}
    for name in cases:
        try:
            with open(os.path.join(directory, name)) as f:
                found[name] = json.load(f)
        except FileNotFoundError:
            found[name] = None
    return found


def write(path, cases, directory):
    found = records_of(directory, cases)
    table = page.table(HEAD, [row(case, found[name]) for name, case in sorted(cases.items())])
    protected = sum(1 for record in found.values() if record and not record["plain"])
    page.write(path, page.PROGRAMS, SECTION.format(protected=protected, rows=len(cases), table=table))
