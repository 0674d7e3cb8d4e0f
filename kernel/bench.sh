#!/bin/bash
# Measures what the kernel half costs, and how long connections stand still; writes docs/performance-kernel.md.
#
#   kernel/bench.sh [--trials N] [--print]
#
#   --trials  of each fault (default: 20)
#   --print   to standard output instead
#
# Builds Debian's kernel with and without the series (tree.sh) and runs both in QEMU, where time is the count of
# instructions: a busy machine does not show. Exit status: 0 when
# all was measured (whether or not the goals are met), 1 when something was not.
set -u
. "$(dirname "$0")/tree.sh"
. "$(dirname "$0")/boot.sh"
trials=20 page=$(dirname "$kernel")/docs/performance-kernel.md
while [ $# -gt 0 ]; do
    case $1 in
    --trials) trials=${2-}; case $trials in '' | *[!0-9]*) echo "bench.sh: --trials needs a number" >&2; exit 2 ;; esac; shift ;;
    --print) page=/dev/stdout ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "bench.sh: unknown argument $1 (--help)" >&2; exit 2 ;;
    esac
    shift
done
fail() {
    echo "bench.sh: $*" >&2
    exit 1
}

mkdir -p "$cache" && cd "$cache" || fail "no directory $cache"
exec 8> lock
flock 8 || fail "cannot lock $cache"
missing=$(missing_commands bench)
[ -z "$missing" ] || fail "please run tools/install-deps.sh kernel: no" $missing
{ tree && build bench && build bench plain; } >&2 || fail "no kernel to measure"
gcc -O2 -Wall -o cost "$kernel/guest/cost.c" || fail "cost.c does not compile"

# One processor: there is one process.
cpus=1
results=$(
    for run in "bench-plain costs plain" "bench costs patched" "bench gaps $trials"; do
        (boot "${run%% *}" "COST=$cache/cost $kernel/guest/bench.sh ${run#* }" 8>&-) | tr -d '\r' |
            grep -E '^(cost|state|size|gap|guest: exit) '
    done
)
[ "$(grep -c '^guest: exit 0' <<< "$results")" = 3 ] || fail "a guest did not end well: $results"
{ echo "version $(basename linux-source-6.12_*.deb _all.deb)"; echo "compiler $(gcc --version | head -n 1)"; echo "$results"; } |
    "$kernel/report.py" > report.md || fail "the results make no page"
cat report.md > "$page"
