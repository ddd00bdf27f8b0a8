"""`llumnix up --policy cache-aware` sends prompts where their beginning is cached."""

import asyncio
import unittest
import urllib.request

from cluster import Cluster, ClusterTest, Stream, until

SHARED = 2_000  # tokens, which are bytes to the modeled engine; 125 blocks


class CacheAware(ClusterTest):
    def setUp(self):
        self.cluster = self.enterContext(Cluster("--policy", "cache-aware", engines=3))
        self.sent = 0

    def metric(self, name):
        with urllib.request.urlopen(self.cluster.url + "/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    def send(self, prompts):
        """Sends them at once; where each went, and how much of it was known to be cached there."""
        async def run():
            await asyncio.gather(*(stream.run(60) for stream in streams))

        streams = []
        for prompt in prompts:
            self.sent += 1
            body = {"model": "modeled", "prompt": prompt, "max_tokens": 4, "stream": True}
            streams.append(Stream(self.cluster.url, body, "/v1/completions", f"r-{self.sent}"))
        asyncio.run(run())
        for stream in streams:
            self.assertTrue(stream.done, stream.error or stream.broken)
        return [self.where(stream.request_id) for stream in streams]

    def where(self, request):
        placed = next(event for event in self.cluster.why(request)["events"] if event["kind"] == "placed")
        return placed["instance"], placed["reasons"].get("hit_tokens", 0)

    def test_prompts_go_where_their_beginning_is_cached(self):
        beginnings = [letter * SHARED for letter in "abc"]
        first = self.send(beginnings)
        self.assertEqual([hits for _, hits in first], [0, 0, 0])
        self.assertEqual(len({instance for instance, _ in first}), 3)
        self.cluster.wait_idle()
        until(lambda: self.metric("llumnix_prefix_index_blocks") >= 3 * 125, 10, "all blocks are known")
        for number in range(2):
            again = self.send([f"{each} and {end}" for each in beginnings for end in range(number, number + 3)])
            expected = [(instance, SHARED) for instance, _ in first for _ in range(3)]
            self.assertEqual(again, expected)
        self.assertEqual(self.metric("llumnix_placements_with_hits_total"), 18)
        self.assertEqual(self.metric("llumnix_hit_tokens_total"), 18 * SHARED)
        self.assertEqual(self.metric("llumnix_prefix_index_gaps_total"), 0)
        for name in ("request_prefix_cache_hit_percent", "request_max_prefix_cache_hit_percent",
                     "request_calc_prefix_cache_hit_duration_milliseconds"):
            self.assertEqual(self.metric(name + "_count"), 21, name)
        self.assertEqual(self.metric("request_prefix_cache_hit_percent_sum"), 18 * 99)  # 2000 of 2006 tokens


if __name__ == "__main__":
    unittest.main()
