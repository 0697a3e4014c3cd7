#!/usr/bin/env bash
# Prints the packages that have tests, one a line: with "race" those to test under
# the race detector, with "plain" the others. A test that links k8s.io takes
# many minutes to compile with the detector on two cores, so those go without.
. "$(dirname "$0")/env.sh"

case ${1:-} in
race) keep=0 ;;
plain) keep=1 ;;
*) fail "usage: scripts/packages.sh race|plain" ;;
esac

go list -test -f '{{if eq .Name "main"}}{{.ImportPath}} {{join .Deps " "}}{{end}}' ./... |
	awk -v keep="$keep" '
		$1 !~ /\.test$/ { next }
		{ heavy = 0; for (i = 2; i <= NF; i++) if ($i ~ /^k8s\.io\//) heavy = 1
		  if (heavy == keep) { sub(/\.test$/, "", $1); print $1 } }'
