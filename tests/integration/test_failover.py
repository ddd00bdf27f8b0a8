"""Engines die, freeze and come back while streams run: clients see one exact stream, or a clear error."""

import asyncio
import json
import os
import signal
import subprocess
import time
import unittest

import modeled
from cluster import MARK, PROGRAM, START_S, Cluster, ClusterTest, Stream, chat_body, until, until_async


def streams_for(cluster, name, count, tokens):
    return [Stream(cluster.url, chat_body(f"{name} {number}", tokens), request_id=f"{name}-{number}")
            for number in range(count)]


def expected_for(name, count, tokens):
    return [modeled.chat(f"{name} {number}", tokens, ignore_eos=True) for number in range(count)]


async def all_running(streams, pieces=10, seconds=30):
    await until_async(lambda: all(s.pieces >= pieces or s.broken or s.error for s in streams), seconds,
                      "every stream has begun")


def serving_instances(cluster):
    return {each["id"] for each in cluster.instances().values() if each["state"] == "ready"}


def answers_exactly(cluster, content="again", tokens=8):
    stream = asyncio.run(Stream(cluster.url, chat_body(content, tokens)).run(20))
    return stream.done and stream.text == modeled.chat(content, tokens, ignore_eos=True).text


class EngineKilled(ClusterTest):
    def test_100_streams_survive_kill_9_of_an_engine(self):
        with Cluster(engines=4, engine__speed=3) as cluster:
            asyncio.run(self.kill_under_load(cluster))
            # The instance comes back as a new life of the same name, and serves.
            victim = self.victim
            down = cluster.wait_event(10, event="node_down", node=victim)
            self.assertEqual((down["pid"], down["reason"]), (self.pid, "signal 9"))
            back = cluster.wait_event(START_S, event="node_restarted", node=victim)
            self.assertEqual(back["incarnation"], 2)
            self.assertNotEqual(back["pid"], self.pid)
            until(lambda: cluster.instances().get(victim, {}).get("state") == "ready", 20, f"{victim} is ready")
            self.assertEqual(cluster.instances()[victim]["incarnation"], 2)
            asyncio.run(self.serves_again(cluster, victim))
            cluster.wait_idle()

    async def kill_under_load(self, cluster):
        streams, expected = streams_for(cluster, "kill", 100, 250), expected_for("kill", 100, 250)
        runs = [asyncio.create_task(stream.run()) for stream in streams]
        await all_running(streams)
        placed = {each["id"]: each["instance"] for each in await asyncio.to_thread(cluster.requests)}
        self.victim = "engine-1"
        moved = [request for request, instance in placed.items() if instance == self.victim]
        self.assertGreater(len(moved), 5, f"too few streams on the victim to mean anything: {placed}")
        self.pid = cluster.pid(self.victim)
        self.assertFalse(all(stream.done for stream in streams), "streams ended before the kill: raise their length")
        os.kill(self.pid, signal.SIGKILL)
        await asyncio.gather(*runs)
        for stream, output in zip(streams, expected):
            self.assert_exact(stream, output)
        for request in moved:
            events = (await asyncio.to_thread(cluster.why, request))["events"]
            kinds = [event["kind"] for event in events]
            self.assertIn("replayed", kinds, request)
            self.assertEqual(kinds[-1], "finished", request)
            self.assertEqual(kinds.count("finished"), 1, request)
            placements = [event["instance"] for event in events if event["kind"] == "placed"]
            self.assertEqual(placements[0], self.victim, request)
            self.assertNotEqual(placements[-1], self.victim, request)
        spared = next(request for request, instance in placed.items() if instance != self.victim)
        kinds = [event["kind"] for event in (await asyncio.to_thread(cluster.why, spared))["events"]]
        self.assertNotIn("replayed", kinds, spared)

    async def serves_again(self, cluster, instance):
        streams, expected = streams_for(cluster, "after", 24, 60), expected_for("after", 24, 60)
        runs = [asyncio.create_task(stream.run()) for stream in streams]
        await asyncio.gather(*runs)
        for stream, output in zip(streams, expected):
            self.assert_exact(stream, output)
        whys = [await asyncio.to_thread(cluster.why, stream.request_id) for stream in streams]
        placed = {event["instance"] for why in whys for event in why["events"] if event["kind"] == "placed"}
        self.assertIn(instance, placed)

    def test_whole_answers_and_choices_survive_too(self):
        async def act(cluster):
            whole = [Stream(cluster.url, chat_body(f"whole {i}", 200, stream=False, n=2), request_id=f"whole-{i}")
                     for i in range(12)]
            runs = [asyncio.create_task(stream.run()) for stream in whole]
            await until_async(lambda: len([r for r in cluster.requests() if r["output_tokens"] > 10]) >= 12, 20,
                              "requests are running")
            os.kill(cluster.pid("engine-0"), signal.SIGKILL)
            await asyncio.gather(*runs)
            for i, stream in enumerate(whole):
                self.assertEqual((stream.broken, stream.status), (None, 200), stream.raw)
                texts = [choice["message"]["content"]
                         for choice in sorted(json.loads(stream.raw)["choices"], key=lambda c: c["index"])]
                self.assertEqual(texts, [modeled.chat(f"whole {i}", 200, choice=choice, ignore_eos=True).text
                                         for choice in (0, 1)], stream.request_id)

        with Cluster(engines=2, engine__speed=3) as cluster:
            asyncio.run(act(cluster))

    def test_one_engine_after_the_other(self):
        """Each stream loses its engine more than once."""
        async def act(cluster):
            streams, expected = streams_for(cluster, "chain", 20, 400), expected_for("chain", 20, 400)
            runs = [asyncio.create_task(stream.run()) for stream in streams]
            await all_running(streams)
            for node in ("engine-0", "engine-1"):
                os.kill(cluster.pid(node), signal.SIGKILL)
                await until_async(
                    lambda: any(e["event"] == "node_restarted" and e["node"] == node for e in list(cluster.events)), 30,
                    f"{node} is back")
                await until_async(lambda: node in serving_instances(cluster), 20, f"{node} is ready")
            await asyncio.gather(*runs)
            for stream, output in zip(streams, expected):
                self.assert_exact(stream, output)

        with Cluster(engines=2, engine__speed=3) as cluster:
            asyncio.run(act(cluster))

    def test_load_verify_passes_while_an_engine_dies(self):
        with Cluster(engines=3, engine__speed=5) as cluster:
            load = subprocess.Popen(
                [PROGRAM, "load", cluster.url, "--verify", "--json", "--requests", "300", "--concurrency", "60",
                 "--max-tokens", "20-200", "--n", "2", "--temperature", "0.8"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: cluster.mark})
            until(lambda: sum(i["scheduling"]["running"] for i in cluster.instances().values()) > 30, 20, "load")
            os.kill(cluster.pid("engine-2"), signal.SIGKILL)
            out, err = load.communicate(timeout=100)
            self.assertEqual(load.returncode, 0, out + err)
            report = json.loads(out)
            self.assertEqual((report["requests"]["ok"], report["requests"]["failed"]), (300, 0))
            self.assertEqual(report["verify"]["requests"], 300)
            cluster.wait_event(10, event="node_down", node="engine-2")


class EngineFrozen(ClusterTest):
    def test_streams_of_a_stopped_engine_go_on_elsewhere_and_its_return_harms_nobody(self):
        async def act(cluster):
            streams, expected = streams_for(cluster, "stop", 40, 400), expected_for("stop", 40, 400)
            runs = [asyncio.create_task(stream.run()) for stream in streams]
            await all_running(streams)
            placed = {each["id"]: each["instance"] for each in await asyncio.to_thread(cluster.requests)}
            held = [s for s in streams if placed.get(s.request_id) == "engine-0"]
            self.assertGreater(len(held), 3, placed)
            pid = cluster.pid("engine-0")
            os.kill(pid, signal.SIGSTOP)
            try:
                await until_async(lambda: cluster.instances().get("engine-0", {}).get("state") != "ready", 15,
                                  "the stopped engine counts as lost")
                seen = {s.request_id: s.pieces for s in held}
                await until_async(lambda: all(s.pieces > seen[s.request_id] or s.done for s in held), 20,
                                  "its streams go on")
                self.assertFalse(all(s.done for s in streams), "streams ended before the return: raise their length")
            finally:
                os.kill(pid, signal.SIGCONT)  # it goes on with what it held: nobody must hear of it
            await asyncio.gather(*runs)
            for stream, output in zip(streams, expected):
                self.assert_exact(stream, output)

        with Cluster(engines=3, engine__speed=3) as cluster:
            asyncio.run(act(cluster))
            until(lambda: "engine-0" in serving_instances(cluster), 30, "the engine is ready again")
            cluster.wait_idle()
            for number in range(12):
                self.assertTrue(answers_exactly(cluster, f"later {number}"))


class NoEngineLeft(ClusterTest):
    def test_requests_wait_then_503_and_a_running_stream_ends_with_an_error(self):
        async def act(cluster):
            streams = streams_for(cluster, "gone", 6, 4000)
            runs = [asyncio.create_task(stream.run(60)) for stream in streams]
            await all_running(streams)
            cluster.signal(signal.SIGSTOP)  # `up` cannot restart anything now
            try:
                for node in ("engine-0", "engine-1"):
                    os.kill(cluster.pid(node), signal.SIGKILL)
                begin = time.monotonic()
                await asyncio.gather(*runs)
                for stream in streams:
                    self.assertEqual((stream.broken, stream.status, stream.done), (None, 200, False))
                    self.assertIsNotNone(stream.error, "the stream must end with an error event")
                    self.assertTrue(stream.error["message"])
                    expected = modeled.chat(f"gone {stream.request_id[5:]}", 4000, ignore_eos=True).text
                    self.assertTrue(expected.startswith(stream.text), "what was said before is right")
                self.assertGreater(time.monotonic() - begin, 0.8, "they waited for an instance first")
                begin = time.monotonic()
                late = await Stream(cluster.url, chat_body("late", 4)).run(30)
                self.assertEqual(late.status, 503, late.raw)
                self.assertGreater(time.monotonic() - begin, 0.8, "it waited for an instance first")
                error = json.loads(late.raw)["error"]
                self.assertEqual(error["type"], "service_unavailable")
                self.assertEqual(error["code"], "no_available_worker")
            finally:
                cluster.signal(signal.SIGCONT)

        with Cluster(engines=2, engine__speed=3, gateway__wait_for_instance="1s") as cluster:
            asyncio.run(act(cluster))
            until(lambda: len(serving_instances(cluster)) == 2, START_S, "both engines are back")
            self.assertTrue(answers_exactly(cluster))
            cluster.wait_idle()

    def test_a_request_that_waits_is_served_when_an_engine_comes_back(self):
        async def act(cluster):
            streams, expected = streams_for(cluster, "wait", 6, 200), expected_for("wait", 6, 200)
            runs = [asyncio.create_task(stream.run(90)) for stream in streams]
            await all_running(streams)
            os.kill(cluster.pid("engine-0"), signal.SIGKILL)
            await asyncio.gather(*runs)
            for stream, output in zip(streams, expected):
                self.assert_exact(stream, output)

        with Cluster(engines=1, engine__speed=3, gateway__wait_for_instance="30s") as cluster:
            asyncio.run(act(cluster))


class HeadKilled(ClusterTest):
    def test_a_killed_head_comes_back_at_its_address_and_serves(self):
        with Cluster(engines=2, engine__speed=10) as cluster:
            self.assertTrue(answers_exactly(cluster))
            pid = cluster.pid("head")
            os.kill(pid, signal.SIGKILL)
            down = cluster.wait_event(10, event="node_down", node="head")
            self.assertEqual((down["pid"], down["reason"]), (pid, "signal 9"))
            self.assertEqual(cluster.wait_event(START_S, event="node_restarted", node="head")["incarnation"], 2)

            def serving():
                try:
                    return len(serving_instances(cluster)) == 2
                except OSError:
                    return False

            until(serving, 30, "both engines have joined the new head")
            for number in range(8):
                self.assertTrue(answers_exactly(cluster, f"new head {number}", 30))
            cluster.wait_idle()  # what the engines held for the old head is gone


if __name__ == "__main__":
    unittest.main(verbosity=2)
