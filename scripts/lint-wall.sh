#!/usr/bin/env bash
# Shows that the import rule bites: a small throw-away module breaks every rule of
# the wall and the ladder once, and each must be found, and nothing else. A rule
# with a typing error in a path would otherwise pass everything in silence.
# Usage: scripts/lint-wall.sh GOLANGCI_LINT
. "$(dirname "$0")/env.sh"
linter=${1:?usage: scripts/lint-wall.sh GOLANGCI_LINT}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp .golangci.yml "$dir/"
printf 'module chancery\n\ngo 1.26\n' >"$dir/go.mod"

# One file for each import, so that every finding has a line of its own.
expected=$dir/expected
: >"$expected"
package() {
	mkdir -p "$dir/$1"
	local name=${1##*/}
	[ -e "$dir/$1/doc.go" ] || printf '// Package %s is part of a check of the lint rules.\npackage %s\n' "$name" "$name" >"$dir/$1/doc.go"
}
write() { # write FOLDER IMPORT NUMBER
	package "$1"
	case $2 in chancery/*) package "${2#chancery/}" ;; esac
	printf 'package %s\n\nimport _ "%s" // part of the check\n' "${1##*/}" "$2" >"$dir/$1/f$3.go"
}
n=0
bad() {
	n=$((n + 1))
	write "$1" "$2" $n
	echo "$1/f$n.go" >>"$expected"
}
good() {
	n=$((n + 1))
	write "$1" "$2" $n
}

bad cell/s3 chancery/zone/cells
bad cell/seal chancery/zone
bad zone/frontdoor chancery/cell/keys
bad zone/control chancery/cell
bad internal/store chancery/wall
bad internal/store chancery/cell/keys
bad internal/files chancery/zone
bad wall chancery/cell/identity
bad api/v1 chancery/zone/cells
bad prove chancery/cell/seal
bad custodian chancery/cell/seal
bad client chancery/zone
bad zone chancery/custodian/tool
bad cell/seal chancery/custodian/tool
bad zone/cells chancery/client/tool
# The ladder. A violation must not make a cycle, or nothing compiles; so each looks up from a leaf.
bad cell/console chancery/cell/ai
bad cell/control chancery/cell/s3
bad cell/objects chancery/cell/embassy
bad cell/policy chancery/cell/console/pages
bad cell/identity chancery/cell/objects/part
bad cell/blobs chancery/cell/policy/part
bad cell/keys chancery/cell/blobs/part
bad cell/seal chancery/cell/keys/part
bad cell/ledger chancery/cell/keys/part
bad zone/cells math/rand
bad zone/cells crypto/md5
bad cell/keys crypto/sha1
bad internal/files crypto/des
# What must stay allowed.
good cell/s3 chancery/cell/objects
good cell/s3 crypto/md5
good cell/objects crypto/sha1
good cell/objects chancery/cell/keys
good cell/keys chancery/cell/seal
good cell/s3 chancery/wall
good zone/control chancery/wall
good zone/cells math/rand/v2
good cell chancery/cell/s3

found=$dir/found
(cd "$dir" && "$linter" run --enable-only depguard ./... 2>&1 || true) | tee "$dir/output" | sed -n 's/^\([^:]*\.go\):.*(depguard)$/\1/p' | sort -u >"$found"
sort -u -o "$expected" "$expected"
if ! diff -u --label "must be refused" "$expected" --label "is refused" "$found"; then
	cat "$dir/output"
	fail "The import rule of .golangci.yml does not do what scripts/lint-wall.sh asks of it."
fi
say "The wall's import rule: $(wc -l <"$expected") violations planted, all found, nothing else"
