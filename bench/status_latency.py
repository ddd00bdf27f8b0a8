#!/usr/bin/env python3
"""How old a status is when a view that decides has taken it in: four engine processes of 16 instances each, a head,
and a node of the benchmark's own that keeps a view as a scheduler does (bench_view_listener). The load makes every
instance start and end requests all the time.

usage: bench/status_latency.py [--seconds 10] [--rate 300] [--speed 4]

The goal is 10 ms at p99. A llumlet speaks at most every 2 ms for each instance (llumlet.status_min_interval), which
adds to what is measured here. The floor is a quiet cluster's status: the same way, nothing in front of it.
"""

import argparse
import contextlib
import json
import subprocess
import time

from processes import BUILD, PROGRAM, await_true, cpu_us, free_port, get_json, running

ENGINES, INSTANCES = 4, 16


def listen(seed, seconds):
    out = subprocess.run([str(BUILD / "bench" / "bench_view_listener"), seed, str(ENGINES * INSTANCES), "2", str(seconds)],
                         capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(out.stderr)
    return out.stdout


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--rate", type=float, default=300.0)
    options.add_argument("--speed", type=float, default=4.0)
    asked = options.parse_args()
    with contextlib.ExitStack() as stack:
        seed, http, admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        quiet = ["--log-level", "error", "--drain", "1s"]
        nodes = [stack.enter_context(running(PROGRAM, "serve", "--name", "head", "--roles",
            "gateway,scheduler,cms,console", "--listen", seed, "--http", http, "--admin", admin, *quiet))]
        for i in range(ENGINES):
            nodes.append(stack.enter_context(running(PROGRAM, "serve", "--name", f"engine-{i}", "--roles", "llumlet",
                "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--seeds", seed, "--set", f"llumlet.instances={INSTANCES}",
                "--set", f"engine.speed={asked.speed}", "--set", "engine.blocks=512", *quiet)))
        await_true(lambda: len([x for x in get_json(f"http://{admin}/admin/v1/cluster")["instances"]
                                if x["state"] == "ready"]) == ENGINES * INSTANCES, "all instances ready")
        print("quiet (a status a second of each instance):")
        print(listen(seed, 5))
        before, began = [cpu_us(x.pid) for x in nodes], time.monotonic()
        load = stack.enter_context(running(PROGRAM, "load", f"http://{http}", "--rate", asked.rate,
            "--duration", f"{asked.seconds + 4}s", "--max-tokens", "16-64", "--ignore-eos", "--json",
            stdout=subprocess.PIPE, text=True))
        print(f"under load ({asked.rate:.0f} requests/s of 16 to 64 tokens, engines at speed {asked.speed}):")
        print(listen(seed, asked.seconds))
        elapsed = time.monotonic() - began
        used = [(cpu_us(x.pid) - y) / 1e6 / elapsed for x, y in zip(nodes, before)]
        print(f"CPU meanwhile, cores: head {used[0]:.2f}, engines {', '.join(f'{x:.2f}' for x in used[1:])}")
        report = json.loads(load.communicate(timeout=120)[0])
        print(f"requests: {report['requests']['ok']} ok, {report['requests']['failed']} failed, "
              f"{report['throughput']['output_tokens_per_s']:.0f} tokens/s")


if __name__ == "__main__":
    main()
