#!/usr/bin/env bash
# Starts bin/chancery in a temporary directory on free ports, runs the load
# driver's whole matrix, and stops it. MinIO is measured beside it where a minio
# binary is in PATH. BENCHFLAGS passes flags to the driver (see bench/s3bench -h).
. "$(dirname "$0")/env.sh"
mkdir -p bench/results
out=bench/results/s3-$(date -u +%Y%m%dT%H%M%SZ).json
say "Building the load driver"
go build -o bin/s3bench ./bench/s3bench
# shellcheck disable=SC2086 # BENCHFLAGS is a list of words
exec bin/s3bench --start bin/chancery --json "$out" ${BENCHFLAGS:-}
