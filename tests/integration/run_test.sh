#!/bin/sh
# Runs one integration test with the Python environment that scripts/test.sh prepares.
# Usage: run_test.sh PYTHON TEST
set -eu
if [ ! -x "$1" ] || ! "$1" -c 'import openai' 2>/dev/null; then
  echo "The integration tests need $1 with the openai package: scripts/test.sh makes it." >&2
  exit 1
fi
cd "$(dirname "$0")"
exec "$1" -B "$2" -v
