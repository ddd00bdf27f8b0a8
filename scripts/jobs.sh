#!/usr/bin/env bash
# How many files are compiled at once: one for each processor, as far as memory goes (2 GiB each).
set -euo pipefail
memory=$(awk '/^MemAvailable:/ { print int($2 / (2 * 1024 * 1024)) }' /proc/meminfo)
processors=$(nproc)
jobs=$((memory < processors ? memory : processors))
echo $((jobs > 1 ? jobs : 1))
