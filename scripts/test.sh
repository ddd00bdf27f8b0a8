#!/usr/bin/env bash
# Every test of the release build, then the plain and virtual rings again with sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh

# The integration tests speak to the gateway through OpenAI's own client, in this pinned version.
openai="openai==2.8.1"
if [[ "$(cat .venv/installed 2>/dev/null || true)" != "$openai" ]]; then
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check "$openai"
  echo "$openai" >.venv/installed
fi

ctest --test-dir build/release --output-on-failure -j2

if [[ ! -f build/dev/build.ninja ]]; then
  cmake --preset dev
fi
cmake --build build/dev -j2
ctest --test-dir build/dev --output-on-failure -j2 -L "plain|virtual"
