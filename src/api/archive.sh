#!/bin/sh
# archive.sh COMPILER OBJCOPY AR MAP OUTPUT.a INPUT.a [LINKER ARGUMENT...]
# Makes an archive with one object: everything in INPUT and what that needs of
# the libraries in the arguments. Only the names under "global" in MAP stay global.
set -eu
compiler=$1 objcopy=$2 ar=$3 map=$4 output=$5 input=$6
shift 6
object=${output%.a}.o
"$compiler" -r -nostdlib -o "$object" -Wl,--whole-archive "$input" -Wl,--no-whole-archive "$@"
sed -n '/^global:/,/^local:/s/^ *\([a-z_]*\);$/\1/p' "$map" >"$object.names"
"$objcopy" --keep-global-symbols="$object.names" "$object"
rm -f "$output" "$object.names"
"$ar" rcsD "$output" "$object"
rm -f "$object"
