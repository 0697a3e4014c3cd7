#!/usr/bin/env bash
# Builds bin/chancery: static, reproducible paths, version inside. A first build
# compiles about a thousand packages, so it tells how far it is.
. "$(dirname "$0")/env.sh"

out=${1:-bin/chancery}
version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)

say "Fetching modules"
total=$(go list -deps ./cmd/chancery | wc -l)
say "Building $out $version (the first build takes about five minutes on two cores)"
mkdir -p "$(dirname "$out")"
start=$SECONDS
go build -v -buildvcs=false \
	-ldflags "-X k8s.io/component-base/version.gitVersion=$kubernetes_version -X main.version=$version" \
	-o "$out" ./cmd/chancery 2>&1 |
	awk -v total="$total" '
		/^[A-Za-z0-9_.\/~-]+$/ { n++; if (n % 50 == 0) { printf "   compiled %d of at most %d packages\n", n, total; fflush() } next }
		{ print; fflush() }'
say "Built $out in $((SECONDS - start)) s"
