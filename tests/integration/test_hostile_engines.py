"""Engines that answer badly: clients get the answer of another, or are told soon; and the next request works."""

import contextlib
import gzip
import itertools
import json
import pathlib
import time
import unittest

from cluster import Stream, resident_kib
from test_hostile_http import text_of, whole_of
from test_relay import CHAT, COMPLETIONS, Engines, RelayTest, chat, completion


MIB = 1 << 20
def wire(start, *, then="hang", **more):
    """An answer in place of the engine's own, byte for byte."""
    return {"kind": "raw", "before_head": True, "start": start, "then": then, **more}


def said(start, *, then="hang", **more):
    """In the body of the engine's answer, and then no more, or what it would have said."""
    return {"kind": "raw", "start": start, "then": then, **more}


OK = "HTTP/1.1 200 OK\r\n"
JSON = "content-type: application/json\r\n"
EVENTS = "content-type: text/event-stream\r\n"
CHUNKED = "transfer-encoding: chunked\r\n\r\n"
ENDLESS = -1
PACKED = gzip.compress(b"{}").decode("latin-1")
MUCH = 400 * MIB  # "without end", and yet no test machine dies of a defect


def body(text, more=JSON, status="200 OK"):
    """A whole answer; the connection ends behind it, or it would be kept and answer nobody."""
    return wire(f"HTTP/1.1 {status}\r\n{more}content-length: {len(text)}\r\n\r\n{text}", then="cut")


def chunk(choice, **more):
    return "data: " + json.dumps({"id": "$ID", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
                                  "choices": [{"index": 0, "finish_reason": None, **choice}], **more}) + "\n\n"


# In place of an answer: to be found out before the client has seen anything, streamed or not.
HEADS = {
    "cut within the head": wire(OK + "content-ty", then="cut"),
    "a status line that is none": wire("HTTP/1.1 abc OK\r\n\r\n"),
    "another protocol": wire("SSH-2.0-OpenSSH_9.2\r\n"),
    "a later HTTP": wire("HTTP/2 200 OK\r\n\r\n"),
    "a status line without end": wire("HTTP/1.1 200 ", text="x", bytes=ENDLESS),
    "headers without end": wire(OK, text="x: y\r\n", bytes=ENDLESS),
    "a header without end": wire(OK + "x: ", text="y", bytes=ENDLESS),
    "a header without a name": wire(OK + "no colon\r\n\r\n"),
    "NUL in a header": wire(OK + "x: a\0b\r\ncontent-length: 0\r\n\r\n"),
    "two lengths": wire(OK + JSON + "content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "a length that is none": wire(OK + JSON + "content-length: -2\r\n\r\n{}"),
    "length and coding": wire(OK + JSON + "content-length: 2\r\n" + CHUNKED + "2\r\n{}\r\n0\r\n\r\n"),
    "a coding that is not known": wire(OK + JSON + "transfer-encoding: gzip, chunked\r\n\r\n"),
    "interim replies without end": wire("", text="HTTP/1.1 100 Continue\r\n\r\n", bytes=ENDLESS),
    "early hints without end": wire("", text="HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", bytes=ENDLESS),
    "another protocol from here on": wire("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
    "chunks that are none": wire(OK + JSON + CHUNKED + "{}\r\n"),
    "a chunk of negative size": wire(OK + JSON + CHUNKED + "-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond 64 bits": wire(OK + JSON + CHUNKED + "fffffffffffffffff\r\n{}"),
    "a chunk's extension without end": wire(OK + JSON + CHUNKED + "2;", text="x", bytes=ENDLESS),
    "trailers without end": wire(OK + JSON + CHUNKED + "2\r\n{}\r\n0\r\n", text="x: y\r\n", bytes=ENDLESS),
}

# A whole answer that is none. The same for a stream: what is no stream of events is no answer to it.
BODIES = {
    "a page": body("<html>It works!</html>", "content-type: text/html\r\n"),
    "nothing": body(""),
    "a list": body("[]"),
    "NULs": body("\0" * 50),
    "NUL in a string": body('{"id":"\0"}'),
    "invalid UTF-8": body('{"id":"\xff"}'),
    "nesting without end": body('{"a":' + "[" * 100_000),
    "gzip": body(PACKED, JSON + "content-encoding: gzip\r\n"),
    "less than it said": wire(OK + JSON + 'content-length: 40\r\n\r\n{"id":', then="cut"),
    "no content": wire("HTTP/1.1 204 No Content\r\n\r\n", then="cut"),
    "elsewhere": body("", "location: http://127.0.0.1:1/\r\n", "302 Found"),
    "without end": wire(OK + JSON + CHUNKED + '10\r\n{"id":"012345678', text="\r\n8\r\nxxxxxxxx", bytes=MUCH),
    "a failure without end": wire("HTTP/1.1 500 Oh\r\n" + JSON + "\r\n", text="x", bytes=MUCH),
    "a refusal that is compressed": body(PACKED, JSON + "content-encoding: gzip\r\n", "400 Bad Request"),
}

# In a stream, before its first token and after some.
EVENTS_BAD = {
    "an event without end": said('data: {"id":"', text="x", bytes=ENDLESS),
    "a field without end": said("", text="y", bytes=ENDLESS),
    "an event of many lines without end": said("", text="data: x\n", bytes=ENDLESS),
    "an event of 10 MB": said('data: {"id":"', text="x", bytes=10_000_000, then="go_on"),
    "NULs": said("data: \0\0\0\n\n", then="go_on"),
    "NUL in a string": said('data: {"id":"\0","choices":[]}\n\n', then="go_on"),
    "invalid UTF-8": said(chunk({"delta": {"content": "@"}}).replace("@", "\xff\xfe"), then="go_on"),
    "no object": said("data: 7\n\n", then="go_on"),
    "no chunk": said("data: {}\n\n", then="go_on"),
    "nesting without end": said("data: " + "[" * 100_000 + "\n\n", then="go_on"),
    "an error": said('data: {"error":{"message":"no memory","type":"x","code":500}}\n\n', then="go_on"),
    "an error of older engines": said('data: {"object":"error","message":"no memory","code":500}\n\n', then="go_on"),
    "an error that is a text": said('data: {"error":"no memory"}\n\n', then="go_on"),
    "a choice nobody asked for": said(chunk({"index": 7, "delta": {"content": "x"}}), then="go_on"),
    "a choice before the first": said(chunk({"index": -1, "delta": {"content": "x"}}), then="go_on"),
    "choices that are no list": said('data: {"id":"$ID","choices":{"index":0}}\n\n', then="go_on"),
    "ids that are negative": {"kind": "token_ids", "ids": [-1]},
    "ids that are texts": {"kind": "token_ids", "ids": ["a"]},
    "ids that are fractions": {"kind": "token_ids", "ids": [1.5]},
    "ids beyond 32 bits": {"kind": "token_ids", "ids": [2**32]},
    "ids that are no list": {"kind": "token_ids", "ids": {"a": 1}},
    "an end before the end": said("data: [DONE]\n\n"),
    "another stream's id": {"kind": "wrong_id"},
    "chunks without an end": {"kind": "early_eof"},
}

# Streams that go on and on with what is none of their output: one must not wait for ever, nor gather it.
NEVER_ENDING = {
    "comments": said("", text=": still here\n\n", bytes=ENDLESS),
    "empty lines": said("", text="\n", bytes=ENDLESS),
    "roles": said("", text=chunk({"delta": {"role": "assistant", "content": ""}}), bytes=MUCH),
    "empty texts": said("", text=chunk({"delta": {"content": ""}, "token_ids": []}), bytes=MUCH),
}


class HostileEngines(RelayTest):
    """One of two engines is bad: clients do not notice. Both are: clients are told, soon. Then all is well again."""

    GROWTH_MIB = 220  # a whole reply may take 64 MiB, and two are asked at a time

    @classmethod
    def setUpClass(cls):
        cls.x = Engines(options=("--token-ms", 1), gateway__wait_for_instance="300ms", gateway__engine_silence="2s",
                        gateway__engine_retries_floor=10000)  # a table asks more often than a service in trouble should
        cls.addClassCleanup(cls.x.close)
        cls.url, cls.pid = cls.x.url, cls.x.cluster.pid("head")

    def setUp(self):
        self.clear()

    def tearDown(self):
        self.clear()
        self.assertEqual(self.x.cluster.pid("head"), self.pid, "the gateway was started anew")

    def clear(self):
        for engine in self.x.engines:
            engine.call("/control/fault", method="DELETE")

    @contextlib.contextmanager
    def bounded_memory(self, mib):
        """The gateway's memory may grow by so much at most, at any moment within."""
        clear = pathlib.Path(f"/proc/{self.pid}/clear_refs")
        clear.write_text("5")  # the peak counts from here
        before = resident_kib(self.pid)
        try:
            yield
        finally:
            self.assert_peak(before, mib)

    def assert_peak(self, before, mib):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        self.assertLess((peak - before) / 1024, mib, "MiB of memory that the gateway took")

    def hits(self, engine):
        return sum(1 for each in engine.requests() if each["fault"])

    def ask(self, make, path, name, stream, tokens=20):
        """Two requests at a time, so that each engine gets one."""
        streams = [Stream(self.url, make(f"{name} {i}", tokens, stream=stream), path) for i in range(2)]
        self.run_streams(*streams, seconds=30)
        return streams

    def assert_answered(self, asked):
        for each in asked:
            if each.body["stream"]:
                self.assert_whole(each)
            else:
                self.assertEqual((each.broken, each.status), (None, 200), each.raw[:300])
                self.assertEqual(text_of(each.raw), whole_of(each.body, each.path))

    def one_is_bad(self, name, fault, stream, after_tokens=0, path=CHAT, make=chat):
        with self.subTest(name, stream=stream, after_tokens=after_tokens, path=path):
            self.clear()
            self.x.engines.reverse()  # one that failed rests until it has answered: let it answer in between
            bad = self.x.engines[0]
            bad.call("/control/reset", {})
            bad.fault(**fault, after_tokens=after_tokens, times=-1)
            with self.bounded_memory(self.GROWTH_MIB):
                until = time.monotonic() + 20  # a rest is 10 s at most
                for attempt in itertools.count():
                    self.assert_answered(self.ask(make, path, f"{name} {attempt}", stream))
                    if self.hits(bad) > 0 or time.monotonic() > until:
                        break
            self.assertGreater(self.hits(bad), 0, "it was not asked")

    def both_are_bad(self, name, fault, stream, after_tokens=0):
        with self.subTest("both", name=name, stream=stream, after_tokens=after_tokens):
            self.clear()
            for engine in self.x.engines:
                engine.fault(**fault, after_tokens=after_tokens, times=-1)
            with self.bounded_memory(self.GROWTH_MIB):
                asked = self.ask(chat, CHAT, name, stream, tokens=200)  # more than engines are tried for, 7 at a time
            for each in asked:
                self.assertIsNone(each.broken)
                self.assertFalse(each.done)
                if after_tokens:
                    self.assertEqual(each.status, 200)
                    self.assertTrue(each.error["message"])
                else:
                    self.assertGreaterEqual(each.status, 500, each.raw)  # no fault of the client's
                    self.assertTrue(json.loads(each.raw)["error"]["message"])
            self.clear()
            self.assert_answered(self.ask(chat, CHAT, f"after {name}", stream))

    def test_heads(self):
        for name, fault in HEADS.items():
            for stream in (True, False):
                self.one_is_bad(name, fault, stream)

    def test_bodies(self):
        for name, fault in BODIES.items():
            for stream in (True, False):
                self.one_is_bad(name, fault, stream)

    def test_events(self):
        for name, fault in EVENTS_BAD.items():
            for after_tokens in (0, 7):
                self.one_is_bad(name, fault, True, after_tokens)
            self.one_is_bad(name, fault, True, 7, COMPLETIONS, completion)

    def test_ids_that_are_missing_spoil_nothing(self):
        for name, parameters in (("absent", {}), ("null", {"ids": None}), ("none", {"ids": []}), ("others", {"ids": [5]})):
            for after_tokens in (0, 7):
                self.one_is_bad(name, {"kind": "token_ids", **parameters}, True, after_tokens)

    def test_what_never_ends(self):
        for name, fault in NEVER_ENDING.items():
            for after_tokens in (0, 7):
                self.one_is_bad(name, fault, True, after_tokens)

    def test_more_tokens_than_were_asked_for(self):
        """An output without end: the client is not kept for ever, nor told more than it asked for."""
        for told, at_most in (({"token_ids": [5]}, 20), ({}, 200)):  # without ids only what is far beyond shows
            with self.subTest(**told), self.bounded_memory(self.GROWTH_MIB):
                for engine in self.x.engines:
                    engine.fault(**said("", text=chunk({"delta": {"content": "x"}, **told}), bytes=MUCH), times=-1)
                for each in self.ask(chat, CHAT, "tokens without end", True):
                    # Without a token that could be believed there is a status to say it with.
                    self.assertEqual((each.broken, each.done), (None, False))
                    self.assertIn(each.status, (200, 502))
                    self.assertTrue(each.error["message"] if each.status == 200 else each.raw)
                    self.assertLessEqual(each.pieces, at_most)
            self.clear()

    def test_both(self):
        rows = [(HEADS, name) for name in ("cut within the head", "headers without end", "two lengths", "chunks that are none",
                                           "interim replies without end")]
        rows += [(BODIES, name) for name in ("a page", "NULs", "gzip", "less than it said", "without end")]
        for table, name in rows:
            for stream in (True, False):
                self.both_are_bad(name, table[name], stream)
        for name in ("an event without end", "NULs", "an error", "an end before the end", "ids that are negative"):
            for after_tokens in (0, 7):
                self.both_are_bad(name, EVENTS_BAD[name], True, after_tokens)


class LongPrompts(RelayTest):
    def test_the_ids_of_a_long_prompt_are_no_hostile_event(self):
        """The gateway itself asks for them: an engine with a long context tells megabytes in its first event."""
        tokens = 400_000
        with Engines(count=1, options=("--token-ms", 0, "--max-model-len", tokens + 1000)) as x:
            for path, body in ((CHAT, chat("ab " * (tokens // 3), 3)), (COMPLETIONS, completion("ab " * (tokens // 3), 3))):
                with self.subTest(path=path):
                    stream = Stream(x.url, body, path)
                    self.run_streams(stream)
                    self.assertEqual((stream.broken, stream.error, stream.status), (None, None, 200), stream.raw[:500])
                    self.assertTrue(stream.done)


if __name__ == "__main__":
    unittest.main()
