"""Engines for prefill and engines for decode: each stream goes through two of them, exactly."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import unittest
import urllib.request

import modeled
from cluster import MARK, PROGRAM, START_S, Cluster, ClusterTest, Stream, chat_body, until, until_async


def kinds(cluster, request):
    return [event["kind"] for event in cluster.why(request)["events"]]


def event(cluster, request, kind):
    return next(each for each in cluster.why(request)["events"] if each["kind"] == kind)


def metric(cluster, name):
    with urllib.request.urlopen(cluster.admin + "/metrics", timeout=5) as reply:
        return float(re.search(rf"^{name} (\S+)$", reply.read().decode(), re.M)[1])


async def run_all(test, cluster, name, count, tokens, act=None, pieces=10):
    """Runs streams, does something meanwhile, and checks each token of each of them."""
    streams = [Stream(cluster.url, chat_body(f"{name} {i} " + "word " * 60, tokens), request_id=f"{name}-{i}")
               for i in range(count)]
    expected = [modeled.chat(f"{name} {i} " + "word " * 60, tokens, ignore_eos=True) for i in range(count)]
    runs = [asyncio.create_task(stream.run()) for stream in streams]
    if act:
        await until_async(lambda: all(s.pieces >= pieces or s.broken or s.error for s in streams), 60, "streams run")
        await act()
    await asyncio.gather(*runs)
    for stream, output in zip(streams, expected):
        test.assert_exact(stream, output)


class Apart(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("--prefill", "2", "--decode", "2", engine__speed=3)
        cls.addClassCleanup(cls.cluster.close)
        cls.wait_linked(cls)

    def wait_linked(self):
        """Engines find each other a moment after the head found them; until then requests decode where they are."""
        numbers = itertools.count()

        def no_failure():
            names = [f"warm-{next(numbers)}" for _ in range(8)]

            async def all_of_them():
                await asyncio.gather(*(Stream(self.cluster.url, chat_body(name, 4), request_id=name).run() for name in names))

            asyncio.run(all_of_them())
            kinds = [each["kind"] for name in names for each in self.cluster.why(name)["events"]]
            return "move_failed" not in kinds and "decodes_at_prefill" not in kinds

        until(no_failure, 20, "every prefill instance reaches every decode instance")

    def tearDown(self):
        self.cluster.wait_idle(20)

    def test_status_knows_the_roles(self):
        self.assertEqual({id: each["role"] for id, each in self.cluster.instances().items()},
                         {"prefill-0": "prefill", "prefill-1": "prefill", "decode-0": "decode", "decode-1": "decode"})
        code, out, _ = self.cluster.command("status")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"prefill-0 +\S+ +\d+ +prefill +ready")
        self.assertRegex(out, r"decode-1 +\S+ +\d+ +decode +ready")

    def test_a_request_is_prefilled_at_one_and_decodes_at_the_other(self):
        before = metric(self.cluster, "llumnix_decode_handovers_total")
        asyncio.run(run_all(self, self.cluster, "one", 1, 60))
        self.assertEqual(kinds(self.cluster, "one-0"), ["placed", "decode_placed", "moved", "finished"])
        placed, decode, moved = (event(self.cluster, "one-0", kind) for kind in ("placed", "decode_placed", "moved"))
        self.assertTrue(placed["instance"].startswith("prefill-"))
        self.assertEqual(placed["reasons"]["for"], "prefill")
        self.assertTrue(decode["instance"].startswith("decode-"))
        self.assertEqual(decode["reasons"]["for"], "decode")
        self.assertEqual(moved["instance"], decode["instance"])
        self.assertTrue(moved["note"].startswith(f"from {placed['instance']} for decode by kv: "), moved["note"])
        self.assertEqual(metric(self.cluster, "llumnix_decode_handovers_total") - before, 1)
        code, out, _ = self.cluster.command("why", "one-0")
        self.assertEqual(code, 0)
        self.assertIn(f"from {placed['instance']} for decode by kv", out)
        self.assertIn(decode["instance"], out)

    def test_many_choices_and_one_token_answers(self):
        async def go():
            two = Stream(self.cluster.url, chat_body("two", 50, n=3), request_id="two")
            short = Stream(self.cluster.url, chat_body("short", 1), request_id="short")
            await asyncio.gather(two.run(), short.run())
            for choice in range(3):
                self.assert_exact(two, modeled.chat("two", 50, choice=choice, ignore_eos=True), choice)
            self.assert_exact(short, modeled.chat("short", 1, ignore_eos=True))
        asyncio.run(go())
        self.assertNotIn("moved", kinds(self.cluster, "short"))

    def test_a_drained_decode_instance_gives_to_the_other_one(self):
        async def drain():
            code, out, err = await asyncio.to_thread(self.cluster.command, "drain", "decode-0", "--timeout", "30s")
            self.assertEqual((code, err), (0, ""), out)
        asyncio.run(run_all(self, self.cluster, "drained", 12, 300, drain))
        where = [event(self.cluster, f"drained-{i}", "moved")["instance"] for i in range(12)]
        self.assertIn("decode-0", where)
        for i in range(12):
            last = [e for e in self.cluster.why(f"drained-{i}")["events"] if e["kind"] == "moved"][-1]
            self.assertEqual(last["instance"], "decode-1")
        self.assertEqual(self.cluster.command("undrain", "decode-0")[0], 0)

    def test_a_drained_prefill_instance_is_left_by_itself(self):
        async def drain():
            code, out, err = await asyncio.to_thread(self.cluster.command, "drain", "prefill-0", "--timeout", "30s")
            self.assertEqual((code, err), (0, ""), out)
        asyncio.run(run_all(self, self.cluster, "left", 8, 100, drain, pieces=0))
        asyncio.run(run_all(self, self.cluster, "after", 6, 20))
        for i in range(6):
            self.assertEqual(event(self.cluster, f"after-{i}", "placed")["instance"], "prefill-1")
        self.assertEqual(self.cluster.command("undrain", "prefill-0")[0], 0)

    def test_a_decoding_request_is_not_sent_to_a_prefill_instance(self):
        async def move():
            code, out, _ = await asyncio.to_thread(self.cluster.command, "migrate", "wrong-0", "--to", "prefill-0")
            self.assertEqual(code, 4)
            self.assertIn("prefill-0 is for prefills", out + _)
        asyncio.run(run_all(self, self.cluster, "wrong", 1, 300, move))


class Killed(ClusterTest):
    def test_every_stream_of_load_is_exact_though_engines_die(self):
        with Cluster("--prefill", "2", "--decode", "2", engine__speed=10) as cluster:
            load = subprocess.Popen(
                [PROGRAM, "load", cluster.url, "--verify", "--duration", "30s", "--concurrency", "24",
                 "--prompt-tokens", "200-800", "--max-tokens", "40-120", "--json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, MARK: cluster.mark})
            for victim in ("prefill-0", "decode-0", "prefill-1", "decode-1"):
                until(lambda: any(each["instance"] == victim for each in cluster.requests()) or load.poll() is not None,
                      30, f"something runs at {victim}")
                self.assertIsNone(load.poll(), "it ended before all were killed")
                os.kill(cluster.pid(victim), signal.SIGKILL)
                cluster.wait_event(START_S, event="node_restarted", node=victim)
                until(lambda: cluster.instances().get(victim, {}).get("state") == "ready", 20, f"{victim} is ready")
            out, err = load.communicate(timeout=120)
            self.assertEqual(load.returncode, 0, out + err)
            report = json.loads(out)
            self.assertEqual(report["requests"]["failed"], 0, report)
            self.assertGreater(metric(cluster, "llumnix_decode_handovers_total"), 100)
            self.assertGreater(metric(cluster, "llumnix_replays_total"), 0)
            cluster.wait_idle(20)


class Staged(ClusterTest):
    def test_the_decode_instance_may_be_chosen_when_the_prefill_is_done(self):
        with Cluster("--prefill", "1", "--decode", "2", engine__speed=3, gateway__serving_mode="pd_staged") as cluster:
            asyncio.run(run_all(self, cluster, "staged", 10, 60))
            for i in range(10):
                self.assertEqual(kinds(cluster, f"staged-{i}"), ["placed", "decode_placed", "moved", "finished"])
            cluster.wait_idle(20)


class Refused(unittest.TestCase):
    def test_options_that_make_no_sense_say_so(self):
        for arguments, said in (
                (["--prefill", "2"], "--decode: is missing"),
                (["--decode", "2"], "--prefill: is missing"),
                (["--prefill", "1", "--decode", "1", "--engines", "2"], "--engines: starts engines that prefill and decode"),
                (["--set", "gateway.serving_mode=pd_batch"], "gateway.serving_mode: is pd_batch; say how many"),
                (["--prefill", "1", "--decode", "1", "--set", "gateway.serving_mode=pd_both"],
                 "gateway.serving_mode: pd_both is none of neutral, pd_batch, pd_staged; did you mean pd_batch?"),
                (["--prefill", "1", "--decode", "1", "--engine", "http://127.0.0.1:1"], "--prefill: starts simulated engines")):
            done = subprocess.run([PROGRAM, "up", *arguments], capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
