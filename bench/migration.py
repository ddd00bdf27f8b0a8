#!/usr/bin/env python3
"""What a live migration costs: two engines on this machine, one stream that moves between them again and again.

usage: bench/migration.py [--tokens 256,1024,4096,8192] [--moves 40] [--load 0] [--speed 4] [--path kv|recompute]
       bench/migration.py --period 12 [--load 16] [--tokens 4096]

For each length: the pause (from the end of the source's last step until the destination has said that it can step the
request), and the longest gap between two tokens that the client saw around a move less its median gap. Beside them the
step of the engines, the rounds of copying, the KV bytes that crossed the transport and the CPU of all processes per
move. The prefix cache is off, so that all KV crosses each time; `--load N` lets N other streams run on both engines.

`--period N`: how much longer the steps of the others get, on both engines. N times in turns, a window in which nothing
moves and one in which a stream of the first of `--tokens` moves to and fro without a pause; each window's mean time
between two tokens of the others, and the median of the N ratios.
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
        self.left = False
        self.body = json.dumps({"model": "modeled", "prompt": "x" * prompt_tokens, "max_tokens": max_tokens, "stream": True,
                                "ignore_eos": True, "temperature": 0})
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=120)
        connection.request("POST", "/v1/completions", self.body,
                           {"content-type": "application/json", "x-request-id": self.name_})
        reply = connection.getresponse()
        for line in reply:
            if self.left:
                break
            if line.startswith(b"data: {"):
                self.times.append(time.monotonic())
        connection.close()
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
    stream.left = True  # or it would step beside the next one
    await_true(lambda: place_of(ready["admin"], name) is None, "the engines have forgotten it", 60)
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


def mean_step(streams, began, ended):
    """Seconds between two tokens, of all streams in that window together."""
    spans = [b - a for stream in streams for a, b in zip(stream.times, stream.times[1:]) if a >= began and b <= ended]
    return statistics.mean(spans)


def measure_period(ready, prompt_tokens, windows, others, window=3.0):
    engines = [node["instances"][0] for node in ready["nodes"] if node["instances"]]
    stream = Stream(ready["http"], "mover", prompt_tokens, 20_000)
    await_true(lambda: len(stream.times) >= 5, "the stream runs", 120)
    ratios, steps, moved = [], [], 0
    for _ in range(windows):
        began = time.monotonic()
        time.sleep(window)
        ended = time.monotonic()
        still = mean_step(others, began, ended)
        began = time.monotonic()
        while time.monotonic() < began + window:
            here = place_of(ready["admin"], "mover")
            there = next(engine for engine in engines if engine != here)
            (move,) = post(ready["admin"], "/admin/v1/migrate", {"request": "mover", "to": there})["moves"]
            moved += move["outcome"] == "moved"
        moving = mean_step(others, began, time.monotonic())
        steps.append(still)
        ratios.append(moving / still)
    low, high, longer = min(ratios), max(ratios), statistics.median(ratios) - 1
    per_move = 1e3 * longer * windows * window / max(1, moved)
    print(f"steps of {len(others)} others: {1e3 * statistics.median(steps):.2f} ms when nothing moves; "
          f"{100 * longer:+.2f} % while a request of {prompt_tokens} tokens moves without a pause "
          f"({moved / (windows * window):.1f} moves a second; {windows} windows in turns: {100 * (low - 1):+.2f} to "
          f"{100 * (high - 1):+.2f} %; a move costs them {per_move:.2f} ms)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="256,1024,4096,8192")
    parser.add_argument("--moves", type=int, default=40)
    parser.add_argument("--load", type=int, default=0, help="other streams that run meanwhile")
    parser.add_argument("--speed", type=float, default=4, help="of the engines; 1: about 35 ms a step")
    parser.add_argument("--period", type=int, default=0, metavar="N", help="the others' step, in N windows of each kind")
    parser.add_argument("--path", choices=("kv", "recompute"), default="kv")
    options = parser.parse_args()
    settings = {"engine.speed": options.speed, "engine.blocks": 8192, "engine.prefix_cache": "false",
                "engine.kv_bytes_per_token": KV_BYTES_PER_TOKEN, "engine.max_num_batched_tokens": 8192,
                "transport.kind": "ucx" if options.path == "kv" else "off"}
    if options.period and not options.load:
        parser.error("--period wants others: --load N")
    if not options.period:
        print(f"KV of {KV_BYTES_PER_TOKEN} bytes a token, {options.load} other streams; times in ms\n"
              " tokens       moved  path       pause    p99  gap seen    p99    step  rounds  KiB moved  CPU/move")
    with cluster("--engines", "2", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))) as ready:
        others = [Stream(ready["http"], f"other-{i}", 100, 20_000) for i in range(options.load)]
        await_true(lambda: all(other.times for other in others), "the others run", 120)
        time.sleep(2)  # until the engine nodes have dialled each other
        lengths = list(map(int, options.tokens.split(",")))
        if options.period:
            return measure_period(ready, lengths[0], options.period, others)
        for i, tokens in enumerate(lengths):
            measure(ready, tokens, options.moves, f"bench-{i}")


if __name__ == "__main__":
    main()
