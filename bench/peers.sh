#!/usr/bin/env bash
# Ours beside plain proxies and other gateways, all in one run: CPU per request and per token, and the ratio to nginx.
#   bench/peers.sh [--reps N] [--workloads W1,W3] [PEER...]     default: direct nginx haproxy smg-rr ours
# The workloads, the engine they run against and the other gateways are the harness of shared/peers, which is not part of
# this repository. PEERS names its directory, LAB where peers are installed and results go (default build/peers).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers=${PEERS:-$root/../shared/peers}

options=() names=()
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,5s/^# \?//p' "$0"; exit 0 ;;
    --*) options+=("$1" "${2:?$1 wants a value}"); shift 2 ;;
    *) names+=("$1"); shift ;;
  esac
done
((${#names[@]})) || names=(direct nginx haproxy smg-rr ours)

if [[ ! -f $peers/run.sh ]]; then
  echo "bench/peers.sh: there is no run.sh in $peers" >&2
  echo "The harness comes with this project's shared files: put them beside the checkout, as ../shared, or name the" >&2
  echo "directory with PEERS=DIR." >&2
  exit 2
fi
if [[ ! -x $root/build/release/llumnix ]]; then
  echo "bench/peers.sh: build first, with scripts/build.sh" >&2
  exit 2
fi
export LAB=${LAB:-$root/build/peers} OURS=$root PYTHONDONTWRITEBYTECODE=1
mkdir -p "$LAB"

for peer in "${names[@]}"; do
  [[ -e $LAB/.ready-$peer ]] && continue
  echo "bench/peers.sh: setting up $peer" >&2
  bash "$peers/run.sh" --setup "$peer" >&2
  touch "$LAB/.ready-$peer"
done
exec bash "$peers/run.sh" "${options[@]}" "${names[@]}"
