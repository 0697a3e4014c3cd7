#!/usr/bin/env bash
# Runs go vet and every test, and ends with a summary. The exit status is not 0
# if anything failed. TESTFLAGS adds flags to go test (for example -short or -count=1).
. "$(dirname "$0")/env.sh"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$SECONDS
status=0
export CHANCERY_BINARY=$top/bin/chancery

# step runs a command, lets its output through, and remembers failure.
step() {
	local title=$1
	shift
	say "$title"
	local begun=$SECONDS
	if "$@" 2>&1 | tee -a "$log"; then
		say "$title: done in $((SECONDS - begun)) s"
	else
		say "$title: FAILED after $((SECONDS - begun)) s"
		status=1
	fi
}

# shellcheck disable=SC2086 # TESTFLAGS is a list of words
run() { go test -timeout "$1" ${TESTFLAGS:-} "${@:2}"; }
race() { CGO_ENABLED=1 run 10m -race "$@"; }

# In variables first: a failure inside <(…) would go unseen, and tests be left out in silence.
race_list=$(scripts/packages.sh race)
plain_list=$(scripts/packages.sh plain)
with_race=() without=()
if [ -n "$race_list" ]; then mapfile -t with_race <<<"$race_list"; fi
if [ -n "$plain_list" ]; then mapfile -t without <<<"$plain_list"; fi
[ $((${#with_race[@]} + ${#without[@]})) -gt 0 ] || fail "No package with tests was found: the tree does not load. Try 'go list ./...'."

step "go vet" go vet ./...
if [ ${#with_race[@]} -gt 0 ]; then step "Tests with the race detector (${#with_race[@]} packages)" race "${with_race[@]}"; fi
if [ ${#without[@]} -gt 0 ]; then step "Tests that link the Kubernetes libraries (${#without[@]} packages)" run 10m "${without[@]}"; fi

ok=$(grep -c '^ok' "$log" || true)
failed=$(grep -E '^FAIL[[:space:]]+[^[:space:]]' "$log" | awk '{print $2}' | sort -u || true)
say "$ok of $((${#with_race[@]} + ${#without[@]})) packages ok in $((SECONDS - start)) s"
if [ "$status" != 0 ]; then
	fail "FAIL ${failed:-(see above)}"
fi
say "PASS"
