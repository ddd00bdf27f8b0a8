"""Sampled streams with stop strings: cut anywhere, they go on behind all their tokens, and nobody computes one again."""

import json
import unittest

from cluster import Stream
from test_relay import CHAT, COMPLETIONS, Engines, RelayTest, chat, completion, expected
from scripted_tokens import detokenize  # found by then

SAMPLED = {"temperature": 0.8}
USAGE = {"stream_options": {"include_usage": True}}
KINDS = (  # how it is asked, and what is shown beside the text
    (COMPLETIONS, completion, {}), (CHAT, chat, USAGE),
    (COMPLETIONS, completion, {"return_token_ids": True, **USAGE}), (CHAT, chat, {"return_token_ids": True}),
    (COMPLETIONS, completion, {"logprobs": 1}), (CHAT, chat, {"logprobs": True, "top_logprobs": 1, **USAGE}),
    (COMPLETIONS, completion, {"return_token_ids": True, "include_stop_str_in_output": True}))


class ToldStream(Stream):
    """Also gathers what is told of tokens."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.ids, self.names, self.stop_reason = [], [], None

    def on_event(self, event):
        super().on_event(event)
        if not event.startswith(b"data: {") or self.error:
            return
        for choice in json.loads(event[6:])["choices"]:
            self.ids += choice.get("token_ids") or []
            logprobs = choice.get("logprobs") or {}
            self.names += logprobs.get("tokens") or [each["token"] for each in logprobs.get("content") or ()]
            if choice["finish_reason"]:
                self.stop_reason = choice["stop_reason"]


def stop_in(text, length):
    """One that comes for the first time in the middle of a text."""
    return next(text[at:at + length] for at in range(12, len(text) - length) if text.find(text[at:at + length]) == at)


class StopStrings(RelayTest):
    def assert_told(self, stream):
        self.assert_whole(stream)
        output = expected(stream.path, stream.body)[0]
        self.assertEqual(stream.stop_reason, output.stop_reason)
        if stream.body.get("return_token_ids"):
            self.assertEqual(stream.ids, output.ids)
        if "logprobs" in stream.body:
            self.assertEqual(stream.names, [text for text, _ in output.logprobs])
        if "stream_options" in stream.body:
            self.assertEqual(stream.usage["completion_tokens"], len(output.ids))

    def cut(self, x, after, stream):
        """Runs it; both engines are lost once, each after so many tokens. What the two that went on were asked."""
        for engine in x.engines:
            engine.call("/control/reset", {})
            engine.fault("cut", after_tokens=after, times=1)
        self.run_streams(stream)
        asked = [json.loads(each["body"]) for engine in x.engines for each in engine.requests()
                 if each["path"] == COMPLETIONS]
        return [each for each in asked if each.get("include_stop_str_in_output") and isinstance(each["prompt"], list)]

    def test_cut_anywhere_they_are_the_unbroken_ones(self):
        with Engines(options=("--token-ms", 1), gateway__engine_retries_floor=1000) as x:
            for number, (path, make, shown) in enumerate(KINDS):
                plain = expected(path, make(f"stop {number}", 40, **SAMPLED, **shown))[0]
                for length in (2, 3, 7):
                    stop = stop_in(plain.text, length)
                    end = plain.text.find(stop) + length
                    body = make(f"stop {number}", 40, **SAMPLED, **shown,
                                stop=stop if length == 3 else ["never", stop, stop + "x"])
                    ids = expected(path, body)[0].ids
                    for after in sorted({2, *range(end - 6, end + 1)}):
                        with self.subTest(number=number, stop=stop, after=after):
                            stream = ToldStream(x.url, body, path, f"stop-{number}-{length}-{after}")
                            behind = self.cut(x, after, stream)
                            self.assert_told(stream)
                            told = ids[:after]
                            if "return_token_ids" in body and after < len(ids) and detokenize(told)[-1] != "\ufffd":
                                self.assertIn(told, [each["prompt"][-after:] for each in behind])

    def test_and_so_without_an_end_by_a_stop_string(self):
        with Engines(options=("--token-ms", 1), gateway__engine_retries_floor=1000) as x:
            for number, (path, make, shown) in enumerate(KINDS):
                for after in (1, 4, 9, 13, 17):
                    with self.subTest(number=number, after=after):
                        body = make(f"end {number}", 30, **SAMPLED, **shown, stop=["never", "\u20ac\u20ac"])
                        stream = ToldStream(x.url, body, path, f"end-{number}-{after}")
                        self.cut(x, after, stream)
                        self.assert_told(stream)

    def test_what_is_drawn_by_chance_is_drawn_once(self):
        """There is no unbroken run to compare with: but the text is that of the tokens, up to the first stop string."""
        stops = ["e ", "the", " a t"]
        broken = 0
        with Engines(options=("--token-ms", 1), gateway__engine_retries_floor=1000) as x:
            for after in range(1, 26):
                for path, make in ((COMPLETIONS, completion), (CHAT, chat)):
                    with self.subTest(after=after, path=path):
                        stream = ToldStream(x.url, make("by chance", 30, **SAMPLED, x_chance=True, stop=stops,
                                                        return_token_ids=True), path, f"chance-{after}-{path[-5:]}")
                        self.cut(x, after, stream)
                        text = detokenize(stream.ids)
                        if stream.error:  # within a character
                            broken += 1
                            self.assertTrue(text.endswith("\ufffd"), (text, stream.error))
                            continue
                        end, stop = min(((text.find(each) + len(each), each) for each in stops if each in text),
                                        default=(len(text), None))
                        self.assertEqual((stream.text, stream.stop_reason, stream.finish[0]), (
                            text[:end - len(stop)] if stop else text.rstrip("\ufffd"), stop, "stop" if stop else "length"))
                        self.assertEqual(end, len(text))
        self.assertLess(broken, 15)  # of 50


if __name__ == "__main__":
    unittest.main()
