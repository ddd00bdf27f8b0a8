#!/usr/bin/env python3
"""Requests travel as fast as they can while engines are killed and drained at random, and every token is verified.

usage: bench/travels.py [--requests 5000] [--concurrency 64] [--engines 4] [--movers 8] [--faults-every 6] [--spoil 50]
                        [--seed 1]

`llumnix load --verify` runs against a local cluster; meanwhile movers order random requests to random instances, engines
are killed (SIGKILL), stopped in order (SIGTERM) and drained at random, and one in `--spoil` KV transfers lands with a
wrong bit. At the end it tells what moved, by which path, how many bytes the destinations took and the sources gave, how
many moves were found spoiled, and whether `why` of a sample of requests tells their travels.

The transports' byte counters of those minutes cannot agree to the byte: an engine that is killed takes with it what it
counted since it was last asked. So they are compared afterwards, among engines that nobody touches any more: a few long
streams are moved about one after the other, in rounds, and of each round that no transport gave up a pull in, the bytes
that landed at the destinations must be the bytes read from the sources.

Exit code 0 only if every stream was exact, KV moves were at least two in five requests, some were found spoiled where
some were, nothing is held by anybody any more, and the counters agree.
"""

import argparse
import collections
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from processes import PROGRAM, get_json


class Cluster:
    """`llumnix up`, and the nodes it has now."""

    def __init__(self, *options):
        self.process = subprocess.Popen(
            [str(PROGRAM), "up", "--json", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "5s", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.pids, self.admins, self.changed, self.url, self.admin = {}, {}, threading.Condition(), None, None
        threading.Thread(target=self.read, daemon=True).start()
        with self.changed:
            if not self.changed.wait_for(lambda: self.admin, 60):
                raise SystemExit("the cluster is not ready within a minute")

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self.changed:
                for each in event.get("nodes", [event]):
                    if "node" in each and "pid" in each and event["event"] != "node_down":
                        self.pids[each["node"]] = each["pid"]
                    if "node" in each and "admin" in each:
                        self.admins[each["node"]] = each["admin"]
                if event["event"] == "node_down":
                    self.pids.pop(event["node"], None)
                if event["event"] == "ready":
                    self.url, self.admin = event["http"], event["admin"]
                self.changed.notify_all()

    def instances(self):
        return {each["id"]: each for each in get_json(f"{self.admin}/admin/v1/cluster")["instances"]}

    def ready(self):
        return [name for name, each in self.instances().items() if each["state"] == "ready"]

    def post(self, path, body=None):
        address = urllib.parse.urlsplit(self.admin)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
        connection.request("POST", path, json.dumps(body) if body else "", {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Travels:
    """What moved, as the answers to the orders said."""

    def __init__(self, cluster, chance):
        self.cluster, self.chance, self.over = cluster, chance, threading.Event()
        self.lock, self.outcomes, self.paths, self.reasons = threading.Lock(), collections.Counter(), collections.Counter(), collections.Counter()
        self.bytes, self.travelled, self.faults = 0, collections.Counter(), collections.Counter()

    def mover(self, seed):
        chance = random.Random(seed)
        while not self.over.is_set():
            try:
                running = [each for each in get_json(f"{self.cluster.admin}/admin/v1/requests")["requests"] if each["instance"]]
                ready = self.cluster.ready()
                if not running or len(ready) < 2:
                    time.sleep(0.01)
                    continue
                for request in chance.sample(running, min(len(running), 8)):
                    to = chance.choice([name for name in ready if name != request["instance"]] or ready)
                    status, answer = self.cluster.post("/admin/v1/migrate", {"request": request["id"], "to": to})
                    self.note(answer.get("moves", []) if status == 200 else [], status)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as failure:
                self.note([], type(failure).__name__)

    def note(self, moves, status):
        with self.lock:
            if not moves:
                self.outcomes[f"status {status}"] += 1
            for move in moves:
                self.outcomes[move["outcome"]] += 1
                if move["outcome"] == "moved":
                    self.paths[move["path"]] += 1
                    self.bytes += move["bytes"]
                    self.travelled[move["request"]] += 1
                else:
                    self.reasons[re.sub(r"\d+", "N", (move["reason"] or "")[:60])] += 1

    def breaker(self, every):
        while not self.over.wait(every):
            with self.cluster.changed:
                engines = [name for name in self.cluster.pids if name.startswith("engine-")]
            if len(engines) < 2 or len(self.cluster.ready()) < 2:
                continue
            victim, how = self.chance.choice(engines), self.chance.choice(["kill", "stop", "drain"])
            self.faults[how] += 1
            try:
                if how == "drain":
                    self.cluster.post(f"/admin/v1/instances/{victim}/drain?timeout=10s")
                    self.cluster.post(f"/admin/v1/instances/{victim}/undrain")
                else:
                    os.kill(self.cluster.pids[victim], signal.SIGKILL if how == "kill" else signal.SIGTERM)
            except (OSError, http.client.HTTPException, KeyError):
                pass


class Counted:
    """What the engine nodes counted of KV under way, those of lives that ended included, as far as they were heard."""

    def __init__(self, cluster):
        self.cluster, self.last, self.over = cluster, {}, threading.Event()

    def look(self):
        with self.cluster.changed:
            nodes = {(name, self.cluster.pids.get(name)): at for name, at in self.cluster.admins.items()}
        for life, admin in nodes.items():
            try:
                text = urllib.request.urlopen(admin + "/metrics", timeout=5).read().decode()
            except OSError:
                continue
            values = re.findall(r"^llumnix_(kv_transport_\w+?|moves_spoiled)(?:_total)? (\S+)$", text, re.M)
            self.last[life] = {name: float(value) for name, value in values}

    def watch(self):
        while not self.over.wait(0.5):
            self.look()

    def living(self):
        """What the engines that live now have counted, as they say now; an engine that is not heard is an error."""
        with self.cluster.changed:
            names = {name: self.cluster.admins[name] for name in self.cluster.pids if name.startswith("engine-")}
        total = collections.Counter()
        for admin in names.values():
            text = urllib.request.urlopen(admin + "/metrics", timeout=5).read().decode()
            total.update({name: int(float(value)) for name, value in re.findall(
                r"^llumnix_kv_transport_(\w+?)_total (\S+)$", text, re.M)})
        return total

    def total(self):
        total = collections.Counter()
        for values in self.last.values():
            total.update(values)
        return {name: int(value) for name, value in total.items()}


def wait_quiet(cluster, seconds):
    """The engines at which something is held after that time; none: they are quiet."""
    until = time.monotonic() + seconds
    while held := [name for name, each in cluster.instances().items() if each["state"] == "ready" and (
            each["kv_blocks"]["used"] or each["migrations"]["in"] or each["migrations"]["out"])]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return held


def running(cluster):
    return [each for each in get_json(f"{cluster.admin}/admin/v1/requests")["requests"]
            if each["instance"] and each["state"] == "running"]


def move_about(cluster, chance, moves):
    """Moves running requests one after the other; how many went by KV."""
    by_kv = 0
    for _ in range(moves):
        if not (there := running(cluster)):
            break
        request = chance.choice(there)
        to = chance.choice([name for name in cluster.ready() if name != request["instance"]])
        status, answer = cluster.post("/admin/v1/migrate", {"request": request["id"], "to": to})
        by_kv += sum(move["outcome"] == "moved" and move["path"] == "kv" for move in answer.get("moves", []) if status == 200)
    return by_kv


def compare_bytes(cluster, counted, chance, engines, rounds=5):
    """What was compared, and where it differed (None: nowhere)."""
    until = time.monotonic() + 60
    while len(cluster.ready()) < engines:
        if time.monotonic() > until:
            return {}, f"not all engines are back: {cluster.ready()}"
        time.sleep(0.1)
    compared = {"rounds": 0, "moves": 0, "bytes": 0, "rounds_with_pulls_given_up": 0}
    for _ in range(3 * rounds):
        before = counted.living()
        load = subprocess.Popen(
            [str(PROGRAM), "load", cluster.url, "--verify", "--requests", "4", "--concurrency", "4", "--max-tokens", "600-600",
             "--prompt-tokens", "500-1500"], stdout=subprocess.DEVNULL)
        while load.poll() is None and len(running(cluster)) < 4:
            time.sleep(0.01)
        moves = move_about(cluster, chance, 12)
        if load.wait(120) != 0:
            return compared, f"load: exit {load.returncode}, among engines that nobody touches"
        if held := wait_quiet(cluster, 10):
            return compared, f"still held at {held}"
        until = time.monotonic() + 3  # sources count a read when they hear that it is over
        while True:
            came = counted.living()
            came.subtract(before)
            if came["in_bytes"] == came["out_bytes"] or time.monotonic() > until:
                break
            time.sleep(0.05)
        if came["failed"] or came["cancelled"] or came["refused"]:
            compared["rounds_with_pulls_given_up"] += 1  # in part: what came of those is counted by one side
            continue
        if came["in_bytes"] != came["out_bytes"]:
            return compared, f"{came['in_bytes']} bytes landed, {came['out_bytes']} were read from the sources"
        if moves:
            compared["rounds"] += 1
            compared["moves"] += moves
            compared["bytes"] += came["in_bytes"]
        if compared["rounds"] == rounds:
            return compared, None
    return compared, f"too few rounds without a pull that was given up: {compared}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--movers", type=int, default=8)
    parser.add_argument("--faults-every", type=float, default=6, metavar="SECONDS")
    parser.add_argument("--spoil", type=int, default=50, help="one in so many transfers lands wrong; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    spoil = ["--set", f"transport.spoil_every={options.spoil}"] if options.spoil else []
    cluster = Cluster("--engines", str(options.engines), "--set", "engine.speed=3", "--set", "engine.blocks=3000", *spoil)
    failed = []
    try:
        travels = Travels(cluster, chance)
        threads = [threading.Thread(target=travels.mover, args=(options.seed * 1000 + i,)) for i in range(options.movers)]
        threads.append(threading.Thread(target=travels.breaker, args=(options.faults_every,)))
        counted = Counted(cluster)
        threads.append(threading.Thread(target=counted.watch))
        began = time.monotonic()
        load = subprocess.Popen(
            [str(PROGRAM), "load", cluster.url, "--verify", "--json", "--requests", str(options.requests),
             "--concurrency", str(options.concurrency), "--max-tokens", "60-240", "--prompt-tokens", "20-1500",
             "--temperature", "0.8"], stdout=subprocess.PIPE, text=True)
        for thread in threads:
            thread.start()
        out = load.communicate()[0]
        took = time.monotonic() - began
        travels.over.set()
        counted.over.set()
        for thread in threads:
            thread.join(130)
        report = json.loads(out)
        kv = travels.paths["kv"]
        if load.returncode != 0 or report["requests"]["ok"] != options.requests:
            failed.append(f"load: exit {load.returncode}, {report['requests']}")
        if kv < options.requests * 2 // 5:
            failed.append(f"{kv} moves by KV are too few to mean anything")
        if held := wait_quiet(cluster, 10):
            failed.append(f"still held at {held}: {cluster.instances()}")
        counted.look()
        total = counted.total()
        found_spoiled = total.pop("moves_spoiled", 0)
        if options.spoil and kv and not found_spoiled:
            failed.append(f"one in {options.spoil} transfers was spoiled, and none was found")
        told = 0
        sample = [name for name, count in travels.travelled.most_common() if count > 0][:20]
        for name in sample:
            try:
                events = get_json(f"{cluster.admin}/admin/v1/requests/{name}/why")["events"]
            except OSError:
                continue  # too long ago to be kept
            told += sum(event["kind"] == "moved" for event in events) >= travels.travelled[name]
        compared, differs = compare_bytes(cluster, counted, chance, options.engines)
        if differs:
            failed.append(f"the transports' byte counters: {differs}")
        print(json.dumps({
            "requests": report["requests"], "seconds": round(took, 1), "outcomes": travels.outcomes, "paths": travels.paths,
            "moves_per_second": round(sum(travels.paths.values()) / took, 1), "bytes_of_moves": travels.bytes,
            "most_travelled": travels.travelled.most_common(3), "faults": travels.faults,
            "transports": {name.removeprefix("kv_transport_"): value for name, value in total.items()},
            "bytes_compared": compared, "found_spoiled": found_spoiled, "why_tells": f"{told} of {len(sample)}",
            "reasons": travels.reasons.most_common(12)}, indent=1))
    finally:
        cluster.close()
    for each in failed:
        print(f"FAILED: {each}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
