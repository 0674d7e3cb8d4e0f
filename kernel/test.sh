#!/bin/bash
# The kernel half: build it, boot it, test it.
#
#   kernel/test.sh [--config NAME]... [--fetch-only] [--build-only] [--no-install] [--shim FILE]
#                  [--run COMMAND] [TEST...]
#
#   --config     one of these only; more than one may be given
#                  lean    User Mode Linux: KUnit and every selftest
#                  demo    the same kernel: what tools/demo-kernel.sh shows
#                  both    the same kernel: both halves on one host, which takes the shim
#                  peer    the same kernel and Debian's own, talking to each other
#                  debug   lean with KASAN, lockdep, kmemleak, UBSAN
#                  smp     QEMU with two processors, in turn, and lockdep: a choice of the selftests
#                  load    the same kernel, both processors at once: connections under load
#                  kcsan   load, with a kernel that looks for data races
#                  off     CONFIG_TCP_PRESERVE=n: is only built
#                By default, lean, demo, both and debug.
#   --fetch-only get the kernel source and apply the series
#   --build-only and compile
#   --no-install do not install missing packages; where one is missing, all is skipped
#   --shim       libnsshim.so for "both" (default: the one in the build directory "build", if there is one)
#   --run        boot, run this command in the selftests' directory, print what it prints
#
# The kernel is Debian's linux-source-6.12 with kernel/patches, and runs as a process; the machine's own kernel is not
# touched. Output is TAP: for each configuration KUnit, the selftests (all, or those named, and then in lean if no
# other is given), and whether the guest's kernel warned of anything. tree.sh says where source and builds are kept,
# and for how long. Needs 4 GB there, Debian 12's apt, x86-64, and what "tools/install-deps.sh kernel" installs. A machine
# that cannot have or run such a kernel skips what it cannot, and says why. The last line is the count; the exit status
# is 0 only if nothing failed.
set -u
. "$(dirname "$0")/tree.sh"
. "$(dirname "$0")/boot.sh"
configs= stop= run= tests= install=yes shim=
while [ $# -gt 0 ]; do
    case $1 in
    --config)
        configuration "${2-}" > /dev/null || { echo "test.sh: no configuration ${2-} (--help)" >&2; exit 2; }
        configs="$configs $2"
        shift
        ;;
    --fetch-only) stop=fetch ;;
    --build-only) stop=build ;;
    --run) run=${2-}; shift ;;
    --no-install) install=no ;;
    --shim) shim=$(realpath -qe -- "${2-}"); shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) echo "test.sh: unknown option $1 (--help)" >&2; exit 2 ;;
    *) tests="$tests $1" ;;
    esac
    shift
done
if [ -n "$run$tests" ]; then : "${configs:= lean}"; else : "${configs:= lean demo both debug}"; fi

passed=0 failed=0 skipped=0
end() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
    exit
}

fail() {
    echo "not ok - $*"
    failed=$((failed + 1))
    end
}

# For want of something that is none of the kernel's faults
skip_all() {
    echo "skipped, not passed: $*"
    for config in $configs; do result ok "$config # SKIP"; done
    end
}

result() { # ok|not ok, what
    echo "$1 - $2"
    case $1:$2 in
    not*) failed=$((failed + 1)) ;;
    *"# SKIP"*) skipped=$((skipped + 1)) ;;
    *) passed=$((passed + 1)) ;;
    esac
}

# result by the status of the command before
check() {
    if [ $? -eq 0 ]; then result ok "$1"; else result "not ok" "$1"; fi
}

# What a guest's kernel may not say. Its lines begin with the time.
warnings='WARNING:|BUG:|BUG |Oops|Call Trace|UBSAN|KASAN|possible recursive|possible circular|possible irq|inconsistent'
warnings="$warnings|lock held when|suspicious RCU|unreferenced object|kmemleak: [1-9][0-9]* new|soft lockup|refcount_t:"
warnings="$warnings|rcu.*detected.* stall|blocked for more than|unregister_netdevice: waiting|list_(add|del) corruption|ODEBUG"
warnings="$warnings|general protection|segfault|Out of memory|leaked reference|KCSAN: .*tcp_preserve"
warnings="$warnings|Kernel panic - not syncing: (?!Attempted to kill init)"

# Guests of a configuration. Debug's selftests take longest, and are shared by two.
guests() { # CONFIG
    case $1:$tests in
    debug:) echo debug.1 debug.2 ;;
    *) echo "$1" ;;
    esac
}

# A guest's output and its kernel's messages, as results
judge() { # GUEST
    local config=$1 line plan got
    cd "$cache/run-$1" || return
    sed -i 's/\r$//' output messages
    # Nothing of the guest's kernel has run yet: no ptrace, no memory that code may be in, no QEMU.
    if ! grep -q 'Linux version' messages; then
        cat messages output | sed 's/^/# /'
        result ok "$config # SKIP this machine does not let such a kernel begin"
        return
    fi
    if grep -q 'ptrace set fp regs failed' messages; then
        result ok "$config # SKIP this processor has more registers than User Mode Linux has room for"
        return
    fi
    # KUnit prints at boot, before the first process; its lines have the kernel's time stamps.
    got=$((passed + failed))
    while read -r line; do
        result "${line%% [0-9]*}" "$config: kunit ${line#*ok }"
    done < <(sed -n '1,/guest: begin/s/^\(\[[ 0-9.]*\] \)\{0,1\}  *\(\(not \)\{0,1\}ok [0-9]\)/\2/p' messages)
    [ $((passed + failed)) -gt $got ]
    check "$config: KUnit ran"
    got=0
    while read -r line; do
        case $line in
        "ok "[0-9]* | "not ok "[0-9]*)
            got=$((got + 1))
            result "${line%% [0-9]*}" "$config: ${line#*ok }"
            ;;
        1..*) plan=${line#1..} ;;
        "# "*) echo "$line" ;;
        esac
    done < output
    if [ "$config" = demo ]; then
        grep -q '^guest: exit 0' output
        check "$config: the answer comes over the other link"
    else
        [ $got = "${plan:-none}" ]
        check "$config: as many results as planned"
    fi
    grep -q '^guest: end' output
    check "$config: the guest ran to its end"
    grep -q '^guest: end' output || tail -n 30 messages | sed 's/^/# /'
    sed '/guest: end/q' messages | cat - output |
        grep -P -B 2 -A 40 "$warnings" > warnings
    sed 's/^/# /' warnings
    [ ! -s warnings ]
    check "$config: no kernel warning"
}

# The series is for one version. Where the machine has another one, that it does not fit says nothing about it.
other_version() {
    case $deb in *"_${version}_"*) return 1 ;; esac
    skip_all "the series is for $version, and does not fit ${deb%_all.deb}"
}

mkdir -p "$cache" && cd "$cache" || skip_all "no directory $cache"
exec 8> lock
flock 8 || fail "cannot lock $cache"
[ "$(uname -m)" = x86_64 ] || skip_all "this machine is no x86-64"
# shellcheck disable=SC2086
if [ $install = yes ] && [ -n "$(missing_commands $configs)" ]; then "$kernel/../tools/install-deps.sh" kernel; fi
# shellcheck disable=SC2086
missing=$(missing_commands $configs)
[ -z "$missing" ] || skip_all "not installed:" $missing
room || skip_all "no room in $cache"
tree
case $? in
0) ;;
2) skip_all "apt has no linux-source-6.12 here" ;;
*) other_version || fail "the series applies" ;;
esac
[ "$stop" != fetch ] || exit 0
for config in $configs; do
    build "$config" || other_version || fail "the $config kernel builds"
    [ "$config" != peer ] || build peer plain || fail "the plain kernel builds"
done
prune
[ "$stop" != build ] || exit 0
pids=
trap '[ -z "$pids" ] || kill $pids 2> /dev/null' EXIT
trap 'exit 1' INT TERM
if [ -n "$run" ]; then
    (boot $configs "$run") | tr -d '\r'
    exit
fi

: "${shim:=$(realpath -qe "$kernel/../build/src/preload/libnsshim.so")}"
for guest in $(for config in $configs; do guests "$config"; done); do
    case $guest in
    off) continue ;;
    both) [ -n "$shim" ] || continue; run="SHIM=$shim $kernel/guest/both.sh" ;;
    smp) run=$kernel/guest/smp.sh ;;
    load | kcsan) run=$kernel/guest/load.sh ;;
    demo) run=$kernel/guest/demo.sh ;;
    peer)
        mkdir -p run-peer run-peer-plain
        boot_peers "$kernel/guest/peer.sh" > run-peer/output 2>&1 8>&- &
        pids="$pids $!"
        continue
        ;;
    *.*) run="$kernel/guest/selftests.sh --share ${guest#*.}/2" ;;
    *) run=$kernel/guest/selftests.sh ;;
    esac
    mkdir -p "run-$guest"
    boot "$guest" "$run$tests" > "run-$guest/output" 2>&1 8>&- &
    pids="$pids $!"
done
# The shell tells of each guest's abort.
{ wait; } 2> /dev/null
pids=
for config in $configs; do
    case $config:$shim in
    off:*) result ok "off: builds" ;;
    both:) result ok "both # SKIP no libnsshim.so (--shim)" ;;
    *) for guest in $(guests "$config"); do judge "$guest"; done ;;
    esac
done
end
