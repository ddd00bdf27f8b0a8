#!/usr/bin/env python3
"""What a live migration costs: two engines on this machine, one stream that moves between them again and again.

usage: bench/migration.py [--tokens 256,1024,4096,8192] [--moves 40] [--load 0] [--speed 4] [--path kv|recompute]

For each length: the pause (from the end of the source's last step until the destination has said that it can step the
request), and the longest gap between two tokens that the client saw around a move less its median gap. Beside them the
step of the engines, the rounds of copying, the KV bytes that crossed the transport and the CPU of all processes per
move. The prefix cache is off, so that all KV crosses each time; `--load N` lets N other streams run on both engines.
"""

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse

from processes import await_true, cluster, cpu_us, get_json

KV_BYTES_PER_TOKEN = 2048


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Stream(threading.Thread):
    """A streamed completion; keeps when each token came."""

    def __init__(self, url, name, prompt_tokens, max_tokens):
        super().__init__(daemon=True)
        self.address, self.name_, self.times, self.over = urllib.parse.urlsplit(url), name, [], False
        self.body = json.dumps({"model": "modeled", "prompt": "x" * prompt_tokens, "max_tokens": max_tokens, "stream": True,
                                "ignore_eos": True, "temperature": 0})
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=120)
        connection.request("POST", "/v1/completions", self.body,
                           {"content-type": "application/json", "x-request-id": self.name_})
        reply = connection.getresponse()
        for line in reply:
            if line.startswith(b"data: {"):
                self.times.append(time.monotonic())
        self.over = True


def post(url, path, body):
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())


def place_of(admin, name):
    for each in get_json(f"{admin}/admin/v1/requests")["requests"]:
        if each["id"] == name:
            return each["instance"]
    return None


def measure(ready, prompt_tokens, moves, name):
    stream = Stream(ready["http"], name, prompt_tokens, moves * 40 + 200)
    await_true(lambda: len(stream.times) >= 5, "the stream runs", 120)
    pids = [node["pid"] for node in ready["nodes"]]
    before, done, spans = sum(map(cpu_us, pids)), [], []
    for _ in range(moves):
        seen = len(stream.times)
        here = place_of(ready["admin"], name)
        there = next(node["instances"][0] for node in ready["nodes"] if node["instances"] and node["instances"] != [here])
        began = time.monotonic()
        (move,) = post(ready["admin"], "/admin/v1/migrate", {"request": name, "to": there})["moves"]
        spans.append((began, time.monotonic()))
        done.append(move)
        await_true(lambda: stream.over or len(stream.times) >= seen + 12, "it goes on", 60)
    spent = sum(map(cpu_us, pids)) - before
    gaps = [(b - a, a, b) for a, b in zip(stream.times, stream.times[1:])]
    median_gap = statistics.median(gap for gap, _, _ in gaps)
    around = [max((gap for gap, a, b in gaps if b >= began and a <= ended + 2 * median_gap), default=0) - median_gap
              for began, ended in spans]
    moved = [move for move in done if move["outcome"] == "moved"]
    for move in done:
        if move["outcome"] != "moved":
            print(f"    not moved: {move['outcome']}: {move['reason']}")
    if not moved:
        return
    pauses = [move["downtime_ms"] for move in moved]
    print(f"{prompt_tokens:7}  {len(moved):3} of {len(done):3}  {moved[0]['path']:9}"
          f"  {percentile(pauses, 0.5):6.2f} {percentile(pauses, 0.99):6.2f}"
          f"  {1e3 * percentile(around, 0.5):7.1f} {1e3 * percentile(around, 0.99):7.1f}  {1e3 * median_gap:6.1f}"
          f"  {statistics.mean(move['rounds'] for move in moved):5.1f}"
          f"  {statistics.mean(move['bytes'] for move in moved) / 1024:9.0f}  {spent / len(done) / 1e3:7.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="256,1024,4096,8192")
    parser.add_argument("--moves", type=int, default=40)
    parser.add_argument("--load", type=int, default=0, help="other streams that run meanwhile")
    parser.add_argument("--speed", type=float, default=4, help="of the engines; 1: about 35 ms a step")
    parser.add_argument("--path", choices=("kv", "recompute"), default="kv")
    options = parser.parse_args()
    settings = {"engine.speed": options.speed, "engine.blocks": 8192, "engine.prefix_cache": "false",
                "engine.kv_bytes_per_token": KV_BYTES_PER_TOKEN, "engine.max_num_batched_tokens": 8192,
                "transport.kind": "ucx" if options.path == "kv" else "off"}
    print(f"KV of {KV_BYTES_PER_TOKEN} bytes a token, {options.load} other streams; times in ms\n"
          " tokens       moved  path       pause    p99  gap seen    p99    step  rounds  KiB moved  CPU/move")
    with cluster("--engines", "2", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))) as ready:
        others = [Stream(ready["http"], f"other-{i}", 100, 20_000) for i in range(options.load)]
        await_true(lambda: all(other.times for other in others), "the others run", 120)
        time.sleep(2)  # until the engine nodes have dialled each other
        for i, tokens in enumerate(map(int, options.tokens.split(","))):
            measure(ready, tokens, options.moves, f"bench-{i}")


if __name__ == "__main__":
    main()
