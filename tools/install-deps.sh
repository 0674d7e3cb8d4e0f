#!/bin/sh
# Installs what namesocket needs from Debian 12: to build, for the demonstration, for all tests.
#
#   tools/install-deps.sh [--check] [build|demo|test|kernel]
#
# build   compiler, Meson, libraries
# demo    build, and what tools/demo.sh runs
# test    demo, and what tools/test.sh runs (the default)
# kernel  test, and what kernel/test.sh and kernel/bench.sh run in QEMU
#
# --check installs nothing and says what is missing.
#
# The servers among them are for the tests to start: as services they are neither started nor enabled, unless they
# were there before.
#
# Only missing packages are asked for. Needs root or sudo when there are any.
# Exit status: 0 nothing is missing (any more); 1 something is; 2 bad usage.
set -u

build='gcc libc6-dev meson ninja-build pkg-config libuv1-dev libc-ares-dev libsodium-dev check scdoc'
demo="$build python3 iproute2 util-linux nftables dnsmasq-base telnet"
programs='netcat-openbsd socat redis-server redis-tools iperf3 curl openssh-client openssh-server git rsync nginx
    apache2-bin memcached mosquitto mosquitto-clients nodejs golang-go'
test="$demo clang valgrind strace libpython3.11-testsuite bc bison flex make patch procps xz-utils $programs"
kernel="$test libelf-dev qemu-system-x86"

check=no wanted=test
for arg; do
    case $arg in
    --check) check=yes ;;
    build | demo | test | kernel) wanted=$arg ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "install-deps.sh: unknown argument $arg (--help)" >&2; exit 2 ;;
    esac
done
eval "packages=\$$wanted"

# What a package is for is there already when it was installed by another way.
provided() {
    case $1 in
    meson | telnet | curl | socat | iperf3 | clang | valgrind | strace | scdoc | gcc | python3) command -v "$1" ;;
    bc | bison | flex | make | patch | git | rsync) command -v "$1" ;;
    procps) command -v sysctl || ls /usr/sbin/sysctl /sbin/sysctl 2> /dev/null ;;
    qemu-system-x86) command -v qemu-system-x86_64 ;;
    xz-utils) command -v xz ;;
    ninja-build) command -v ninja ;;
    netcat-openbsd) nc -h 2>&1 | grep -q OpenBSD ;;
    dnsmasq-base) command -v dnsmasq || ls /usr/sbin/dnsmasq 2> /dev/null ;;
    redis-tools) command -v redis-cli ;;
    redis-server) command -v redis-server ;;
    nginx | memcached | mosquitto) command -v "$1" || ls "/usr/sbin/$1" 2> /dev/null ;;
    mosquitto-clients) command -v mosquitto_pub ;;
    openssh-client) command -v ssh ;;
    openssh-server) ls /usr/sbin/sshd 2> /dev/null ;;
    apache2-bin) ls /usr/sbin/apache2 2> /dev/null ;;
    nodejs) command -v node ;;
    golang-go) command -v go ;;
    nftables) command -v nft || ls /usr/sbin/nft 2> /dev/null ;;
    *) false ;;
    esac > /dev/null
}

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' ||
        provided "$package" || missing="$missing $package"
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ $check = yes ]; then
    echo "missing: $missing"
    exit 1
fi
if ! command -v apt-get > /dev/null; then
    echo "install-deps.sh: this is not Debian; please install what these packages hold: $missing" >&2
    exit 1
elif [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo > /dev/null && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "install-deps.sh: not root, and sudo does not work here. Please have these installed:" >&2
    echo "    apt-get install $missing" >&2
    exit 1
fi

# invoke-rc.d and deb-systemd-invoke ask this file whether a package may start its service.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy > /dev/null; then
    trap '$as_root rm -f $policy' EXIT
    trap 'exit 1' INT TERM
    $as_root chmod 755 $policy
fi

echo "installing: $missing"
# shellcheck disable=SC2086
$as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends $missing || {
    echo "install-deps.sh: apt-get could not install: $missing" >&2
    exit 1
}
if command -v systemctl > /dev/null; then
    # shellcheck disable=SC2086
    for service in $(dpkg -L $missing | sed -n 's|^\(/usr\)\{0,1\}/lib/systemd/system/\(.*[^@]\.service\)$|\2|p'); do
        $as_root systemctl disable "$service" > /dev/null 2>&1
    done
fi
exit 0
