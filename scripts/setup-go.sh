#!/usr/bin/env bash
# Makes sure that a Go toolchain of the version that go.mod asks for can run here.
# A Go from 1.21 on fetches the exact version by itself (GOTOOLCHAIN).
. "$(dirname "$0")/env.sh"

want=$(awk '$1 == "go" {print $2; exit}' go.mod)

if ! command -v go >/dev/null; then
	say "No Go here; looking in the Debian packages"
	command -v apt-get >/dev/null || fail "Go $want or later is needed and apt-get is not here. Install Go (https://go.dev/doc/install), then try again."
	as_root apt-get -q update >/dev/null || true
	newest=$(apt-cache search --names-only '^golang-1\.[0-9]+-go$' | awk '{print $1}' | sort -t. -k2 -n | tail -n 1)
	minor=${newest#golang-1.}
	minor=${minor%-go}
	if [ -z "$newest" ] || [ "$minor" -lt 21 ]; then
		fail "Debian's newest Go here is ${newest:-none}; 1.21 or later is needed, which then fetches $want by itself." "Install Go (https://go.dev/doc/install), then try again."
	fi
	apt_install "$newest" ca-certificates git
	PATH=$PATH:/usr/lib/go-1.$minor/bin
fi

have=$(go env GOVERSION 2>&1) || fail "Go $want is needed, and this Go could neither run nor fetch it:" "  $have"
have=${have#go}
have=${have%% *}
if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
	fail "Go $want or later is needed; this is Go $have ($(command -v go))." "Install a newer one (https://go.dev/doc/install), then try again."
fi
say "Go $have"
