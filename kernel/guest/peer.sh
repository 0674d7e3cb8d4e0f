#!/bin/bash
# A host whose kernel has the series and one whose kernel is Debian's, each a guest, with two links between them:
#
#   peer.sh patched|plain
#
# The plain one serves and connects for as long as it lives; the patched one tests, and its output is TAP. Time is real
# here, and no result depends on it.
A1=3ffe:2a00:100:3100::f00d:cafe B1=3ffe:2a00:100:3100::dead:beef
role=$1
tmp=$(mktemp -d)
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.keep_addr_on_down=1
case $role in patched) host=f00d:cafe ;; plain) host=dead:beef ;; esac
for n in 0 1; do
    ip addr add "3ffe:2a00:100:3$((n + 1))00::$host/64" dev vec$n nodad
    ip link set vec$n up
done
nr=0 why=

if [ "$role" = plain ]; then
    "$PRESERVE" serve 7 &
    # The other end says by listening when it is time.
    until "$PRESERVE" ping $A1 8 0; do sleep 0.1; done
    # drops what has destination options, as a host may
    sysctl -qw net.ipv6.max_dst_opts_number=0
    "$PRESERVE" bulk $A1 8 2000000
    sleep infinity
fi

# Segments with destination options that we sent
nft -f - << END || exit 1
table ip6 t {
    chain c {
        type filter hook output priority 0;
        exthdr dst exists counter
    }
}
END
options() {
    nft list ruleset | sed -n 's/.*counter packets \([0-9]*\).*/\1/p'
}

counter() {
    nstat -asz "TcpExtTCPPreserve$1" | awk -v n="TcpExtTCPPreserve$1" '$1 == n { print $2 }'
}

# Is the expression true? If not, that is why.
is() {
    [ "$1" = "$2" ] || { why="$3 is $1, not $2"; return 1; }
}

result() { # STATUS WHAT
    nr=$((nr + 1))
    if [ "$1" -eq 0 ]; then echo "ok $nr $2"; else echo "not ok $nr $2 # $why"; fi
    why=
}

last() {
    tail -n 1 "$tmp/$1"
}

plain() { # FILE: every byte came, and nothing was negotiated
    case $(last "$1") in
    done=1*state=none*) ;;
    *) why=$(last "$1"); false ;;
    esac
}

echo "1..5"
sysctl -qw net.ipv6.tcp_preserve=2
until "$PRESERVE" ping $B1 7 0 preserve=0 > "$tmp/up"; do sleep 0.1; done

is "$(options)" 0 "segments with options before"
"$PRESERVE" bulk $B1 7 2000000 > "$tmp/out" 2>&1
plain out && is "$(counter Plain)" 1 "fallbacks counted" && is "$(counter Active)" 0 "negotiated" &&
    is "$(options)" 1 "segments with options"
result $? "the patched host connects: the option on its SYN is passed over"

"$PRESERVE" many $B1 7 50 > "$tmp/many" 2>&1
[ "$(last many)" = "done=1 n=50 moved=0" ] || why=$(last many)
[ -z "$why" ] && is "$(counter Plain)" 51 "fallbacks counted" && is "$(options)" 51 "segments with options"
result $? "many times"

# A link that loses all is waited for, as ever.
: > "$tmp/cut"
"$PRESERVE" bulk $B1 7 30000000 > "$tmp/cut" 2>&1 &
until grep -q '^[ce]' "$tmp/cut"; do sleep 0.05; done
tc qdisc add dev vec0 root netem loss 100%
sleep 0.5
tc qdisc del dev vec0 root
wait
plain cut && is "$(counter Move)" 0 "moves" && is "$(options)" 52 "segments with options"
result $? "a connection to it stays between its addresses"

: > "$tmp/in"
"$PRESERVE" serve 8 linger > "$tmp/in" 2>&1 &
until [ "$(grep -c '^closed' "$tmp/in")" = 2 ]; do sleep 0.05; done
kill $!
wait
[ "$(grep -c '^closed state=none' "$tmp/in")" = 2 ] || why=$(cat "$tmp/in")
[ -z "$why" ] && is "$(counter Passive)" 0 "negotiated" && is "$(options)" 52 "segments with options"
result $? "the plain host connects: what it is answered has no option"

# By now it drops what has options.
"$PRESERVE" bulk $B1 7 100000 > "$tmp/eaten" 2>&1
plain eaten && is "$(counter Plain)" 53 "fallbacks counted"
result $? "the SYN without option gets through where those with it do not"
