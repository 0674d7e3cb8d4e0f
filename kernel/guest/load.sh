#!/bin/bash
# In a guest whose processors run side by side: connections under load while links come and go, while the static key
# is switched on, and while network namespaces go away. What is to be seen is what the kernel says of it; that every
# byte arrives is checked too. Nothing here depends on how fast the machine is.
A1=3ffe:2a00:100:3100::f00d:cafe B1=3ffe:2a00:100:3100::dead:beef
rounds=${ROUNDS:-12}
work=$(mktemp -d)
cd "$work" || exit 1
echo "1..5"

hosts() { # A B
    local host n
    for host in "$1" "$2"; do
        ip netns add "$host"
        ip netns exec "$host" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv6.conf.all.keep_addr_on_down=1
        ip -n "$host" link set lo up
    done
    for n in 1 2; do
        ip link add "a$n" netns "$1" type veth peer name "b$n" netns "$2"
        ip -n "$1" addr add "3ffe:2a00:100:3${n}00::f00d:cafe/64" dev "a$n" nodad
        ip -n "$2" addr add "3ffe:2a00:100:3${n}00::dead:beef/64" dev "b$n" nodad
        ip -n "$1" link set "a$n" up
        ip -n "$2" link set "b$n" up
    done
    for host in "$1" "$2"; do
        until [ "$(ip -n "$host" -br link show type veth | grep -c ' UP ')" = 2 ]; do sleep 0.1; done
    done
}

serve() { # HOST
    ip netns exec "$1" "$PRESERVE" serve 7 > "server-$1" 2>&1 &
    server=$!
    until grep -q ready "server-$1"; do sleep 0.1; done
}

# Returns when it is connected.
bulk() { # HOST NAME BYTES
    ip netns exec "$1" "$PRESERVE" bulk $B1 7 "$3" > "bulk-$2" 2>&1 &
    clients="$clients $!"
    until grep -q '^[ce]' "bulk-$2"; do sleep 0.05; done
}

nr=0
result() { # STATUS WHAT
    nr=$((nr + 1))
    if [ "$1" -eq 0 ]; then echo "ok $nr $2"; else echo "not ok $nr $2"; tail -n 3 bulk-* server-* | sed 's/^/# /'; fi
}

# Each end's links in turn, and one address that goes and comes; there is always a way that is open.
flap() {
    local n
    for n in 1 2; do
        ip -n A link set a$n down
        ip netns exec A ss -HOtine > /dev/null
        ip -n A link set a$n up
        ip -n B link set b$n down
        ip netns exec B ss -HOtine > /dev/null
        ip -n B link set b$n up
    done
    ip -n A addr del $A1/64 dev a1
    ip -n A addr add $A1/64 dev a1 nodad
}

clients=
hosts A B
serve A
serve B
server_b=$server
# The key is off; these are plain.
bulk A plain-1 8000000
bulk A plain-2 8000000
# Now it is switched on under them.
ip netns exec A sysctl -qw net.ipv6.tcp_preserve=2
ip netns exec B sysctl -qw net.ipv6.tcp_preserve=2
wait $clients
[ "$(cat bulk-plain-* | grep -c 'done=1.*state=none')" = 2 ]
result $? "the static key is switched on under load"

clients=
for i in 1 2 3 4; do bulk A moved-$i 8000000; done
while kill -0 $clients 2> /dev/null; do flap; done
wait $clients
[ "$(cat bulk-moved-* | grep -c 'done=1.*state=2')" = 4 ]
result $? "every byte while links and addresses come and go"

# Handshakes and closes at both processors while the setting and the addresses change
for i in 1 2 3 4; do
    ip netns exec A "$PRESERVE" many $B1 7 60 > "many-$i" 2>&1 &
    many[i]=$!
done
while kill -0 "${many[@]}" 2> /dev/null; do
    ip netns exec B sysctl -qw net.ipv6.tcp_preserve=0
    ip netns exec A sysctl -qw net.ipv6.tcp_preserve=1
    ip -n B addr add 3ffe:2a00:100:3300::dead:beef/64 dev b2 nodad
    ip netns exec B sysctl -qw net.ipv6.tcp_preserve=2
    ip netns exec A sysctl -qw net.ipv6.tcp_preserve=2
    ip -n B addr del 3ffe:2a00:100:3300::dead:beef/64 dev b2
done
wait "${many[@]}"
[ "$(cat many-* | grep -c done=1)" = 4 ]
result $? "handshakes while settings and addresses change"

# Both ends of live connections that move go away, processes first or namespaces first.
for i in $(seq "$rounds"); do
    hosts C$i D$i
    ip netns exec C$i sysctl -qw net.ipv6.tcp_preserve=2
    ip netns exec D$i sysctl -qw net.ipv6.tcp_preserve=2
    serve D$i
    clients=
    bulk C$i gone-a-$i 100000000
    bulk C$i gone-b-$i 100000000
    ip -n C$i link set a1 down
    if [ $((i % 2)) = 0 ]; then
        ip netns del C$i
        ip netns del D$i
        kill $clients $server
    else
        kill $clients
        ip netns del D$i
        kill $server
        ip netns del C$i
    fi
    wait $clients $server 2> /dev/null
    rm bulk-gone-*
done
result 0 "namespaces go away under connections that move"

kill $server_b
ip netns del A
ip netns del B
# Until the last of the devices is gone, something holds one.
until [ "$(grep -c . /proc/net/dev)" -le 4 ] && [ -z "$(ip netns list)" ]; do sleep 0.1; done
result 0 "nothing is left"
