#!/bin/bash
# The kernel half: build it, boot it, test it.
#
#   kernel/test.sh [--config lean|debug] [--fetch-only] [--build-only] [--run COMMAND] [TEST...]
#
#   --config     lean (the default), or debug: with lockdep, KASAN and kmemleak
#   --fetch-only get the kernel source and apply the series
#   --build-only and compile
#   --run        boot, run this command in the selftests' directory, print what it prints
#
# The kernel is Debian's linux-source-6.12 with kernel/patches, built as User Mode Linux and run as a process; the
# machine's own kernel is not touched. Output is TAP: KUnit, then the selftests (all, or those named), then whether
# the guest's kernel warned of anything. Source and builds are kept in $NAMESOCKET_KERNEL_CACHE (default
# /var/tmp/namesocket-kernel), by the hash of what they are made from. Needs 4 GB there, Debian 12's apt, and root
# to install what is missing. The last line is the count; the exit status is 0 only if nothing failed.
set -u
kernel=$(cd "$(dirname "$0")" && pwd)
cache=${NAMESOCKET_KERNEL_CACHE:-/var/tmp/namesocket-kernel}
config=lean stop= run= tests=
while [ $# -gt 0 ]; do
    case $1 in
    --config) config=$2; shift ;;
    --fetch-only) stop=fetch ;;
    --build-only) stop=build ;;
    --run) run=$2; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) echo "test.sh: unknown option $1 (--help)" >&2; exit 2 ;;
    *) tests="$tests $1" ;;
    esac
    shift
done
[ -f "$kernel/config/$config.config" ] || { echo "test.sh: no configuration $config (--help)" >&2; exit 2; }
jobs=${NAMESOCKET_KERNEL_JOBS:-$(nproc)}
selftests=tools/testing/selftests/net/tcp_preserve

fail() {
    echo "test.sh: $*" >&2
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

tools() {
    local missing= pair
    for pair in gcc:gcc make:make flex:flex bison:bison bc:bc xz:xz-utils patch:patch ip:iproute2 nft:nftables; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" > /dev/null || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    echo "# installing:$missing"
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $missing > "$cache/apt.log" 2>&1 ||
        { tail "$cache/apt.log"; fail "please install:$missing"; }
}

# Debian 12 has the package in its security suite; where that is not among the machine's sources, it is looked for
# in the backports of the mirror that the machine uses.
download() {
    ls linux-source-6.12_*.deb > /dev/null 2>&1 && return 0
    apt-get update -q > apt.log 2>&1
    apt-get download linux-source-6.12 > apt.log 2>&1 && return 0
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -n 1)
    [ -n "$mirror" ] || { tail apt.log; return 1; }
    mkdir -p lists/partial
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" > sources.list
    set -- -o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$PWD/lists"
    apt-get "$@" update -q > apt.log 2>&1 && apt-get "$@" download linux-source-6.12 > apt.log 2>&1 ||
        { tail apt.log; return 1; }
}

# What a patch does; what is said about it does not change the kernel.
changes() {
    sed -n '/^diff --git/,$p' "$1"
}

# The tree is kept; when the series changes, patches are taken off it from the end to the first that changed, and
# the new ones put on, so that only what changed is compiled again.
series() {
    local deb p name keep=yes undo=
    deb=$(ls linux-source-6.12_*.deb | sort -V | tail -n 1)
    series_hash=$(for p in "$kernel"/patches/*.patch; do changes "$p"; done | sha256sum | cut -c 1-16)-${deb%.deb}
    [ "$(cat series.stamp 2> /dev/null)" != "$series_hash" ] || return 0
    rm -f series.stamp
    if [ "$(cat deb.stamp 2> /dev/null)" = "$deb" ]; then
        for p in applied/*.patch; do
            [ -f "$p" ] || continue
            name=${p#applied/}
            [ "$(changes "$p")" = "$(changes "$kernel/patches/$name" 2> /dev/null)" ] || keep=no
            [ $keep = yes ] || undo="$p $undo"
        done
        for p in $undo; do
            patch -R -s -f -d source -p1 < "$p" > /dev/null 2>&1 || { rm -f deb.stamp; break; }
            rm "$p"
        done
    fi
    if [ "$(cat deb.stamp 2> /dev/null)" != "$deb" ]; then
        echo "# unpacking $deb"
        rm -rf source applied unpack
        mkdir unpack source
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C unpack && tar -x -f unpack/usr/src/linux-source-6.12.tar.xz \
            -C source --strip-components=1 || return 1
        rm -rf unpack
        echo "$deb" > deb.stamp
    fi
    mkdir -p applied
    for p in "$kernel"/patches/*.patch; do
        name=${p##*/}
        case $name in 0000-*) continue ;; esac
        [ ! -f "applied/$name" ] || continue
        patch -s -f -d source -p1 < "$p" || return 1
        cp "$p" applied/
    done
    echo "$series_hash" > series.stamp
}

build() {
    local hash object=$cache/build-$config make
    mkdir -p "$object"
    hash=$(cat "$kernel/config/base.config" "$kernel/config/uml.config" "$kernel/config/$config.config" |
        sha256sum | cut -c 1-16)
    [ "$(cat "$object/stamp" 2> /dev/null)" = "$series_hash-$hash" ] && return 0
    rm -f "$object/stamp"
    make="nice make -s -C $cache/source ARCH=um SUBARCH=x86_64 O=$object"
    cat "$cache/source/kernel/configs/tiny-base.config" "$kernel/config/base.config" "$kernel/config/uml.config" \
        "$kernel/config/$config.config" > "$object/all.config"
    echo "# building the $config kernel"
    # A warning is an error.
    $make KCONFIG_ALLCONFIG="$object/all.config" allnoconfig > "$object/log" 2>&1 &&
        $make -j"$jobs" linux >> "$object/log" 2>&1 || { tail -n 40 "$object/log"; return 1; }
    if grep -A 4 warning: "$object/log"; then return 1; fi
    for option in $(sed -n 's/^\(CONFIG_[A-Z0-9_]*=y\)$/\1/p' "$kernel/config/base.config" "$kernel/config/$config.config"); do
        grep -q "^$option" "$object/.config" || { echo "$option did not stay"; return 1; }
    done
    gcc -O2 -Wall -o "$object/preserve" "$cache/source/$selftests/preserve.c" || return 1
    echo "$series_hash-$hash" > "$object/stamp"
}

# boot COMMAND, words separated by commas
boot() {
    timeout -k 5 "${NAMESOCKET_KERNEL_TIMEOUT:-900}" "$cache/build-$config/linux" mem=512M root=/dev/root \
        rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:1 init="$kernel/guest/init" kunit.enable=1 loglevel=7 panic=-1 \
        time-travel=inf-cpu ns_dir="$cache/source/$selftests" \
        ns_run="PRESERVE=$cache/build-$config/preserve,$1" < /dev/null 2>&1 | tr -d '\r'
}

mkdir -p "$cache" && cd "$cache" || fail "no directory $cache"
exec 8> "$cache/lock"
flock 8 || fail "cannot lock $cache"
tools
download || fail "apt has no linux-source-6.12"
series || fail "the series does not apply"
[ "$stop" != fetch ] || exit 0
build || fail "the kernel does not build"
[ "$stop" != build ] || exit 0
if [ -n "$run" ]; then
    boot "${run// /,}"
    exit
fi

log=$cache/build-$config/console
boot "./tcp_preserve.sh${tests// /,}" > "$log" 2>&1 8>&-
if grep -q '^guest: end' "$log"; then ended=yes; else ended=no; fi
passed=0 failed=0 skipped=0
result() {
    echo "$1 - $2"
    case $1 in
    not*) failed=$((failed + 1)) ;;
    *) case $2 in *'# SKIP'*) skipped=$((skipped + 1)) ;; *) passed=$((passed + 1)) ;; esac ;;
    esac
}
# KUnit prints at boot, before the first process; its lines have the kernel's time stamps.
while read -r line; do
    line=${line#\[*\] }
    case $line in
    "ok "* | "not ok "*) result "${line%% [0-9]*}" "kunit ${line#*ok }" ;;
    esac
done < <(sed -n '1,/^guest: begin/s/^\(\[[ 0-9.]*\] \)\{0,1\}  *\(\(not \)\{0,1\}ok [0-9]\)/\2/p' "$log")
if [ $((passed + failed)) -gt 0 ]; then result ok "KUnit ran"; else result "not ok" "KUnit ran"; fi
while read -r line; do
    result "${line%% [0-9]*}" "${line#*ok }"
done < <(sed -n '/^guest: begin/,$p' "$log" | grep -E '^(not )?ok [0-9]')
if [ $ended = yes ]; then result ok "the guest ran to its end"; else result "not ok" "the guest ran to its end"; fi
plan=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$log" | tail -n 1)
if [ "$(grep -cE '^(not )?ok [0-9]' "$log")" = "${plan:-none}" ]; then
    result ok "as many results as planned"
else
    result "not ok" "as many results as planned"
fi
warnings='WARNING:|BUG:|Oops|Call Trace|UBSAN|KASAN|possible recursive|possible circular|inconsistent lock'
warnings="$warnings|suspicious RCU|unreferenced object|soft lockup|Kernel panic - not syncing: (?!Attempted to kill init)"
if sed -n '/^guest: end/q;p' "$log" | grep -P -A 25 "$warnings" > "$log.warnings"; then
    sed 's/^/# /' "$log.warnings"
    result "not ok" "no kernel warning"
else
    result ok "no kernel warning"
fi
[ $ended = yes ] || tail -n 30 "$log" | sed 's/^/# /'
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
