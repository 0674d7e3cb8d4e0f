#!/usr/bin/env python3
"""Records tools/demo.sh on a terminal, and draws what it showed as an SVG.

    record-demo.py [--build DIR] [--out FILE]

--build  the build directory that demo.sh gets (default: build)
--out    the picture (default: docs/demo.svg)

Nothing is drawn that the run did not show. The two logs at its end are left out of the picture; a line says how
many lines they had. Exit status: demo.sh's, and then no picture is written unless it is 0; 2 for bad usage.
"""
import argparse
import os
import pty
import re
import subprocess
import sys
from xml.sax.saxutils import escape

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COLUMNS = 106
FONT_PX, LINE_PX, CHARACTER_PX, MARGIN_PX = 13, 18, 7.85, 16
SGR = re.compile(r"\x1b\[([0-9;]*)m")


def record(argv):
    """What `argv` shows on a terminal of its own, and its exit status."""
    master, slave = pty.openpty()
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:                                       # EIO: the last writer has closed it
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return shown.decode(errors="replace").replace("\r\n", "\n"), process.wait()


def without_logs(lines):
    """The lines, with each log and its title replaced by one line that counts it."""
    out, title, count = [], None, 0
    for line in [*lines, ""]:
        text = SGR.sub("", line)
        if text.startswith("The log of "):
            title, count = text, 0
        elif title is None:
            out.append(line)
        elif text:
            count += 1
        else:
            out += [f"\x1b[2m[{title}: {count} lines, not in this picture]\x1b[0m", ""]
            title = None
    return out[:-1]


def spans(line):
    """(style, text) of the pieces between a line's escape sequences; the style is a CSS class or empty."""
    style, at = "", 0
    for m in SGR.finditer(line):
        yield style, line[at:m.start()]
        style, at = {"1": "b", "2": "d"}.get(m.group(1), ""), m.end()
    yield style, line[at:]


def draw(lines):
    width = int(2 * MARGIN_PX + COLUMNS * CHARACTER_PX)
    height = 2 * MARGIN_PX + len(lines) * LINE_PX
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" role="img" aria-label="What tools/demo.sh shows">',
           f"<style>text{{font:{FONT_PX}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#d8dee9;"
           "white-space:pre}.b{font-weight:bold;fill:#ffffff}.d{fill:#8a94a6}</style>",
           f'<rect width="{width}" height="{height}" rx="8" fill="#14181f"/>']
    for i, line in enumerate(lines):
        y = MARGIN_PX + (i + 1) * LINE_PX - 5
        pieces = "".join(f'<tspan class="{style}">{escape(text)}</tspan>' if style else escape(text)
                         for style, text in spans(line) if text)
        if pieces:
            svg.append(f'<text x="{MARGIN_PX}" y="{y}" xml:space="preserve">{pieces}</text>')
    return "\n".join([*svg, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--out", default=os.path.join(ROOT, "docs/demo.svg"))
    options = parser.parse_args()

    shown, status = record(["tools/demo.sh", options.build])
    sys.stdout.write(shown)
    if status:
        return status
    lines = [line.rstrip() for line in shown.rstrip("\n").split("\n")]
    # What was installed and compiled first is not the demonstration.
    begin = next(i for i, line in enumerate(lines) if SGR.sub("", line).startswith("1. "))
    with open(options.out, "w") as f:
        f.write(draw(["$ tools/demo.sh", "", *without_logs(lines[begin:])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
