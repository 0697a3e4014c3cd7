#!/usr/bin/env bash
# Starts the demonstration zone in the foreground. Ctrl-C stops all of it; the
# data stays in the directory.
. "$(dirname "$0")/env.sh"
dir=${1:-data}
say "Starting a demonstration zone in $dir (Ctrl-C stops it)"
exec bin/chancery up --dir "$dir"
