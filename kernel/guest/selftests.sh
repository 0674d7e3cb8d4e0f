#!/bin/bash
# Runs the series' selftests in a guest, each by itself and bounded in the guest's time: one that hangs fails, and what
# the kernel says is told apart by test.
#
#   selftests.sh [--share I/N] [TEST...]
#
# All of them, or those named, or the I-th of N shares of all. Output is TAP.
limit=300
share=1/1
[ "${1-}" != --share ] || { share=$2; shift 2; }
[ $# -gt 0 ] || set -- $(sed -n 's/^t_\([a-z0-9_]*\)() {$/\1/p' tcp_preserve.sh |
    awk -v i="${share%/*}" -v n="${share#*/}" 'NR % n == i % n')
echo "1..$#"
nr=0
for name; do
    nr=$((nr + 1))
    echo "guest: test $name" > /dev/kmsg
    timeout -k 10 $limit ./tcp_preserve.sh "$name" > "$TMPDIR/test" 2>&1
    status=$?
    line=$(grep -E "^(not )?ok 1 " "$TMPDIR/test")
    # Anything else that it printed is worth reading.
    grep -vE '^(TAP version|1\.\.1$|(not )?ok 1 )' "$TMPDIR/test" | sed 's/^/# /'
    case $status:$line in
    0:ok*) ;;
    *:"not ok"*) ;;
    124:*) line="not ok 1 $name # not done after $limit s" ;;
    *) line="not ok 1 $name # exit $status" ;;
    esac
    echo "${line%%ok 1 *}ok $nr ${line#*ok 1 }"
done
