"""The official OpenAI client, sync and async, gets what a modeled engine must give."""

import asyncio
import unittest

import openai

import modeled
from cluster import Cluster, ClusterTest

SEA = "Tell me of the sea."
USER = [{"role": "user", "content": SEA}]


class OpenAIClient(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(engines=2, engine__speed=50)
        cls.addClassCleanup(cls.cluster.close)
        how = {"base_url": cls.cluster.url + "/v1", "api_key": "none", "max_retries": 0, "timeout": 60}
        cls.client = openai.OpenAI(**how)
        cls.addClassCleanup(cls.client.close)
        cls.how = how

    def chat(self, messages=USER, **fields):
        return self.client.chat.completions.create(
            model="modeled", messages=messages, **{"temperature": 0, "max_tokens": 24, **fields})

    def complete(self, prompt="Hi", **fields):
        return self.client.completions.create(
            model="modeled", prompt=prompt, **{"temperature": 0, "max_tokens": 8, **fields})

    def joined(self, stream, chat=True):
        """Texts and finish reasons by choice, the usage, and every chunk."""
        texts, reasons, usage, chunks = {}, {}, None, list(stream)
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                piece = (choice.delta.content if chat else choice.text) or ""
                texts[choice.index] = texts.get(choice.index, "") + piece
                if choice.finish_reason:
                    self.assertNotIn(choice.index, reasons)
                    reasons[choice.index] = choice.finish_reason
        return texts, reasons, usage, chunks

    def assert_usage(self, usage, prompt, *outputs):
        completed = sum(len(output.ids) for output in outputs)
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
                         (prompt, completed, prompt + completed))

    # --- texts

    def test_chat_whole(self):
        expected = modeled.chat(SEA, 24)
        reply = self.chat()
        self.assertEqual(reply.object, "chat.completion")
        self.assertRegex(reply.id, "^chatcmpl-")
        self.assertEqual(reply.choices[0].message.role, "assistant")
        self.assertEqual(reply.choices[0].message.content, expected.text)
        self.assertEqual(reply.choices[0].finish_reason, expected.finish_reason)
        self.assert_usage(reply.usage, len(modeled.chat_ids(USER)), expected)

    def test_chat_streamed(self):
        expected = modeled.chat(SEA, 24)
        texts, reasons, usage, chunks = self.joined(self.chat(stream=True))
        self.assertEqual((texts, reasons), ({0: expected.text}, {0: expected.finish_reason}))
        self.assertIsNone(usage)
        self.assertEqual({chunk.object for chunk in chunks}, {"chat.completion.chunk"})
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")

    def test_completion_whole_and_streamed(self):
        expected = modeled.completion("Hi", 8)
        reply = self.complete()
        self.assertEqual((reply.object, reply.choices[0].text), ("text_completion", expected.text))
        self.assertRegex(reply.id, "^cmpl-")
        self.assert_usage(reply.usage, 2, expected)
        texts, reasons, _, _ = self.joined(self.complete(stream=True), chat=False)
        self.assertEqual((texts, reasons), ({0: expected.text}, {0: expected.finish_reason}))

    def test_roles_and_parts(self):
        messages = [
            {"role": "developer", "content": "Be brief."}, {"role": "user", "content": "grüße ⟂"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}]
        expected = modeled.Output(modeled.chat_ids(messages), 24)
        reply = self.chat(messages)
        self.assertEqual(reply.choices[0].message.content, expected.text)
        self.assert_usage(reply.usage, len(modeled.chat_ids(messages)), expected)

    def test_token_ids_as_prompt(self):
        ids = [600, 601, 257, 72]
        expected = modeled.completion(ids, 8)
        reply = self.complete(ids)
        self.assertEqual(reply.choices[0].text, expected.text)
        self.assert_usage(reply.usage, 4, expected)

    def test_an_output_ends_by_itself(self):
        expected = modeled.chat("story 135", 200)
        self.assertEqual(expected.finish_reason, "stop")
        for stream in (False, True):
            with self.subTest(stream=stream):
                reply = self.chat([{"role": "user", "content": "story 135"}], max_tokens=200, stream=stream)
                if stream:
                    texts, reasons, _, _ = self.joined(reply)
                    got = texts[0], reasons[0]
                else:
                    got = reply.choices[0].message.content, reply.choices[0].finish_reason
                    self.assert_usage(reply.usage, 13, expected)
                self.assertEqual(got, (expected.text, "stop"))

    def test_two_choices(self):
        expected = [modeled.chat(SEA, 24, choice=choice) for choice in (0, 1)]
        reply = self.chat(n=2)
        self.assertEqual([choice.message.content for choice in sorted(reply.choices, key=lambda c: c.index)],
                         [output.text for output in expected])
        self.assert_usage(reply.usage, len(modeled.chat_ids(USER)), *expected)
        texts, reasons, _, _ = self.joined(self.chat(n=2, stream=True))
        self.assertEqual(texts, {i: output.text for i, output in enumerate(expected)})
        self.assertEqual(reasons, {i: output.finish_reason for i, output in enumerate(expected)})

    # --- sampling and ends

    def test_seed(self):
        for seed in (7, 2**40):
            expected = modeled.chat(SEA, 24, seed=seed)
            self.assertEqual(self.chat(temperature=1, seed=seed).choices[0].message.content, expected.text)
        pair = [modeled.chat(SEA, 24, seed=7, choice=choice).text for choice in (0, 1)]
        self.assertEqual([c.message.content for c in self.chat(temperature=1, seed=7, n=2).choices], pair)

    def test_without_a_seed_answers_differ(self):
        self.assertGreater(len({self.chat(temperature=1).choices[0].message.content for _ in range(4)}), 1)

    def test_temperature_0_ignores_the_seed(self):
        self.assertEqual(self.chat(seed=7).choices[0].message.content, modeled.chat(SEA, 24).text)

    def test_stop(self):
        whole = modeled.chat(SEA, 24)
        across = whole.text[12:18]  # begins in one token and ends in the next
        for stop in (whole.pieces[3], [whole.pieces[9], across], "never said"):
            expected = modeled.chat(SEA, 24, stop=[stop] if isinstance(stop, str) else stop)
            with self.subTest(stop):
                reply = self.chat(stop=stop)
                self.assertEqual(reply.choices[0].message.content, expected.text)
                self.assertEqual(reply.choices[0].finish_reason, expected.finish_reason)
                self.assert_usage(reply.usage, len(modeled.chat_ids(USER)), expected)
                texts, reasons, _, _ = self.joined(self.chat(stop=stop, stream=True))
                self.assertEqual((texts[0], reasons[0]), (expected.text, expected.finish_reason))

    def test_max_completion_tokens_wins(self):
        for fields, count in (({"max_completion_tokens": 5}, 5), ({"max_tokens": 1}, 1)):
            reply = self.chat(**fields)
            self.assertEqual(reply.choices[0].message.content, modeled.chat(SEA, count).text)
            self.assertEqual(reply.choices[0].finish_reason, "length")
            self.assertEqual(reply.usage.completion_tokens, count)

    def test_fields_of_vllm(self):
        story = [{"role": "user", "content": "story 135"}]  # ends by itself after ten tokens
        for extra in ({"ignore_eos": True}, {"min_tokens": 14}, {"min_tokens": 3}, {"min_tokens": 20, "ignore_eos": True}):
            with self.subTest(extra):
                expected = modeled.chat("story 135", 30, **extra)
                reply = self.chat(story, max_tokens=30, extra_body=extra)
                self.assertEqual(reply.choices[0].message.content, expected.text)
                self.assertEqual(reply.choices[0].finish_reason, expected.finish_reason)
                self.assertEqual(reply.usage.completion_tokens, len(expected.ids))

    # --- logprobs and usage

    def assert_alternatives(self, expected, at, shown, wanted):
        """Those shown are the best ones: the token itself, then what stands 0.5, 1.0, ... below it."""
        best = {modeled.word(expected.ids[at]): expected.logprobs[at]}
        for token, logprob in expected.alternatives[at]:
            best.setdefault(modeled.word(token), logprob)
        self.assertIn(len(shown), wanted)
        for text, logprob in shown:
            self.assertIn(text, best)
            self.assertAlmostEqual(logprob, best[text], places=4)
        self.assertEqual(sorted((round(logprob, 4) for _, logprob in shown), reverse=True),
                         sorted((round(best[text], 4) for text in list(best)[:len(shown)]), reverse=True))

    def test_logprobs_of_chat(self):
        expected = modeled.chat(SEA, 6, ignore_eos=True)
        fields = {"max_tokens": 6, "logprobs": True, "top_logprobs": 3, "extra_body": {"ignore_eos": True}}
        whole = self.chat(**fields).choices[0].logprobs.content
        streamed = [entry for chunk in self.chat(stream=True, **fields) for choice in chunk.choices
                    if choice.logprobs for entry in choice.logprobs.content or []]
        for entries in (whole, streamed):
            self.assertEqual([entry.token for entry in entries], expected.pieces)
            for at, entry in enumerate(entries):
                self.assertAlmostEqual(entry.logprob, expected.logprobs[at], places=4)
                self.assertEqual(bytes(entry.bytes), expected.pieces[at].encode())
                self.assert_alternatives(expected, at, [(t.token, t.logprob) for t in entry.top_logprobs], {3})
        self.assertIsNone(self.chat().choices[0].logprobs)

    def test_logprobs_of_completions(self):
        expected = modeled.completion("Hi", 6, ignore_eos=True)
        fields = {"max_tokens": 6, "logprobs": 2, "extra_body": {"ignore_eos": True}}
        logprobs = self.complete(**fields).choices[0].logprobs
        self.assertEqual(logprobs.tokens, expected.pieces)
        self.assertEqual(logprobs.text_offset, [5 * at for at in range(6)])
        for at, value in enumerate(logprobs.token_logprobs):
            self.assertAlmostEqual(value, expected.logprobs[at], places=4)
            self.assert_alternatives(expected, at, list(logprobs.top_logprobs[at].items()), {2, 3})
        streamed = [text for chunk in self.complete(stream=True, **fields) for choice in chunk.choices
                    if choice.logprobs for text in choice.logprobs.tokens or []]
        self.assertEqual(streamed, expected.pieces)

    def test_usage_of_a_stream_is_its_last_chunk(self):
        for chat in (True, False):
            with self.subTest(chat=chat):
                create = self.chat if chat else self.complete
                _, _, usage, chunks = self.joined(create(stream=True, stream_options={"include_usage": True}), chat)
                self.assertEqual(chunks[-1].choices, [])
                self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
                if chat:
                    self.assert_usage(usage, len(modeled.chat_ids(USER)), modeled.chat(SEA, 24))
                else:
                    self.assert_usage(usage, 2, modeled.completion("Hi", 8))

    # --- models and errors

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["modeled"])

    def test_errors_are_the_clients_exceptions(self):
        bad, absent = openai.BadRequestError, openai.NotFoundError
        part = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]
        rows = (
            ("temperature is no number", bad, lambda: self.chat(temperature="hot")),
            ("negative temperature", bad, lambda: self.chat(temperature=-1)),
            ("no tokens", bad, lambda: self.chat(max_tokens=0)),
            ("no choices", bad, lambda: self.chat(n=0)),
            ("too many choices", bad, lambda: self.chat(n=1000)),
            ("top_p out of range", bad, lambda: self.chat(top_p=2)),
            ("unknown role", bad, lambda: self.chat([{"role": "wizard", "content": "x"}])),
            ("a picture", bad, lambda: self.chat(part)),
            ("no messages", bad, lambda: self.chat([])),
            ("options of a stream without one", bad, lambda: self.chat(stream_options={"include_usage": True})),
            ("a prompt longer than the model", bad, lambda: self.chat([{"role": "user", "content": "x" * 20000}])),
            ("an id outside the vocabulary", bad, lambda: self.complete([72, 400])),
            ("unknown model", absent, lambda: self.client.chat.completions.create(model="gone", messages=USER)),
            ("unknown model, streamed", absent,
             lambda: self.client.completions.create(model="gone", prompt="x", stream=True)),
        )
        for name, kind, act in rows:
            with self.subTest(name):
                with self.assertRaises(kind) as caught:
                    act()
                self.assertTrue(caught.exception.body["message"])
                self.assertIn(caught.exception.type, ("invalid_request_error", "not_found_error"))
                self.assertIsNotNone(caught.exception.request_id)

    def test_codes_of_errors(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="gone", messages=USER)
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat([{"role": "user", "content": "x" * 20000}])
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    # --- async

    def test_async_client(self):
        async def ask(client, number):
            content, stream = f"question {number}", number % 2 == 0
            reply = await client.chat.completions.create(
                model="modeled", messages=[{"role": "user", "content": content}], temperature=0,
                max_tokens=10 + number, stream=stream)
            if not stream:
                return reply.choices[0].message.content
            return "".join([choice.delta.content or "" async for chunk in reply for choice in chunk.choices])

        async def ask_all():
            async with openai.AsyncOpenAI(**self.how) as client:
                return await asyncio.gather(*(ask(client, number) for number in range(40)))

        expected = [modeled.chat(f"question {number}", 10 + number).text for number in range(40)]
        self.assertEqual(asyncio.run(ask_all()), expected)

    def test_async_errors(self):
        async def ask():
            async with openai.AsyncOpenAI(**self.how) as client:
                await client.chat.completions.create(model="gone", messages=USER, stream=True)

        with self.assertRaises(openai.NotFoundError):
            asyncio.run(ask())


if __name__ == "__main__":
    unittest.main(verbosity=2)
