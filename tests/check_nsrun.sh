#!/bin/sh
# check_nsrun.sh NSRUN MARKER STATIC FOREIGN [CHECK_API]
# NSRUN with a marker library in the shim's place: what the command gets, what
# nsrun says, and the exit status. STATIC is a static program, FOREIGN one that
# names a loader of another C library; with CHECK_API, that the library stands
# back where the shim is.
set -u
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
failures=0 cases=0

# The build tree's layout, so that the marker is found and nothing else.
mkdir "$dir/daemon" "$dir/preload"
cp "$1" "$dir/daemon/nsrun"
cp "$2" "$dir/preload/libnsshim.so"
cp "$3" "$dir/static"
cp "$4" "$dir/foreign"
api=${5:+$(realpath "$5")}
nsrun=$dir/daemon/nsrun
shim=$(realpath "$dir/preload/libnsshim.so")
for variable in $(env | sed -n 's/^\(NAMESOCKET_[A-Z_]*\)=.*/\1/p'); do
    unset "$variable"
done
unset LD_PRELOAD

fail()
{
    failures=$((failures + 1))
    echo "not ok: $*"
    sed 's/^/    stdout: /' "$dir/out"
    sed 's/^/    stderr: /' "$dir/err"
}

# run STATUS ARGUMENT...: nsrun with these arguments ends with that status.
run()
{
    cases=$((cases + 1))
    expected=$1
    shift
    title="nsrun $*"
    "$nsrun" "$@" </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
    [ "$status" = "$expected" ] || fail "$title: status $status, expected $expected"
}

says() # PATTERN: standard error is one line, and matches
{
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "$title: not one line on standard error"
    grep -q -e "$1" "$dir/err" || fail "$title: does not say '$1'"
}

silent()
{
    [ ! -s "$dir/err" ] || fail "$title: said something"
}

gives() # LINE: standard output has it
{
    grep -Fqx -e "$1" "$dir/out" || fail "$title: no line '$1'"
}

# The exit status is the command's.
run 0 true; silent
run 1 false
run 42 sh -c 'exit 42'
# shellcheck disable=SC2016 # for the shell inside
run 143 sh -c 'exec "$0" -- sh -c "exit 143"' "$nsrun"
run 127 nsrun-no-such-command; says 'cannot run nsrun-no-such-command: No such file'
run 127 "$dir/nothing/here"; says 'cannot run'
run 126 /etc/passwd; says 'cannot run /etc/passwd: Permission denied'
run 126 "$dir"; says 'cannot run'

# What follows the command is the command's, and so is what follows --.
run 0 echo -v --help; gives '-v --help'
run 0 -- echo --; gives '--'
run 0 --help; gives 'Everything else is in nsrun(1).'
run 0 --version

# Options become the environment that the shim reads.
cd "$dir" || exit 99
run 0 -v -l debug -o my.log -a known -k one -k two:23 -n '*:25' -p 1 -g 90s env
silent
gives NSRUN_MARKER=loaded
gives NAMESOCKET_VERBOSE=1
gives NAMESOCKET_LOG_LEVEL=debug
gives "NAMESOCKET_LOG_FILE=$(pwd)/my.log"
gives NAMESOCKET_ASK=known
gives NAMESOCKET_KNOWN=one,two:23
gives 'NAMESOCKET_NEVER=*:25'
gives NAMESOCKET_VERSION=1
gives NAMESOCKET_GIVE_UP=90s
run 0 --log-level=info --log-file="$dir/b.log" --ask=never --known=a --never=b --protocol=2 --give-up=2min env
gives NAMESOCKET_LOG_LEVEL=info
gives "NAMESOCKET_LOG_FILE=$dir/b.log"
gives NAMESOCKET_GIVE_UP=2min
echo 'sixteen bytes or more' >psk
run 0 --psk-file psk env; gives 'NAMESOCKET_PSK=sixteen bytes or more'
NAMESOCKET_RING=1M NAMESOCKET_ASK=never run 0 -a always env
gives NAMESOCKET_RING=1M
gives NAMESOCKET_ASK=always

# --gateway: the command is another process, without the shim; its end is nsrun's all the same.
run 0 --gateway true; silent
run 42 --gateway sh -c 'exit 42'
# shellcheck disable=SC2016
run 143 --gateway sh -c 'kill -TERM $$'
run 127 --gateway nsrun-no-such-command; says 'cannot run nsrun-no-such-command: No such file'
run 126 --gateway "$dir"; says 'cannot run'
run 0 --gateway "$dir/static"; silent
run 0 --gateway sh -c 'echo "preload:$LD_PRELOAD"'; gives 'preload:'
run 126 --gateway "$nsrun" --gateway true; says 'another nsrun --gateway'
LD_PRELOAD=$shim run 2 --gateway true; says 'LD_PRELOAD already'

# The broker beside the command: named to it, once for a tree, and gone after it. The command does
# not notice it: it has nsrun's process, group and session, no child, and its pipes are its alone.
address()
{
    sed -n 's/^NAMESOCKET_BROKER=//p' "$dir/out"
}
listens() # ADDRESS
{
    grep -q -e " $1\$" /proc/net/unix
}
run 0 env
case $(address) in
@namesocket/*) ;;
*) fail "$title: no broker named" ;;
esac
listens "$(address)" || fail "$title: no broker"
patience=200
while listens "$(address)" && [ $patience -gt 0 ]; do
    patience=$((patience - 1))
    sleep 0.1
done
[ $patience -gt 0 ] || fail "the broker does not end"
run 0 "$nsrun" "$nsrun" sh -c 'env; env'
[ "$(address | sort -u | wc -l)" = 1 ] || fail "$title: more than one broker for a tree"
NAMESOCKET_BROKER=none run 0 env; gives NAMESOCKET_BROKER=none
NAMESOCKET_BROKER=@nobody-answers-here run 0 env
[ "$(address)" != @nobody-answers-here ] || fail "$title: a broker that does not answer"
# shellcheck disable=SC2016 # for the shell inside
run 0 sh -c 'read -r kids </proc/$$/task/$$/children; echo "children:$kids"'; gives 'children:'
# shellcheck disable=SC2016
run 143 sh -c 'kill -TERM $$'
# shellcheck disable=SC2016
"$nsrun" sh -c 'echo $$; cut -d" " -f5,6 /proc/$$/stat' >"$dir/inside" &
{ echo $!; cut -d" " -f5,6 /proc/$$/stat; } >"$dir/outside"
wait $!
cmp -s "$dir/inside" "$dir/outside" || fail "the command has another process, group or session"
# shellcheck disable=SC2016
"$nsrun" sh -c 'kill -STOP $$; exit 7' &
until grep -q '^State:.*T' /proc/$!/status; do sleep 0.01; done
kill -CONT $!
wait $!
[ $? = 7 ] || fail "stopped, and gone on: another status"
timeout 10 sh -c '"$0" true | cat' "$nsrun" || fail "a pipe of the command's stays open"

# LD_PRELOAD keeps what it has; no entry twice.
run 0 env; gives "LD_PRELOAD=$shim"
export LD_PRELOAD=libc.so.6:libm.so.6
run 0 env; gives "LD_PRELOAD=$shim:libc.so.6:libm.so.6"
export LD_PRELOAD="libc.so.6:$shim"
run 0 env; gives "LD_PRELOAD=libc.so.6:$shim"
unset LD_PRELOAD

# Bad options: one line, status 2, and the command does not run.
bad()
{
    pattern=$1
    shift
    run 2 "$@" sh -c 'echo ran'
    says "$pattern"
    [ ! -s "$dir/out" ] || fail "$title: went on"
}
bad 'unknown option -x' -x
bad 'unknown option -x' -vx
bad 'unknown or ambiguous option --nothing' --nothing
bad 'option --verbose takes no value' --verbose=1
bad '--log-level: .*error, info or debug' -l loud
bad '--ask: .*probe, always, never or known' -a maybe
bad '--known: ' -k host:port
bad '--never: ' -n '[::1'
bad '--protocol: .*1 or 2' -p 3
bad '--give-up: .*seconds' -g soon
bad '--log-file: cannot write' -o "$dir/no/such/file"
bad '--log-file: ' -o ''
bad '--psk-file: cannot read' --psk-file "$dir/none"
echo short >short
bad '--psk-file: ' --psk-file short
head -c 32 /dev/zero >zeros
bad '--psk-file: .*hex' --psk-file zeros
grep -q short "$dir/err" && fail "a key is shown"
run 2; says 'no command given'
run 2 -l; says 'option --log-level needs a value'
run 2 --give-up; says 'option --give-up needs a value'

# So with what is in the environment; an option takes a bad variable's place.
NAMESOCKET_ASK=maybe bad 'NAMESOCKET_ASK: .*probe, always, never or known'
NAMESOCKET_PSK=short bad 'NAMESOCKET_PSK: the key has 5 bytes'
NAMESOCKET_PSK='' bad 'NAMESOCKET_PSK: the key has 0 bytes'
NAMESOCKET_PSK=short bad 'NAMESOCKET_PSK: ' --gateway
NAMESOCKET_LOG_FILE=$dir/no/such/file bad "NAMESOCKET_LOG_FILE: cannot write $dir/no/such/file: No such file"
NAMESOCKET_ASK=maybe run 0 -a never true; silent
NAMESOCKET_FOO=1 run 0 sh -c 'echo ran'; says 'NAMESOCKET_FOO: no such setting'; gives ran
NAMESOCKET_HEIRLOOM=1 run 0 true; silent

# Programs that the shim cannot get into: a line, and they run.
run 0 "$dir/static"; says 'static is statically linked'
printf '#! %s\n' "$dir/static" >script
printf '#!%s with an argument\n' "$dir/script" >outer
chmod +x script outer
run 0 "$dir/script"; says 'static is statically linked'
run 0 "$dir/outer"; says 'static is statically linked'
PATH=$dir:$PATH run 0 static; says 'static is statically linked'
run 127 "$dir/foreign"
grep -q 'foreign uses another C library (/lib/ld-nsrun-test.so.1)' "$dir/err" ||
    fail "$title: no word of the loader"
# shellcheck disable=SC2016 # for the shell inside
printf '#!/bin/sh\necho "$NSRUN_MARKER"\n' >dynamic
chmod +x dynamic
run 0 "$dir/dynamic"; silent; gives loaded
if [ "$(id -u)" = 0 ]; then
    cp "$(command -v env)" setuid
    cp "$(command -v env)" setgid
    chown 65534:65534 setuid setgid && chmod 4755 setuid && chmod 2755 setgid
    if findmnt -n -o OPTIONS -T "$dir" | grep -q nosuid; then
        echo "# not tested: set-user-ID, since $dir is mounted nosuid"
    else
        run 0 "$dir/setuid" true; says 'setuid is set-user-ID'
        run 0 "$dir/setgid" true; says 'setgid is set-group-ID'
    fi
else
    echo "# not tested as this user: set-user-ID"
fi

# Two engines in one process would fight: beside the shim, here one that does
# nothing, the library is libc under other names.
if [ $# -ge 5 ]; then
    for part in calls data; do
        CK_RUN_CASE=$part run 0 "$api"
    done
fi

# A shim in a path that LD_PRELOAD cannot have.
mkdir "$dir/with blank"
mv "$dir/daemon" "$dir/preload" "$dir/with blank"
nsrun="$dir/with blank/daemon/nsrun"
run 2 true; says 'blank'

echo "$cases runs, $failures failures"
[ "$failures" = 0 ]
