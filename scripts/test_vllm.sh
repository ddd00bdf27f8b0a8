#!/usr/bin/env bash
# Compares replies through the gateway with those of a real vLLM, token for token. See --help.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
home="${LLUMNIX_VLLM_HOME:-$root/.vllm}"

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  cat <<END
Usage: scripts/test_vllm.sh [--engines URL,URL]

Installs vLLM as scripts/try_vllm.sh does, starts two engines, kills them on the way, and says in a line what each check
compared. Ends with 1 if anything differed. Ten minutes; it needs what scripts/try_vllm.sh needs.

  --engines URL,URL   those that a running scripts/try_vllm.sh has printed: in two minutes, but for what kills engines
END
  exit
fi

"$root/scripts/try_vllm.sh" --install-only
if [[ -z "${LLUMNIX:-}" ]]; then
  "$root/scripts/build.sh" >&2
fi
exec "$home/venv/bin/python" -B "$root/tests/integration/vllm_check.py" --home "$home" "$@"
