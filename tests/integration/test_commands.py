"""The commands that look at a running cluster, and the documents they print."""

import asyncio
import json
import subprocess
import tempfile
import time
import unittest

import modeled
from cluster import PROGRAM, Cluster, ClusterTest, Stream, chat_body, free_port, until, until_async

REQUEST_STATES = {"queued", "prefilling", "running", "moving", "replaying"}


class Commands(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(engines=2, engine__speed=1)
        cls.addClassCleanup(cls.cluster.close)

    def document(self, *arguments):
        code, out, err = self.cluster.command(*arguments, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def assert_has(self, thing, *names):
        self.assertFalse(set(names) - set(thing), f"missing in {thing}")

    def test_status(self):
        status = self.document("status")
        self.assert_has(status, "nodes", "instances", "leaders")
        self.assertEqual([each["id"] for each in status["instances"]], ["engine-0", "engine-1"])
        for each in status["instances"]:
            self.assert_has(each, "id", "node", "incarnation", "role", "state", "engine", "scheduling", "kv_blocks",
                            "migrations", "status_age_ms")
            self.assertEqual((each["state"], each["role"], each["incarnation"]), ("ready", "neutral", 1))
            self.assert_has(each["scheduling"], "waiting", "running")
            blocks = each["kv_blocks"]
            self.assert_has(blocks, "total", "used", "free", "reserved", "block_tokens")
            self.assertEqual((blocks["total"], blocks["block_tokens"]), (792, 16))
            self.assertEqual(blocks["used"] + blocks["free"], blocks["total"])
            self.assert_has(each["migrations"], "in", "out", "slots")
            self.assertLess(each["status_age_ms"], 5000)
        code, out, _ = self.cluster.command("status")
        self.assertEqual(code, 0)
        self.assertIn("engine-1", out)
        self.assertNotIn("\x1b", out)  # no colour in a pipe

    def test_who_leads(self):
        until(lambda: "rescheduler" in self.document("status")["leaders"], 20, "somebody leads the reschedulers")
        status = self.document("status")
        self.assertEqual(status["leaders"]["rescheduler"], "head")
        leader = status["terms"]["rescheduler"]
        self.assertEqual((leader["node"], leader["incarnation"]), ("head", 1))
        now = time.time() * 1000
        self.assertTrue(now - 600_000 < leader["term"] <= now, leader)  # the wall time, in milliseconds
        for each in status["instances"]:
            moves = each["migrations"]
            self.assertEqual((moves["out_slots"], moves["free_in"], moves["free_out"]), (4, 4, 4))
        _, out, _ = self.cluster.command("status")
        self.assertIn(f"The rescheduler of head leads, under term {leader['term']}", out)

    def test_requests_and_why(self):
        asyncio.run(self.look_at_a_running_request())

    async def look_at_a_running_request(self):
        stream = Stream(self.cluster.url, chat_body("look", 120), request_id="look-1")
        run = asyncio.create_task(stream.run())
        await until_async(lambda: stream.pieces > 3, 20, "the stream runs")
        listed = await asyncio.to_thread(self.document, "requests")
        mine = next(each for each in listed["requests"] if each["id"] == "look-1")
        self.assert_has(mine, "id", "instance", "state", "epoch", "prompt_tokens", "output_tokens", "age_ms", "client")
        self.assertIn(mine["state"], REQUEST_STATES)
        self.assertIn(mine["instance"], ("engine-0", "engine-1"))
        self.assertEqual(mine["prompt_tokens"], len(modeled.chat_ids([{"role": "user", "content": "look"}])))
        self.assertGreater(mine["output_tokens"], 0)
        await run
        self.assert_exact(stream, modeled.chat("look", 120, ignore_eos=True))
        for name in ("look-1", "chatcmpl-look-1"):  # either form of the id
            why = await asyncio.to_thread(self.document, "why", name)
            self.assertEqual(why["id"], "look-1")
            events = why["events"]
            self.assertEqual([event["kind"] for event in events], ["placed", "finished"])
            self.assertEqual(events[0]["instance"], mine["instance"])
            self.assertTrue(events[0]["reasons"])
            self.assertLessEqual(events[0]["at_ms"], events[1]["at_ms"])
        code, out, _ = await asyncio.to_thread(self.cluster.command, "why", "look-1")
        self.assertEqual(code, 0)
        self.assertIn(mine["instance"], out)

    def test_a_second_request_of_the_same_id_gets_another(self):
        async def act():
            streams = [Stream(self.cluster.url, chat_body("twin", 60), request_id="twin") for _ in range(2)]
            runs = []
            for stream in streams:
                runs.append(asyncio.create_task(stream.run()))
                await until_async(lambda: stream.pieces > 0, 20, "it runs")
            await asyncio.gather(*runs)
            self.assertEqual([stream.headers["x-request-id"] for stream in streams], ["twin", "twin-2"])
            for stream in streams:
                self.assert_exact(stream, modeled.chat("twin", 60, ignore_eos=True))

        asyncio.run(act())

    def test_why_of_an_unknown_request(self):
        code, out, err = self.cluster.command("why", "nobody-knows-this")
        self.assertNotEqual(code, 0)
        self.assertIn("nobody-knows-this", out + err)

    def test_actors(self):
        actors = self.document("actors")["actors"]
        for each in actors:
            self.assert_has(each, "id", "name", "role", "node", "mailbox", "messages", "busy_ms", "restarts", "up_ms", "state")
        self.assertEqual({each["node"] for each in actors}, {"head", "engine-0", "engine-1"})
        for node, roles in (("head", {"gateway", "scheduler"}), ("engine-0", {"llumlet", "engine"})):
            self.assertFalse(roles - {each["role"] for each in actors if each["node"] == node}, node)

    def test_nobody_there_is_exit_3(self):
        for command in (("status",), ("requests",), ("actors",), ("why", "x")):
            done = subprocess.run(
                [PROGRAM, *command, "--json", "--admin", f"127.0.0.1:{free_port()}"], capture_output=True, text=True,
                timeout=30)
            self.assertEqual((done.returncode, done.stdout), (3, ""), command)
            self.assertTrue(done.stderr, command)

    def test_load_verify(self):
        for options in ((), ("--completions",), ("--no-stream", "--n", "2"), ("--temperature", "1")):
            with self.subTest(options):
                done = subprocess.run(
                    [PROGRAM, "load", self.cluster.url, "--verify", "--json", "--requests", "40", "--concurrency", "20",
                     "--max-tokens", "1-40", "--prompt-tokens", "5-900", *options],
                    capture_output=True, text=True, timeout=100)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertEqual(json.loads(done.stdout)["verify"]["requests"], 40)

    def run_alone(self, *arguments, **pipes):
        return subprocess.run(
            [PROGRAM, *arguments], stdin=subprocess.DEVNULL, text=True, timeout=60,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes})

    def test_a_wrong_word_is_exit_2_and_a_clear_line(self):
        for arguments, told in (
                (("status", "--admin", "127.0.0.1:99999"), "65535"),
                (("status", "--admin", "nonsense"), "HOST:PORT"),
                (("why", ""), "give a request id"),
                (("load", "--requests", "0"), "from 1 to"),
                (("load", "--arrival", "foo", "--rate", "3"), "none of poisson, uniform, gamma"),
                (("load", "--prompt-tokens", "0"), "--prompt-tokens"),
                (("config", "--set", "scheduler.policy=nope"), "load-balance"),
                (("config", "--set", "engine.latency=nope"), "engine.latency")):
            with self.subTest(arguments):
                done = self.run_alone(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertIn(told, done.stderr)
                for line in done.stderr.splitlines():
                    self.assertLess(len(line), 200)

    def test_an_instance_that_is_not_there(self):
        code, out, err = self.cluster.command("requests", "--instance", "engine-0")
        self.assertEqual((code, out, err), (0, "No request is running\n", ""))
        for form in ((), ("--json",)):
            code, out, err = self.cluster.command("requests", "--instance", "engin-1", *form)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("engin-1; did you mean engine-1?", err)
        code, out, err = self.cluster.command("requests", "--instance", "nope")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("no instance nope", err)

    def test_an_address_of_something_else(self):
        for command in (("status",), ("requests",), ("why", "x")):
            with self.subTest(command):
                done = self.run_alone(*command, "--admin", self.cluster.url)
                self.assertEqual((done.returncode, done.stdout), (3, ""), done.stderr)
                self.assertIn("is not the operators' address", done.stderr)

    def test_output_that_is_lost_is_no_success(self):
        admin = self.cluster.admin.removeprefix("http://")
        for arguments in (("--help",), ("up", "--help"), ("config",), ("config", "--schema"),
                          ("status", "--admin", admin), ("actors", "--json", "--admin", admin),
                          ("requests", "--admin", admin), ("load", self.cluster.url, "--requests", "1")):
            with self.subTest(arguments), open("/dev/full", "w", encoding="utf-8") as full:
                done = self.run_alone(*arguments, stdout=full)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("No space left", done.stderr)

    def test_a_scene_that_is_no_text_costs_the_others_nothing(self):
        good = b'{"instances":[{"id":"a"}],"request":{"scheduling_mode":"neutral"}}'
        scenes = [good, good.replace(b'"a"', b'"\xff"'), b'{"name":"\xff"}', good]
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            file.write(b"\n".join(scenes))
            file.flush()
            done = self.run_alone("decide", file.name)
        self.assertEqual((done.returncode, done.stderr), (2, ""))
        told = [json.loads(line)["outcome"] for line in done.stdout.splitlines()]
        self.assertEqual(told, ["placed", "error", "error", "placed"])

    def test_a_wrong_file_is_named(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            for text, told in (('{"engine": {"sped": 1}}', f"{file.name}: engine.sped: no such knob"),
                               ('{"engine": {"speed": 1, "speed": 2}}', f"{file.name}: engine.speed: is given twice"),
                               ("{", f"{file.name}, line 1")):
                file.seek(0)
                file.truncate()
                file.write(text)
                file.flush()
                done = self.run_alone("config", "--config", file.name)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(told, done.stderr)


class Corruption(ClusterTest):
    def test_a_spoiled_block_shows_in_the_text_and_load_says_so(self):
        """The check checks: one corrupted KV block must not go unnoticed."""
        with Cluster(engines=1, engine__speed=20, engine__corrupt="spoiled:1") as cluster:
            stream = asyncio.run(Stream(cluster.url, chat_body("spoil me, " * 5, 40), request_id="spoiled").run())
            self.assertTrue(stream.done)
            self.assertIn("⟂", stream.text)
            healthy = asyncio.run(Stream(cluster.url, chat_body("spoil me, " * 5, 40), request_id="healthy").run())
            self.assert_exact(healthy, modeled.chat("spoil me, " * 5, 40, ignore_eos=True))


if __name__ == "__main__":
    unittest.main(verbosity=2)
