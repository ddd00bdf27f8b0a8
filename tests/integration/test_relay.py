"""Stock engines behind the gateway: bytes are kept, an engine that dies or misbehaves is not noticed."""

import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from scripted_engine import expected  # noqa: E402
from cluster import MARK, Cluster, ClusterTest, Stream, free_port, until, until_async  # noqa: E402

ENGINE = pathlib.Path(__file__).resolve().parents[1] / "support" / "scripted_engine.py"


class Engine:
    """A scripted engine in a process of its own."""

    def __init__(self, *options, port=0):
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(ENGINE), "--port", str(port), *map(str, options)],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.id = self.url.removeprefix("http://")

    def call(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=5) as reply:
            return json.loads(reply.read() or b"null")

    def fault(self, kind, **parameters):
        self.call("/control/fault", {"kind": kind, **parameters})

    def state(self):
        return self.call("/control/state")

    def requests(self):
        answer = self.call("/control/requests?method=POST")
        return answer["requests"] if isinstance(answer, dict) else answer

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Engines:
    """Some engines, each with options of its own if wanted, and a cluster in front of them."""

    def __init__(self, count=2, options=(), each=(), cluster_options=(), **knobs):
        self.engines, self.cluster = [], None
        try:
            for own in each or count * (options,):
                self.engines.append(Engine(*own))
            self.cluster = Cluster("--engine", ",".join(each.url for each in self.engines), *cluster_options, **knobs)
            until(lambda: len(self.ready()) == len(self.engines), 20, "every engine is known to be ready")
        except BaseException:
            self.close()
            raise
        self.url = self.cluster.url

    def ready(self):
        return [each for each in self.cluster.instances().values() if each["state"] == "ready" and each.get("schedulable")]

    def by_id(self, instance):
        return next(each for each in self.engines if each.id == instance)

    def close(self):
        if self.cluster:
            self.cluster.close()
        for each in self.engines:
            each.close()

    def __enter__(self):
        self.cluster.__enter__()
        return self

    def __exit__(self, *failure):
        self.cluster.__exit__(*failure)
        for each in self.engines:
            each.close()


def chat(content, max_tokens=40, **fields):
    return {"model": "tiny", "stream": True, "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
            "messages": [{"role": "user", "content": content}], **fields}


def completion(prompt, max_tokens=40, **fields):
    return {"model": "tiny", "stream": True, "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
            "prompt": prompt, **fields}


CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def post(url, path, body, headers=()):
    """A whole reply: status, headers, text."""
    request = urllib.request.Request(
        url + path, body if isinstance(body, bytes) else json.dumps(body).encode(),
        {"content-type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, dict(reply.headers), reply.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, dict(refusal.headers), refusal.read().decode()


class RelayTest(ClusterTest):
    def assert_whole(self, stream, path=None):
        """What the client got is what an unbroken run of its request gives."""
        for index, output in enumerate(expected(path or stream.path, stream.body)):
            self.assert_exact(stream, output, index)

    def run_streams(self, *streams, seconds=30):
        async def all_of_them():
            await asyncio.gather(*(stream.run(seconds) for stream in streams))
        asyncio.run(all_of_them())


class Bytes(RelayTest):
    def test_unknown_fields_reach_the_other_side_as_they_were_sent(self):
        with Engines() as x:
            odd = {"a": [1.50, {"deep": "\u20ac", "n": 1e2}], "z": None}
            raw = ('{ "model":"tiny", "messages":[{"role":"user","content":"hi","x_inner":%s}],\n "max_tokens":4, '
                   '"temperature":0, "x_outer":%s, "x_reply_extra":{"k":[1,2]} }' % (json.dumps(odd), json.dumps(odd)))
            status, headers, text = post(x.url, CHAT, raw.encode(), {"traceparent": "00-ab-cd-01", "cookie": "no"}.items())
            self.assertEqual(status, 200, text)
            self.assertEqual(json.loads(text)["x_extra"], {"k": [1, 2]})
            seen = [each for engine in x.engines for each in engine.requests() if each["path"] == CHAT]
            self.assertEqual(len(seen), 1)
            self.assertEqual(seen[0]["body"], raw)
            names = {name.lower(): value for name, value in seen[0]["headers"]}
            self.assertEqual(names["traceparent"], "00-ab-cd-01")
            self.assertNotIn("cookie", names)
            self.assertEqual(names["x-request-id"], {k.lower(): v for k, v in headers.items()}["x-request-id"])
            until(lambda: x.cluster.why(names["x-request-id"])["events"][-1]["kind"] == "finished", 5, "its record")
            self.assertIn("its first token was not seen", x.cluster.why(names["x-request-id"])["events"][-1]["note"])

    def test_streams_are_the_engines_own(self):
        with Engines() as x:
            streams = [Stream(x.url, chat("one", x_reply_extra={"k": 1}), CHAT, "s-1"),
                       Stream(x.url, completion("two"), COMPLETIONS, "s-2"),
                       Stream(x.url, completion([42, 75, 90], stream_options={"include_usage": True}), COMPLETIONS, "s-3"),
                       Stream(x.url, chat("four", n=3, temperature=0.5, seed=3), CHAT, "s-4"),
                       Stream(x.url, chat("five", stop=["e"], ignore_eos=False), CHAT, "s-5"),
                       Stream(x.url, chat("six", logprobs=True, top_logprobs=2), CHAT, "s-6")]
            self.run_streams(*streams)
            for stream in streams:
                self.assert_whole(stream)
            self.assertEqual(streams[2].usage["completion_tokens"], 40)
            self.assertIsNone(streams[0].usage)

    def test_errors_of_an_engine_are_the_clients_to_read(self):
        with Engines() as x:
            status, _, text = post(x.url, COMPLETIONS, {"model": "tiny", "prompt": "x", "max_tokens": -1})
            self.assertEqual(status, 400)
            self.assertEqual(json.loads(text)["error"]["code"], 400)  # vLLM's own words
            status, _, text = post(x.url, COMPLETIONS, {"model": "none", "prompt": "x"})
            self.assertEqual((status, json.loads(text)["error"]["code"]), (404, "model_not_found"))
            for broken in (b"{", b"[]", b'{"model":"tiny","stream":3}', b"\xff"):
                self.assertEqual(post(x.url, COMPLETIONS, broken)[0], 400, broken)

    def test_models_are_those_of_the_engines(self):
        with Engines() as x:
            with urllib.request.urlopen(x.url + "/v1/models") as reply:
                models = json.load(reply)
            self.assertEqual([each["id"] for each in models["data"]], ["tiny"])
            self.assertEqual(models["data"][0]["owned_by"], "vllm")


    def test_streams_are_kept_byte_by_byte(self):
        """The same asked directly: vLLM's bytes as recorded (test_scripted_engine.py), with a null where nobody asks for ids."""
        def streamed(url, path, body, number):
            body = {**body, "stream": True}
            text = post(url, path, body, {"x-request-id": f"bytes-{number}"}.items())[2]
            text = re.sub(r'"created":\d+', '"created":0', text)
            # The engine tells it with its last event, and that is another where the gateway wants to know the usage.
            return text if not asks_usage else re.sub(r',"system_fingerprint":"[^"]*"', "", text)
        bodies = [(CHAT, chat("plain", 12)), (COMPLETIONS, completion("plain", 12)),
                  (CHAT, chat("ids", 12, return_token_ids=True)), (COMPLETIONS, completion("ids", 12, return_token_ids=True)),
                  (CHAT, chat("null", 12, return_token_ids=None)), (CHAT, chat("n", 12, n=3, temperature=0.5, seed=3)),
                  (CHAT, chat("names", 12, logprobs=True, top_logprobs=2, x_choice_extra={"k": [1.50]})),
                  (COMPLETIONS, completion(["a", "b"], 12, logprobs=1, x_reply_extra="\u20ac")),
                  (CHAT, chat("usage", 12, stream_options={"include_usage": True})),
                  (COMPLETIONS, completion("usage", 12, stream_options={"include_usage": True, "continuous_usage_stats": True}))]
        for options, asks_usage in (((), False), (("--owned-by", "sglang"), True), (("--owned-by", "x"), False)):
            with Engines(count=1, options=(*options, "--token-ms", 1)) as x:
                for number, (path, body) in enumerate(bodies):
                    with self.subTest(options=options, number=number):
                        direct = streamed(x.engines[0].url, path, body, number)
                        self.assertIn("[DONE]", direct)
                        self.assertEqual(streamed(x.url, path, body, number), direct)


class Faults(RelayTest):
    """Each way in which an engine can fail, before and after the first token: the client does not notice."""

    BEFORE = [("status", {"status": 500}), ("status", {"status": 503}), ("status", {"status": 429}), ("cut", {}),
              ("cut", {"reset": True}), ("cut", {"before_head": True}), ("gzip", {}), ("error_event", {}), ("garble", {}),
              ("bad_chunk", {}), ("no_done", {}), ("stop_aborted", {}), ("half_event", {})]
    AFTER = [("cut", {}), ("cut", {"reset": True}), ("error_event", {}), ("garble", {}), ("half_event", {}), ("no_done", {}),
             ("wrong_id", {}), ("bad_chunk", {}), ("stop_aborted", {})]

    def test_before_the_first_token(self):
        with Engines(gateway__engine_retries_floor=1000) as x:  # the budget is not what this is about
            for number, (kind, parameters) in enumerate(self.BEFORE):
                with self.subTest(kind=kind, **parameters):
                    for engine in x.engines:
                        engine.call("/control/fault", method="DELETE")
                    x.engines[number % 2].fault(kind, after_tokens=0, times=-1, **parameters)
                    streams = [Stream(x.url, chat(f"before {kind} {i}", 10), CHAT, f"b-{number}-{i}") for i in range(4)]
                    self.run_streams(*streams)
                    for stream in streams:
                        self.assert_whole(stream)

    def test_a_burst_at_a_cold_engine_that_fails(self):
        """Nobody could know: all of them are moved, whatever the retry budget. Then all I/O loops know."""
        for kind, parameters in (("status", {"status": 500}), ("status", {"status": 503}),
                                 ("status", {"status": 429, "retry_after": 5}), ("garble", {})):
            with self.subTest(kind=kind, **parameters), Engines(gateway__io_threads=2) as x:
                x.engines[0].fault(kind, times=-1, **parameters)
                streams = [Stream(x.url, chat(f"burst {i}", 10), CHAT, f"burst-{i}") for i in range(120)]
                self.run_streams(*streams)
                for stream in streams:
                    self.assert_whole(stream)
                before = len(x.engines[0].requests())
                streams = [Stream(x.url, chat(f"known {i}", 10), CHAT, f"known-{i}") for i in range(120)]
                self.run_streams(*streams)
                for stream in streams:
                    self.assert_whole(stream)
                # Each trial is of one request, and they are at least 100 ms apart, twice as long each time.
                self.assertLessEqual(len(x.engines[0].requests()) - before, 8)

    def test_after_some_tokens(self):
        with Engines() as x:
            for number, (kind, parameters) in enumerate(self.AFTER):
                for path, body in ((CHAT, chat), (COMPLETIONS, completion)):
                    with self.subTest(kind=kind, path=path, **parameters):
                        for engine in x.engines:
                            engine.call("/control/fault", method="DELETE")
                        victim = x.engines[number % 2]
                        victim.fault(kind, after_tokens=7, times=-1, **parameters)
                        streams = [Stream(x.url, body(f"after {kind} {i}", 30, stream_options={"include_usage": True}), path,
                                          f"a-{number}-{path[-5]}-{i}") for i in range(4)]
                        self.run_streams(*streams)
                        for stream in streams:
                            self.assert_whole(stream)
                            self.assertEqual(stream.usage["completion_tokens"], 30)

    def test_whole_replies(self):
        with Engines() as x:
            for kind, parameters in [("status", {"status": 500}), ("cut", {}), ("early_eof", {}), ("garble", {})]:
                with self.subTest(kind=kind):
                    x.engines[0].call("/control/fault", method="DELETE")
                    x.engines[0].fault(kind, times=-1, **parameters)
                    for i in range(4):
                        body = chat(f"whole {kind} {i}", 12, stream=False)
                        status, _, text = post(x.url, CHAT, body)
                        self.assertEqual(status, 200, text)
                        self.assertEqual(json.loads(text)["choices"][0]["message"]["content"], expected(CHAT, body)[0].text)

    def test_stop_strings_penalties_and_seeds(self):
        with Engines(options=("--token-ms", 2)) as x:
            carried = [chat("stop", 60, stop=["the", "qq", "ab"], ignore_eos=False), chat("bias", 30, repetition_penalty=1.3),
                       completion("ids", 30, min_tokens=20, ignore_eos=False), chat("names", 30, logprobs=True, top_logprobs=1)]
            for number, body in enumerate(carried):
                for engine in x.engines:
                    engine.call("/control/fault", method="DELETE")
                x.engines[0].fault("cut", after_tokens=5, times=-1)
                x.engines[1].fault("cut", after_tokens=9, times=1)
                stream = Stream(x.url, body, CHAT if "messages" in body else COMPLETIONS, f"carried-{number}")
                self.run_streams(stream)
                self.assert_whole(stream)
            lost = [chat("seed", 30, temperature=0.7, seed=1), chat("penalty", 30, presence_penalty=0.5),
                    chat("grammar", 30, response_format={"type": "json_object"})]
            for number, body in enumerate(lost):
                for engine in x.engines:
                    engine.call("/control/fault", method="DELETE")
                    engine.fault("cut", after_tokens=5, times=1)
                stream = Stream(x.url, body, CHAT, f"lost-{number}")
                self.run_streams(stream)
                self.assertFalse(stream.done)
                self.assertIn("no engine can go on", stream.error["message"])
                until(lambda: x.cluster.why(f"lost-{number}")["events"][-1]["kind"] == "finished", 5, "its record")

    def test_tokens_that_go_by_their_ids(self):
        def named(url):
            body = chat("by id", 20, logprobs=True, return_tokens_as_token_ids=True)
            text = post(url, CHAT, body)[2]
            self.assertIn("[DONE]", text)
            events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
            return [token for event in events for token in (event["choices"][0].get("logprobs") or {}).get("content", ())]
        with Engines(options=("--token-ms", 2)) as x:
            for engine in x.engines:
                engine.fault("cut", after_tokens=6, times=1)
            through = named(x.url)
            self.assertEqual(len(through), 20)
            self.assertEqual(through, named(x.engines[0].url))
            for engine in x.engines:
                engine.call("/control/fault", method="DELETE")
                engine.fault("cut", after_tokens=6, times=1)
            stream = Stream(x.url, chat("others by id", 20, logprobs=True, top_logprobs=2, return_tokens_as_token_ids=True), CHAT)
            self.run_streams(stream)
            self.assertFalse(stream.done)
            self.assertIn("return_tokens_as_token_ids", stream.error["message"])

    def test_an_end_without_done(self):
        """All that was asked for was said: that is an end. Less is not."""
        usage = {"stream_options": {"include_usage": True}}
        for options in ((), ("--owned-by", "sglang")):
            with Engines(options=(*options, "--token-ms", 1)) as x:
                for number, (faults, fields) in enumerate((
                        ([{}, {}], {}), ([{}, {}], usage), ([{"usage": False}, {"usage": False}], {}), ([{"usage": False}], usage))):
                    for engine in x.engines:
                        engine.call("/control/fault", method="DELETE")
                    for engine, parameters in zip(x.engines, faults):
                        engine.fault("unsaid_done", times=-1, **parameters)
                    streams = [Stream(x.url, make(f"unsaid {number} {i}", 12, **fields), path)
                               for i in range(2) for path, make in ((CHAT, chat), (COMPLETIONS, completion))]
                    self.run_streams(*streams)
                    for stream in streams:
                        with self.subTest(options=options, number=number, path=stream.path):
                            self.assert_whole(stream)
                            self.assertEqual(stream.usage and stream.usage["completion_tokens"], 12 if fields else None)
                for kind, parameters, fields in (("no_done", {}, {}), ("unsaid_done", {"usage": False}, usage), ("early_eof", {}, usage)):
                    for engine in x.engines:
                        engine.call("/control/fault", method="DELETE")
                        engine.fault(kind, after_tokens=5, times=-1, **parameters)
                    for path, make in ((CHAT, chat), (COMPLETIONS, completion)):
                        with self.subTest(options=options, kind=kind, path=path):
                            stream = Stream(x.url, make(f"less {kind}", 12, **fields), path)
                            self.run_streams(stream)
                            whole = stream.done and stream.error is None
                            if whole:  # engine after engine gave a piece
                                self.assert_whole(stream)
                                self.assertEqual(stream.usage and stream.usage["completion_tokens"], 12 if fields else None)
                            else:
                                self.assertFalse(stream.done)
                                self.assertTrue(stream.error["message"])

    def test_events_that_come_twice(self):
        """What was delivered may be wrong, and no engine can mend it."""
        with Engines(options=("--token-ms", 1)) as x:
            for after_tokens in (1, 5):
                for engine in x.engines:
                    engine.fault("duplicate", after_tokens=after_tokens, times=-1)
                for path, make in ((CHAT, chat), (COMPLETIONS, completion)):
                    with self.subTest(after_tokens=after_tokens, path=path):
                        stream = Stream(x.url, make("twice", 12), path)
                        self.run_streams(stream)
                        self.assertFalse(stream.done)
                        self.assertIn("more than it was asked for", stream.error["message"])
                for engine in x.engines:
                    engine.call("/control/fault", method="DELETE")

    def test_all_refuse(self):
        with Engines() as x:
            for engine in x.engines:
                engine.fault("status", status=429, retry_after=7, times=-1)
            started = time.monotonic()
            status, headers, text = post(x.url, CHAT, chat("busy", 5))
            self.assertLess(time.monotonic() - started, 3)
            self.assertEqual(status, 429, text)
            self.assertEqual({k.lower(): v for k, v in headers.items()}["retry-after"], "7")


class Storms(RelayTest):
    """What a bad engine, or a bad request, costs the others."""

    KINDS = [("status", {"status": 503}), ("cut", {"before_head": True}), ("cut", {}), ("cut", {"reset": True, "before_head": True}),
             ("garble", {}), ("no_done", {}), ("half_event", {})]

    def test_requests_do_not_multiply(self):
        """By the default budget: a retry for every five requests, and ten a second."""
        requests, at_a_time = 100, 10
        for kind, parameters in self.KINDS:
            with self.subTest(kind=kind, **parameters), Engines(options=("--token-ms", 1)) as x:
                for engine in x.engines:
                    engine.fault(kind, times=-1, **parameters)
                began = time.monotonic()
                for turn in range(requests // at_a_time):
                    streams = [Stream(x.url, chat(f"storm {turn} {i}", 3), CHAT) for i in range(at_a_time)]
                    self.run_streams(*streams)
                    for stream in streams:
                        self.assertFalse(stream.done)
                        self.assertGreaterEqual(stream.status, 500, stream.raw)
                seconds = time.monotonic() - began
                under_way = len(x.engines) * at_a_time  # when an engine's trouble began
                allowed = requests * 1.2 + 10 * (seconds + 1) + under_way
                self.assertLessEqual(sum(engine.state()["requests"] for engine in x.engines), allowed)

    def test_a_request_that_kills_engines(self):
        for warm in (False, True):  # over kept connections, or new ones
            for stream in (True, False):
                with self.subTest(warm=warm, stream=stream), Engines(count=5, options=("--token-ms", 1)) as x:
                    if warm:
                        streams = [Stream(x.url, chat(f"warm {i}", 20), CHAT) for i in range(20)]
                        self.run_streams(*streams)
                    for engine in x.engines:
                        engine.fault("exit", before_head=True)
                    status, headers, text = post(x.url, CHAT, chat("poison", 5, stream=stream))
                    self.assertEqual(status, 502, text)
                    why = "gave up after 3 attempts at 3 engines: "
                    self.assertTrue(json.loads(text)["error"]["message"].startswith(why), text)
                    until(lambda: [engine.process.poll() is None for engine in x.engines].count(True) == 2, 5, "three have ended")
                    request = {k.lower(): v for k, v in headers.items()}["x-request-id"]
                    until(lambda: why in (x.cluster.why(request)["events"][-1]["note"] or ""), 5, "its record says so")
                    for engine in x.engines:
                        if engine.process.poll() is None:
                            engine.call("/control/fault", method="DELETE")
                    after = Stream(x.url, chat("after", 5), CHAT)
                    self.run_streams(after)
                    self.assert_whole(after)


class Keys(RelayTest):
    """Engines with a key of their own."""

    def test_the_gateway_has_the_key(self):
        with Engines(options=("--api-key", "its-own", "--enable-scale-out"), cluster_options=("--engine-key", "its-own")) as x:
            until(lambda: [each["engine"] for each in x.cluster.instances().values()] == ["vLLM 0.32.0 (token ids, abort, generate)"] * 2,
                  10, "what they are is known")
            for engine in x.engines:
                engine.fault("cut", after_tokens=6, times=1)
            stream = Stream(x.url, chat("keyed", 20), CHAT)
            self.run_streams(stream)
            self.assert_whole(stream)
            body = chat("keyed whole", 5, stream=False)
            for key in ({}, {"authorization": "Bearer of-the-client"}):  # what a client has makes no difference
                self.assertEqual(post(x.url, CHAT, body, key.items())[0], 200)
            keys = {value for engine in x.engines for each in engine.requests() if each["path"] in (CHAT, COMPLETIONS)
                    for name, value in each["headers"] if name.lower() == "authorization"}
            self.assertEqual(keys, {"Bearer its-own"})
            self.assertNotIn("its-own", x.cluster.stderr())

    def test_the_clients_have_the_key(self):
        with Engines(options=("--api-key", "its-own")) as x:
            shown = "OpenAI-compatible 0.32.0 (text only; answers 401, see gateway.engine_key)"
            until(lambda: [each["engine"] for each in x.cluster.instances().values()] == [shown] * 2, 10, shown)
            self.assertIn("answers 401 to /v1/models: it wants a key; set gateway.engine_key", x.cluster.stderr())
            self.assertIn("answers 401", x.cluster.command("status")[1])
            body = chat("own key", 5, stream=False)
            self.assertEqual(post(x.url, CHAT, body)[0], 401)
            self.assertEqual(post(x.url, CHAT, body, {"authorization": "Bearer its-own"}.items())[0], 200)


class Models(RelayTest):
    def test_adapters_that_are_loaded_meanwhile(self):
        with Engines() as x:
            def listed():
                with urllib.request.urlopen(x.url + "/v1/models") as reply:
                    return [each["id"] for each in json.load(reply)["data"]]
            loaded = [f"lora-{i}" for i in range(200)]
            for name in loaded:
                x.engines[1].call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": "/" + name})
            body = chat("adapted", 5, stream=False, model="lora-150")
            for _ in range(4):  # the first of them asks the engines anew
                status, _, text = post(x.url, CHAT, body)
                self.assertEqual(status, 200, text)
            self.assertEqual(json.loads(text)["model"], "lora-150")
            self.assertEqual(listed(), sorted(["tiny", *loaded]))
            self.assertNotIn(CHAT, [each["path"] for each in x.engines[0].requests()])
            started = time.monotonic()
            self.assertEqual([post(x.url, CHAT, {**body, "model": f"none-{i}"})[0] for i in range(3)], [404] * 3)
            self.assertLess(time.monotonic() - started, 8)
            for name in loaded:
                x.engines[1].call("/v1/unload_lora_adapter", {"lora_name": name})
            until(lambda: listed() == ["tiny"], 15, "they are gone")
            self.assertEqual(post(x.url, CHAT, body)[0], 404)


class Texts(RelayTest):
    """Engines that tell no token ids: another goes on from the text."""

    def test_what_an_engine_is_and_can_is_shown(self):
        for options, shown in (((), "vLLM 0.32.0 (token ids)"), (("--enable-scale-out",), "vLLM 0.32.0 (token ids, abort, generate)"),
                               (("--owned-by", "sglang"), "SGLang (text only)"),
                               (("--owned-by", "x"), "OpenAI-compatible (text only)")):
            with self.subTest(shown), Engines(count=1, options=options) as x:
                until(lambda: [each["engine"] for each in x.cluster.instances().values()] == [shown], 10, shown)

    def test_streams_go_on_from_their_text(self):
        with Engines(options=("--owned-by", "sglang", "--token-ms", 2)) as x:
            for kind, parameters in (("cut", {}), ("error_event", {}), ("garble", {}), ("no_done", {})):
                for engine in x.engines:
                    engine.call("/control/fault", method="DELETE")
                    engine.fault(kind, after_tokens=9, times=-1, **parameters)
                options = {"stream_options": {"include_usage": True}}
                streams = [Stream(x.url, chat(f"text {kind}", 30), CHAT), Stream(x.url, completion(f"text {kind}", 30), COMPLETIONS),
                           Stream(x.url, chat(f"usage {kind}", 30, **options), CHAT),
                           Stream(x.url, completion(f"usage {kind}", 30, **options), COMPLETIONS),
                           Stream(x.url, chat(f"least {kind}", max_tokens=None, max_completion_tokens=30, min_tokens=20), CHAT)]
                self.run_streams(*streams)
                for stream in streams:
                    with self.subTest(kind, path=stream.path):
                        self.assert_whole(stream)
                        usage = stream.usage and stream.usage["completion_tokens"]
                        self.assertEqual(usage, 30 if "stream_options" in stream.body else None)

    def streams_under_kill_9(self, x):
        """Chats and completions that all have begun when the first engine is killed, once they have ended."""
        async def go():
            streams = [Stream(x.url, (chat if i % 2 else completion)(f"kill {i}", 100), CHAT if i % 2 else COMPLETIONS,
                              f"kill-{i}") for i in range(12)]
            runs = [asyncio.create_task(stream.run(60)) for stream in streams]
            await until_async(lambda: all(s.pieces > 5 or s.broken or s.error for s in streams), 20, "all have begun")
            x.engines[0].process.kill()
            await asyncio.gather(*runs)
            return streams

        return asyncio.run(go())

    def test_kill_9_of_an_engine(self):
        with Engines(options=("--owned-by", "sglang", "--token-ms", 10)) as x:
            for stream in self.streams_under_kill_9(x):
                self.assert_whole(stream)

    def test_kill_9_of_the_only_engine_that_tells_ids(self):
        """What it began the other goes on with by its text, and is blamed for nothing."""
        with Engines(each=(("--token-ms", 10), ("--owned-by", "sglang", "--token-ms", 10))) as x:
            for stream in self.streams_under_kill_9(x):
                self.assert_whole(stream)
            began = [x.cluster.why(f"kill-{i}")["events"][0]["instance"] for i in range(12)]
            self.assertEqual(set(began), {engine.id for engine in x.engines})
            self.assertEqual([each["id"] for each in x.ready()], [x.engines[1].id])

    def test_what_the_text_does_not_say_ends_with_a_reason(self):
        with Engines(options=("--owned-by", "sglang", "--token-ms", 2)) as x:
            for number, (body, why) in enumerate((
                    (chat("stop", 30, stop=["zzzz"]), "a stop string may have begun"),
                    (chat("names", 30, logprobs=True), "log-probabilities"),
                    (chat("seed", 30, temperature=0.7, seed=1), "'seed'"),
                    (completion([42, 75, 90], 30), "its prompt is no text"))):
                with self.subTest(why):
                    for engine in x.engines:
                        engine.call("/control/fault", method="DELETE")
                        engine.fault("cut", after_tokens=5, times=1)
                    stream = Stream(x.url, body, CHAT if "messages" in body else COMPLETIONS, f"text-{number}")
                    self.run_streams(stream)
                    self.assertFalse(stream.done)
                    self.assertIn(why, stream.error["message"])
                    until(lambda: x.cluster.why(f"text-{number}")["events"][-1]["kind"] == "finished", 5, "its record")
                    self.assertIn(why, json.dumps(x.cluster.why(f"text-{number}")["events"][-1]))


class Characters(RelayTest):
    def test_cuts_within_a_character_show_nothing_of_the_prompt(self):
        with Engines(options=("--token-ms", 1, "--step-tokens", 2)) as x:
            for after in range(3, 15):
                with self.subTest(after=after):
                    for engine in x.engines:
                        engine.call("/control/fault", method="DELETE")
                    x.engines[after % 2].fault("cut", after_tokens=after, times=1)
                    streams = [Stream(x.url, completion(f"Q{after} \u00e9", 30), COMPLETIONS) for _ in range(2)]
                    self.run_streams(*streams)
                    for stream in streams:
                        self.assert_whole(stream)


class Lives(RelayTest):
    def test_kill_9_of_an_engine_under_streams(self):
        with Engines(count=3, options=("--token-ms", 10)) as x:
            asyncio.run(self.kill_under_load(x))

    async def kill_under_load(self, x):
        streams = [Stream(x.url, chat(f"kill {i}", 120), CHAT, f"kill-{i}") for i in range(30)]
        runs = [asyncio.create_task(stream.run(60)) for stream in streams]
        await until_async(lambda: all(s.pieces > 5 or s.broken or s.error for s in streams), 20, "all have begun")
        placed = {each["id"]: each["instance"] for each in await asyncio.to_thread(x.cluster.requests)}
        victim = x.engines[1]
        moved = [request for request, instance in placed.items() if instance == victim.id]
        self.assertGreater(len(moved), 5, placed)
        victim.process.kill()
        await asyncio.gather(*runs)
        for stream in streams:
            self.assert_whole(stream)
        for request in moved:
            kinds = [event["kind"] for event in (await asyncio.to_thread(x.cluster.why, request))["events"]]
            self.assertIn("replayed", kinds)
            self.assertEqual(kinds[-1], "finished")
            note = (await asyncio.to_thread(x.cluster.why, request))["events"][-1]["note"]
            self.assertEqual(note, "length, 120 tokens")

    def test_engines_come_and_go(self):
        port = free_port()
        with Cluster("--engine", f"http://127.0.0.1:{port}", gateway__wait_for_instance="20s") as cluster:
            status, _, text = None, None, None
            early = Stream(cluster.url, chat("early", 8), CHAT, "early")

            async def early_and_engine():
                run = asyncio.create_task(early.run(30))
                await until_async(lambda: any(each["id"] == "early" for each in cluster.requests()), 10, "it waits")
                engine = await asyncio.to_thread(Engine, port=port)
                await run
                return engine
            engine = asyncio.run(early_and_engine())
            try:
                self.assert_whole(early)
                engine.close()
                until(lambda: not any(each.get("schedulable") for each in cluster.instances().values()), 10, "it is missed")
                engine = Engine(port=port)
                late = Stream(cluster.url, chat("late", 8), CHAT, "late")
                self.run_streams(late)
                self.assert_whole(late)
            finally:
                engine.close()

    def test_the_only_live_engine_starts_again(self):
        """It is waited for, whoever else is listed: one that is dead, one that loads its model, one that is drained."""
        loading = Engine("--load-seconds", 600)
        drained = Engine()
        dead = f"http://127.0.0.1:{free_port()}"
        try:
            for others in ((), (dead,), (loading.url,), (drained.url,), (dead, loading.url, drained.url)):
                with self.subTest(others=len(others)):
                    asyncio.run(self.start_again(others, drained))
        finally:
            loading.close()
            drained.close()

    async def start_again(self, others, drained):
        engine = await asyncio.to_thread(Engine, "--token-ms", 20)
        port = int(engine.id.rsplit(":", 1)[1])
        cluster = await asyncio.to_thread(
            Cluster, "--engine", ",".join((engine.url, *others)), gateway__wait_for_instance="15s")
        try:
            def takes_work(engine_id):
                return cluster.instances().get(engine_id, {}).get("schedulable")
            await until_async(lambda: takes_work(engine.id), 20, "it takes work")
            if drained.url in others:
                await until_async(lambda: takes_work(drained.id), 20, "it takes work")
                await asyncio.to_thread(cluster.command, "drain", drained.id)
                await until_async(lambda: cluster.instances()[drained.id]["state"] == "draining", 10, "it drains")
            streams = [Stream(cluster.url, chat(f"again {i}", 100), CHAT) for i in range(5)]
            runs = [asyncio.create_task(stream.run(60)) for stream in streams]
            await until_async(lambda: all(s.pieces > 5 or s.broken or s.error for s in streams), 20, "all have begun")
            await asyncio.to_thread(engine.close)
            for number in range(2):  # one before it is missed, one after
                late = Stream(cluster.url, chat(f"late {number}", 10), CHAT)
                streams.append(late)
                runs.append(asyncio.create_task(late.run(60)))
                await until_async(lambda: not takes_work(engine.id), 10, "it is missed")
            engine = await asyncio.to_thread(Engine, "--token-ms", 20, port=port)
            await asyncio.gather(*runs)
            for stream in streams:
                self.assert_whole(stream)
        finally:
            await asyncio.to_thread(cluster.close)
            await asyncio.to_thread(engine.close)

    def test_a_client_that_leaves_is_told_to_the_engine(self):
        with Engines(count=1, options=("--token-ms", 20)) as x:
            async def leave(stream_it):
                stream = Stream(x.url, chat("leave", 1000, stream=stream_it), CHAT, f"leave-{stream_it}")
                run = asyncio.create_task(stream.run(30))
                await until_async(lambda: x.engines[0].state()["running"] == 1, 10, "it runs")
                left = time.monotonic()
                stream.close()
                await until_async(lambda: x.engines[0].state()["running"] == 0, 5, "the engine has stopped")
                seen = x.engines[0].requests()[-1]
                self.assertEqual(seen["outcome"], "disconnected")
                self.assertLess(seen["ended_at"] - left, 2)  # a few ms on an idle machine
                await run
            for stream_it in (True, False):
                asyncio.run(leave(stream_it))
            until(lambda: not x.cluster.requests(), 5, "nothing is left")

    def test_load_is_spread(self):
        with Engines(count=3, options=("--token-ms", 10)) as x:
            streams = [Stream(x.url, chat(f"spread {i}", 40), CHAT, f"spread-{i}") for i in range(30)]
            self.run_streams(*streams)
            counts = sorted(len([r for r in engine.requests() if r["path"] == CHAT]) for engine in x.engines)
            self.assertGreaterEqual(counts[0], 7, counts)

    def test_a_hung_engine_is_left(self):
        with Engines(options=("--token-ms", 10), gateway__engine_silence="800ms") as x:
            async def hang():
                for engine in x.engines[:1]:
                    engine.fault("freeze", after_tokens=8, times=1, ms=20000)
                streams = [Stream(x.url, chat(f"hang {i}", 60), CHAT, f"hang-{i}") for i in range(6)]
                await asyncio.gather(*(stream.run(30) for stream in streams))
                for stream in streams:
                    self.assert_whole(stream)
            asyncio.run(hang())

    def test_an_engine_that_hangs_before_the_first_token_is_left_once_others_answer(self):
        with Engines(options=("--token-ms", 5), gateway__engine_silence="800ms") as x:
            x.engines[0].fault("hang", after_tokens=0, times=-1)  # and it answers /health as ever
            streams = [Stream(x.url, chat(f"mute {i}", 20), CHAT, f"mute-{i}") for i in range(16)]
            whole = [chat(f"mute whole {i}", 20, stream=False) for i in range(4)]

            async def one_after_the_other():
                running = [asyncio.create_task(asyncio.to_thread(post, x.url, CHAT, body)) for body in whole]
                for stream in streams:
                    running.append(asyncio.create_task(stream.run(30)))
                    await asyncio.sleep(0.15)
                return await asyncio.gather(*running)
            replies = asyncio.run(one_after_the_other())
            for body, (status, _, text) in zip(whole, replies):
                self.assertEqual(status, 200, text)
                self.assertEqual(json.loads(text)["choices"][0]["message"]["content"], expected(CHAT, body)[0].text)
            for stream in streams:
                self.assert_whole(stream)
            ids = [stream.request_id for stream in streams] + [headers["x-request-id"] for _, headers, _ in replies[:4]]
            whys = [json.dumps(x.cluster.admin_get(f"/admin/v1/requests/{each}/why")) for each in ids]
            self.assertTrue(any("silent before the first token" in each for each in whys), whys)
            self.assertGreater(len([each for each in x.engines[0].requests() if each["path"] == CHAT]), 1)


if __name__ == "__main__":
    unittest.main()
