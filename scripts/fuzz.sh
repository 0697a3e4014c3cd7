#!/usr/bin/env bash
# Runs each fuzz target of the tree for FUZZTIME (30s). Go fuzzes one target at a time.
. "$(dirname "$0")/env.sh"
found=0
while IFS=: read -r file target; do
	found=1
	say "fuzz $target in ./$(dirname "$file")"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}" "./$(dirname "$file")"
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/func //')
[ "$found" = 1 ] || fail "No fuzz targets found."
say "Fuzz: no failures"
