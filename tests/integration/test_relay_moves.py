"""Streams leave a stock engine that is well, by drains and by hand: their clients do not notice."""

import asyncio
import json
import threading
import unittest

from cluster import Stream, until, until_async
from test_relay import CHAT, COMPLETIONS, Engines, RelayTest, chat, completion, post

KIND = "vLLM 0.32.0 (token ids)"
ANEW = r"\d+ tokens computed anew, \S+ without one"


class Fleet(Engines):
    """Engines whose first one gets what is asked for by `on_first`."""

    def __init__(self, count=2, options=("--token-ms", 10), **more):
        super().__init__(count, options, **more)
        until(lambda: all(each["engine"] == KIND for each in self.cluster.instances().values()), 10, "what they are is known")

    @property
    def first(self):
        return self.engines[0]

    def state_of(self, engine):
        return self.cluster.instances()[engine.id]["state"]

    def ready_but_first(self, ready):
        for engine in self.engines[1:]:
            engine.call("/control/ready", {"ready": ready})
        until(lambda: all((self.state_of(each) == "ready") == ready for each in self.engines[1:]), 10, "it is seen")

    def places(self):
        return {each["id"]: each["instance"] for each in self.cluster.requests()}

    def kinds(self, request):
        return [event["kind"] for event in self.cluster.why(request)["events"]]

    def outcomes(self, engine):
        return [each["outcome"] for each in engine.requests() if each["path"] in (CHAT, COMPLETIONS)]

    def drain(self, engine):
        code, out, err = self.cluster.command("drain", engine.id, "--json")
        return code, json.loads(out)


class Moves(RelayTest):
    def while_running(self, x, streams, act, pieces=5, begin=lambda: None):
        """Runs streams, and what `begin` begins, at the first engine; acts once all run; checks every text to its end."""
        async def go():
            await asyncio.to_thread(x.ready_but_first, False)
            runs = [asyncio.create_task(stream.run(60)) for stream in streams]
            await until_async(lambda: all(each.pieces >= pieces or each.broken for each in streams), 20, "they run")
            await asyncio.to_thread(begin)
            await asyncio.to_thread(x.ready_but_first, True)
            result = await asyncio.to_thread(act)
            await asyncio.gather(*runs)
            return result

        result = asyncio.run(go())
        for stream in streams:
            self.assert_whole(stream)
        return result

    def test_a_drain_empties_an_engine_and_no_stream_notices(self):
        with Fleet() as x:
            fields = [{}, {"stream_options": {"include_usage": True}}, {"return_token_ids": True}, {"logprobs": True}]
            streams = [Stream(x.url, chat(f"drained {i}", 250, **fields[i % 4]), CHAT, f"d-{i}") for i in range(10)]
            streams += [Stream(x.url, completion(f"drained {i}", 250), COMPLETIONS, f"d-{i}") for i in range(10, 20)]
            stays = Stream(x.url, chat("stays", 250, temperature=0.7, seed=3), CHAT, "stays")
            whole = []
            reply = threading.Thread(target=lambda: whole.append(post(
                x.url, CHAT, chat("whole", 250, stream=False), {"x-request-id": "whole"}.items())))

            def begin():
                reply.start()
                until(lambda: "whole" in x.places(), 5, "it runs")

            def act():
                there = [name for name, at in x.places().items() if at == x.first.id]
                answer = {}
                drain = threading.Thread(target=lambda: answer.update(zip(("code", "out", "err"), x.cluster.command("drain", x.first.id))))
                drain.start()
                until(lambda: x.state_of(x.first) == "draining", 5, "it drains")
                before = len(x.first.requests())
                status, _, text = post(x.url, CHAT, chat("new", 5, stream=False))
                self.assertEqual((status, len(x.first.requests())), (200, before), text)
                drain.join()
                return there, answer

            there, answer = self.while_running(x, [*streams, stays], act, begin=begin)
            reply.join()
            self.assertEqual(whole[0][0], 200)
            self.assertEqual(len(there), 22)
            self.assertEqual((answer["code"], answer["out"]), (0, f"{x.first.id}: 20 moved, 2 finished, 0 left\n"))
            self.assertEqual((x.first.state()["running"], x.first.state()["waiting"]), (0, 0))
            self.assertEqual(x.outcomes(x.first).count("disconnected"), 20)  # how an engine hears of it
            for stream in streams[1:20:4]:
                if "stream_options" in stream.body:
                    self.assertEqual(stream.usage["completion_tokens"], 250)
            events = x.cluster.why("d-3")["events"]
            self.assertEqual([each["kind"] for each in events], ["placed", "moving", "placed", "moved", "finished"])
            self.assertIn(f"from {x.first.id} for drain by replay: an engine behind HTTP has no KV to hand over", events[3]["note"])
            refused = [each for each in x.cluster.why("stays")["events"] if each["kind"] == "move_failed"]
            self.assertEqual(len(refused), 1, refused)
            self.assertIn("'seed'", refused[0]["note"])
            self.assertIn("not streamed", x.cluster.why("whole")["events"][1]["note"])
            metrics = x.cluster.command("status")[1]
            self.assertIn("draining", metrics)

            self.assertEqual(x.cluster.command("undrain", x.first.id)[0], 0)
            until(lambda: x.state_of(x.first) == "ready", 5, "it is back")
            before = len(x.first.requests())
            again = [Stream(x.url, chat(f"again {i}", 10), CHAT) for i in range(4)]
            self.run_streams(*again)
            self.assertGreater(len(x.first.requests()), before)

    def test_requests_move_by_hand(self):
        with Fleet() as x:
            first, second = (each.id for each in x.engines)
            streams = [Stream(x.url, chat(f"hand {i}", 400), CHAT, f"h-{i}") for i in range(4)]
            streams.append(Stream(x.url, chat("seeded", 400, temperature=0.7, seed=1), CHAT, "seeded"))

            def act():
                code, out, err = x.cluster.command("migrate", "h-0", "--to", second)
                self.assertEqual((code, err), (0, ""), out)
                self.assertRegex(out, rf"^h-0 moved from {first} to {second} by replay: {ANEW}\n$")
                self.assertEqual(x.places()["h-0"], second)
                code, out, _ = x.cluster.command("migrate", "h-0", "--to", first)
                self.assertEqual((code, x.places()["h-0"]), (0, first), out)
                code, out, _ = x.cluster.command("migrate", "--from", first, "--to", second, "--policy", "LCR", "--num-requests", "2", "--json")
                moves = json.loads(out)["moves"]
                self.assertEqual(len(moves), 2, out)
                self.assertTrue(all(each["outcome"] in ("moved", "refused") for each in moves), out)
                code, out, _ = x.cluster.command("migrate", "seeded", "--to", second)
                self.assertEqual(code, 4, out)
                self.assertIn("seeded refused: no engine can go on with a request that has 'seed'", out)
                code, out, _ = x.cluster.command("migrate", "h-1", "--to", "nowhere")
                self.assertEqual(code, 1, out)

            self.while_running(x, streams, act)
            self.assertEqual(x.kinds("h-0"), ["placed", "moving", "placed", "moved", "moving", "placed", "moved", "finished"])

    def test_an_engine_that_takes_nothing_over_costs_no_stream(self):
        with Fleet(count=3, gateway__engine_retries=0, gateway__engine_retries_floor=0) as x:
            x.engines[1].fault("status", status=429, times=-1)
            streams = [Stream(x.url, chat(f"refused {i}", 250), CHAT, f"r-{i}") for i in range(12)]
            code, document = self.while_running(x, streams, lambda: x.drain(x.first))
            self.assertEqual(code, 0)
            self.assertEqual(document, {"instance": x.first.id, "moved": 12, "finished": 0, "left": 0})

    def test_a_drain_where_nobody_else_is_lets_all_end(self):
        with Fleet(count=1) as x:
            streams = [Stream(x.url, chat(f"alone {i}", 100), CHAT, f"l-{i}") for i in range(3)]
            code, document = self.while_running(x, streams, lambda: x.drain(x.first))
            self.assertEqual(code, 0)
            self.assertEqual(document, {"instance": x.first.id, "moved": 0, "finished": 3, "left": 0})

    def test_a_drain_tells_how_many_are_there(self):
        """In lite mode, too, where engines tell no counts."""
        with Fleet(count=1, cluster_options=("--scheduling", "lite")) as x:
            streams = [Stream(x.url, chat(f"told {i}", 300), CHAT, f"t-{i}") for i in range(3)]
            code, out, err = self.while_running(x, streams, lambda: x.cluster.command("drain", x.first.id))
            self.assertEqual((code, out), (0, f"{x.first.id}: 0 moved, 3 finished, 0 left\n"))
            self.assertTrue(err.startswith(f"{x.first.id} drains: 3 requests are there\n"), err)

    def test_texts_without_ids_stay(self):
        with Engines(options=("--owned-by", "sglang", "--token-ms", 10)) as x:
            stream = Stream(x.url, chat("text", 150), CHAT, "text")

            async def go():
                run = asyncio.create_task(stream.run(30))
                await until_async(lambda: stream.pieces >= 5, 10, "it runs")
                at = x.cluster.requests()[0]["instance"]
                to = next(each.id for each in x.engines if each.id != at)
                told = await asyncio.to_thread(x.cluster.command, "migrate", "text", "--to", to)
                await run
                return told

            code, out, _ = asyncio.run(go())
            self.assertEqual(code, 4)
            self.assertIn("tells no token ids", out)
            self.assert_whole(stream)


if __name__ == "__main__":
    unittest.main()
