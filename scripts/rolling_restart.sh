#!/usr/bin/env bash
# A demonstration: every engine of a local cluster is stopped and comes back, one after the other, while streams run and
# each token of theirs is verified. Usage: scripts/rolling_restart.sh [ENGINES [REQUESTS [CONCURRENCY]]] (after
# scripts/build.sh); by itself 4 engines, 3000 requests, 200 at a time. LLUMNIX names another program than the built one.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${LLUMNIX:-build/release/llumnix}
engines=${1:-4}
requests=${2:-3000}
concurrency=${3:-200}
work=$(mktemp -d)
up=
load=
end() {
  for pid in $load $up; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap end EXIT

: >"$work/events" # it is looked at before the program below has begun
: >"$work/log"
"$program" up --engines "$engines" --set engine.speed=4 --http 127.0.0.1:0 --admin 127.0.0.1:0 --json >"$work/events" 2>"$work/log" &
up=$!
# has WORD [COUNT]: whether that many events of `up` say so.
has() { [[ $(grep -c "$1" "$work/events") -ge ${2:-1} ]]; }
await() {
  local deadline=$((SECONDS + 60))
  until "$@"; do
    kill -0 "$up" 2>/dev/null && ((SECONDS < deadline)) || { cat "$work/log" >&2; echo "gave up: $*" >&2; exit 1; }
    sleep 0.05
  done
}
await has '"event":"ready"'
# field NAME: the cluster's own of `ready`; those of its nodes come after it.
field() { grep -m1 '"event":"ready"' "$work/events" | grep -o "\"$1\":\"[^\"]*\"" | sed -n '1s/.*:"\(.*\)"/\1/p'; }
http=$(field http)
admin=$(field admin)
is_ready() { "$program" status --admin "${admin#http://}" | grep -Eq "^$1 .* ready "; }

"$program" load "$http" --requests "$requests" --concurrency "$concurrency" --max-tokens 60-160 --verify >"$work/load" 2>&1 &
load=$!
sleep 1
for ((i = 0; i < engines; ++i)); do
  pid=$(grep -o "\"node\":\"engine-$i\",\"pid\":[0-9]*" "$work/events" | tail -1 | grep -o '[0-9]*$')
  echo "engine-$i (pid $pid): SIGTERM"
  kill -TERM "$pid"
  await has "\"event\":\"node_restarted\".*\"engine-$i\""
  await is_ready "engine-$i"
  echo "engine-$i is back"
done
code=0
wait "$load" || code=$?
load=
cat "$work/load"
exit "$code"
