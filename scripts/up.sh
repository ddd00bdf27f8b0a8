#!/usr/bin/env bash
# Builds what is missing and starts a cluster on this machine; options are those of `llumnix up`.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/build.sh" >&2
exec "$root/build/release/llumnix" up "$@"
