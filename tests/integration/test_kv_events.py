"""Engines behind HTTP that publish KV events over ZeroMQ: prompts go where their beginning is cached."""

import json
import pathlib
import tempfile
import unittest
import urllib.request

from cluster import ClusterTest, until
from test_relay import COMPLETIONS, Engines, completion, post
from test_scheduler_api import Scheduler
from zmtp import Publisher

BLOCK = 16
SETTINGS = {"scheduler__policy": "cache-aware", "scheduler__cache_aware_min_tokens": BLOCK}


class KvEvents(ClusterTest):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def publish(self, engine):
        publisher = Publisher(str(pathlib.Path(self.folder, engine.id.rsplit(":", 1)[1])))
        self.addCleanup(publisher.close)
        return publisher

    def metric(self, url, name):
        with urllib.request.urlopen(url + "/metrics", timeout=5) as reply:
            return next((float(line.split()[-1]) for line in reply.read().decode().splitlines() if line.startswith(name + " ")), None)

    def send(self, x, prompt, request):
        status, _, text = post(x.url, COMPLETIONS, completion(prompt, 2, stream=False), {"x-request-id": request}.items())
        self.assertEqual(status, 200, text)
        placed = next(event for event in x.cluster.why(request)["events"] if event["kind"] == "placed")
        return placed["instance"], placed["reasons"].get("hit_tokens", 0)

    def test_prompts_of_token_ids_go_where_their_beginning_is(self):
        with Engines(3, scheduler__kv_events=f"ipc://{self.folder}/{{port}}", **SETTINGS) as x:
            publishers = {each.id: self.publish(each) for each in x.engines}
            for each in publishers.values():
                each.await_subscriber()
            beginnings = {engine: list(range(4 * BLOCK * (n - 1), 4 * BLOCK * n)) for n, engine in enumerate(publishers, 1)}
            for engine, tokens in beginnings.items():
                publishers[engine].stored(1, tokens, BLOCK)
            until(lambda: self.metric(x.url, "llumnix_kv_events_blocks") == 12, 20, "all blocks are known")
            for turn in range(2):
                for engine, tokens in beginnings.items():
                    self.assertEqual(self.send(x, tokens + [7, 8], f"r-{turn}-{engine}"), (engine, 4 * BLOCK))
            self.assertEqual(self.send(x, "a text, whose tokens nobody here knows", "text")[1], 0)
            self.assertEqual(self.send(x, [1, 2, 3], "short")[1], 0)
            first = next(iter(publishers))
            publishers[first].publish({"type": "AllBlocksCleared"})
            until(lambda: self.metric(x.url, "llumnix_kv_events_blocks") == 8, 20, "what was cleared is forgotten")
            self.assertEqual(self.send(x, beginnings[first] + [7], "cleared")[1], 0)

    def test_an_engine_without_events_takes_work_all_the_same(self):
        with Engines(1, scheduler__kv_events=f"ipc://{self.folder}/{{port}}", **SETTINGS) as x:
            self.assertEqual(self.send(x, list(range(100)), "r"), (x.engines[0].id, 0))

    def test_a_scheduler_of_other_gateways_hears_them_too(self):
        with Engines(2) as x:  # for its engines alone
            publishers = {each.id: self.publish(each) for each in x.engines}
            with Scheduler("--enable-full-mode-scheduling=false", "--llm-backend-discovery", "endpoints", "--llm-backend-endpoints",
                           ",".join(publishers), "--set", f"scheduler.kv_events=ipc://{self.folder}/{{port}}",
                           "--set", "scheduler.cache_aware=true", "--set", "scheduler.cache_aware_min_tokens=16") as scheduler:
                for each in publishers.values():
                    each.await_subscriber()

                def place(tokens, request):
                    status, _, body = scheduler.ask("/schedule", {"id": request, "scheduling_mode": "neutral", "prompt_num_tokens": len(tokens),
                                                                  "prompt_token_ids": tokens})
                    return json.loads(body)["scheduling_result"][0]["id"] if status == 200 else status

                until(lambda: {place([1], f"probe-{n}") for n in range(4)} == set(publishers), 20, "both engines are known")
                for n, (engine, publisher) in enumerate(publishers.items(), 1):
                    publisher.stored(1, list(range(4 * BLOCK * (n - 1), 4 * BLOCK * n)), BLOCK)
                for n, engine in enumerate(publishers, 1):
                    tokens = list(range(4 * BLOCK * (n - 1), 4 * BLOCK * n))
                    until(lambda: place(tokens, f"known-{n}") == engine, 10, "its blocks are known")
                    self.assertEqual({place(tokens + [5], f"r-{n}-{i}") for i in range(4)}, {engine})


if __name__ == "__main__":
    unittest.main()
