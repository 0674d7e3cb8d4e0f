#!/bin/sh
# Chapter 6.3 of the thesis with the kernel half: telnet to a line server, the link fails, the line typed after that
# is answered over the other link. Nothing but the kernels, which are guests, knows of it.
#
#   tools/demo-kernel.sh
#
# Builds the kernel first if need be (kernel/test.sh --help says what that takes). The exit status is 0 if the answer
# came over the other link.
case ${1-} in
-h | --help) sed -n '2,/^case/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
?*) echo "demo-kernel.sh: unknown argument $1 (--help)" >&2; exit 2 ;;
esac
kernel=$(cd "$(dirname "$0")/../kernel" && pwd) || exit 1
shown=$(mktemp) || exit 1
trap 'rm -f "$shown"' EXIT
"$kernel/test.sh" --run "$kernel/guest/demo.sh" > "$shown" 2>&1
sed -n '/^guest: begin/,/^guest: exit/{/^guest:/d;p}' "$shown"
grep -q '^guest: exit 0' "$shown" || { tail -n 5 "$shown" >&2; exit 1; }
