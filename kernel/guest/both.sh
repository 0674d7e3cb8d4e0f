#!/bin/bash
# Both halves on one host: programs under the shim, on a kernel that has the series. The kernel is to move first, and
# the shim to step in only where the kernel cannot. Runs in a guest:
#
#   kernel/test.sh --config both
#
# The working directory is that of the selftests, whose hosts these are.
# shellcheck disable=SC1091,SC2154,SC2034,SC2086
. ./tcp_preserve.sh
[ -r "${SHIM:?}" ] || exit 1

# shimmed HOST NAME ARG...: in the background, its log in $tmp/NAME.log
shimmed() {
    local netns=$NA name=$2
    [ "$1" = a ] || netns=$NB
    shift 2
    : > "$tmp/$name"
    : > "$tmp/$name.log"
    ip netns exec "$netns" env LD_PRELOAD="$SHIM" NAMESOCKET_LOG_LEVEL=debug NAMESOCKET_LOG_FILE="$tmp/$name.log" \
        "$PRESERVE" "$@" > "$tmp/$name" 2>&1 &
    pids="$pids $!"
    cpid=$!
}

# connect_both MILLISECONDS: a server and a client, and a session between them
connect_both() {
    shimmed b server serve 7 && await "$tmp/server" ready || return 1
    shimmed a client ping $B1 7 "$1" && await "$tmp/client" connected || return 1
    logged "the kernel moves this connection first" || return 1
    sleep 0.3
}

logged() {
    local i
    for i in $(seq 100); do
        grep -q "$1" "$tmp/client.log" && return 0
        sleep 0.02
    done
    why="the client's log has no \"$1\""
    return 1
}

# The client went on, and by the kernel's doing alone.
kernel_moved() {
    finish && expect local = $A2 && expect gap below "$1" || return 1
    why="the shim stepped in: $(grep -m 1 -E 'RESUME|resum|hedge|acknowledgement in time' "$tmp/client.log" "$tmp/server.log")"
    [ "$why" = "the shim stepped in: " ] && why=
}

t_kernel_link_down() {
    hosts && connect_both 2000 || return 1
    ip -n "$NA" link set a1 down
    kernel_moved 50
}

t_kernel_black_hole() {
    hosts && connect_both 3000 || return 1
    blackhole 1
    kernel_moved 300
}

# The server's address goes; a shim by itself resets the connection then.
t_kernel_server_address_gone() {
    hosts && connect_both 2000 || return 1
    ip -n "$NB" addr del $B1/64 dev b1
    finish && expect remote = $B2 && expect gap below 50 || return 1
    ! grep -q "resetting the connection" "$tmp/server.log"
}

# IPv6 is gone altogether, which no kernel can help: the shim goes on over IPv4.
t_shim_steps_in() {
    hosts || return 1
    ip -n "$NA" addr add 192.0.2.1/24 dev a2
    ip -n "$NB" addr add 192.0.2.2/24 dev b2
    connect_both 5000 || return 1
    drop_segments b meta l4proto tcp || return
    finish && expect gap below 2000 && expect state = none && logged RESUME
}

tests="kernel_link_down kernel_black_hole kernel_server_address_gone shim_steps_in"
[ $# -eq 0 ] || tests="$*"
echo "TAP version 13"
echo "1..$(echo $tests | wc -w)"
nr=0 failed=0
for t in $tests; do
    nr=$((nr + 1)) why=
    "t_$t"
    case $? in
    0) echo "ok $nr $t # ${gap:+gap $gap ms}" ;;
    4) echo "ok $nr $t # SKIP no nft" ;;
    *)
        echo "not ok $nr $t # $why"
        failed=$((failed + 1))
        [ -z "${SHOW-}" ] || sed 's/^/# /' "$tmp"/*.log
        ;;
    esac
    unset gap
    cleanup
done
[ $failed -eq 0 ]
