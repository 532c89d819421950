#!/bin/sh
# usage: exported_symbols.sh NM LIBRARY MAP HEADER
# The names that the header declares PSUP_API, those in the version script and those in the library's
# dynamic symbol table must be the same.
set -eu
export LC_ALL=C
nm=$1 library=$2 map=$3 header=$4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

without_comments() { tr '\n' ' ' <"$1" | sed -e 's,/\*,\n/*,g' -e 's,\*/,*/\n,g' | sed -e '/^\/\*/d'; }

"$nm" -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$tmp/library"
without_comments "$map" | grep -o '[A-Za-z0-9_]*psup_[A-Za-z0-9_]*[ ]*;' | tr -d ' ;' | sort >"$tmp/map"
without_comments "$header" | tr '\n' ' ' | sed 's/#define PSUP_API//' |
    grep -oE 'PSUP_API[^;]*;' | sed -E 's/^[^(]*[^A-Za-z0-9_](psup_[a-z0-9_]+)[ ]*\(.*/\1/' | sort >"$tmp/header"

status=0
compare() {
    if ! diff "$tmp/$1" "$tmp/$2" >"$tmp/diff"; then
        echo "exported symbols: $1 (<) and $2 (>) differ:"
        cat "$tmp/diff"
        status=1
    fi
}
compare header map
compare map library
echo "exported symbols: $(wc -l <"$tmp/library")"
exit $status
