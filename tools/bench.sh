#!/bin/sh
# Measures everything that docs/performance.md tells of, and writes that file.
#
#   tools/bench.sh [--quick] [--build DIR] [--skip-gap] [--rounds N] [--seconds S] [--trials N] [--fewer N]
#
# --quick     a few rounds and trials only, to see that it all works; the result
#             stays in the build directory
# --build     the build directory (default: build-bench; made, as a release, when missing)
# --rounds, --seconds, --trials, --fewer
#             samples of each benchmark, the length of one; trials of each fault that is
#             signalled, under the shim; of all others, and over MPTCP (default: 24, 0.5,
#             50, 15); the page tells how many there were
# --skip-gap  without the gap benchmark, which needs root or user namespaces
#
# It takes about 20 minutes on a machine that does nothing else.
#
# Exit status: 0 when everything was measured (whether or not the goals are met),
# 1 when something was not, 2 for bad usage.
set -u
cd "$(dirname "$0")/.." || exit 1

quick=no build=build-bench skip_gap=no rounds= seconds= trials= fewer=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --skip-gap) skip_gap=yes ;;
    --rounds | --seconds | --trials | --fewer)
        case ${2-} in '' | *[!0-9.]*) echo "bench.sh: $1 needs a number" >&2; exit 2 ;; esac
        eval "${1#--}=\$2"; shift ;;
    --build) [ $# -gt 1 ] || { echo "bench.sh: --build needs a directory" >&2; exit 2; }
        build=$2; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "bench.sh: unknown option $1 (--help)" >&2; exit 2 ;;
    esac
    shift
done

if [ "$quick" = yes ]; then
    : "${rounds:=5}" "${seconds:=0.2}" "${trials:=3}" "${fewer:=3}"; sessions=200
else
    : "${rounds:=24}" "${seconds:=0.5}" "${trials:=50}" "${fewer:=15}"; sessions=1000
fi

[ -f "$build/build.ninja" ] || meson setup --buildtype=release "$build" || exit 1
# Not everything: what tests need is not needed here.
ninja -C "$build" bench/tcpbench bench/records bench/calls bench/files bench/processes bench/sleeper.so src/preload/libnsshim.so || exit 1
tcpbench=$build/bench/tcpbench
shim=$build/src/preload/libnsshim.so
results=$build/bench/results
rm -rf "$results"
mkdir -p "$results" || exit 1

machine() {
    cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    memory=$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
    system=$(. /etc/os-release && echo "$PRETTY_NAME")
    virtual=$(grep -q '^flags.* hypervisor' /proc/cpuinfo && echo ", virtual machine")
    type=$(meson introspect --buildoptions "$build" | python3 -c \
        'import json, sys; print(*(o["value"] for o in json.load(sys.stdin) if o["name"] == "buildtype"))')
    echo "Machine: ${cpu:-$(uname -m)}, $(nproc) CPUs, $memory$virtual; Linux $(uname -r | sed 's/-.*//'), $system;"
    echo "$(cc --version | head -n 1), build type $type; load average $(cut -d' ' -f1-2 /proc/loadavg) at the start."
}

# The commands are shown with the build directory as "build".
failed=
measure() { # NAME COMMAND...: its standard output is NAME.json
    name=$1
    shift
    echo "$*" | sed "s|$build|build|g" >>"$results/commands"
    echo "== $*" >&2
    "$@" >"$results/$name.json" || { echo "bench.sh: $name failed" >&2; failed="$failed $name"; }
}

machine >"$results/machine"
variants=plain,shim,unprotected
if "$tcpbench" --variants library --only latency --rounds 1 --ops 1 >/dev/null 2>&1; then
    variants=$variants,library
fi
measure tcpbench "$tcpbench" --shim "$shim" -n $rounds -t $seconds --json
measure memory "$tcpbench" --shim "$shim" --memory=$sessions --json
measure count bench/count.py --tcpbench "$tcpbench" --shim "$shim" --variants $variants
measure calls bench/calls.py --calls "$build/bench/calls" --shim "$shim"
measure files bench/files.py --files "$build/bench/files" --shim "$shim" --rounds $rounds
measure processes bench/processes.py --processes "$build/bench/processes" --shim "$shim" --sleeper "$build/bench/sleeper.so" --rounds $rounds
measure servers bench/servers.py --processes "$build/bench/processes" --shim "$shim" --rounds $rounds
if [ "$skip_gap" = no ]; then
    measure gap bench/gap.py --records "$build/bench/records" --shim "$shim" --trials $trials --fewer $fewer
fi

page=docs/performance.md
[ "$quick" = no ] || page=$results/performance.md
bench/performance.py "$results" >"$results/page" && mv "$results/page" "$page" || exit 1
echo "bench.sh: wrote $page" >&2
if [ -n "$failed" ]; then
    echo "bench.sh: not measured in full:$failed" >&2
    exit 1
fi
