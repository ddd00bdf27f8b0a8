#!/usr/bin/env bash
# Compiles the KV plane's part for GPUs in build/release and runs its tests, which say that they were skipped where there is no GPU.
# Without nvcc on this machine it takes the one of the Python Package Index, in pinned versions, into .cuda/ (270 MB).
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
)

nvcc="$(command -v nvcc || true)"
if [[ -z "$nvcc" && -x /usr/local/cuda/bin/nvcc ]]; then
  nvcc=/usr/local/cuda/bin/nvcc
fi
if [[ -z "$nvcc" ]]; then
  if [[ "$(cat .cuda/installed 2>/dev/null || true)" != "${wheels[*]}" ]]; then
    rm -rf .cuda
    python3 -m venv .cuda/venv
    .cuda/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --target .cuda/toolkit "${wheels[@]}" || {
      echo "test_cuda: CUDA's compiler could not be had; the part for GPUs was not compiled" >&2
      exit 1
    }
    rm -rf .cuda/venv
    echo "${wheels[*]}" >.cuda/installed
  fi
  nvcc="$PWD/.cuda/toolkit/nvidia/cu13/bin/nvcc"
fi

scripts/build.sh
# What CMake found beside another nvcc does not stay.
cmake build/release -DLLUMNIX_CUDA=ON -DLLUMNIX_NVCC="$nvcc" -ULLUMNIX_CUDA_INCLUDE -ULLUMNIX_CUDART
cmake --build build/release -j "$(scripts/jobs.sh)" --target tests_cuda benches
ctest --test-dir build/release --no-tests=error -L '^cuda$' -V
