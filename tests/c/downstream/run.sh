#!/bin/sh
# usage: run.sh CMAKE BUILD_DIRECTORY CC
# Installs libpysup, moves the tree elsewhere, and builds and runs programs against it: by its CMake package, and by
# its pkg-config file where there is pkg-config.
set -eu
cmake=$1 build=$2 cc=$3
here=$(dirname "$0")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

"$cmake" --install "$build" --component devel --prefix "$tmp/first" >/dev/null
mv "$tmp/first" "$tmp/prefix"

"$cmake" -S "$here" -B "$tmp/build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$tmp/prefix" >/dev/null
"$cmake" --build "$tmp/build" >/dev/null
"$tmp/build/with_pysup"
"$tmp/build/with_pysup_shared"

if command -v pkg-config >/dev/null; then
    PKG_CONFIG_PATH=$(dirname "$(find "$tmp/prefix" -name libpysup.pc)")
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046
    "$cc" -o "$tmp/with_pkg_config" "$here/main.c" $(pkg-config --cflags --libs libpysup)
    LD_LIBRARY_PATH=$(pkg-config --variable=libdir libpysup) "$tmp/with_pkg_config"
fi
