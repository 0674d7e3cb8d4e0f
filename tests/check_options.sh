#!/bin/sh
# check_options.sh PROGRAM...: a bad option or argument is one line on standard error, which begins with the
# program's name, and exit status 2; nothing is on standard output.
set -u
err=$(mktemp) || exit 99
trap 'rm -f "$err"' EXIT
failures=0

bad() # PROGRAM ARGUMENT...
{
    out=$("$@" </dev/null 2>"$err")
    status=$?
    [ "$status" = 2 ] && [ -z "$out" ] && [ "$(wc -l <"$err")" = 1 ] && grep -q "^${1##*/}: " "$err" && return
    failures=$((failures + 1))
    echo "not ok: $* (status $status)"
    sed 's/^/    stderr: /' "$err"
}

for program; do
    bad "$program" --no-such-option
    bad "$program" -X
    "$program" -h >/dev/null || { failures=$((failures + 1)); echo "not ok: $program -h"; }
    case $program in
    */nsserver) bad "$program"; bad "$program" -l; bad "$program" -l loud 7 ;;
    */nsclient) bad "$program" host; bad "$program" -l; bad "$program" -l loud host 7 ;;
    */tcpbench) bad "$program" -n; bad "$program" --rounds; bad "$program" --json=1; bad "$program" -v none ;;
    */nsctl)
        bad "$program" --no-such-option=1
        bad "$program" list -b "/$(printf '%0107d' 0)"
        bad "$program" list -b here
        ;;
    *) bad "$program" --no-such-option=1 ;;
    esac
done
[ $failures = 0 ]
