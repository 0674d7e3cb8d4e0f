#!/bin/bash
# In a guest: what kernel/bench.sh reports. Its arguments are "costs NAME" or "gaps TRIALS"; output is lines of words.
A1=3ffe:2a00:100:3100::f00d:cafe B1=3ffe:2a00:100:3100::dead:beef

hosts() {
    local host n
    for host in A B spare; do
        ip netns add $host
        ip netns exec $host sysctl -qw net.ipv6.conf.default.accept_dad=0
        ip -n $host link set lo up
    done
    for n in 1 2; do
        ip link add a$n netns A type veth peer name b$n netns B
        ip -n A addr add 3ffe:2a00:100:3${n}00::f00d:cafe/64 dev a$n nodad
        ip -n B addr add 3ffe:2a00:100:3${n}00::dead:beef/64 dev b$n nodad
        ip -n A link set a$n up
        ip -n B link set b$n up
    done
    for host in A B; do
        until [ "$(ip -n $host -br link show type veth | grep -c ' UP ')" = 2 ]; do sleep 0.1; done
    done
}

# Word by word as the layers of the table: unpatched, key off, key on and unused, negotiated
costs() {
    hosts
    sleep 2
    cost() {
        "$COST" /run/netns/A /run/netns/B $B1 "$1"
    }
    if [ "$1" = plain ]; then
        cost unpatched
    else
        cost off
        ip netns exec spare sysctl -qw net.ipv6.tcp_preserve=2
        cost unused
        ip netns exec A sysctl -qw net.ipv6.tcp_preserve=2
        ip netns exec B sysctl -qw net.ipv6.tcp_preserve=2
        cost negotiated
    fi
    local slab
    for slab in TCPv6 tw_sock_TCPv6 request_sock_TCPv6 TCP; do
        echo "size $1 $slab $(cat /sys/kernel/slab/$slab/object_size)"
    done
}

# The longest time that an exchange of 64 bytes takes, one each 20 ms, when NAME happens to the first link
gaps() {
    local name i server client
    for name in local-link-down peer-link-down black-hole address-removed; do
        for i in $(seq "$1"); do
            hosts
            ip netns exec A sysctl -qw net.ipv6.tcp_preserve=2
            ip netns exec B sysctl -qw net.ipv6.tcp_preserve=2
            ip netns exec B "$PRESERVE" serve 7 > /run/server &
            server=$!
            until grep -q ready /run/server; do sleep 0.05; done
            : > /run/client
            ip netns exec A "$PRESERVE" ping $B1 7 2500 > /run/client &
            client=$!
            until grep -q connected /run/client; do sleep 0.05; done
            # at any time between two exchanges
            sleep 0.$((300 + i * 37 % 20))
            case $name in
            local-link-down) ip -n A link set a1 down ;;
            peer-link-down) ip -n B link set b1 down ;;
            address-removed) ip -n A addr del $A1/64 dev a1 ;;
            black-hole)
                ip netns exec A tc qdisc add dev a1 root netem loss 100%
                ip netns exec B tc qdisc add dev b1 root netem loss 100%
                ;;
            esac
            wait $client
            echo "gap $name $(tail -n 1 /run/client)"
            kill $server
            wait
            for host in A B spare; do ip netns del $host; done
        done
    done
}

"$@"
