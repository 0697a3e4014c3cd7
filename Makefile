# Chancery. Everything here is a thin name for a script in scripts/; each of them
# can be run by hand from anywhere. `make help` lists the targets.

DIR      ?= data
DURATION ?= 30m

.PHONY: help run build test lint bench soak fuzz clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## build, then start a demonstration zone in the foreground (DIR=data)
	@scripts/setup-go.sh
	@scripts/build.sh
	@exec scripts/run.sh "$(DIR)"

build: ## build bin/chancery
	@scripts/setup-go.sh
	@scripts/build.sh

test: ## install what the tests need, build, run every test (race detector where it is affordable)
	@scripts/setup-go.sh
	@scripts/setup-test.sh
	@scripts/build.sh
	@scripts/test.sh

lint: ## gofmt, go vet, golangci-lint with the import rule of the wall
	@scripts/setup-go.sh
	@scripts/lint.sh

bench: ## measure the S3 server against itself and, where a minio binary is present, against MinIO
	@scripts/setup-go.sh
	@scripts/build.sh
	@scripts/bench.sh

soak: ## long crash and client runs (DURATION=30m)
	@scripts/setup-go.sh
	@scripts/setup-test.sh
	@scripts/build.sh
	@scripts/soak.sh "$(DURATION)"

fuzz: ## run every fuzz target for a while each (FUZZTIME=30s)
	@scripts/setup-go.sh
	@scripts/fuzz.sh

clean: ## remove what the build made; never touches data
	@rm -rf bin .cache bench/results
