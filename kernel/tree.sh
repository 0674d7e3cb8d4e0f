# shellcheck shell=bash
# The kernel source and what is built from it; read by test.sh and bench.sh.
#
# The kernel is Debian's linux-source-6.12. In the cache ($NAMESOCKET_KERNEL_CACHE, else
# ${XDG_CACHE_HOME:-~/.cache}/namesocket/kernel):
#
#   linux-source-6.12_*.deb   the package; a newer one is fetched when this is deleted
#   plain/                    the package's tree with uml-xstate.patch, shared by hard links with
#   source/, applied/         the tree with the series, and the patches as they were applied
#   build-CONFIG/             a kernel of source/; build-CONFIG-plain/ one of plain/
#   build-CONFIG/stamp        the hash of the series and the configuration that it was built from
#   run-CONFIG/, run-CONFIG.N/  what a guest, the N-th of several, said last: output, and its kernel's messages
#
# There is one build of a configuration; when series or configuration change, only what changed is compiled, in
# place. Builds that nobody asked for in 30 days are deleted.

kernel=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${NAMESOCKET_KERNEL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/namesocket/kernel}
jobs=${NAMESOCKET_KERNEL_JOBS:-$(nproc)}
selftests=tools/testing/selftests/net/tcp_preserve
# The version that the series was last tested with; any other is taken where there is none.
version=6.12.117-1~deb12u1

# Words of a configuration: its machine (a file of config/), and more files of config/.
configuration() {
    case $1 in
    lean | demo | both | peer) echo uml ;;
    debug) echo uml debug ;;
    smp | load) echo x86 smp ;;
    kcsan) echo x86 kcsan ;;
    off) echo uml off ;;
    bench) echo x86 bench ;;
    *) return 1 ;;
    esac
}

# Names of commands that are missing, of those that the configurations named need.
missing_commands() {
    local command all="gcc make flex bison bc xz patch ip tc nft sysctl"
    for command; do
        case $(configuration "$command") in x86*) all="$all qemu-system-x86_64" ;; esac
    done
    for command in $all; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" > /dev/null || echo "$command"
    done
}

# Is there room for what is not there yet? In kilobytes: the source, and one build.
room() {
    local need=1000000
    [ -f deb.stamp ] || need=4000000
    [ "$(df --output=avail . | tail -n 1)" -gt $need ]
}

# Debian 12 has the package in its security suite; where that is not among the machine's sources, it is looked for
# in the backports of the mirror that the machine uses.
download() {
    ls linux-source-6.12_*.deb > /dev/null 2>&1 && return 0
    echo "# downloading linux-source-6.12"
    {
        apt-get download linux-source-6.12=$version || apt-get update -q
        ls linux-source-6.12_*.deb || apt-get download linux-source-6.12=$version ||
            apt-get download linux-source-6.12
    } > apt.log 2>&1 && return 0
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' 2>> apt.log | head -n 1)
    [ -n "$mirror" ] || { tail apt.log; return 1; }
    mkdir -p lists/partial
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" > sources.list
    set -- -o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$PWD/lists"
    apt-get "$@" update -q > apt.log 2>&1 && apt-get "$@" download linux-source-6.12 > apt.log 2>&1 ||
        { tail apt.log; return 1; }
}

unpack() {
    local stamp
    deb=$(ls linux-source-6.12_*.deb | sort -V | tail -n 1)
    stamp="$deb $(sha256sum < "$kernel/uml-xstate.patch" | cut -c 1-16)"
    [ "$(cat deb.stamp 2> /dev/null)" != "$stamp" ] || return 0
    echo "# unpacking $deb"
    rm -rf plain source applied unpack build-*
    mkdir unpack plain
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C unpack && tar -x -f unpack/usr/src/linux-source-6.12.tar.xz \
        -C plain --strip-components=1 || return 1
    rm -rf unpack
    patch -s -f -d plain -p1 < "$kernel/uml-xstate.patch" || return 1
    echo "$stamp" > deb.stamp
}

# What a patch does; what is said about it does not change the kernel.
changes() {
    sed -n '/^diff --git/,$p' "$1"
}

# The tree is kept; when the series changes, patches are taken off it from the end to the first that changed, and
# the new ones put on, and files that end up as before keep their time, so that only what changed is compiled again.
series() {
    local p name keep=yes undo=
    series_hash=$(for p in "$kernel"/patches/*.patch; do changes "$p"; done | sha256sum | cut -c 1-16)-${deb%.deb}
    [ "$(cat series.stamp 2> /dev/null)" != "$series_hash" ] || return 0
    rm -f series.stamp
    # patch writes a new file and renames it, so before/, and plain/, stay as they are.
    rm -rf before
    mkdir before
    (cd source 2> /dev/null && sed -n 's|^+++ b/||p' ../applied/*.patch | sort -u | xargs -r cp -al --parents -t ../before)
    for p in applied/*.patch; do
        [ -f "$p" ] || continue
        name=${p#applied/}
        [ "$(changes "$p")" = "$(changes "$kernel/patches/$name" 2> /dev/null)" ] || keep=no
        [ $keep = yes ] || undo="$p $undo"
    done
    for p in $undo; do
        patch -R -s -f -d source -p1 < "$p" > /dev/null 2>&1 || { rm -rf source; break; }
        rm "$p"
    done
    if [ ! -f source/Makefile ]; then
        rm -rf source applied
        cp -al plain source || return 1
    fi
    mkdir -p applied
    for p in "$kernel"/patches/*.patch; do
        name=${p##*/}
        case $name in 0000-*) continue ;; esac
        [ ! -f "applied/$name" ] || continue
        patch -s -f -d source -p1 < "$p" || { rm -rf source applied; return 1; }
        cp "$p" applied/
    done
    # What came to be what it was is the same file again, or make would compile what includes it.
    (cd before && find . -type f) | while read -r p; do
        if ! [ "before/$p" -ef "source/$p" ] && cmp -s "before/$p" "source/$p"; then mv "before/$p" "source/$p"; fi
    done
    rm -rf before
    echo "$series_hash" > series.stamp
}

# The package and the tree; 2 when there is no package to be had.
tree() {
    download || return 2
    unpack && series
}

# The directory of a configuration's build
object() {
    case $1 in
    load) echo build-smp ;;
    demo | both | peer) echo build-lean ;;
    *) echo "build-$1" ;;
    esac
}

# build CONFIG [plain]
build() {
    local files f hash tree=source object make arch target
    object=$(object "$1")
    files="$cache/plain/kernel/configs/tiny-base.config $kernel/config/base.config"
    for f in $(configuration "$1"); do files="$files $kernel/config/$f.config"; done
    case $(configuration "$1") in
    uml*) arch="ARCH=um SUBARCH=x86_64" target=linux ;;
    *) arch=ARCH=x86_64 target=bzImage ;;
    esac
    [ "${2-}" != plain ] || tree=plain object=$object-plain
    mkdir -p "$object"
    # shellcheck disable=SC2086
    hash=$(cat $files | sha256sum | cut -c 1-16)
    if [ $tree = plain ]; then hash=${deb%.deb}-$hash; else hash=$series_hash-$hash; fi
    touch "$object"
    [ "$(cat "$object/stamp" 2> /dev/null)" != "$hash" ] || return 0
    rm -f "$object/stamp"
    # The last word about an option counts.
    # shellcheck disable=SC2086
    cat $files | awk -F= '/^CONFIG_/ { value[$1] = $2 } END { for (o in value) print o "=" value[o] }' |
        sort > "$object/all.config"
    echo "# building the ${object#build-} kernel"
    make="make -s -C $cache/$tree $arch O=$cache/$object"
    # A warning is an error.
    $make KCONFIG_ALLCONFIG="$cache/$object/all.config" allnoconfig > "$object/log" 2>&1 &&
        $make -j"$jobs" $target >> "$object/log" 2>&1 || { tail -n 40 "$object/log"; return 1; }
    if grep -A 4 warning: "$object/log"; then return 1; fi
    # Options stay as they were given; a plain tree does not know all of them.
    sed -n '/=y$/p' "$object/all.config" | while read -r f; do
        grep -qx "$f" "$object/.config" || case $tree:$f in plain:CONFIG_TCP_PRESERVE*) ;; *) echo "$f did not stay" ;; esac
    done | grep . && return 1
    gcc -O2 -Wall -o "$object/preserve" "source/$selftests/preserve.c" || return 1
    echo "$hash" > "$object/stamp"
}

prune() {
    find . -maxdepth 1 -name 'build-*' -mtime +30 -exec rm -rf {} +
}
