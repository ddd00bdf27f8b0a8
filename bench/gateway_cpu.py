#!/usr/bin/env python3
"""What a request and a streamed token cost the gateway: CPU of the head process, with engines that take no time, and
nginx doing the same transport work in the same minute: proxying to another nginx that answers with the same body, and
proxying the gateway's own streams.

usage: bench/gateway_cpu.py [--seconds 4] [--rounds 3]

CPU is read from /proc in ticks of 10 ms and divided by the requests or tokens of a run; the least of the rounds is
shown, rounds of all in turns. Needs wrk and nginx.
"""

import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

from processes import BUILD, PROGRAM, accepts, await_true, cluster, cpu_us, free_port, running

CONNECTIONS = 64
WORDS = ("The same prompt, about a kilobyte of it. " * 25)[:1000]

POST = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [==[BODY]==]
done = function(summary)
  io.write(string.format("requests %d errors %d\\n", summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
"""


def wrk(script, url, seconds):
    """Requests answered in a closed loop."""
    out = subprocess.run(["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", script, url],
                         capture_output=True, text=True, check=True).stdout
    requests, errors = map(int, re.search(r"requests (\d+) errors (\d+)", out).groups())
    if errors or not requests:
        raise SystemExit(f"{url}: {requests} requests, {errors} errors")
    return requests


def stream(url, requests, tokens):
    """Tokens received over 100 streams at once, each checked to be there."""
    out = subprocess.run([str(PROGRAM), "load", url, "--requests", str(requests), "--concurrency", "100", "--prompt-tokens", "16",
                          "--max-tokens", str(tokens), "--ignore-eos", "--json"], capture_output=True, text=True, check=True).stdout
    report = json.loads(out)
    if report["requests"]["ok"] != requests or report["tokens"]["output"] != requests * tokens:
        raise SystemExit(f"{url}: {report['requests']}, {report['tokens']}")
    return requests * tokens


def nginx(stack, folder, name, servers):
    """An nginx of one worker."""
    text = f"""
daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 1024; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  {servers}
}}
"""
    path = pathlib.Path(folder) / f"{name}.conf"
    path.write_text(text)
    return stack.enter_context(running("nginx", "-c", path, "-e", f"{folder}/{name}.log"))


def answering(port, body):
    escaped = body.replace("\\", "\\\\").replace("'", "\\'")
    if "$" in body:
        raise SystemExit("nginx would take a part of the body for a variable")
    return f"server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{escaped}'; }} }}"


def proxying(port, address):
    return f"""
  upstream to_{port} {{ server {address}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://to_{port}; proxy_http_version 1.1;
    proxy_set_header Connection ""; proxy_buffering off; }} }}"""


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    best = {}

    def meter(name, pid, work):
        before = cpu_us(pid)
        count = work()
        each = (cpu_us(pid) - before) / count
        best[name] = min(best.get(name, each), each)
        print(f"  {name}: {count} in all, {each:.2f} us CPU each", flush=True)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ready = stack.enter_context(cluster("--engines", "2", "--set", "engine.speed=0", "--set", "gateway.io_threads=1"))
        head = next(x["pid"] for x in ready["nodes"] if x["node"] == "head")
        request = json.dumps({"model": ready["model"], "max_tokens": 1, "messages": [{"role": "user", "content": WORDS}]})
        script = pathlib.Path(folder) / "post.lua"
        script.write_text(POST.replace("BODY", request))
        url = ready["http"] + "/v1/chat/completions"
        call = urllib.request.Request(url, request.encode(), {"content-type": "application/json"})
        body = urllib.request.urlopen(call, timeout=10).read().decode()

        floor_port, whole, proxy, streams = (free_port() for _ in range(4))
        floor = stack.enter_context(running(BUILD / "bench" / "bench_http_floor", f"127.0.0.1:{floor_port}", stdout=subprocess.DEVNULL))
        upstream = nginx(stack, folder, "upstream", answering(whole, body))
        middle = nginx(stack, folder, "proxy", proxying(proxy, f"127.0.0.1:{whole}")
                       + proxying(streams, ready["http"].removeprefix("http://")))
        for port in (floor_port, whole, proxy, streams):
            await_true(lambda: accepts(port), f"a listener on port {port}")

        for turn in range(asked.rounds):
            print(f"round {turn + 1}")
            meter("gateway, request", head, lambda: wrk(script, url, asked.seconds))
            meter("nginx proxy, request", middle.pid, lambda: wrk(script, f"http://127.0.0.1:{proxy}/", asked.seconds))
            meter("nginx return, request", upstream.pid, lambda: wrk(script, f"http://127.0.0.1:{whole}/", asked.seconds))
            meter("bench_http_floor, request", floor.pid, lambda: wrk(script, f"http://127.0.0.1:{floor_port}/", asked.seconds))
            meter("gateway, token", head, lambda: stream(ready["http"], 300, 200))
            meter("nginx proxy, token", middle.pid, lambda: stream(f"http://127.0.0.1:{streams}", 300, 200))

    print(f"\n1 KB chat in, {len(body)} bytes out, {CONNECTIONS} connections; 100 streams of 200 tokens."
          f"\nCPU us each, the least of {asked.rounds} rounds, and how many times nginx proxying")
    for name, each in best.items():
        floor_us = best["nginx proxy, " + name.split(", ")[1]]
        print(f"  {name:<26} {each:8.2f} {each / floor_us:8.2f}")


if __name__ == "__main__":
    main()
