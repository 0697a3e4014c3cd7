#!/usr/bin/env bash
# Installs the programs that the tests drive, if they are missing: real S3
# clients, and a C compiler for the race detector. Runs twice without harm.
. "$(dirname "$0")/env.sh"

missing=()
need() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
need aws awscli
need rclone rclone
need s3cmd s3cmd
need restic restic
need gcc gcc libc6-dev

if [ ${#missing[@]} -gt 0 ]; then
	say "Installing ${missing[*]}"
	apt_install "${missing[@]}"
fi
say "Test programs present: aws rclone s3cmd restic gcc"
