#!/bin/sh
# The main job, shown: a telnet session outlives its network link.
#
#   tools/demo.sh [--plain] [BUILD]
#
# Installs what is missing (as root or with sudo), builds, makes two hosts with two links between them (network
# namespaces; nothing of this machine's own network is touched), runs an unmodified echo server under nsrun on
# one and Debian's telnet under LD_PRELOAD on the other, and cuts the link between two lines.
#
# BUILD is the build directory (default: build; made when missing). --plain shows the same without namesocket.
# Needs root, or user namespaces.
#
# Exit status: 0 when every byte came back; 1 when not; 2 for bad usage.
set -u
cd "$(dirname "$0")/.." || exit 1
plain= build=
for arg; do
    case $arg in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --plain) plain=--plain ;;
    -*) echo "demo.sh: unknown option $arg (--help)" >&2; exit 2 ;;
    *) [ -z "$build" ] || { echo "demo.sh: more than one directory (--help)" >&2; exit 2; }; build=$arg ;;
    esac
done
: "${build:=build}"

tools/install-deps.sh demo || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
echo "Building in $build ..."
{ [ -f "$build/build.ninja" ] || meson setup "$build"; } > "$log" 2>&1 && ninja -C "$build" >> "$log" 2>&1 || {
    cat "$log"
    echo "demo.sh: the build failed" >&2
    exit 1
}
PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 python3 tools/demo.py $plain "$build"
