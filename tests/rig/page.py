"""docs/compatibility.md: one page, of which each test writes its own section."""
import contextlib
import re

HEAD = ("# Compatibility\n\nWhat programs do under the shim. Each section is written by the test that it names, and not edited; the "
        "last is kept by\nhand.\n")
PROGRAMS, SUITES, BY_HAND = "Programs", "CPython's own tests", "Other suites"
ORDER = (PROGRAMS, SUITES, BY_HAND)


def sections(path):
    """Title -> text of what is there."""
    with contextlib.suppress(FileNotFoundError), open(path) as f:
        _, *parts = re.split(r"^## (.*)\n", f.read(), flags=re.M)
        return dict(zip(parts[::2], parts[1::2]))
    return {}


def write(path, title, text):
    """Replace this section, and keep the others."""
    page = {**sections(path), title: f"\n{text.strip()}\n"}
    with open(path, "w") as f:
        f.write(HEAD + "".join(f"\n## {t}\n{page[t].rstrip()}\n" for t in ORDER if t in page))


def table(head, rows):
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, ["---"] * len(head), *rows))
