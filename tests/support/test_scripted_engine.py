"""The scripted engine keeps its word: tokens, bytes, faults and counts. Ends by itself within seconds."""

import asyncio
import gzip
import http.client
import json
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from scripted_engine import ScriptedEngine, chat_ids, encode, expected, generate  # noqa: E402
from scripted_faults import KINDS  # noqa: E402
from scripted_tokens import EOS, ID_OF, Output, Sampling, decode  # noqa: E402

PROGRAM = pathlib.Path(__file__).resolve().parent / "scripted_engine.py"
COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/inference/v1/generate"
LIMIT_S = 5


class Answer:
    """What a client got: `ended` is "whole", or what kept the body from being so."""

    def __init__(self):
        self.version = self.status = self.ended = None
        self.headers, self.body = {}, b""

    def events(self):
        """The data of each event, [DONE] included; what is no JSON stays text."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8", self.headers
        return [_json_or_text(event.removeprefix("data: ")) for event in self.body.decode().split("\n\n") if event]

    def chunks(self):
        return [event for event in self.events() if isinstance(event, dict)]

    def choices(self):
        return [choice for chunk in self.chunks() for choice in chunk.get("choices", [])]

    def ids(self):
        return [token for choice in self.choices() for token in choice.get("token_ids") or []]

    def text(self):
        return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "")
                       for choice in self.choices())

    def json(self):
        return json.loads(self.body)


def _json_or_text(data):
    try:
        return json.loads(data)
    except ValueError:
        return data


class Client:
    """One connection, kept."""

    def __init__(self, url):
        self.address = url.removeprefix("http://").rsplit(":", 1)

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        return self

    def send(self, method, path, body=None, headers=()):
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Content-Type: application/json",
                 f"Content-Length: {len(data)}", *headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    async def read(self):
        answer = Answer()
        try:
            await asyncio.wait_for(self._read(answer), LIMIT_S)
            answer.ended = "whole"
        except asyncio.IncompleteReadError as failure:
            answer.body += failure.partial
            answer.ended = "cut"
        except (ConnectionResetError, TimeoutError, ValueError) as failure:
            answer.ended = type(failure).__name__
        return answer

    async def _read(self, answer):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        answer.version, answer.status = head[0].split()[0], int(head[0].split()[1])
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        elif "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            answer.body = await self.reader.read()

    async def ask(self, method, path, body=None, headers=()):
        self.send(method, path, body, headers)
        return await self.read()

    def close(self):
        self.writer.close()


class TokenTest(unittest.TestCase):
    def test_ids_are_those_of_the_tiny_model(self):
        self.assertEqual(encode("Hi"), [42, 75])
        self.assertEqual(chat_ids([{"role": "user", "content": "hi"}]), [0, 260, 74, 75, 261])
        self.assertEqual(encode("é€🙂"), [130, 105, 161, 227, 108, 175, 256, 250, 227])  # as Hugging Face's tokenizer
        self.assertEqual(decode(encode("one\n€ \x00")), "one\n€ \x00")
        self.assertEqual(len(ID_OF), 256)

    def test_a_request_goes_on_elsewhere_exactly(self):
        for options in ({}, {"ignore_eos": True}, {"repetition_penalty": 1.2}, {"temperature": 0.7, "top_p": 0.9}):
            whole = generate(encode("Hi"), 200, **options)
            for cut in range(1, len(whole.ids)):
                rest = generate(encode("Hi") + whole.ids[:cut], 200 - cut, **options)
                self.assertEqual(whole.ids[:cut] + rest.ids, whole.ids, (options, cut))
                self.assertEqual(rest.finish_reason, whole.finish_reason)

    def test_what_starts_anew_with_a_request_does_not_go_on(self):
        for options in ({"seed": 7, "temperature": 1.0}, {"presence_penalty": 0.5}, {"frequency_penalty": 0.5},
                        {"structured_outputs": {"regex": "a*"}}):
            whole = generate(encode("Hi"), 60, ignore_eos=True, **options)
            again = generate(encode("Hi"), 60, ignore_eos=True, **options)
            rest = generate(encode("Hi") + whole.ids[:30], 30, ignore_eos=True, **options)
            self.assertEqual(whole.ids, again.ids)
            self.assertNotEqual(whole.ids[30:], rest.ids, options)

    def test_parameters_change_the_tokens(self):
        plain = generate(encode("Hi"), 30).ids
        self.assertEqual(plain, generate(encode("Hi"), 30, seed=7, temperature=0, top_p=0.5).ids)  # greedy
        for options in ({"seed": 7, "temperature": 1.0}, {"repetition_penalty": 1.1}, {"logit_bias": {"4": 1}},
                        {"temperature": 0.3}, {"choice": 1}):
            self.assertNotEqual(plain, generate(encode("Hi"), 30, **options).ids, options)
        self.assertNotEqual(plain, generate(encode("Ho"), 30).ids)

    def test_a_second_choice_goes_on_alone_after_its_first_token(self):
        second = generate(encode("Hi"), 30, choice=1)
        self.assertEqual(second.ids[1:], generate(encode("Hi") + second.ids[:1], 29).ids)

    def test_text_is_readable_and_characters_span_tokens(self):
        output = generate(encode("Hi"), 600, ignore_eos=True)
        self.assertEqual(output.text, decode(output.ids).rstrip("\ufffd"))
        ascii_share = sum(character.isascii() for character in output.text) / len(output.text)
        self.assertTrue(0.8 < ascii_share < 1, ascii_share)
        self.assertIn("", output.pieces)
        self.assertNotIn("\ufffd", output.text)

    def test_a_prompt_that_ends_inside_a_character_comes_back_as_text(self):
        """As vLLM 0.32 with tokenizers 0.23 (tried there): whoever replays must not trust that piece."""
        output = generate(encode("hello €")[:-1], 2, ignore_eos=True)
        self.assertTrue(output.text.startswith("hello "), output.text)
        self.assertEqual(len(output.pieces[0]), len("hello €"))

    def test_it_ends_by_itself_or_not(self):
        lengths = [len(generate(encode(f"prompt {i}"), 2000).ids) for i in range(20)]
        self.assertLess(max(lengths), 2000)
        output = generate(encode("prompt 1"), 2000)
        self.assertEqual((output.ids[-1], output.finish_reason, output.stop_reason), (EOS, "stop", None))
        self.assertNotIn(EOS, generate(encode("prompt 1"), 2000, ignore_eos=True).ids)
        least = len(output.ids) + 5
        self.assertGreater(len(generate(encode("prompt 1"), 2000, min_tokens=least).ids), least)

    def test_stops(self):
        plain = generate(encode("Hi"), 80, ignore_eos=True)
        stop = plain.text[20:23]
        first = plain.text.find(stop)
        for options, text in (({}, plain.text[:first]), ({"include_stop_str_in_output": True}, plain.text[:first + 3])):
            output = generate(encode("Hi"), 80, ignore_eos=True, stop=[stop, "never"], **options)
            self.assertEqual((output.text, output.finish_reason, output.stop_reason), (text, "stop", stop))
            self.assertEqual(decode(output.ids), plain.text[:first + 3])
        token = plain.ids[10]
        output = generate(encode("Hi"), 80, ignore_eos=True, stop_token_ids=[token])
        self.assertEqual((output.ids[-1], output.stop_reason), (token, token))
        self.assertEqual(output.text, decode(output.ids[:-1]))
        late = generate(encode("Hi"), 80, ignore_eos=True, stop=stop, min_tokens=60)
        self.assertGreater(len(late.ids), 60)

    def test_by_chance_each_run_draws_anew(self):
        chance = {"temperature": 1, "x_chance": True, "ignore_eos": True}
        one = generate(encode("Hi"), 20, **chance).ids
        self.assertEqual(generate(encode("Hi"), 20, **chance).ids, one)
        self.assertNotEqual(generate(encode("Hi") + one[:5], 15, **chance).ids, one[5:])
        self.assertEqual(generate(encode("Hi"), 20, **chance | {"temperature": 0}).ids,
                         generate(encode("Hi"), 20, ignore_eos=True).ids)

    def test_a_chunk_never_shows_what_may_become_a_stop_string(self):
        plain = generate(encode("Hi"), 60, ignore_eos=True)
        stop = plain.text[30:36]
        output, told = Output(encode("Hi"), 60, Sampling.of({"stop": stop, "ignore_eos": True})), ""
        while not output.finished:
            output.step()
            told += output.take().text
            self.assertNotIn(stop, told)
            self.assertTrue(plain.text.startswith(told))
        self.assertEqual(told, plain.text[:plain.text.find(stop)])


class EngineTest(unittest.IsolatedAsyncioTestCase):
    settings = {"token_ms": 1}

    async def asyncSetUp(self):
        self.clients = []
        self.engine = ScriptedEngine(**self.settings)
        self.url = await self.engine.start()

    async def asyncTearDown(self):
        for client in self.clients:
            client.close()
        await self.engine.stop()

    async def client(self):
        self.clients.append(await Client(self.url).open())
        return self.clients[-1]

    async def ask(self, method, path, body=None, headers=()):
        return await (await self.client()).ask(method, path, body, headers)

    async def until(self, reached):
        deadline = time.monotonic() + LIMIT_S
        while not reached():
            self.assertLess(time.monotonic(), deadline, "not reached")
            await asyncio.sleep(0.001)


def completion(**fields):
    return {"model": "tiny", "prompt": "Hi", "max_tokens": 12, "temperature": 0, "stream": True, "ignore_eos": True,
            "return_token_ids": True, **fields}


class BytesTest(EngineTest):
    async def test_a_streamed_completion_as_vllm_writes_it(self):
        answer = await self.ask("POST", COMPLETIONS, completion(max_tokens=2, request_id="a"))
        first, second = generate(encode("Hi"), 2, ignore_eos=True).ids
        created = answer.chunks()[0]["created"]
        head = (f'data: {{"id":"cmpl-a","object":"text_completion","created":{created},"model":"tiny",'
                '"choices":[{"index":0,')
        pieces = [json.dumps(decode([token]), ensure_ascii=False) for token in (first, second)]
        self.assertEqual(answer.body.decode(), (
            head + f'"text":{pieces[0]},"logprobs":null,"finish_reason":null,"stop_reason":null,'
            f'"prompt_token_ids":[42,75],"token_ids":[{first}]}}]}}\n\n' +
            head + f'"text":{pieces[1]},"logprobs":null,"finish_reason":"length","stop_reason":null,'
            f'"prompt_token_ids":null,"token_ids":[{second}]}}],"system_fingerprint":"vllm-0.32.0-5c217ed0"}}\n\n'
            'data: [DONE]\n\n'))

    async def test_every_route_tells_the_tokens_that_were_worked_out(self):
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "return_token_ids": True,
                "stop": "e"}
        for path, body in ((COMPLETIONS, completion(max_tokens=40)), (CHAT, chat | {"stream": True}),
                           (COMPLETIONS, completion(prompt=[[42, 75], [42]], n=2, temperature=None)),
                           (CHAT, chat | {"stream": True, "n": 2})):
            outputs, answer = expected(path, body), await self.ask("POST", path, body)
            for index, output in enumerate(outputs):
                choices = [choice for choice in answer.choices() if choice["index"] == index]
                self.assertEqual([token for each in choices for token in each.get("token_ids") or []], output.ids)
                text = "".join(each["text"] if path == COMPLETIONS else each["delta"]["content"] for each in choices)
                self.assertEqual(text, output.text)
                self.assertEqual((choices[-1]["finish_reason"], choices[-1]["stop_reason"]),
                                 (output.finish_reason, output.stop_reason))
            whole = (await self.ask("POST", path, body | {"stream": False})).json()
            self.assertEqual([choice["token_ids"] for choice in whole["choices"]], [output.ids for output in outputs])
            texts = [choice.get("text", choice.get("message", {}).get("content")) for choice in whole["choices"]]
            self.assertEqual(texts, [output.text for output in outputs])
            self.assertEqual(whole["usage"]["completion_tokens"], sum(len(output.ids) for output in outputs))

    async def test_usage_logprobs_and_roles(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        answer = await self.ask("POST", COMPLETIONS, completion(max_tokens=3, stream_options=options, logprobs=2))
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in answer.chunks()], [1, 2, 3, 3])
        self.assertEqual(answer.chunks()[-1]["choices"], [])
        tokens = [choice["logprobs"]["tokens"] for choice in answer.choices()]
        self.assertEqual(tokens, [[choice["text"]] for choice in answer.choices()])
        self.assertEqual([len(choice["logprobs"]["top_logprobs"][0]) for choice in answer.choices()], [2, 2, 2])
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": True, "logprobs": True,
                "top_logprobs": 3, "stream_options": {"include_usage": True}}
        answer = await self.ask("POST", CHAT, body)
        self.assertEqual(answer.choices()[0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(len(answer.choices()[1]["logprobs"]["content"][0]["top_logprobs"]), 3)
        self.assertEqual(answer.chunks()[-1]["usage"], {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2})

    async def test_chat_goes_on_to_the_end_of_the_context(self):
        body = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}
        self.engine.set(token_ms=0, step_tokens=500)
        whole = (await self.ask("POST", CHAT, body)).json()
        self.assertEqual(whole["usage"]["total_tokens"], 4096)

    async def test_ids_come_from_the_header_or_the_body(self):
        answer = await self.ask("POST", COMPLETIONS, completion(request_id="body"), ["X-Request-Id: head"])
        self.assertEqual(answer.chunks()[0]["id"], "cmpl-head")  # as vLLM 0.32 has it

    async def test_unknown_fields_are_kept_and_given(self):
        body = completion(x_new={"deep": [1.50, "é"]}, x_reply_extra={"y": 1}, x_choice_extra=[2])
        answer = await self.ask("POST", COMPLETIONS, body)
        self.assertTrue(all(chunk["x_extra"] == {"y": 1} for chunk in answer.chunks()))
        self.assertTrue(all(choice["x_extra"] == [2] for choice in answer.choices()))
        record = self.engine.requests()[-1]
        self.assertEqual(json.loads(record["body"]), body)
        self.assertEqual((record["outcome"], record["tokens"], record["status"]), ("finished", 12, 200))
        self.assertIn(("Host", "test"), record["headers"])

    async def test_errors_are_vllms(self):
        rows = ((COMPLETIONS, b"{oops", 400, "Bad Request", "body.1"),
                (COMPLETIONS, b"[1]", 400, "Bad Request", "body"),
                (COMPLETIONS, completion(model="big"), 404, "NotFoundError", "model"),
                (COMPLETIONS, completion(max_tokens=0), 400, "BadRequestError", "max_tokens"),
                (COMPLETIONS, completion(max_tokens=5000), 400, "BadRequestError", "max_tokens"),
                (COMPLETIONS, completion(prompt=[3] * 4097), 400, "BadRequestError", "input_tokens"),
                (COMPLETIONS, completion(prompt=[262]), 400, "BadRequestError", None),
                (COMPLETIONS, completion(prompt=""), 400, "Bad Request", "prompt"),
                (COMPLETIONS, completion(temperature="hot"), 400, "BadRequestError", "temperature"),
                (COMPLETIONS, completion(n=2), 400, "BadRequestError", None),
                (COMPLETIONS, completion(min_tokens=13), 400, "BadRequestError", None),
                (COMPLETIONS, completion(stop_token_ids=3), 400, "Bad Request", "body"),
                (COMPLETIONS, completion(logprobs=21), 400, "BadRequestError", "logprobs"),
                (COMPLETIONS, completion(stream=False, stream_options={}), 200, None, None),
                (COMPLETIONS, completion(stream=False, stream_options={"include_usage": True}), 400, "Bad Request",
                 "stream_options"),
                (CHAT, {"messages": "hi"}, 400, "Bad Request", "body.messages"),
                (CHAT, {"messages": [{"role": "user"}], "max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
                ("/nowhere", {}, 404, "Not Found", None), ("/health", {}, 405, "Method Not Allowed", None))
        client = await self.client()
        for path, body, status, kind, param in rows:
            answer = await client.ask("POST", path, body)
            self.assertEqual(answer.status, status, body)
            if status != 200:
                error = answer.json()["error"]
                self.assertEqual((list(error), error["type"], error["param"], error["code"]),
                                 (["message", "type", "param", "code"], kind, param, status), body)

    async def test_smaller_routes(self):
        client = await self.client()
        self.assertEqual((await client.ask("GET", "/health")).body, b"")
        self.assertEqual((await client.ask("GET", "/version")).json(), {"version": "0.32.0"})
        self.assertEqual((await client.ask("GET", "/load")).json(), {"server_load": 0})
        model = (await client.ask("GET", "/v1/models")).json()["data"][0]
        self.assertEqual((model["id"], model["owned_by"], model["max_model_len"]), ("tiny", "vllm", 4096))
        asked = await client.ask("POST", "/tokenize", {"messages": [{"role": "user", "content": "hi"}]})
        self.assertEqual(asked.json()["tokens"], [0, 260, 74, 75, 261])
        self.assertEqual((await client.ask("POST", "/tokenize", {"prompt": "Hi"})).json()["count"], 2)
        for tokens, text in (([42, 75], "Hi"), ([0, 260, 74, 75, 261], "<s><|user|>hi<|assistant|>"),
                             ([42, *encode("\u20ac")[:2]], "H\ufffd"), ([], "")):
            asked = await client.ask("POST", "/detokenize", {"model": "tiny", "tokens": tokens})
            self.assertEqual(asked.json(), {"prompt": text})
        self.assertEqual((await client.ask("POST", "/detokenize", {"model": "x", "tokens": [42]})).status, 404)
        self.assertEqual((await client.ask("POST", "/inference/v1/abort_requests", {"request_ids": []})).status, 403)
        self.assertEqual((await client.ask("POST", GENERATE, {})).status, 403)

    async def test_metrics(self):
        for _ in range(2):
            await self.ask("POST", COMPLETIONS, completion(prompt=[5] * 40))
        page = (await self.ask("GET", "/metrics")).body.decode()
        for line in ("vllm:generation_tokens_total{%s} 24.0", "vllm:prompt_tokens_total{%s} 80.0",
                     "vllm:prefix_cache_hits_total{%s} 32.0", "vllm:num_requests_running{%s} 0.0",
                     "vllm:time_to_first_token_seconds_count{%s} 2.0", "vllm:kv_cache_usage_perc{%s} 0.0"):
            self.assertIn(line % 'engine="0",model_name="tiny"', page)
        self.assertIn('vllm:request_success_total{engine="0",model_name="tiny",finished_reason="length"} 2.0', page)
        self.assertIn('block_size="16",num_gpu_blocks="8192"', page)

    async def test_chunks_of_several_tokens_tell_the_same(self):
        body = completion(max_tokens=60, stop=generate(encode("Hi"), 60, ignore_eos=True).text[29:33])
        output = expected(COMPLETIONS, body)[0]
        for step in (1, 2, 3, 7, 100):
            self.engine.set(step_tokens=step)
            answer = await self.ask("POST", COMPLETIONS, body)
            self.assertEqual((answer.ids(), answer.text()), (output.ids, output.text))
            self.assertEqual(len(answer.choices()), -(-len(output.ids) // step))


class HttpTest(EngineTest):
    async def test_connections_are_kept_and_requests_may_be_pipelined(self):
        client = await self.client()
        for number in range(3):
            client.send("POST", COMPLETIONS, completion(max_tokens=2, request_id=str(number)))
        client.send("GET", "/health")
        for number in range(3):
            self.assertEqual((await client.read()).chunks()[0]["id"], f"cmpl-{number}")
        self.assertEqual((await client.read()).status, 200)
        self.assertEqual(self.engine.state()["connections"], 1)

    async def test_chunked_bodies_and_100_continue(self):
        client, data = await self.client(), json.dumps(completion(stream=False)).encode()
        client.writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\n"
                            b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        self.assertEqual(await client.reader.readuntil(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        for at in range(0, len(data), 50):
            client.writer.write(b"%x;x=y\r\n%s\r\n" % (len(data[at:at + 50]), data[at:at + 50]))
        client.writer.write(b"0\r\nTrailer: x\r\n\r\n")
        self.assertEqual((await client.read()).json()["usage"]["completion_tokens"], 12)

    async def test_what_is_no_http_is_refused(self):
        for head in (b"oops\r\n\r\n", b"GET / HTTP/1.1\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                     b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                     b"GET / HTTP/1.1\r\n" + b"x" * 70000):
            client = await self.client()
            client.writer.write(head)
            answer = await client.read()
            self.assertEqual((answer.status, await client.reader.read()), (400, b""), head[:60])

    async def test_http_1_0_and_close(self):
        client = await self.client()
        client.writer.write(b"GET /version HTTP/1.0\r\n\r\n")
        self.assertEqual((await client.read()).json(), {"version": "0.32.0"})
        self.assertEqual(await client.reader.read(), b"")
        client = await self.client()
        answer = await client.ask("GET", "/version", headers=["Connection: close"])
        self.assertEqual((answer.headers["connection"], await client.reader.read()), ("close", b""))

    async def test_the_standard_library_understands_it(self):
        def talk():
            connection = http.client.HTTPConnection(*self.url.removeprefix("http://").split(":"), timeout=LIMIT_S)
            bodies = []
            for body in (completion(stream=False), completion()):
                connection.request("POST", COMPLETIONS, json.dumps(body), {"Content-Type": "application/json"})
                bodies.append(connection.getresponse().read())
            connection.close()
            return bodies
        whole, streamed = await asyncio.to_thread(talk)
        self.assertEqual(json.loads(whole)["choices"][0]["finish_reason"], "length")
        self.assertTrue(streamed.endswith(b"data: [DONE]\n\n"))


class ImpatientTest(EngineTest):
    settings = {"token_ms": 1, "keep_alive_s": 0.05}

    async def test_idle_connections_are_closed(self):
        client = await self.client()
        await client.ask("GET", "/health")
        self.assertEqual(await asyncio.wait_for(client.reader.read(), LIMIT_S), b"")
        client = await self.client()
        answer = await client.ask("POST", COMPLETIONS, completion(max_tokens=100))  # one at work is not idle
        self.assertEqual((answer.ended, len(answer.ids())), ("whole", 100))


class GoneTest(EngineTest):
    settings = {"token_ms": 20}

    async def begin(self, **fields):
        client = await self.client()
        client.send("POST", COMPLETIONS, completion(max_tokens=2000, **fields))
        await self.until(lambda: self.engine.state()["tokens"] >= 1)
        return client

    async def assert_gone(self, since, *how):
        await self.until(lambda: self.engine.state()["disconnects"] == 1)
        record = self.engine.requests()[-1]
        self.assertEqual(record["outcome"], "disconnected")
        self.assertIn(record["gone"], how)
        self.assertLess(record["ended_at"] - since, 0.2)  # mostly well under 1 ms; a busy machine may be late
        self.assertEqual(self.engine.state()["running"], 0)

    async def test_a_closed_connection_is_noticed(self):
        for stream in (True, False):
            self.engine.reset()
            client = await self.begin(stream=stream)
            since = time.monotonic()
            client.close()
            await self.assert_gone(since, "eof", "reset")  # reset, when it left bytes unread

    async def test_half_a_close_counts_as_gone(self):
        client = await self.begin()
        since = time.monotonic()
        client.writer.write_eof()
        await self.assert_gone(since, "eof")
        self.assertEqual((await client.read()).ended, "cut")

    async def test_a_request_and_an_end_in_one_go(self):
        client = await self.client()
        client.send("POST", COMPLETIONS, completion())
        client.writer.write_eof()
        await self.assert_gone(time.monotonic(), "eof")

    async def test_a_reset_is_told_from_an_end(self):
        client = await self.begin()
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        since = time.monotonic()
        client.writer.transport.abort()
        await self.assert_gone(since, "reset")

    async def test_while_it_hangs_freezes_or_waits(self):
        for fault in ({"kind": "hang", "before_head": True}, {"kind": "freeze", "ms": 60_000}):
            self.engine.reset()
            self.engine.fault(**fault)
            client = await self.client()
            client.send("POST", COMPLETIONS, completion())
            await self.until(lambda: self.engine.requests())
            await asyncio.sleep(0.05)
            since = time.monotonic()
            client.close()
            await self.assert_gone(since, "eof")


class ScaleOutTest(EngineTest):
    settings = {"token_ms": 2, "enable_scale_out": True, "max_num_seqs": 2}

    async def abort(self, name):
        answer = await self.ask("POST", "/inference/v1/abort_requests", {"request_ids": [name]})
        self.assertEqual((answer.status, answer.body), (200, b""))

    async def test_an_abort_delivers_what_was_made(self):
        for stream in (True, False):
            self.engine.reset()
            client = await self.client()
            client.send("POST", COMPLETIONS, completion(max_tokens=2000, request_id="a", stream=stream))
            await self.until(lambda: self.engine.state()["tokens"] > 3)
            await self.abort("cmpl-a-0")
            answer = await client.read()
            choice = answer.choices()[-1] if stream else answer.json()["choices"][0]
            ids = answer.ids() if stream else choice["token_ids"]
            self.assertEqual((choice["finish_reason"], choice["stop_reason"], answer.ended), ("abort", None, "whole"))
            self.assertEqual(ids, generate(encode("Hi"), len(ids), ignore_eos=True).ids)
            self.assertEqual((self.engine.state()["aborts"], self.engine.requests()[0]["outcome"]),
                             (["cmpl-a-0"], "aborted"))

    async def test_an_abort_before_the_first_token_says_no_reason(self):
        self.engine.set(prefill_ms=60_000)
        client = await self.client()
        client.send("POST", COMPLETIONS, completion(request_id="a"))
        await self.until(lambda: self.engine.state()["running"] == 1)
        await self.abort("cmpl-a-0")
        self.assertEqual((await client.read()).events(), ["[DONE]"])

    async def test_tokens_in_tokens_out(self):
        body = {"token_ids": [42, 75], "sampling_params": {"max_tokens": 5, "ignore_eos": True}, "stream": True,
                "request_id": "a"}
        answer = await self.ask("POST", GENERATE, body)
        self.assertEqual(answer.chunks()[0]["request_id"], "generate-tokens-a")
        self.assertEqual(answer.ids(), generate([42, 75], 5, ignore_eos=True).ids)
        whole = (await self.ask("POST", GENERATE, body | {"stream": False})).json()
        self.assertEqual(whole["choices"][0]["token_ids"], answer.ids())
        self.assertEqual(whole["choices"][0]["finish_reason"], "length")

    async def test_tokens_in_tokens_out_with_text(self):
        body = {"token_ids": [42, 75], "sampling_params": {"max_tokens": 5, "ignore_eos": True, "logprobs": 1},
                "output_mode": "text", "stream": True}
        answer = await self.ask("POST", GENERATE, body)
        told = [choice for chunk in answer.chunks() for choice in chunk["choices"]]
        self.assertEqual("".join(choice["text"] for choice in told), generate([42, 75], 5, ignore_eos=True).text)
        self.assertEqual([list(choice)[-2:] for choice in told], [["text", "logprobs"]] * 5)
        self.assertEqual([list(each) for each in told[0]["logprobs"]["content"]],
                         [["token", "logprob", "bytes", "top_logprobs"]])
        refused = await self.ask("POST", GENERATE, body | {"output_mode": "speech"})
        self.assertEqual(refused.status, 400)

    async def test_more_than_it_runs_wait(self):
        clients = [await self.client() for _ in range(4)]
        for client in clients:
            client.send("POST", COMPLETIONS, completion(max_tokens=20))
        await self.until(lambda: self.engine.state()["waiting"] == 2)
        self.assertEqual({(await client.read()).ended for client in clients}, {"whole"})
        self.assertEqual((self.engine.state()["peak"], self.engine.state()["requests"]), (2, 4))


class AdapterTest(EngineTest):
    async def test_adapters_are_models(self):
        await self.ask("POST", "/v1/load_lora_adapter", {"lora_name": "lora", "lora_path": "/l"})
        models = (await self.ask("GET", "/v1/models")).json()["data"]
        self.assertEqual([(each["id"], each["root"], each["parent"], each["max_model_len"]) for each in models],
                         [("tiny", "tiny", None, 4096), ("lora", "/l", "tiny", None)])
        self.assertEqual((await self.ask("POST", COMPLETIONS, completion(model="lora", stream=False))).json()["model"], "lora")
        await self.ask("POST", "/v1/unload_lora_adapter", {"lora_name": "lora"})
        self.assertEqual((await self.ask("POST", COMPLETIONS, completion(model="lora"))).status, 404)


class KeyTest(EngineTest):
    settings = {"token_ms": 1, "api_key": "its-own"}

    async def test_the_api_wants_a_key(self):
        for path, status in (("/health", 200), ("/metrics", 200), ("/version", 200), ("/v1/models", 401), ("/inference/v1/x", 401)):
            self.assertEqual((await self.ask("GET", path)).status, status, path)
        answer = await self.ask("POST", COMPLETIONS, completion())
        self.assertEqual((answer.status, answer.json()), (401, {"error": "Unauthorized"}))


class FaultTest(EngineTest):
    """Every kind, streamed after 3 tokens and whole."""

    TESTED = set()

    async def faulty(self, kind, after_tokens=3, request=None, **parameters):
        FaultTest.TESTED.add(kind)
        self.engine.fault(kind, after_tokens=after_tokens, **parameters)
        answer = await self.ask("POST", COMPLETIONS, request or completion())
        self.assertEqual(self.engine.requests()[-1]["fault"], kind)
        good = await self.ask("POST", COMPLETIONS, completion())  # the next one is left alone
        self.assertEqual((good.ended, good.ids()), ("whole", generate(encode("Hi"), 12, ignore_eos=True).ids))
        return answer

    async def whole(self, kind, **parameters):
        return await self.faulty(kind, request=completion(stream=False), **parameters)

    def outcome(self):
        return self.engine.requests()[-2]["outcome"]

    async def test_status(self):
        answer = await self.faulty("status", status=429, retry_after=2, type="RateLimit")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "2"))
        self.assertEqual(answer.json()["error"] | {"message": ""},
                         {"message": "", "type": "RateLimit", "param": None, "code": 429})
        self.assertEqual(self.outcome(), "refused")
        answer = await self.whole("status", status=502, body="<html>")
        self.assertEqual((answer.status, answer.body), (502, b"<html>"))

    async def test_error_event(self):
        answer = await self.faulty("error_event", message="no memory")
        said, done = answer.events()[-2:]
        self.assertEqual((len(answer.ids()), said["error"]["message"], done, answer.ended),
                         (3, "no memory", "[DONE]", "whole"))
        self.assertEqual((await self.faulty("error_event", done=False)).events()[-1]["error"]["code"], 500)
        self.assertEqual((await self.whole("error_event", status=500)).status, 500)

    async def test_cut(self):
        answer = await self.faulty("cut")
        self.assertEqual((answer.ended, len(answer.ids()), self.outcome()), ("cut", 3, "faulted"))
        self.assertEqual((await self.faulty("cut", after_tokens=0)).body, b"")
        answer = await self.faulty("cut", after_tokens=0, before_head=True)
        self.assertEqual((answer.status, answer.ended), (None, "cut"))
        self.assertEqual((await self.faulty("cut", reset=True)).ended, "ConnectionResetError")
        answer = await self.faulty("cut", after_tokens=12)  # after the last token, before [DONE]
        self.assertEqual((answer.ended, len(answer.ids()), answer.choices()[-1]["finish_reason"]),
                         ("cut", 12, "length"))
        self.assertEqual((await self.whole("cut")).status, None)

    async def test_cut_at_a_token_inside_a_chunk(self):
        self.engine.set(step_tokens=8)
        self.assertEqual(len((await self.faulty("cut", after_tokens=11)).ids()), 11)

    async def test_hang(self):
        FaultTest.TESTED.add("hang")
        for body, before_head, begun in ((completion(), False, True), (completion(), True, False),
                                         (completion(stream=False), False, False)):
            self.engine.fault("hang", before_head=before_head)
            client = await self.client()
            client.send("POST", COMPLETIONS, body)
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n" if not begun else b"[DONE]"), 0.05)
            self.assertEqual(self.engine.requests()[-1]["outcome"], "running")
            self.assertEqual((await self.ask("GET", "/health")).status, 200)
            client.close()

    async def test_garble(self):
        answer = await self.faulty("garble")
        self.assertEqual((answer.ended, len(answer.ids()), answer.events()[-1]), ("whole", 11, "[DONE]"))
        self.assertIsInstance(answer.events()[3], str)
        answer = await self.whole("garble")
        with self.assertRaises(ValueError):
            answer.json()

    async def test_half_event(self):
        answer = await self.faulty("half_event")
        self.assertEqual((answer.ended, len(answer.ids()), answer.body.endswith(b"\n\n")), ("cut", 3, False))
        answer = await self.whole("half_event")
        self.assertEqual((answer.status, answer.ended, answer.body[-1:] == b"}"), (200, "cut", False))

    async def test_unsaid_done(self):
        for fields, usages in (({}, 1), ({"usage": False}, 0)):
            answer = await self.faulty("unsaid_done", request=completion(stream_options={"include_usage": True}), **fields)
            self.assertEqual((answer.ended, len(answer.ids()), answer.choices()[-1]["finish_reason"]), ("whole", 12, "length"))
            self.assertNotIn("[DONE]", answer.events())
            self.assertEqual(sum("usage" in event for event in answer.events()), usages)
        self.assertEqual((await self.whole("unsaid_done")).json()["choices"][0]["finish_reason"], "length")

    async def test_no_done(self):
        answer = await self.faulty("no_done")
        self.assertEqual((answer.ended, len(answer.ids()), {each["finish_reason"] for each in answer.choices()}),
                         ("whole", 3, {None}))
        self.assertNotIn("[DONE]", answer.events())
        self.assertIsNone((await self.whole("no_done")).json()["choices"][0]["finish_reason"])

    async def test_wrong_id(self):
        answer = await self.faulty("wrong_id", request=completion(request_id="a"))
        self.assertEqual([chunk["id"] for chunk in answer.chunks()], ["cmpl-a"] * 3 + ["cmpl-someone-else"] * 9)
        self.assertEqual((await self.whole("wrong_id", id="cmpl-b")).json()["id"], "cmpl-b")

    async def test_endless(self):
        for answer in (await self.faulty("endless", bytes=1 << 20), await self.whole("endless", bytes=1 << 20)):
            self.assertEqual(answer.ended, "cut")
            self.assertGreater(len(answer.body), 1 << 20)
            self.assertNotIn(b"\n", answer.body[-(1 << 20):])

    async def test_gzip(self):
        plain = await self.ask("POST", COMPLETIONS, completion(request_id="a"))
        answer = await self.faulty("gzip", request=completion(request_id="a"))
        self.assertEqual(answer.headers["content-encoding"], "gzip")
        self.assertEqual(len(gzip.decompress(answer.body)), len(plain.body))
        self.assertEqual(json.loads(gzip.decompress((await self.whole("gzip")).body))["object"], "text_completion")

    async def test_early_eof(self):
        answer = await self.whole("early_eof")
        self.assertEqual((answer.ended, answer.json()["choices"][0]["finish_reason"]), ("cut", "length"))
        answer = await self.faulty("early_eof")
        self.assertEqual((answer.ended, answer.events()[-1]), ("cut", "[DONE]"))

    async def test_slow_head(self):
        for ask in (self.faulty, self.whole):
            since = time.monotonic()
            self.assertEqual((await ask("slow_head", ms=80)).ended, "whole")
            self.assertGreater(time.monotonic() - since, 0.08)

    async def test_bad_chunk(self):
        for answer in (await self.faulty("bad_chunk"), await self.whole("bad_chunk")):
            self.assertEqual((answer.status, answer.ended), (200, "ValueError"))

    async def test_token_ids(self):
        answer = await self.faulty("token_ids", ids=[-1])
        self.assertEqual(answer.ids()[2:], [generate(encode("Hi"), 12, ignore_eos=True).ids[2]] + [-1] * 9)
        answer = await self.faulty("token_ids")
        self.assertEqual((len(answer.ids()), "token_ids" in answer.choices()[-1], answer.ended), (3, False, "whole"))

    async def test_raw(self):
        said = {"start": "data: ", "text": "\0\xff", "bytes": 200_001}
        for answer in (await self.faulty("raw", **said), await self.whole("raw", **said)):
            self.assertEqual(answer.ended, "cut")
            self.assertTrue(answer.body.endswith(b"data: " + b"\0\xff" * 100_000 + b"\0"))
        answer = await self.faulty("raw", start=": well\n\n", then="go_on")
        self.assertEqual((answer.ended, len(answer.ids())), ("whole", 12))
        answer = await self.faulty("raw", start="HTTP/1.1 299 Ok\r\ncontent-length: 9\r\n\r\n", before_head=True)
        self.assertEqual((answer.status, answer.ended), (299, "cut"))

    async def test_raw_without_end(self):
        FaultTest.TESTED.add("raw")
        self.engine.fault("raw", text="x", bytes=-1)
        client = await self.client()
        client.send("POST", COMPLETIONS, completion())
        self.assertEqual(len(await client.reader.readexactly(4 << 20)), 4 << 20)
        client.close()
        await self.until(lambda: self.engine.requests()[-1]["outcome"] == "disconnected")

    async def test_duplicate(self):
        ids = (await self.faulty("duplicate")).ids()
        self.assertEqual((len(ids), ids[3]), (13, ids[4]))
        with self.assertRaises(ValueError):
            (await self.whole("duplicate")).json()

    async def test_freeze(self):
        FaultTest.TESTED.add("freeze")
        self.engine.fault("freeze", after_tokens=3, ms=60_000)
        client, other, control = await self.client(), await self.client(), await self.client()
        client.send("POST", COMPLETIONS, completion())
        await self.until(lambda: self.engine.state()["tokens"] == 3)
        await asyncio.sleep(0.02)
        other.send("GET", "/health")
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(other.reader.readexactly(1), 0.05)
        self.assertEqual((await control.ask("GET", "/control/state")).json()["running"], 1)
        await control.ask("DELETE", "/control/fault")
        self.assertEqual(((await other.read()).status, len((await client.read()).ids())), (200, 12))
        self.assertEqual((await self.faulty("freeze", ms=20)).ended, "whole")

    async def test_http10(self):
        answer = await self.faulty("http10")
        self.assertEqual((answer.version, answer.events()[-1], "transfer-encoding" in answer.headers),
                         ("HTTP/1.0", "[DONE]", False))
        answer = await self.whole("http10")
        self.assertEqual((answer.version, answer.headers["connection"]), ("HTTP/1.0", "close"))

    async def test_stop_aborted(self):
        answer = await self.faulty("stop_aborted")
        self.assertEqual((len(answer.ids()), answer.choices()[-1]["finish_reason"], self.outcome()),
                         (3, "abort", "aborted"))
        choice = (await self.whole("stop_aborted")).json()["choices"][0]
        self.assertEqual((choice["finish_reason"], len(choice["token_ids"])), ("abort", 3))

    async def test_a_chat_breaks_too(self):
        self.engine.fault("cut", after_tokens=2)
        answer = await self.ask("POST", CHAT, {"messages": [{"role": "user", "content": "hi"}], "stream": True,
                                               "return_token_ids": True, "ignore_eos": True})
        self.assertEqual((answer.ended, len(answer.ids())), ("cut", 2))

    async def test_faults_queue_up_last_and_are_cleared(self):
        control = await self.client()
        await control.ask("POST", "/control/fault", [{"kind": "status", "status": 500, "times": 2},
                                                     {"kind": "status", "status": 429, "times": -1}])
        got = [(await self.ask("POST", COMPLETIONS, completion())).status for _ in range(5)]
        self.assertEqual(got, [500, 500, 429, 429, 429])
        self.assertEqual(len((await control.ask("GET", "/control/fault")).json()), 1)
        await control.ask("DELETE", "/control/fault")
        self.assertEqual((await self.ask("POST", COMPLETIONS, completion())).status, 200)
        for wrong in ({"kind": "sulk"}, {"kind": "cut", "ms": 3}, {}, {"kind": "exit"}):
            self.assertEqual((await control.ask("POST", "/control/fault", wrong)).status, 400, wrong)

    async def test_not_ready(self):
        client = await self.client()
        await client.ask("POST", "/control/ready", {"ready": False})
        self.assertEqual([(await client.ask(method, path, {})).status for method, path in
                          (("GET", "/health"), ("GET", "/v1/models"), ("POST", COMPLETIONS))], [503] * 3)
        await client.ask("POST", "/control/ready", {"ready": True})
        self.assertEqual((await client.ask("GET", "/health")).status, 200)

    async def test_control_tells_and_sets(self):
        client = await self.client()
        await client.ask("POST", COMPLETIONS, completion())
        await client.ask("GET", "/version")
        records = (await client.ask("GET", "/control/requests")).json()
        self.assertEqual([(each["path"], each["tokens"]) for each in records], [(COMPLETIONS, 12)])
        self.assertEqual((await client.ask("GET", "/control/requests?method=GET")).json()[0]["path"], "/version")
        self.assertEqual((await client.ask("POST", "/control/settings", {"token_ms": 2})).json()["token_ms"], 2)
        self.assertEqual((await client.ask("POST", "/control/settings", {"port": 2})).status, 400)
        self.assertEqual((await client.ask("GET", "/control/nothing")).status, 404)
        state = (await client.ask("GET", "/control/state")).json()
        self.assertEqual((state["requests"], state["peak"], state["running"], state["disconnects"]), (1, 1, 0, 0))
        await client.ask("POST", "/control/reset")
        self.assertEqual((await client.ask("GET", "/control/state")).json()["requests"], 0)


class ProgramTest(unittest.TestCase):
    def start(self, *options):
        process = subprocess.Popen([sys.executable, str(PROGRAM), *options], stdout=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        ready = json.loads(process.stdout.readline())
        self.assertEqual(ready["event"], "ready")
        return process, http.client.HTTPConnection("127.0.0.1", ready["port"], timeout=LIMIT_S)

    def ask(self, connection, method, path, body=None):
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()

    def test_it_starts_loading_and_ends_when_told(self):
        process, connection = self.start("--model", "small", "--load-seconds", "0.3", "--token-ms", "0")
        self.assertEqual(self.ask(connection, "GET", "/health")[0], 503)
        deadline = time.monotonic() + LIMIT_S
        while self.ask(connection, "GET", "/health")[0] != 200:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        self.assertIn(b'"id":"small"', self.ask(connection, "GET", "/v1/models")[1])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT_S), 0)
        connection.close()

    def test_exit_is_the_end_of_the_process(self):
        FaultTest.TESTED.add("exit")
        process, connection = self.start("--token-ms", "1")
        self.ask(connection, "POST", "/control/fault", {"kind": "exit", "after_tokens": 3})
        with self.assertRaises((http.client.IncompleteRead, ConnectionError)) as caught:
            self.ask(connection, "POST", COMPLETIONS, completion())
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGKILL)
        if isinstance(caught.exception, http.client.IncompleteRead):
            self.assertEqual(caught.exception.partial.count(b"data: "), 3)
        connection.close()


class ZCompletenessTest(unittest.TestCase):
    def test_every_kind_of_fault_was_tried(self):
        """Runs after the others, by its name."""
        if FaultTest.TESTED:  # not when this test runs alone
            self.assertEqual(set(KINDS) - FaultTest.TESTED, set())


if __name__ == "__main__":
    unittest.main()
