"""Prompts go where a KV store holds their beginning: a metadata service of Mooncake's kind is asked, and may be gone."""

import hashlib
import http.server
import json
import threading
import time
import unittest
import urllib.parse
import urllib.request

from cluster import Cluster, ClusterTest, free_port, until
from test_discovery import field
from test_scheduler_api import METADATA, STATUS, Redis, Scheduler, cms_record, status_record

CHUNK = 4


def cbor_head(major, value):
    for size, code in ((1, 24), (2, 25), (4, 26)):
        if value < 24:
            return bytes([major << 5 | value])
        if value < 1 << 8 * size:
            return bytes([major << 5 | code]) + value.to_bytes(size, "big")
    raise ValueError(value)


def chunk_keys(tokens, seed="0"):
    """spec/scheduling.md 8.1, sha256_cbor."""
    digest = hashlib.sha256(cbor_head(3, len(seed)) + seed.encode()).digest()
    keys = []
    for at in range(0, len(tokens) - CHUNK + 1, CHUNK):
        chunk = b"".join(cbor_head(0, token) for token in tokens[at:at + CHUNK])
        digest = hashlib.sha256(b"\x83" + cbor_head(2, 32) + digest + cbor_head(4, CHUNK) + chunk + b"\xf6").digest()
        keys.append(digest.hex() + "_0")
    return keys


class Store:
    """A metadata service. Use as a context."""

    def __init__(self, port=0):
        self.holders, self.asked = {}, []
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                assert url.path == "/batch_query_keys", url.path
                keys = url.query.removeprefix("keys=").split(",")
                store.asked.append(keys)
                data = {key: {"ok": True, "values": [{"transport_endpoint_": f"{host}:17001"} for host in store.holders[key]]}
                        for key in keys if key in store.holders}
                body = json.dumps({"success": True, "data": data}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def hold(self, tokens, host):
        for key in chunk_keys(tokens):
            self.holders.setdefault(key, []).append(host)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def metric(text, name):
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")), None)


class ForForeignGateways(unittest.TestCase):
    PORTS = {1: 21010, 2: 21014}  # of the recorded instances

    def start(self, store_port, *flags):
        redis = Redis()
        self.addCleanup(redis.close)
        for number, record in ((1, "metadata: neutral, one rank"), (2, "metadata: rank 0: zero is absent")):
            name = f"inst-000{number}"
            redis.set(METADATA + name, cms_record(record) + field(1, name) + field(5, f"10.9.9.{number}"))
            redis.set(STATUS + name, status_record(name))
        scheduler = Scheduler(
            "--cms-redis-host", "127.0.0.1", "--cms-redis-port", str(redis.port), "--cms-pull-metadata-interval-ms", "200",
            "--enable-cache-aware-scheduling", "--cache-aware-scheduling-min-tokens", "8", "--kvs-chunk-size", str(CHUNK),
            "--kvs-metadata-service-http-server-host", "127.0.0.1",
            "--kvs-metadata-service-http-server-port", str(store_port), *flags)
        self.addCleanup(scheduler.close)
        until(lambda: {self.place(scheduler, [1], f"probe-{time.monotonic_ns()}", keep=True) for _ in range(4)}
              == set(self.PORTS.values()), 15, "both records are known")
        for _ in range(2):  # what the probes left in the account goes with the next statuses
            for number in self.PORTS:
                redis.set(STATUS + f"inst-000{number}", status_record(f"inst-000{number}", update=time.time_ns() // 10**9 % 10**6))
        return scheduler

    def place(self, scheduler, tokens, request, keep=False):
        """The port of the instance chosen."""
        status, _, body = scheduler.ask("/schedule", {"id": request, "scheduling_mode": "neutral", "prompt_num_tokens": len(tokens),
                                                      "prompt_token_ids": tokens})
        if status != 200:
            return status
        if not keep:
            scheduler.release(request, "", "x")
        return json.loads(body)["scheduling_result"][0]["endpoint"]["port"]

    def metrics(self, scheduler):
        return scheduler.say(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")[2]

    def test_a_prompt_goes_where_its_beginning_is(self):
        first, second = list(range(1, 41)), list(range(1000, 1040))
        with Store() as store:
            store.hold(first, "10.9.9.1")
            store.hold(second, "10.9.9.2")
            scheduler = self.start(store.port)
            for attempt in range(3):  # equals would take turns, or go to the lower id
                self.assertEqual(self.place(scheduler, first + [5, 6], f"a{attempt}"), self.PORTS[1])
                self.assertEqual(self.place(scheduler, second + [5, 6], f"b{attempt}"), self.PORTS[2])
            self.assertEqual(store.asked[0], chunk_keys(first + [5, 6]))
            asked = len(store.asked)
            self.assertIsInstance(self.place(scheduler, [1, 2, 3], "short"), int)
            self.assertEqual(len(store.asked), asked)
            text = self.metrics(scheduler)
            self.assertEqual(metric(text, "llumnix_kv_store_queries_total"), asked)
            self.assertEqual(metric(text, "llumnix_kv_store_up"), 1)
            for name in ("request_query_prefix_cache_hit_duration_milliseconds", "request_calc_prefix_cache_hit_duration_milliseconds",
                         "request_max_prefix_cache_hit_percent"):
                self.assertEqual(metric(text, name + "_count"), asked, name)
            for name in ("request_prefix_cache_hit_percent", "request_max_prefix_cache_hit_percent"):
                self.assertEqual(metric(text, name + "_sum"), 6 * 95, name)  # 40 of 42 tokens
            self.assertGreater(metric(text, "request_prefix_cache_hit_percent_count"), asked)  # with those not looked up

    def test_a_store_that_is_gone_is_done_without_and_one_that_is_back_is_used(self):
        tokens = list(range(1000, 1040))
        port = free_port()
        scheduler = self.start(port, "--kvs-retry-times", "2", "--kvs-retry-interval-ms", "20",
                               "--kvs-metadata-service-down-duration-s", "1")
        began = time.monotonic()
        self.assertIn(self.place(scheduler, tokens, "r1"), self.PORTS.values())
        self.assertIn(self.place(scheduler, tokens, "r2"), self.PORTS.values())
        self.assertLess(time.monotonic() - began, 2)  # a gateway waits so long
        text = self.metrics(scheduler)
        self.assertEqual(metric(text, "llumnix_kv_store_up"), 0)
        self.assertGreaterEqual(metric(text, "llumnix_kv_store_failures_total"), 1)
        self.assertGreaterEqual(metric(text, "llumnix_kv_store_skipped_total"), 1)
        with Store(port) as store:
            store.hold(tokens, "10.9.9.2")
            until(lambda: (self.place(scheduler, tokens, f"x-{time.monotonic_ns()}"), bool(store.asked)) ==
                  (self.PORTS[2], True), 15, "the store is asked again")
            self.assertEqual(metric(self.metrics(scheduler), "llumnix_kv_store_up"), 1)

    def test_v6d_is_refused_by_name(self):
        with self.assertRaisesRegex(AssertionError, "--kvs-backend: this build has no v6d"):
            Scheduler("--cms-redis-host", "127.0.0.1", "--enable-cache-aware-scheduling", "--kvs-backend", "v6d")


class Up(ClusterTest):
    def test_the_gateway_asks_the_store(self):
        prompt = "a" * 64  # tokens are bytes to the modeled engine
        with Store() as store:
            store.hold([ord(each) for each in prompt], "127.0.0.1")
            with Cluster("--policy", "cache-aware", engines=2, scheduler__kv_index="mooncake", scheduler__mooncake=f"127.0.0.1:{store.port}",
                         scheduler__kv_chunk_tokens=CHUNK, scheduler__cache_aware_min_tokens=8) as cluster:
                body = json.dumps({"model": "modeled", "prompt": prompt + "tail!", "max_tokens": 2}).encode()
                request = urllib.request.Request(cluster.url + "/v1/completions", body, {"x-request-id": "r-1", "content-type": "application/json"})
                with urllib.request.urlopen(request, timeout=20) as reply:
                    self.assertEqual(reply.status, 200)
                placed = next(event for event in cluster.why("r-1")["events"] if event["kind"] == "placed")
                self.assertEqual(placed["reasons"]["hit_tokens"], 64)
                self.assertEqual(len(store.asked), 1)
                with urllib.request.urlopen(cluster.url + "/metrics", timeout=5) as reply:
                    text = reply.read().decode()
                self.assertEqual(metric(text, "llumnix_kv_store_queries_total"), 1)
                self.assertEqual(metric(text, "llumnix_hit_tokens_total"), 64)
                for name in ("request_query_prefix_cache_hit_duration_milliseconds", "request_calc_prefix_cache_hit_duration_milliseconds"):
                    self.assertEqual(metric(text, name + "_count"), 1, name)
                for name in ("request_prefix_cache_hit_percent", "request_max_prefix_cache_hit_percent"):
                    self.assertEqual(metric(text, name + "_sum"), 92, name)  # 64 of 69 tokens


if __name__ == "__main__":
    unittest.main()
