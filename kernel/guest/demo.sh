#!/bin/bash
# Chapter 6.3 of the thesis, in a guest: what tools/demo-kernel.sh shows.
guest=$(cd "$(dirname "$0")" && pwd)
cd "${TMPDIR:-/tmp}" || exit 1
say() {
    printf '\n== %s\n' "$*"
}
await() {
    local i
    for i in $(seq 200); do
        grep -q "$2" "$1" 2> /dev/null && return 0
        sleep 0.05
    done
    echo "demo: no '$2' came"
    return 1
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
while ip -n troels -br link show type veth | grep -qv ' UP '; do sleep 0.1; done

ip netns exec tage "$PRESERVE" serve 21 > server &
await server ready || exit 1
ip netns exec troels "$guest/capture.py" >> capture 2>&1 &
await capture ready || exit 1
mkfifo keys
ip netns exec troels telnet 3ffe:2a00:100:3100::dead:beef 21 < keys > screen 2>&1 &
exec 9> keys
await screen Connected || exit 1
say "troels\$ telnet tage 21, and what went over the links"
cat screen
await capture PREFIX_ACK
cat capture
: > capture

say "hi there"
echo "hi there" >&9
await screen "hi there" || exit 1
cat capture
ip netns exec troels ss -Htn dport = 21
: > capture

say "link 1 carries nothing any more; do your thing"
for host in troels tage; do ip netns exec $host tc qdisc add dev link1 root netem loss 100%; done
echo "do your thing" >&9
await screen "do your thing" || exit 1
sleep 0.5
cat capture

say "what telnet shows, and what the application sees of the addresses"
cat screen
ip netns exec troels ss -Htn dport = 21
grep -q 'link2: .*3200::dead:beef.21 > 3ffe:2a00:100:3200::f00d:cafe.* .do your thing' capture || {
    echo "demo: the answer did not come over link 2"
    exit 1
}
