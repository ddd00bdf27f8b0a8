"""`llumnix profile` writes what engines took, and placements predict by it: `why`, `/metrics` and policy slo."""

import asyncio
import json
import pathlib
import os
import re
import tempfile
import unittest
import urllib.request

from cluster import Cluster, ClusterTest, Stream, until
from test_scheduler_api import METADATA, STATUS, Redis, Scheduler, cms_record, status_record

PROMPTS = [16, 64, 200, 700, 1500]  # tokens, which are bytes to the modeled engine


class Profile(ClusterTest):
    def setUp(self):
        self.scratch = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = os.path.join(self.scratch, "not", "there")  # until something is written
        self.sent = 0

    def path(self, kind):
        return os.path.join(self.folder, f"{kind}_profile.json")

    def send(self, cluster, *lengths, tokens=24):
        """Sends prompts at once; the flight record of each."""
        async def run():
            await asyncio.gather(*(stream.run(60) for stream in streams))

        streams = []
        for length in lengths:
            self.sent += 1
            prompt = (f"{self.sent:06} " + "x" * length)[:length]  # that nobody has cached
            body = {"model": "modeled", "prompt": prompt, "max_tokens": tokens, "stream": True, "ignore_eos": True}
            streams.append(Stream(cluster.url, body, "/v1/completions", f"r-{self.sent}"))
        asyncio.run(run())
        for stream in streams:
            self.assertTrue(stream.done, stream.error or stream.broken)
        ended = [until(lambda: self.finished(cluster, stream.request_id), 5, "its end is recorded") for stream in streams]
        return ended

    @staticmethod
    def finished(cluster, request):
        events = cluster.why(request)["events"]
        return events if events[-1]["kind"] == "finished" else None

    def write(self):
        """The files of a cluster under some load."""
        with Cluster(engines=2, engine__speed=10) as cluster:
            for length in PROMPTS:
                self.send(cluster, length)  # alone: prefills and steps of one
            for _ in range(4):
                self.send(cluster, *PROMPTS, *PROMPTS)
            code, said, wrong = cluster.command("profile", "--out", self.folder)
            self.assertEqual(code, 0, wrong)
            self.assertIn(self.path("ttft"), said)
            self.assertIn(self.path("tpot"), said)
            code, _, wrong = cluster.command("profile", "--out", self.folder, "--role", "prefill")
            self.assertEqual(code, 1)
            self.assertIn("no prefill of a prefill instance was seen", wrong)
            self.assertIn("no decode step of a prefill instance was seen", wrong)
            for wrong_folder, wanted in ((self.path("ttft"), 2), (os.path.join(self.path("ttft"), "below"), 1)):
                code, _, wrong = cluster.command("profile", "--out", wrong_folder)
                self.assertEqual(code, wanted, wrong)
                self.assertIn(wrong_folder, wrong)

    def test_files_that_were_written_predict(self):
        self.write()
        files = {kind: json.loads(pathlib.Path(self.path(kind)).read_text()) for kind in ("ttft", "tpot")}
        sizes = [entry["tokens_num"] for entry in files["ttft"]["results"] if entry["samples"]]
        self.assertEqual(min(sizes), 16)
        first = files["ttft"]["results"][0], files["tpot"]["results"][0]
        self.assertEqual((first[0]["tokens_num"], first[1]["batch_size"], first[1]["tokens_per_request"]), (1, 1, 8))
        self.assertGreaterEqual(max(sizes), 1500)  # more, where several prompts shared a step
        self.assertTrue(files["ttft"]["metadata"]["model"].startswith("modeled "))
        self.assertGreater(len({entry["batch_size"] for entry in files["tpot"]["results"]}), 1)
        self.predicts()
        self.places_by_slo()

    def predicts(self):
        knobs = {f"scheduler__{kind}_profile": self.path(kind) for kind in ("ttft", "tpot")}
        with Cluster(engines=1, engine__speed=10, **knobs) as cluster:
            events = self.send(cluster, 200)[0]
            placed = next(event for event in events if event["kind"] == "placed")
            predicted, times = placed["reasons"]["predicted"], events[-1]["times"]
            self.assertEqual(times["predicted_ttft_ms"], predicted["ttft_ms"])
            self.assertEqual(times["predicted_tpot_ms"], predicted["tpot_ms"])
            # The same engine at the same speed: what is left is what this machine adds.
            self.assertGreater(times["ttft_ms"], 0.6 * predicted["ttft_ms"])
            self.assertGreater(times["tpot_ms"], 0.6 * predicted["tpot_ms"])
            self.assertAlmostEqual(
                times["ttft_error_ms"], times["ttft_ms"] - times["placed_ms"] - predicted["ttft_ms"], places=3)
            _, said, _ = cluster.command("why", "r-%d" % self.sent)
            self.assertRegex(said, r"first token after .* were predicted")
            self.assertRegex(said, r"for each token after it; .* were predicted")
            with urllib.request.urlopen(cluster.url + "/metrics", timeout=5) as reply:
                text = reply.read().decode()
            for kind in ("ttft", "tpot"):
                counts = re.findall(
                    rf'llumnix_prediction_error_milliseconds_count{{kind="{kind}",side="(?:late|early)"}} (\d+)', text)
                self.assertEqual(sum(map(int, counts)), 1, text)
            self.assertRegex(text, r'selected_instance_predicted_ttft_count\{infer_type="prefill"\} 1\n')
            self.assertRegex(text, r'instance_cms_used_gpu_tokens\{instance_id="engine-0",infer_type="neutral"\} \d')

    def places_by_slo(self):
        with Redis() as redis:
            for name, role in (("inst-0001", "prefill"), ("inst-0002", "decode")):
                redis.set(METADATA + name, cms_record("metadata: " + role))
                redis.set(STATUS + name, status_record(name))
            flags = ["--cms-redis-host", "127.0.0.1", "--cms-redis-port", str(redis.port),
                     "--cms-pull-metadata-interval-ms", "200", "--scheduling-policy", "slo",
                     "--ttft-profiling-data-path", self.path("ttft"), "--tpot-profiling-data-path", self.path("tpot")]
            with Scheduler(*flags) as scheduler:
                until(lambda: isinstance(scheduler.place("pd", 100, mode="pd_batch"), list), 15, "both roles are placed")
                scheduler.release("pd", "", "x")
                self.assertEqual(scheduler.place("huge", 1_000_000, mode="pd_batch"), 429)  # nobody can say how long it takes
                text = scheduler.say(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")[2]
                self.assertRegex(text, r'selected_instance_predicted_ttft_count\{infer_type="prefill"\} 1\n')
                self.assertRegex(text, r'selected_instance_predicted_tpot_count\{infer_type="decode"\} 1\n')
                self.assertIsInstance(scheduler.place("short", 3, mode="pd_batch"), list)  # shorter than any measured

    def test_where_prefills_and_decodes_are_apart_each_gives_a_file(self):
        with Cluster("--prefill", "1", "--decode", "1", engine__speed=10) as cluster:
            def decoded():
                self.send(cluster, 64)
                return cluster.admin_get("/admin/v1/profile?role=decode")["tpot"]

            until(decoded, 20, "the decode instance takes requests over")
            code, said, wrong = cluster.command("profile", "--out", self.folder)
            self.assertEqual((code, wrong), (0, ""))
            self.assertRegex(said, r"ttft_profile\.json: \d+ points, of \d+ samples of prefill instances\n")
            self.assertRegex(said, r"tpot_profile\.json: \d+ points, of \d+ samples of decode instances\n")
            half = os.path.join(self.scratch, "half")
            code, _, wrong = cluster.command("profile", "--out", half, "--role", "decode")
            self.assertEqual(code, 0, wrong)
            self.assertIn("no prefill of a decode instance was seen", wrong)
            self.assertEqual(os.listdir(half), ["tpot_profile.json"])
            document = json.loads(cluster.command("profile", "--json")[1])
            self.assertEqual((document["ttft"], document["tpot"], document["role"]), (None, None, "neutral"))

    def test_nothing_seen_is_no_file(self):
        with Cluster(engines=1) as cluster:
            code, _, wrong = cluster.command("profile", "--out", self.folder)
            self.assertEqual(code, 1)
            self.assertIn("no prefill of a neutral or prefill instance was seen; send requests first", wrong)
            self.assertIn("no decode step of a neutral or decode instance was seen; send requests first", wrong)
            self.assertEqual(os.listdir(self.scratch), [])
            document = cluster.admin_get("/admin/v1/profile")
            self.assertEqual((document["ttft"], document["tpot"], document["role"]), (None, None, "neutral"))
            self.assertEqual(cluster.command("profile", "--role", "none")[0], 2)


if __name__ == "__main__":
    unittest.main()
