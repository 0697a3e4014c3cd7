#!/usr/bin/env bash
# Long runs: the crash suite for the given time, and the client tests on large
# inputs (a 1 GiB file, a tree of 5,000 files, the Go source tree).
. "$(dirname "$0")/env.sh"
duration=${1:-30m}
say "Soak: crash suite for $duration, clients on large inputs"
export CHANCERY_BINARY=$top/bin/chancery SOAK=1 CHANCERY_CRASH_TIME=$duration
go test -count=1 -v -timeout 24h ./test/...
