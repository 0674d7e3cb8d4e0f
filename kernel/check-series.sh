#!/bin/bash
# Checks the series patch by patch: style, and that each compiles.
#
#   kernel/check-series.sh [--style]
#
#   --style  checkpatch.pl only, which takes seconds
#
# For every patch: checkpatch.pl --strict finds nothing; what the series touches compiles without a warning with
# CONFIG_TCP_PRESERVE on and off; whatever of the feature is called is there. For the whole series also: IPv6 as a
# module, without IPv6, without MPTCP, without MD5 and sysctls, x86-64, and the series' own files with W=1. Output is
# TAP. Source and objects are kept where test.sh keeps its own. About ten minutes on two cores.
set -u
. "$(dirname "$0")/tree.sh"
patches=$(ls "$kernel"/patches/[0-9]*.patch | grep -v /0000-)
style=
case ${1-} in
'') ;;
--style) style=yes ;;
-h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
*) echo "check-series.sh: unknown argument $1 (--help)" >&2; exit 2 ;;
esac
mkdir -p "$cache" && cd "$cache" || exit 1
exec 8> lock
flock 8 || exit 1
{ download && unpack; } >&2 || { echo "check-series.sh: no kernel source" >&2; exit 1; }
# patch writes a new file and renames it, so plain/ stays as it is.
rm -rf check && cp -al plain check || exit 1
count=0 failed=0
result() { # OK? NAME
    count=$((count + 1))
    if [ "$1" = 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; failed=$((failed + 1)); fi
}

# New files are those of one entry in MAINTAINERS, which patch 2 brings.
checkpatch() {
    (cd check && scripts/checkpatch.pl --strict --no-summary --terse --color=never --ignore FILE_PATH_CHANGES "$1" 2> /dev/null) |
        sed 's/^/# /' | grep . && return 1
    return 0
}

# configure NAME MACHINE OPTION... into check-NAME
configure() {
    local name=$1 machine=$2 arch
    shift 2
    case $machine in uml) arch="ARCH=um SUBARCH=x86_64" ;; *) arch=ARCH=x86_64 ;; esac
    mkdir -p "check-$name"
    {
        cat check/kernel/configs/tiny-base.config "$kernel/config/base.config" "$kernel/config/$machine.config"
        printf '%s\n' "$@"
    } > "check-$name/all.config"
    make="nice make -s -C $cache/check $arch O=$cache/check-$name"
    $make KCONFIG_ALLCONFIG="$cache/check-$name/all.config" allnoconfig > "check-$name/log" 2>&1
}

# compile NAME WHAT...: in the configuration that was last configured
compile() {
    local name=$1
    shift
    $make -j"$jobs" "$@" > "check-$name/log" 2>&1 && ! grep -q warning: "check-$name/log" && return 0
    grep -m 20 -E 'warning:|error:|\*\*\*' "check-$name/log" | sed 's/^/# /'
    return 1
}

# The objects of what the series touches, of those that there are so far
objects() {
    (cd check && sed -n 's|^+++ b/\(net/.*\)\.c$|\1|p' $patches | sort -u |
        grep -v _test | while read -r f; do [ ! -f "$f.c" ] || echo "$f.o"; done)
}

# Symbols of the feature that some object needs and none has
unresolved() {
    (cd "check-$1/net" && nm ipv4/*.o ipv6/*.o 2> /dev/null) | awk '
        NF == 2 && $1 == "U" { need[$2] = 1 } NF == 3 { have[$3] = 1 }
        END { for (s in need) if (s ~ /tcp_preserve/ && !(s in have)) print "# needed and not there: " s }' | grep . && return 1
    return 0
}

for patch in $patches; do
    name=$(basename "$patch" .patch)
    patch -s -f -d check -p1 < "$patch"
    result $? "$name applies"
    checkpatch "$patch"
    result $? "$name: checkpatch"
    [ -z "$style" ] || continue
    for state in on off; do
        case $state in
        on) configure $state uml ;;
        off) configure $state uml "# CONFIG_TCP_PRESERVE is not set" "# CONFIG_TCP_PRESERVE_KUNIT_TEST is not set" ;;
        esac
        # shellcheck disable=SC2046
        compile $state $(objects | while read -r f; do
            case $state:$f in off:*tcp_preserve*) ;; *) echo "$f" ;; esac
        done) && unresolved $state
        result $? "$name compiles with the feature $state"
    done
done
if [ -z "$style" ]; then
    own=$(cd check && ls net/ipv6/tcp_preserve*.c | sed 's/c$/o/')
    configure on uml
    (cd check && touch -c $(ls net/ipv6/tcp_preserve*.c))
    # shellcheck disable=SC2086
    compile on W=1 $own && compile on net/ipv4/ net/ipv6/
    result $? "whole series: own files with W=1, and all of IPv4 and IPv6"
    # The feature cannot be had then: what is built in calls it.
    configure module uml CONFIG_MODULES=y CONFIG_IPV6=m "# CONFIG_MPTCP is not set" "# CONFIG_KUNIT is not set" &&
        grep -q '^CONFIG_IPV6=m' check-module/.config && ! grep -q '^CONFIG_TCP_PRESERVE' check-module/.config &&
        compile module net/ipv4/ net/ipv6/ net/core/net-traces.o && unresolved module
    result $? "whole series: IPv6 as a module, without the feature"
    configure v4 uml "# CONFIG_IPV6 is not set" && compile v4 net/ipv4/ net/core/net-traces.o && unresolved v4
    result $? "whole series: without IPv6"
    configure small uml "# CONFIG_MPTCP is not set" "# CONFIG_TCP_MD5SIG is not set" "# CONFIG_PROC_SYSCTL is not set" \
        "# CONFIG_SYN_COOKIES is not set" "# CONFIG_INET_DIAG is not set" "# CONFIG_NETFILTER is not set" &&
        compile small net/ipv4/ net/ipv6/ && unresolved small
    result $? "whole series: without MPTCP, MD5, sysctls and the rest"
    if [ -f "$kernel/config/x86.config" ]; then
        configure x86 x86 && compile x86 net/ipv4/ net/ipv6/ && unresolved x86
        result $? "whole series: x86-64"
    fi
fi
echo "1..$count"
[ $failed = 0 ]
