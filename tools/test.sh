#!/bin/sh
# Everything that is tested, as one command.
#
#   tools/test.sh [--quick] [--werror] [--no-install] [BUILD]
#
#   --quick       leave out what takes minutes: the whole fault matrix, the control runs, valgrind, the kernel half
#   --werror      compiler warnings are errors
#   --no-install  do not install missing packages; what needs them is skipped or fails
#
# BUILD (default: build) is the build directory; BUILD-asan and BUILD-tsan stand beside it. The network tests make
# hosts of their own (namespaces): root, or user namespaces. The last line is the count, and the exit status is 0
# only if nothing failed; 2 is bad usage.
set -u
cd "$(dirname "$0")/.." || exit 1
quick= werror=false install=yes build=
for arg; do
    case $arg in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --quick) quick=yes ;;
    --werror) werror=true ;;
    --no-install) install=no ;;
    -*) echo "test.sh: unknown option $arg (--help)" >&2; exit 2 ;;
    *) [ -z "$build" ] || { echo "test.sh: more than one directory (--help)" >&2; exit 2; }; build=$arg ;;
    esac
done
: "${build:=build}"
exec < /dev/null
export PYTHONDONTWRITEBYTECODE=1

passed=0 failed=0 skipped=0 failures=
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
trap 'exit 1' INT TERM

begin() {
    printf '\n== %s\n' "$1"
    step=$1
    began=$(date +%s)
}

# Add a line "N passed, N failed, N skipped" to the sums. No such line, or a status that the count does not
# explain, is a failure too.
add() {
    status=$1 line=$2
    p=0 f=0 s=0
    case $line in
    *passed*failed*skipped*)
        p=${line%% passed*}
        f=${line#*passed, } f=${f%% failed*}
        s=${line#*failed, } s=${s%% skipped*}
        [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
        ;;
    *) f=1 ;;
    esac
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || failures="$failures
  $step: $f failed"
    echo "-- $step: $p passed, $f failed, $s skipped ($(($(date +%s) - began)) s)"
}

# A program whose last line is its count; a bound in minutes, against hanging, comes first.
counted() {
    begin "$2"
    bound=$1
    shift 2
    { timeout -k 30 "${bound}m" "$@" 2>&1; echo "$?" > "$out.status"; } | tee "$out"
    add "$(cat "$out.status")" "$(tail -n 1 "$out")"
    rm -f "$out.status"
}

# A command that is one test.
single() {
    begin "$1"
    shift
    if timeout -k 30 5m "$@" > "$out" 2>&1; then
        add 0 "1 passed, 0 failed, 0 skipped"
    else
        status=$?
        cat "$out"
        [ $status -ne 124 ] || echo "ended after 5 minutes"
        add $status "0 passed, 1 failed, 0 skipped"
    fi
}

# Configure and compile; a failure is counted, and what needs the build is then left out by the caller.
compile() {
    dir=$1
    shift
    begin "build $dir"
    if [ -f "$dir/build.ninja" ]; then meson configure "$dir" "$@"; else meson setup "$dir" "$@"; fi > "$out" 2>&1 &&
        ninja -C "$dir" >> "$out" 2>&1 && return 0
    tail -n 60 "$out"
    add 1 "0 passed, 1 failed, 0 skipped"
    return 1
}

# meson test with these arguments, counted by Check's own numbers where it prints them. What is listed and not in the
# log did not come to its end: it has failed.
unit() {
    dir=$1
    shift
    rm -f "$dir/meson-logs/testlog.json"
    { timeout -k 30 15m meson test -C "$dir" --no-rebuild --print-errorlogs "$@" 2>&1; echo "$?" > "$out.status"; } |
        tee "$out"
    meson test -C "$dir" --no-rebuild --list "$@" > "$out.listed" 2> "$out"
    python3 - "$dir/meson-logs/testlog.json" "$out.listed" << 'END' > "$out"
import json, re, sys
passed = failed = skipped = 0
missing = [line.rstrip("\n") for line in open(sys.argv[2]) if " / " in line]
try:
    log = open(sys.argv[1]).readlines()
except FileNotFoundError:
    log = []
if not missing:
    failed = 1
for line in log:
    try:
        test = json.loads(line)
    except ValueError:
        continue                                              # cut off; its test is missing
    if test["name"] in missing:
        missing.remove(test["name"])
    checks = re.findall(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", test.get("stdout") or "")
    bad = sum(int(f) + int(e) for _, f, e in checks)
    if test["result"] == "SKIP":
        skipped += 1
    elif test["result"] in ("OK", "EXPECTEDFAIL"):
        passed += sum(int(n) for n, _, _ in checks) or 1
    else:
        failed += bad or 1
        passed += sum(int(n) for n, _, _ in checks) - bad
for name in missing:
    print(f"no result: {name}")
print(f"{passed} passed, {failed + len(missing)} failed, {skipped} skipped")
END
    grep '^no result' "$out"
    add "$(cat "$out.status")" "$(tail -n 1 "$out")"
    rm -f "$out.status" "$out.listed"
}

# Names of the suites that there are.
has_suite() {
    meson introspect "$1" --tests | python3 -c '
import json, sys
sys.exit(not any(s.split(":")[-1] == sys.argv[1] for t in json.load(sys.stdin) for s in t["suite"]))' "$2"
}

if [ $install = yes ]; then
    tools/install-deps.sh test || echo "test.sh: going on without; some tests will be skipped or fail" >&2
fi

if compile "$build" -Dbuildtype=debugoptimized -Dwerror=$werror; then
    begin "unit tests"
    unit "$build"
    network=yes
else
    network=no
fi

if compile "$build-asan" -Dbuildtype=debugoptimized -Dwerror=$werror -Db_sanitize=address,undefined -Db_lundef=false; then
    begin "unit tests under ASan and UBSan"
    export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    unit "$build-asan" --suite unit --timeout-multiplier 4
    unset UBSAN_OPTIONS
fi

if [ -f "$build/build.ninja" ] && has_suite "$build" threads; then
    if compile "$build-tsan" -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false; then
        begin "thread tests under TSan"
        export TSAN_OPTIONS=halt_on_error=1
        unit "$build-tsan" --suite threads --timeout-multiplier 8
        unset TSAN_OPTIONS
    fi
fi

if [ "$(id -u)" -eq 0 ]; then unshare -nm true; else unshare -Urnm true; fi 2> /dev/null || {
    begin "network tests"
    echo "this machine gives us no network namespaces (unshare -nm, or unshare -Urnm): skipped, not passed"
    add 0 "0 passed, 0 failed, $({ tests/faults.py --list; tests/strangers.py --list; tests/moments.py --list; tests/prefork.py --list; tests/backlog.py --list; tests/leaving.py --list; tests/joint.py --list; tests/surface.py --list; tests/suites.py --list; tests/programs.py --list; } | wc -l) skipped"
    network=no
}

if [ $network = yes ]; then
    counted 5 "strangers" tests/strangers.py --builddir "$build"
    counted 10 "real programs" tests/programs.py --builddir "$build" --table "$build/compatibility.md"
    counted 5 "moments" tests/moments.py --builddir "$build"
    counted 5 "ends of processes" tests/leaving.py --builddir "$build"
    counted 5 "two processes at once" tests/joint.py --builddir "$build"
    counted 15 "servers of several processes" tests/prefork.py --builddir "$build"
    counted 5 "what waits when a server forks" tests/backlog.py --builddir "$build"
    counted 5 "sockets as programs see them" tests/surface.py --builddir "$build"
    if [ "$quick" ]; then
        counted 25 "faults" tests/faults.py --builddir "$build" -k '*/stream/*' -k plain-peer -k one-shot -k iterative
    else
        counted 25 "faults" tests/faults.py --builddir "$build"
        # What a sanitizer finds ends the program with a status of its own, which fails the case. TSan would end a
        # child that makes threads, and count those that it has left behind in the parent as leaks.
        [ ! -f "$build-tsan/src/preload/libnsshim.so" ] ||
            TSAN_OPTIONS=exitcode=66:die_after_fork=0:report_thread_leaks=0 counted 10 "faults under TSan" \
                tests/faults.py --builddir "$build-tsan" -k '*/stream/*threads/*' -k '*/stream/*/*threads' \
                -k '*/stream/fork-*/*' -k '*/stream/*/fork-*' -k '*/stream/*/exec-*'
        [ ! -f "$build-asan/src/preload/libnsshim.so" ] ||
            NS_PRELOAD_FIRST=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
                counted 10 "faults under ASan and UBSan" tests/faults.py --builddir "$build-asan" \
                -k 'link-down-client/*' -k 'rst-client/*' -k 'black-hole/*' -k 'resume-ack-lost/*' -k 'nat-changed/*'
        counted 15 "CPython's test suite" tests/suites.py --builddir "$build" --table "$build/compatibility.md"
        counted 10 "the same faults on plain TCP" tests/faults.py --builddir "$build" --control
    fi
    single "tools/demo.sh" tools/demo.sh "$build"
    [ ! -x tools/demo-library.sh ] || single "tools/demo-library.sh" tools/demo-library.sh "$build"
fi

# Builds and boots kernels; a machine that cannot is told by it, and counted as skipped.
[ "$quick" ] || counted 40 "the kernel half" kernel/test.sh --no-install --shim "$build/src/preload/libnsshim.so"

echo
[ -z "$failures" ] || echo "Failures:$failures"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
