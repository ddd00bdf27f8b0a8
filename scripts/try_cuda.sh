#!/usr/bin/env bash
# The KV plane on this machine's GPU: builds it with its tests and its benchmark, and runs them. See --help.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
build="${LLUMNIX_CUDA_BUILD:-$root/build/cuda}"

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  cat <<END
Usage: scripts/try_cuda.sh

Builds transport/ alone, with CUDA, its tests and its benchmark, in $build, and runs them on this machine's GPU. It ends
with 1 if a test failed or there is no GPU; then the benchmark prints its figures, and compute-sanitizer, where there
is one, looks for accesses out of bounds.

It needs nvcc 12.1 or later, g++ 12 or later, CMake, and of Debian or Ubuntu:
  libucx-dev libxxhash-dev libssl-dev libspdlog-dev nlohmann-json3-dev doctest-dev ninja-build

  LLUMNIX_CUDA_BUILD           where to build
  LLUMNIX_CUDA_ARCHITECTURES   for which GPUs; as it is: 80;90
END
  exit
fi

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLUMNIX_ONLY_TRANSPORT=ON -DLLUMNIX_CUDA=ON \
  ${LLUMNIX_CUDA_ARCHITECTURES:+-DLLUMNIX_CUDA_ARCHITECTURES="$LLUMNIX_CUDA_ARCHITECTURES"}
cmake --build "$build"

tests="$build/tests/transport"
export LLUMNIX_GPU=required
failed=0
"$tests/test_transport_cuda" -d || failed=1
"$tests/test_transport_cuda_ucx" -d || failed=1
if command -v compute-sanitizer >/dev/null; then
  compute-sanitizer --tool memcheck --error-exitcode 1 "$tests/test_transport_cuda" -sf='*device_test*' || failed=1
fi
"$build/bench/bench_kv_cuda"
exit "$failed"
