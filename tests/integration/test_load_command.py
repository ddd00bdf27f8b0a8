"""`llumnix load` against an endpoint of the tests' own: every fault is noticed and named."""

import asyncio
import json
import signal
import tempfile
import time
import unittest

import fake_endpoint
from cluster import PROGRAM, free_port

LIMIT_S = 30


async def run_load(endpoint, *options):
    url = await endpoint.start()
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "load", url, "--json", *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise
    finally:
        await endpoint.stop()
    return process.returncode, json.loads(out) if out else None, err.decode()


def load(endpoint, *options):
    return asyncio.run(run_load(endpoint, *options))


VERIFY = ("--verify", "--requests", "6", "--concurrency", "1", "--max-tokens", "8", "--ignore-eos", "--timeout", "2s")


class Verify(unittest.TestCase):
    def test_right_answers_pass_in_every_form(self):
        for options in (
                (), ("--completions",), ("--no-stream",), ("--completions", "--no-stream"), ("--n", "3"),
                ("--temperature", "0.7"), ("--temperature", "1", "--n", "2", "--completions"),
                ("--no-stream", "--n", "2"), ("--rate", "200"), ("--rate", "100", "--arrival", "gamma", "--cv", "3")):
            with self.subTest(options):
                code, report, err = load(
                    fake_endpoint.FakeEndpoint(), "--verify", "--requests", "40", "--max-tokens", "1-400",
                    "--prompt-tokens", "5-300", *options)
                self.assertEqual(code, 0, err)
                self.assertEqual(report["requests"]["ok"], 40)
                self.assertEqual(report["verify"]["requests"], 40)
                self.assertEqual(report["verify"]["tokens"], report["tokens"]["output"])
                self.assertGreater(report["tokens"]["output"], 40)

    def test_a_wrong_token_is_named(self):
        rows = {
            "wrong_token": lambda got: got.startswith(" zzzz"),
            "broken_token": lambda got: "⟂" in got,
            "missing_token": lambda got: len(got) > 0,
            "twice": lambda got: len(got) > 0,
            "early_end": lambda got: got == "end (length)",
        }
        for fault, got_is_right in rows.items():
            for options in ((), ("--no-stream",), ("--completions",)):
                with self.subTest(fault=fault, options=options):
                    code, report, err = load(fake_endpoint.FakeEndpoint(fault), *VERIFY, *options)
                    self.assertEqual(code, 1, err)
                    wrong, = report["verify"]["wrong"]
                    self.assertEqual((wrong["request"], wrong["index"], wrong["choice"]), ("fake-2", 2, 0))
                    # A word sent twice shows where the second one stands.
                    self.assertEqual(wrong["position"], fake_endpoint.WRONG_AT + (fault == "twice"))
                    self.assertRegex(wrong["expected"], r"^ [bdfgklmn][aeio][rstv][aeiu]$")
                    self.assertTrue(got_is_right(wrong["got"]), wrong)
                    self.assertEqual(report["requests"]["ok"], 5)
                    self.assertEqual(report["requests"]["failures"], {"wrong output": 1})

    def test_a_wrong_end_is_named(self):
        for fault, expected in (("bad_reason", "end (length)"), ("bad_usage", "usage of 8 completion tokens"),
                                ("text_after", "nothing after the end")):
            with self.subTest(fault):
                code, report, err = load(fake_endpoint.FakeEndpoint(fault), *VERIFY)
                self.assertEqual(code, 1, err)
                self.assertEqual(report["verify"]["wrong"][0]["expected"], expected)

    def test_failures_are_counted_by_reason(self):
        for fault, reason, broken in (
                ("no_done", "stream ended without [DONE]", 1), ("cut", "stream broken: reply cut short", 1),
                ("error_event", "error event internal", 1), ("stall", "stream broken: timeout", 1),
                ("refused", "HTTP 503 no_available_worker", 0)):
            with self.subTest(fault):
                code, report, err = load(fake_endpoint.FakeEndpoint(fault), *VERIFY)
                self.assertEqual(code, 1, err)
                self.assertEqual(report["requests"]["failures"], {reason: 1})
                self.assertEqual(report["streams_broken"], broken)
                self.assertEqual(report["requests"]["ok"], 5)


class Run(unittest.TestCase):
    def test_the_same_seed_sends_the_same_requests(self):
        options = ("--requests", "20", "--temperature", "1", "--prompt-tokens", "5-50", "--max-tokens", "1-9",
                   "--concurrency", "1")
        bodies = []
        for seed in ("7", "7", "8"):
            endpoint = fake_endpoint.FakeEndpoint()
            load(endpoint, *options, "--seed", seed)
            bodies.append(endpoint.bodies)
        self.assertEqual(len(bodies[0]), 20)
        self.assertEqual(bodies[0], bodies[1])
        self.assertNotEqual(bodies[0], bodies[2])

    def test_a_connection_closed_between_requests_is_replaced_unseen(self):
        code, report, err = load(
            fake_endpoint.FakeEndpoint(keep_alive_requests=3), "--requests", "30", "--concurrency", "2",
            "--max-tokens", "4", "--verify")
        self.assertEqual((code, report["requests"]["ok"]), (0, 30), err)

    def test_concurrency_bounds_what_is_under_way(self):
        endpoint = fake_endpoint.FakeEndpoint(token_pause=0.002)
        code, report, err = load(endpoint, "--requests", "60", "--concurrency", "7", "--max-tokens", "8")
        self.assertEqual(code, 0, err)
        self.assertEqual(endpoint.running_max, 7)

    def test_a_trace_gives_lengths_and_times(self):
        rows = [(0, 30, 5), (50, 600, 7), (400, 1, 0)]
        files = {
            "jsonl": "".join(json.dumps({"at_ms": at, "prompt_tokens": p, "output_tokens": o}) + "\n"
                             for at, p, o in rows),
            "mooncake_jsonl": "".join(
                json.dumps({"timestamp": at, "input_length": p, "output_length": o, "hash_ids": [1, 2]}) + "\n"
                for at, p, o in rows),
            "azure_csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
                f"2023-11-16 18:15:46.{at:03}0000,{p},{o}\n" for at, p, o in rows),
        }
        for name, text in files.items():
            with self.subTest(name), tempfile.NamedTemporaryFile("w") as file:
                file.write(text)
                file.flush()
                endpoint = fake_endpoint.FakeEndpoint()
                begin = time.monotonic()
                code, report, err = load(endpoint, "--trace", file.name, "--format", name, "--verify", "--completions")
                self.assertEqual(code, 0, err)
                self.assertGreaterEqual(time.monotonic() - begin, 0.4)
                self.assertEqual([(len(b["prompt"]), b["max_tokens"]) for b in endpoint.bodies],
                                 [(30, 5), (600, 7), (1, 1)])
                if name == "mooncake_jsonl":  # equal names of blocks, equal beginnings
                    self.assertEqual(endpoint.bodies[0]["prompt"], endpoint.bodies[1]["prompt"][:30])

    def test_unreachable_is_exit_3(self):
        async def nobody():
            process = await asyncio.create_subprocess_exec(
                PROGRAM, "load", f"http://127.0.0.1:{free_port()}", stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE)
            out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
            return process.returncode, out.decode(), err.decode()

        code, out, err = asyncio.run(nobody())
        self.assertEqual((code, out), (3, ""))
        self.assertIn("cannot reach", err)

    def test_ctrl_c_reports_so_far_and_exits_130(self):
        async def interrupted():
            endpoint = fake_endpoint.FakeEndpoint(token_pause=0.01)
            url = await endpoint.start()
            process = await asyncio.create_subprocess_exec(
                PROGRAM, "load", url, "--json", "--duration", "10m", "--concurrency", "3", "--max-tokens", "9",
                "--ignore-eos", stdout=asyncio.subprocess.PIPE)
            deadline = time.monotonic() + LIMIT_S
            while endpoint.served < 10 and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
            await endpoint.stop()
            return process.returncode, json.loads(out)

        code, report = asyncio.run(interrupted())
        self.assertEqual(code, 130)
        self.assertTrue(report["interrupted"])
        self.assertGreater(report["requests"]["ok"], 0)
        self.assertEqual(report["requests"]["failed"], 0)

    def test_usage_errors_are_exit_2(self):
        async def refused(*options):
            process = await asyncio.create_subprocess_exec(
                PROGRAM, "load", *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
            return await asyncio.wait_for(process.wait(), LIMIT_S)

        for options in (("--max-tokens", "9-3"), ("--duration", "soon"), ("--trace", "/nonexistent"),
                        ("https://127.0.0.1",), ("--requests", "-1"), ("--arrival", "sometimes", "--rate", "1")):
            with self.subTest(options):
                self.assertEqual(asyncio.run(refused(*options)), 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
