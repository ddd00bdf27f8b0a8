"""The official OpenAI client, sync and async, in front of engines behind HTTP. (test_openai_client.py: modeled engines.)"""

import asyncio
import time
import unittest

import openai

from cluster import ClusterTest, until
from test_relay import CHAT, COMPLETIONS, Engines, expected

SEA = [{"role": "user", "content": "Tell me of the sea."}]
BODIES = {  # by name: path and fields
    "chat": (CHAT, {"messages": SEA, "temperature": 0, "max_tokens": 24}),
    "chat that stops": (CHAT, {"messages": SEA, "temperature": 0, "max_tokens": 40, "stop": ["e"]}),
    "chat of two": (CHAT, {"messages": SEA, "temperature": 0.5, "max_tokens": 12, "n": 2}),
    "completion": (COMPLETIONS, {"prompt": "Hi", "temperature": 0, "max_tokens": 12}),
    "completion of ids": (COMPLETIONS, {"prompt": [42, 75, 90], "temperature": 0, "max_tokens": 12}),
}


class OpenAIRelayed(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.x = Engines(options=("--token-ms", 2))
        cls.addClassCleanup(cls.x.close)
        cls.how = {"base_url": cls.x.url + "/v1", "api_key": "none", "max_retries": 0, "timeout": 30}
        cls.client = openai.OpenAI(**cls.how)
        cls.addClassCleanup(cls.client.close)

    def tearDown(self):
        for engine in self.x.engines:
            engine.call("/control/fault", method="DELETE")

    def fault(self, kind, **parameters):
        for engine in self.x.engines:
            engine.fault(kind, **parameters)

    def create(self, path, client=None, **fields):
        client = client or self.client
        where = client.chat.completions if path == CHAT else client.completions
        return where.create(model="tiny", **fields)

    def joined(self, stream):
        """Texts and finish reasons by choice, the usage, and every chunk."""
        texts, reasons, usage, chunks = {}, {}, None, list(stream)
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                piece = choice.delta.content if hasattr(choice, "delta") else choice.text
                texts[choice.index] = texts.get(choice.index, "") + (piece or "")
                if choice.finish_reason:
                    self.assertNotIn(choice.index, reasons)
                    reasons[choice.index] = choice.finish_reason
        return texts, reasons, usage, chunks

    def assert_usage(self, usage, outputs):
        prompt, completed = len(outputs[0].prompt_ids), sum(len(output.ids) for output in outputs)
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
                         (prompt, completed, prompt + completed))

    def test_whole(self):
        for name, (path, fields) in BODIES.items():
            with self.subTest(name):
                outputs, reply = expected(path, fields), self.create(path, **fields)
                self.assertEqual(reply.object, "chat.completion" if path == CHAT else "text_completion")
                got = [(choice.message.content if path == CHAT else choice.text, choice.finish_reason)
                       for choice in sorted(reply.choices, key=lambda choice: choice.index)]
                self.assertEqual(got, [(output.text, output.finish_reason) for output in outputs])
                self.assert_usage(reply.usage, outputs)
                self.assertTrue(reply._request_id)

    def test_streamed(self):
        for name, (path, fields) in BODIES.items():
            for options in ({}, {"stream_options": {"include_usage": True}}):
                with self.subTest(name, **options):
                    outputs = expected(path, fields)
                    texts, reasons, usage, chunks = self.joined(self.create(path, stream=True, **fields, **options))
                    self.assertEqual(texts, {i: output.text for i, output in enumerate(outputs)})
                    self.assertEqual(reasons, {i: output.finish_reason for i, output in enumerate(outputs)})
                    self.assertEqual(len({chunk.id for chunk in chunks}), 1)
                    if options:
                        self.assert_usage(usage, outputs)
                        self.assertEqual(chunks[-1].choices, [])
                    else:
                        self.assertIsNone(usage)

    def test_an_engines_end_is_not_noticed(self):
        for name in ("chat", "chat that stops", "completion", "completion of ids"):
            path, fields = BODIES[name]
            for kind in ("cut", "error_event", "gzip"):
                with self.subTest(name, kind=kind):
                    self.fault(kind, after_tokens=0 if kind == "gzip" else 3, times=1)
                    texts, reasons, _, _ = self.joined(self.create(path, stream=True, **fields))
                    output = expected(path, fields)[0]
                    self.assertEqual((texts, reasons), ({0: output.text}, {0: output.finish_reason}))
                    self.tearDown()

    def test_an_error_in_the_middle_of_a_stream(self):
        self.fault("cut", after_tokens=3, times=-1)
        stream = self.create(CHAT, messages=SEA, stream=True, temperature=1, seed=1, max_tokens=20)
        seen = 0
        with self.assertRaises(openai.APIError) as caught:
            for chunk in stream:
                seen += len(chunk.choices)
        self.assertGreater(seen, 0)
        self.assertIn("no engine can go on", caught.exception.message)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").id, "tiny")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("gone")

    def test_errors_are_the_clients_exceptions(self):
        path, good = BODIES["chat"]
        rows = [("temperature", openai.BadRequestError, {"temperature": -1}),
                ("no tokens", openai.BadRequestError, {"max_tokens": -1}),
                ("more than the model holds", openai.BadRequestError, {"max_tokens": 10**6}),
                ("unknown model", openai.NotFoundError, {"model": "gone"})]
        for name, kind, spoilt in rows:
            for stream in (False, True):
                with self.subTest(name, stream=stream):
                    with self.assertRaises(kind) as caught:
                        self.client.chat.completions.create(**{"model": "tiny", **good, **spoilt, "stream": stream})
                    self.assertTrue(caught.exception.body["message"])
                    self.assertIsNotNone(caught.exception.request_id)

    def test_the_client_tries_again_when_told_to(self):
        path, fields = BODIES["chat"]
        self.fault("status", status=429, retry_after=1, times=1)
        with self.assertRaises(openai.RateLimitError) as caught:
            self.create(path, **fields)
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.tearDown()
        self.fault("status", status=503, retry_after=1, times=1)
        begun = time.monotonic()
        reply = self.create(path, self.client.with_options(max_retries=3), **fields)
        self.assertEqual(reply.choices[0].message.content, expected(path, fields)[0].text)
        self.assertGreater(time.monotonic() - begun, 0.9)

    def test_whoever_leaves_frees_the_engine(self):
        endless = {"messages": SEA, "temperature": 0, "max_tokens": 3000, "extra_body": {"ignore_eos": True}}
        with self.create(CHAT, stream=True, extra_headers={"x-request-id": "left-stream"}, **endless) as stream:
            next(iter(stream))
        with self.assertRaises(openai.APITimeoutError):
            self.create(CHAT, self.client.with_options(timeout=0.2), extra_headers={"x-request-id": "left-whole"}, **endless)
        for name in ("left-stream", "left-whole"):
            with self.subTest(name):
                until(lambda: self.outcome(name) == "disconnected", 5, "the engine has heard of it")
        until(lambda: not self.x.cluster.requests(), 5, "nothing is left")

    def outcome(self, name):
        return next((each["outcome"] for engine in self.x.engines for each in engine.requests()
                     if (each["id"] or "").endswith(name)), None)

    def test_async_client(self):
        async def ask(client, number):
            path, fields = list(BODIES.values())[number % 2 * 3]
            reply = await self.create(path, client, stream=number % 4 < 2, **fields)
            if number % 4 >= 2:
                return reply.choices[0].message.content if path == CHAT else reply.choices[0].text
            return "".join([(choice.delta.content or "") if path == CHAT else choice.text
                            async for chunk in reply for choice in chunk.choices])

        async def ask_all():
            async with openai.AsyncOpenAI(**self.how) as client:
                return await asyncio.gather(*(ask(client, number) for number in range(40)))

        wanted = [expected(*list(BODIES.values())[number % 2 * 3])[0].text for number in range(40)]
        self.assertEqual(asyncio.run(ask_all()), wanted)


if __name__ == "__main__":
    unittest.main()
