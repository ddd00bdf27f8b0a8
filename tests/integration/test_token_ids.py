"""Token ids in and out (vLLM's /inference/v1/generate): passed on to engines that have it, and gone on with elsewhere."""

import asyncio
import json
import re
import unittest

from cluster import Cluster, Stream, until, until_async
from test_relay import CHAT, Engine, Engines, RelayTest, chat, expected, post

GENERATE = "/inference/v1/generate"
SCALES_OUT = ("--enable-scale-out",)
SHOWN = "vLLM 0.32.0 (token ids, abort, generate)"


def tokens(ids, max_tokens=40, stream=True, sampling=None, **fields):
    return {"model": "tiny", "token_ids": ids, "stream": stream, **fields, "sampling_params": {
        "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True, **(sampling or {})}}


class TokenStream(Stream):
    """What one streamed request for token ids got."""

    def __init__(self, url, body, request_id=None):
        super().__init__(url, body, GENERATE, request_id)
        self.ids, self.named, self.names = {}, {}, set()

    def on_event(self, event):
        if not event.startswith(b"data: {") or b'"error"' in event:
            return super().on_event(event)
        document = json.loads(event[6:])
        self.names.add(document["request_id"])
        self.usage = document.get("usage") or self.usage
        for choice in document["choices"]:
            index = choice["index"]
            if choice["token_ids"]:
                self.pieces += 1
            self.ids.setdefault(index, []).extend(choice["token_ids"])
            self.texts[index] = self.texts.get(index, "") + choice.get("text", "")
            for each in (choice["logprobs"] or {}).get("content", ()):
                self.named.setdefault(index, []).append(each.get("token_id", each.get("token")))
            if choice["finish_reason"] is not None:
                if index in self.finish:
                    raise AssertionError(f"choice {index} ended twice")
                self.finish[index] = choice["finish_reason"]


class Generate(Engines):
    """Engines that have it, known to be so."""

    def __init__(self, count=2, options=(), **knobs):
        super().__init__(count, (*SCALES_OUT, *options), **knobs)
        try:
            until(lambda: [each["engine"] for each in self.cluster.instances().values()] == [SHOWN] * count, 10, SHOWN)
        except BaseException:
            self.close()
            raise

    def asked(self):
        return [each for engine in self.engines for each in engine.requests()
                if each["path"] == GENERATE and each["body"] != "{}"]

    def clear(self):
        for engine in self.engines:
            engine.call("/control/fault", method="DELETE")


class TokenTest(RelayTest):
    def assert_tokens(self, stream):
        """The client got the unbroken run of its request, under one id."""
        self.assertEqual((stream.broken, stream.error, stream.status), (None, None, 200), stream.request_id)
        for index, output in enumerate(expected(GENERATE, stream.body)):
            self.assertEqual(stream.ids.get(index), output.ids, stream.request_id)
            self.assertEqual(stream.finish.get(index), output.finish_reason)
            if stream.body.get("output_mode") == "text":
                self.assertEqual(stream.texts[index], output.text)
            elif "logprobs" in stream.body["sampling_params"]:
                self.assertEqual(stream.named[index], output.ids)
        self.assertTrue(stream.done)
        self.assertEqual(len(stream.names), 1)


class Passed(TokenTest):
    def test_bytes_are_kept(self):
        """The same asked directly."""
        def said(url, body, number):
            text = post(url, GENERATE, body, {"x-request-id": f"bytes-{number}"}.items())[2]
            return re.sub(r'"created":\d+', '"created":0', text)
        raw = ('{ "token_ids":[42, 75],"x":{"y":[1.50,{"z":"\\u20ac"}]}, "sampling_params":{"max_tokens":4, "temperature":0.0,'
               '"x_inner":1e2},\n "x_reply_extra":{"k":[1,2]} }').encode()
        bodies = [raw, tokens([42, 75]), tokens([42, 75], stream=False),
                  tokens([1], 12, sampling={"logprobs": 2}, stream_options={"include_usage": True}),
                  tokens([1], 12, return_token_ids=True, stream_options={"continuous_usage_stats": True}),
                  tokens([1], 12, output_mode="text", sampling={"logprobs": 1, "stop": ["e"], "ignore_eos": False}),
                  tokens([1], 12, sampling={"n": 3, "temperature": 0.5, "seed": 3}),
                  {"token_ids": [1], "sampling_params": {"max_tokens": -1}}, {"sampling_params": {}}, {"token_ids": [999]}]
        with Generate(count=1, options=("--token-ms", 1)) as x:
            for number, body in enumerate(bodies):
                with self.subTest(number=number):
                    direct = said(x.engines[0].url, body, number)
                    self.assertEqual(said(x.url, body, number), direct)
            self.assertIn(raw.decode(), [each["body"] for each in x.asked()])

    def test_requests_are_counted_and_spread(self):
        with Generate(count=2, options=("--token-ms", 10)) as x:
            streams = [TokenStream(x.url, tokens([42] * (i + 1), 40), f"count-{i}") for i in range(12)]

            async def look():
                runs = [asyncio.create_task(stream.run(30)) for stream in streams]
                await until_async(lambda: all(s.pieces or s.error for s in streams), 20, "all have begun")
                seen = {each["id"]: each for each in x.cluster.requests()}
                await asyncio.gather(*runs)
                return seen
            seen = asyncio.run(look())
            for i, stream in enumerate(streams):
                self.assert_tokens(stream)
                self.assertEqual(seen[f"count-{i}"]["prompt_tokens"], i + 1)
            counts = sorted(len([each for each in engine.requests() if each["body"] != "{}"]) for engine in x.engines)
            self.assertGreaterEqual(counts[0], 4, counts)
            self.assertEqual(x.asked()[0]["outcome"], "finished")

    def test_a_client_that_leaves_is_told_to_the_engine(self):
        with Generate(count=1, options=("--token-ms", 20)) as x:
            async def leave(stream_it):
                stream = TokenStream(x.url, tokens([1, 2], 1000, stream=stream_it), f"leave-{stream_it}")
                run = asyncio.create_task(stream.run(30))
                await until_async(lambda: x.engines[0].state()["running"] == 1, 10, "it runs")
                stream.close()
                await until_async(lambda: x.engines[0].state()["running"] == 0, 5, "the engine has stopped")
                self.assertEqual(x.engines[0].requests()[-1]["outcome"], "disconnected")
                await run
            for stream_it in (True, False):
                asyncio.run(leave(stream_it))
            until(lambda: not x.cluster.requests(), 5, "nothing is left")


class Refused(TokenTest):
    def refusal(self, url, body=None):
        status, headers, text = post(url, GENERATE, body or tokens([1, 2], 4, stream=False))
        self.assertEqual(json.loads(text)["error"]["type"], "not_found_error", text)
        self.assertEqual(status, 404)
        return json.loads(text)["error"]["message"]

    def test_where_no_engine_has_it(self):
        for options in ((), ("--owned-by", "sglang")):
            with self.subTest(options), Engines(count=1, options=options) as x:
                until(lambda: next(iter(x.cluster.instances().values()))["engine"], 10, "it is known what it is")
                for body in (None, b"{}", b"no JSON"):  # others ask with an empty one, as we do
                    self.assertIn("--enable-scale-out", self.refusal(x.url, body))
                self.assertEqual(post(x.url, CHAT, chat("well", 4, stream=False))[0], 200)

    def test_where_engines_are_modeled(self):
        with Cluster(engines=1) as cluster:
            self.assertIn("not behind HTTP", self.refusal(cluster.url))

    def test_who_has_it_gets_it(self):
        without, having = Engine(), Engine(*SCALES_OUT)
        try:
            with Cluster("--engine", f"{without.url},{having.url}", gateway__engine_silence="5s") as cluster:
                until(lambda: sorted(each["engine"] for each in cluster.instances().values())
                      == ["vLLM 0.32.0 (token ids)", SHOWN], 20, "what they are is known")
                streams = [TokenStream(cluster.url, tokens([i], 20), f"one-{i}") for i in range(8)]
                self.run_streams(*streams)
                for stream in streams:
                    self.assert_tokens(stream)
                self.assertEqual([each["path"] for each in without.requests() if each["body"] != "{}"
                                  and each["path"] == GENERATE], [])
        finally:
            without.close()
            having.close()

    def test_what_makes_an_engine_connect_somewhere(self):
        with Generate(count=1) as x:
            body = tokens([1], 4, stream=False, kv_transfer_params={"remote_host": "h"})
            self.assertEqual(post(x.url, GENERATE, body)[0], 200)
            self.assertNotIn("remote_host", x.asked()[-1]["body"])
            inside = tokens([1], 4, sampling={"extra_args": {"kv_transfer_params": {"remote_host": "h"}}})
            status, _, text = post(x.url, GENERATE, inside)
            self.assertEqual((status, json.loads(text)["error"]["param"]),
                             (400, "sampling_params.extra_args.kv_transfer_params"))


class Faults(TokenTest):
    BEFORE = [("status", {"status": 500}), ("status", {"status": 429}), ("cut", {}), ("cut", {"before_head": True}),
              ("error_event", {}), ("garble", {}), ("no_done", {}), ("half_event", {})]
    AFTER = [("cut", {}), ("cut", {"reset": True}), ("error_event", {}), ("garble", {}), ("half_event", {}), ("no_done", {}),
             ("wrong_id", {}), ("bad_chunk", {}), ("stop_aborted", {})]

    def test_before_the_first_token(self):
        with Generate(gateway__engine_retries_floor=1000) as x:
            for number, (kind, parameters) in enumerate(self.BEFORE):
                with self.subTest(kind=kind, **parameters):
                    x.clear()
                    x.engines[number % 2].fault(kind, after_tokens=0, times=-1, **parameters)
                    streams = [TokenStream(x.url, tokens([number + 3, i + 3], 10), f"b-{number}-{i}") for i in range(4)]
                    self.run_streams(*streams)
                    for stream in streams:
                        self.assert_tokens(stream)
                    if kind != "error_event":
                        status, _, text = post(x.url, GENERATE, tokens([number + 3], 10, stream=False))
                        self.assertEqual(status, 200, text)

    def test_after_some_tokens(self):
        with Generate(options=("--token-ms", 2)) as x:
            for number, (kind, parameters) in enumerate(self.AFTER):
                with self.subTest(kind=kind, **parameters):
                    x.clear()
                    x.engines[number % 2].fault(kind, after_tokens=7, times=-1, **parameters)
                    streams = [TokenStream(x.url, tokens([number + 3, i + 3], 30, stream_options={"include_usage": True},
                                                         return_token_ids=i == 1), f"a-{number}-{i}") for i in range(4)]
                    self.run_streams(*streams)
                    for stream in streams:
                        self.assert_tokens(stream)
                        self.assertEqual(stream.usage, {"prompt_tokens": 2, "total_tokens": 32, "completion_tokens": 30})

    def test_what_carries_over_and_what_does_not(self):
        with Generate(options=("--token-ms", 2)) as x:
            carried = [tokens([5, 6], 30, sampling={"logprobs": 2, "repetition_penalty": 1.3}),
                       tokens([5, 6], 40, sampling={"min_tokens": 20, "ignore_eos": False}),
                       tokens([5, 6], None), tokens([5, 6], 60, sampling={"stop": ["the", "qq"], "ignore_eos": False}),
                       tokens([5, 6], 60, output_mode="text", sampling={"logprobs": 1}),
                       tokens([5, 6], 60, output_mode="text", sampling={"stop": ["the", "ab"], "ignore_eos": False})]
            carried[2]["sampling_params"].pop("max_tokens")  # up to the context, which is 4096
            carried[2]["token_ids"] = [5] * 4000
            for number, body in enumerate(carried):
                with self.subTest(number=number):
                    x.clear()
                    x.engines[0].fault("cut", after_tokens=5, times=-1)
                    x.engines[1].fault("cut", after_tokens=9, times=1)
                    stream = TokenStream(x.url, body, f"carried-{number}")
                    self.run_streams(stream)
                    self.assert_tokens(stream)
            lost = [("seed", {"temperature": 0.7, "seed": 1}), ("presence_penalty", {"presence_penalty": 0.5}),
                    ("structured_outputs", {"structured_outputs": {"regex": "a+"}}),
                    ("stop", {"temperature": 0.7, "stop": ["zzzz"]})]
            for name, sampling in lost:
                with self.subTest(name):
                    x.clear()
                    for engine in x.engines:
                        engine.fault("cut", after_tokens=5, times=1)
                    stream = TokenStream(x.url, tokens([7], 30, sampling=sampling), f"lost-{name}")
                    self.run_streams(stream)
                    self.assertFalse(stream.done)
                    self.assertIn(f"'{name}'", stream.error["message"])

    def test_kill_9_of_an_engine_under_streams(self):
        with Generate(count=3, options=("--token-ms", 10)) as x:
            async def kill():
                streams = [TokenStream(x.url, tokens([3 + i, 4], 120), f"kill-{i}") for i in range(30)]
                runs = [asyncio.create_task(stream.run(60)) for stream in streams]
                await until_async(lambda: all(s.pieces > 5 or s.broken or s.error for s in streams), 20, "all have begun")
                placed = {each["id"]: each["instance"] for each in await asyncio.to_thread(x.cluster.requests)}
                x.engines[1].process.kill()
                await asyncio.gather(*runs)
                return streams, [request for request, instance in placed.items() if instance == x.engines[1].id]
            streams, moved = asyncio.run(kill())
            self.assertGreater(len(moved), 5)
            for stream in streams:
                self.assert_tokens(stream)
            for request in moved:
                kinds = [event["kind"] for event in x.cluster.why(request)["events"]]
                self.assertIn("replayed", kinds)
                self.assertEqual(kinds[-1], "finished")
            again = [json.loads(each["body"]) for engine in (x.engines[0], x.engines[2]) for each in engine.requests()
                     if each["path"] == GENERATE and each["body"] != "{}"]
            went_on = [body for body in again if len(body["token_ids"]) > 2]
            for body in went_on:
                self.assertEqual(len(body["token_ids"]) - 2 + body["sampling_params"]["max_tokens"], 120)
            self.assertEqual(len(went_on), len(moved))


if __name__ == "__main__":
    unittest.main()
