#!/bin/sh
# The demonstration of the thesis's chapter 6.2, with the library: nsserver on host
# tage, nsclient on host troels, two links between them (figure 6.1). A line is
# echoed, the link it went over is cut, another line is echoed.
#
#   tools/demo-library.sh [BUILD]
#
# BUILD is the build directory (default: build; made when missing). The hosts are
# network namespaces of their own. Needs root, or user namespaces.
#
# Exit status: 0 when both lines came back, the second over the other link; 1 when
# not; 2 for bad usage.
set -u
cd "$(dirname "$0")/.." || exit 1
case ${1-} in
-h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
-*) echo "demo-library.sh: unknown option $1 (--help)" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "demo-library.sh: more than one argument (--help)" >&2; exit 2; }

build=${1-build}
[ -f "$build/build.ninja" ] || meson setup "$build" || exit 1
ninja -C "$build" examples/nsserver examples/nsclient || exit 1
PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 exec python3 tools/demo_library.py "$build"
