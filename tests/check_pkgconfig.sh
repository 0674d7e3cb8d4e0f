#!/bin/sh
# check_pkgconfig.sh BUILD SOURCE MESON
# Installs BUILD into a directory of its own and, from there and by pkg-config
# alone, builds programs with the library, shared and static; then looks at what
# the two libraries export.
set -eu
build=$1 source=$2 meson=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
compiler=${CC:-cc}

die()
{
    echo "not ok: $*"
    exit 1
}

if ! DESTDIR=$dir/root "$meson" install -C "$build" --no-rebuild >"$dir/log" 2>&1; then
    cat "$dir/log"
    die "meson install"
fi
pc=$(find "$dir/root" -name namesocket.pc)
[ -n "$pc" ] || die "no namesocket.pc installed"
libdir=${pc%/pkgconfig/namesocket.pc}
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$dir/root" LD_LIBRARY_PATH="$libdir"

cat >"$dir/program.c" <<'END'
#include <namesocket.h>
#include <stdio.h>

int main(void)
{
    int server = nsocket(SOCK_CLOEXEC), client;

    if (server < 0 || nlisten(server, "0", 1) < 0)
        return 1;
    client = nsocket(SOCK_CLOEXEC);
    if (client < 0 || nclose(client) < 0 || nclose(server) < 0)
        return 1;
    puts(namesocket_version());
    return 0;
}
END
cp "$dir/program.c" "$dir/program.cc"
version=$(pkg-config --modversion namesocket)

# try NAME COMMAND...: builds "program", which then prints the version.
try()
{
    name=$1
    shift
    "$@" -o "$dir/program" >"$dir/log" 2>&1 || { cat "$dir/log"; die "$name: does not build"; }
    [ "$("$dir/program")" = "$version" ] || die "$name: does not run"
    echo "ok: $name"
}

strict="-Wall -Wextra -Werror -pedantic"
cflags=$(pkg-config --cflags namesocket)
libs=$(pkg-config --libs namesocket)
static=$(pkg-config --static --libs namesocket)
# shellcheck disable=SC2086 # the variables are lists
{
    try "shared" $compiler $strict "$dir/program.c" $cflags $libs
    ldd "$dir/program" | grep -Fq "libnamesocket.so.0 => $libdir/" || die "not the installed libnamesocket.so.0"
    try "C99" $compiler -std=c99 $strict "$dir/program.c" $cflags $libs
    if command -v "${CXX:-c++}" >/dev/null; then
        try "C++" "${CXX:-c++}" -std=c++11 $strict "$dir/program.cc" $cflags $libs
    fi
    try "archive" $compiler $strict "$dir/program.c" $cflags "$libdir/libnamesocket.a" -pthread
    ldd "$dir/program" | grep -q -e namesocket -e cares -e sodium && die "the archive needs shared libraries"
    # The linker warns that getaddrinfo wants the C library's files at run time.
    try "static" $compiler -static "$dir/program.c" $cflags $static
}

# What is exported is what the header declares, no more and no less.
sed -n 's/^NAMESOCKET_API .*[ *]\([a-z_]*\)(.*/\1/p' "$source/include/namesocket.h" | sort >"$dir/declared"
[ -s "$dir/declared" ] || die "the header declares nothing"
nm -D --defined-only "$libdir/libnamesocket.so.0" | sed -n 's/.* T \([^@]*\).*/\1/p' | sort >"$dir/shared"
nm -g --defined-only "$libdir/libnamesocket.a" | sed -n 's/.* [A-Z] //p' | sort >"$dir/archive"
diff "$dir/declared" "$dir/shared" || die "libnamesocket.so exports other names"
diff "$dir/declared" "$dir/archive" || die "libnamesocket.a exports other names"
echo "ok: exported names"
