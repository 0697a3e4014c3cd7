# shellcheck shell=bash
# Sourced by every script here: strict mode, the top of the tree as working
# directory, and one set of build flags. Flags that differ between steps would
# compile the whole dependency tree once for each set (minutes, not seconds), so
# build, vet, lint and test share these; only the race detector departs from them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD

for dir in /usr/local/go/bin /usr/lib/go-1.*/bin; do
	if [ -x "$dir/go" ]; then PATH=$PATH:$dir; fi
done
export PATH

export CGO_ENABLED=0
case " ${GOFLAGS:-} " in
*" -trimpath "*) ;;
*) export GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath" ;;
esac

# The version of the Kubernetes libraries in go.mod. Without it in the binary the
# version checks of kubectl, Helm and Argo CD fail.
kubernetes_version=v1.37.2
golangci_version=v2.15.0

say() { printf '%s\n' "== $*"; }
fail() {
	printf '%s\n' "$@" >&2
	exit 1
}

# as_root runs a command as root: directly, or with sudo. It never asks for a
# password when nobody is there to type it.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		sudo "$@"
	else
		return 126
	fi
}

# apt_install installs Debian packages, or says plainly what to install by hand.
apt_install() {
	command -v apt-get >/dev/null || fail "This machine has no apt-get. Please install by hand what is missing: $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null || {
		[ $? != 126 ] || fail "Missing packages: $*" "Installing them needs root: run 'sudo apt-get install $*', then try again."
		printf '%s\n' "apt-get update failed; trying with the lists that are here" >&2
	}
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$@" >/dev/null </dev/null ||
		fail "Could not install: $*" "Run 'sudo apt-get install $*' by hand, then try again."
}
