#!/usr/bin/env bash
# gofmt, go vet, shell syntax, and golangci-lint of a pinned version, whose
# depguard rules in .golangci.yml are the wall between cell/ and zone/.
. "$(dirname "$0")/env.sh"

say "gofmt"
unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r ls -d 2>/dev/null | xargs -r gofmt -l)
[ -z "$unformatted" ] || fail "Not formatted (run gofmt -w):" "$unformatted"

say "bash -n scripts"
for script in scripts/*.sh .ci/run; do bash -n "$script"; done

say "docs/dependencies.md"
direct=$(go list -m -f '{{if not (or .Indirect .Main)}}{{.Path}}{{end}}' all | sort)
listed=$(sed -n 's/^| `\([^`]*\)` |.*/\1/p' docs/dependencies.md | sort)
diff -u --label "direct dependencies in go.mod" <(echo "$direct") --label "docs/dependencies.md" <(echo "$listed") ||
	fail "docs/dependencies.md must have one line for each direct dependency of go.mod, and no other."

say "docs/adr/README.md"
for record in docs/adr/[0-9]*.md; do
	grep -qF "(${record##*/})" docs/adr/README.md || fail "$record is not in the index, docs/adr/README.md."
done

say "go vet"
go vet ./...

linter=$top/.cache/bin/golangci-lint
is_pinned() { [ -x "$1" ] && "$1" version 2>/dev/null | grep -q "version ${golangci_version#v} "; }
if ! is_pinned "$linter"; then
	other=$(command -v golangci-lint || true)
	if [ -n "$other" ] && is_pinned "$other"; then
		linter=$other
	else
		say "Building golangci-lint $golangci_version (about three minutes, once)"
		GOBIN=$top/.cache/bin GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci_version"
	fi
fi
say "golangci-lint $golangci_version"
scripts/lint-wall.sh "$linter"
"$linter" run --timeout 15m ./...
say "Lint: no findings"
