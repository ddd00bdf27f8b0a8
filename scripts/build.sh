#!/usr/bin/env bash
# Installs what is missing and builds build/release/llumnix, or the targets of CMake that are named: `all` is everything. A second run
# with nothing to do takes less than a second.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  build-essential cmake ninja-build ccache mold
  libcaf-dev libboost1.81-dev libssl-dev nlohmann-json3-dev doctest-dev libspdlog-dev libhiredis-dev
  libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc prometheus-cpp-dev libcli11-dev libsimdjson-dev libjemalloc-dev libxxhash-dev
  libzmq3-dev cppzmq-dev libucx-dev redis-server python3-venv
)

missing() {
  comm -23 <(printf '%s\n' "${packages[@]}" | sort) \
    <(dpkg-query -W -f '${db:Status-Abbrev}|${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^ii *|//p' | sort)
}

mapfile -t wanted < <(missing)
if ((${#wanted[@]} > 0)); then
  as_root=()
  if ((EUID != 0)); then
    as_root=(sudo)
  fi
  echo "Installing: ${wanted[*]}" >&2
  # RUNLEVEL=1: the packages' services, Redis above all, are not started.
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${wanted[@]}" >&2
fi

if [[ ! -f build/release/build.ninja ]]; then
  cmake --preset release
fi
targets=("$@")
if ((${#targets[@]} == 0)); then
  targets=(llumnix)
fi
cmake --build build/release -j "$(scripts/jobs.sh)" --target "${targets[@]}"
