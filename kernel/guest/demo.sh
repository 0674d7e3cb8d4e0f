#!/bin/bash
# Chapter 6.3 of the thesis, in a guest: what tools/demo-kernel.sh shows.
guest=$(cd "$(dirname "$0")" && pwd)
cd "${TMPDIR:-/tmp}" || exit 1
say() {
    printf '\n== %s\n\n' "$*"
}
await() { # FILE TEXT
    local i
    for i in $(seq 200); do
        grep -q "$2" "$1" 2> /dev/null && return 0
        sleep 0.05
    done
    echo "demo: no '$2' in $1"
    exit 1
}
# What came on telnet's screen since the last time
seen=0
screen() {
    tail -n "+$((seen + 1))" screen | sed 's/^/  /'
    seen=$(wc -l < screen)
}
# What went over the links since the last time
links() {
    sleep 0.3
    cat capture
    : > capture
}
addresses() {
    ip netns exec troels "$guest/netstat.py" "$telnet"
}

ip netns add troels
ip netns add tage
for host in troels tage; do
    ip netns exec $host sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.tcp_preserve=2
    ip -n $host link set lo up
done
for n in 1 2; do
    ip link add link$n netns troels type veth peer name link$n netns tage
    ip -n troels addr add 3ffe:2a00:100:3${n}00::f00d:cafe/64 dev link$n nodad
    ip -n tage addr add 3ffe:2a00:100:3${n}00::dead:beef/64 dev link$n nodad
    ip -n troels link set link$n up
    ip -n tage link set link$n up
done
for host in troels tage; do
    until [ "$(ip -n $host -br link show type veth | grep -c ' UP ')" = 2 ]; do sleep 0.1; done
done

# A line server that answers in capitals, so that its lines are not taken for those typed.
ip netns exec tage socat TCP6-LISTEN:21,reuseaddr 'EXEC:stdbuf -oL tr a-z A-Z' &
until ip netns exec tage ss -Htln sport = 21 | grep -q :21; do sleep 0.05; done
ip netns exec troels "$guest/capture.py" > capture.ready 2>&1 3>> capture &
await capture.ready ready
mkfifo keys
ip netns exec troels telnet 3ffe:2a00:100:3100::dead:beef 21 < keys > screen 2>&1 &
telnet=$!
exec 9> keys
await screen Connected
say "troels and tage have two links; telnet takes link 1"
screen
say "What went over it: each end tells the other its second prefix"
await capture PREFIX_ACK
links
say "A line, and its answer"
echo "hi there" >&9
echo "  hi there"
await screen "HI THERE"
screen
links
addresses

say "Link 1 carries nothing any more"
for host in troels tage; do ip netns exec $host tc qdisc add dev link1 root netem loss 100%; done
echo "do your thing" >&9
echo "  do your thing"
sleep 0.1
addresses
await screen "DO YOUR THING"
screen
say "The answer came: over link 2"
links | tee moved
addresses | tee after

grep -q 'link2: 3ffe:2a00:100:3200::dead:beef.21 > 3ffe:2a00:100:3200::f00d:cafe.* .DO YOUR THING' moved &&
    grep -q '3200::f00d:cafe.*3200::dead:beef.21.*ESTABLISHED' after || {
    echo "demo: the answer did not come over link 2"
    exit 1
}
