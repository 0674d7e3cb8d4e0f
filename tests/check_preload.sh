#!/bin/sh
# What the shim is for everything that is not a session: nothing.
#
# usage: check_preload.sh SHIM SWEEP MAP [INTERNAL]
#
# SHIM      the shim under test: the real one, or the one over preload_raw_engine.c
# SWEEP     check_preload_sweep, which calls every interposed function
# MAP       libnsshim.map, which names them
# INTERNAL  check_preload_internal, for the raw engine only
set -eu

shim=$(realpath "$1") sweep=$(realpath "$2") map=$(realpath "$3") internal=${4:+$(realpath "$4")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
unset LD_PRELOAD

fail() {
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# The shim neither asks peers nor writes a log here: the sweep's peer is itself.
under() {
    env NAMESOCKET_ASK=never LD_PRELOAD="$shim" "$@"
}

# ---- every name of the map is exported, no other is ----
sed -e 's,/\*.*\*/,,' -n -e '/global:/,/local:/p' "$map" | tr -s ' ;' '\n' |
    grep -E '^[A-Za-z_][A-Za-z_0-9]*$' | LC_ALL=C sort >"$work/map"
nm -D --defined-only "$shim" | awk '{ print $3 }' | LC_ALL=C sort >"$work/exported"
[ -s "$work/map" ] || fail "no names found in $map"
diff "$work/map" "$work/exported" >&2 || fail "exported names are not those of the map"

# ---- no call returns anything else ----
mkdir "$work/plain" "$work/shim"
(cd "$work/plain" && "$sweep" .) >"$work/plain.out" || fail "the sweep alone: status $?"
(cd "$work/shim" && under "$sweep" .) >"$work/shim.out" || fail "the sweep under the shim: status $?"
[ "$(wc -l <"$work/plain.out")" -gt 500 ] || fail "the sweep is too short"
diff "$work/plain.out" "$work/shim.out" >&2 || fail "the sweep differs under the shim"

# ---- the sweep knows every name; those of state.c are no names of libc's ----
cat "${0%.sh}"_sweep*.c | tr -cs 'A-Za-z_0-9' '\n' | LC_ALL=C sort -u >"$work/words"
LC_ALL=C comm -23 "$work/map" "$work/words" | grep -vx -e __recv -e namesocket_shim_state -e namesocket_shim_adopt -e namesocket_shim_adopted >"$work/missed" &&
    fail "not in the sweep:" $(cat "$work/missed")

[ -z "$internal" ] || under "$internal" || fail "the engine's own descriptors"

# ---- the shim says nothing, and leaves the environment alone ----
echo a >"$work/a"
under cat "$work/a" >"$work/out" 2>"$work/err"
cmp "$work/a" "$work/out" >&2 || fail "cat wrote something else"
[ ! -s "$work/err" ] || fail "the shim wrote to standard error"
[ "$(under sh -c 'echo $LD_PRELOAD')" = "$shim" ] || fail "LD_PRELOAD was changed"

# ---- but under NAMESOCKET_VERBOSE it says what is wrong with its settings ----
[ -n "$internal" ] || for verbose in 0 1; do
    env NAMESOCKET_VERBOSE=$verbose NAMESOCKET_PSK=short NAMESOCKET_FOO=1 NAMESOCKET_LOG_FILE="$work/no/log" \
        LD_PRELOAD="$shim" cat "$work/a" >"$work/out" 2>"$work/err"
    cmp "$work/a" "$work/out" >&2 || fail "cat wrote something else under bad settings"
    while read -r pattern; do
        [ "$(grep -c "^namesocket: $pattern" "$work/err")" = $verbose ] || fail "verbose $verbose: '$pattern'"
    done <<END
no log: cannot write $work/no/log: No such file or directory
ignored: NAMESOCKET_PSK: the key has 5 bytes
ignored: NAMESOCKET_FOO: no such setting
nothing is protected: the pre-shared key is bad
END
done

[ "$failures" -eq 0 ]
