"""Our gateway in front of real vLLM engines, compared with what an engine answers when it is asked directly.

scripts/test_vllm.sh calls it. Each check says in a line what was compared: token ids first, since the text of the tiny
model is mostly no UTF-8, and then all else that is said of an output. Greedy, in float32, an engine gives the same
tokens for the same request each time.
"""

import argparse
import asyncio
import json
import pathlib
import sys
import time
import traceback
import urllib.request
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from cluster import Cluster, Stream, until, until_async  # noqa: E402
from cutting_proxy import CuttingProxies  # noqa: E402
from real_vllm import CONTEXT_TOKENS, MODEL, close_engines, end_in_order, metric, post, start_engines  # noqa: E402
from scripted_tokens import decode, encode  # noqa: E402

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/inference/v1/generate"
RUNNING = "vllm:num_requests_running"
KILLED_STREAMS, KILLED_TOKENS = 20, 200


def completion(prompt, max_tokens=40, **fields):
    return {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **fields}


def chat(content, max_tokens=40, **fields):
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens,
            "temperature": 0, "ignore_eos": True, "return_token_ids": True, **fields}


def tokens(text, max_tokens=40, sampling=None, **fields):
    """Token ids in and out."""
    return {"model": MODEL, "token_ids": encode(text), "return_token_ids": True, **fields, "sampling_params": {
        "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, **(sampling or {})}}


def path_of(body):
    if "token_ids" in body:
        return GENERATE
    return CHAT if "messages" in body else COMPLETIONS


class Output:
    """What one choice of a reply says, whole or streamed."""

    def __init__(self):
        self.ids, self.text, self.logprobs, self.finish = [], "", [], None

    def add(self, choice):
        self.ids += choice.get("token_ids") or []
        said = choice.get("delta") or choice.get("message") or {}
        self.text += choice.get("text") or said.get("content") or ""
        self.finish = (choice["finish_reason"], choice.get("stop_reason")) if choice["finish_reason"] else self.finish
        self.logprobs += told_of_tokens(choice.get("logprobs") or {})

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"{self.finish} {len(self.ids)} tokens {self.ids} {self.logprobs} {self.text!r}"


def told_of_tokens(logprobs):
    """Of each token: its log-probability, and all else that is said."""
    if "tokens" in logprobs:
        return list(zip(logprobs["token_logprobs"], logprobs["tokens"], logprobs["text_offset"],
                        logprobs["top_logprobs"]))
    return [(each["logprob"], each.get("token", each.get("token_id")), each.get("bytes"), each["top_logprobs"])
            for each in logprobs.get("content") or []]


class TokenStream(Stream):
    """A stream that also gathers ids, and keeps its events."""

    def __init__(self, url, body, request_id=None):
        super().__init__(url, {"stream": True, **body}, path_of(body), request_id)
        self.outputs, self.prompts, self.ids_of_stream = {}, {}, set()

    def on_event(self, event):
        super().on_event(event)
        if self.done or self.error:
            return
        document = json.loads(event.removeprefix(b"data: "))
        self.ids_of_stream.add(document.get("id") or document["request_id"])
        if prompt := document.get("prompt_token_ids"):
            self.prompts[0] = prompt
        for choice in document["choices"]:
            if prompt := choice.get("prompt_token_ids"):
                self.prompts[choice["index"]] = prompt
            self.outputs.setdefault(choice["index"], Output()).add(choice)

    def result(self):
        """Comparable; of a stream that did not end well, why."""
        if self.broken or self.error or not self.done:
            return f"{self.request_id}: {self.broken or self.error or 'no [DONE]'} after {self.outputs}"
        if len(self.ids_of_stream) != 1:
            return f"{self.request_id}: several ids {self.ids_of_stream}"
        return self.prompts, self.outputs, counts(self.usage)


def counts(usage):
    """Without what an engine's prefix cache knew."""
    return usage and {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def whole(url, body, **how):
    """The same of a reply that is not streamed."""
    status, document = post(url, path_of(body), body, **how)
    if status != 200:
        return status, document
    outputs = {}
    for choice in document["choices"]:
        outputs.setdefault(choice["index"], Output()).add(choice)
    prompt = document.get("prompt_token_ids") or document["choices"][0].get("prompt_token_ids")
    return prompt, outputs, counts(document["usage"])


async def streams_of(*streams):
    await asyncio.gather(*(each.run(180) for each in streams))
    return [each.result() for each in streams]


def streamed(url, *bodies, ids=None):
    ids = ids or [f"real-{uuid.uuid4().hex[:8]}" for _ in bodies]
    return asyncio.run(streams_of(*(TokenStream(url, body, name) for body, name in zip(bodies, ids))))


def same(got, expected, what):
    if got != expected:
        raise AssertionError(f"{what} differs\n    got      {got}\n    expected {expected}")


def tokens_in(results):
    return sum(len(output.ids) for _, outputs, _ in results for output in outputs.values())


# --- checks: each gets the engines' URLs and the cluster, and returns what it compared

def check_models(engines, cluster):
    def entries(url):
        with urllib.request.urlopen(url + "/v1/models", timeout=10) as reply:
            return [{name: entry[name] for name in ("id", "owned_by", "max_model_len", "root")}
                    for entry in json.load(reply)["data"]]
    same(entries(cluster.url), entries(engines[0]), "/v1/models")
    return f"/v1/models: {entries(cluster.url)[0]['id']}, {CONTEXT_TOKENS} tokens"


ORDINARY = {
    "completion": completion("Tell me of the sea"),
    "chat": chat("Tell me of the sea"),
    "token ids as prompt": completion(encode("<s><|user|>hi<|assistant|>")),
    "log-probabilities": completion("Count to ten", logprobs=3),
    "log-probabilities in a chat": chat("Count to ten", logprobs=True, top_logprobs=2),
    "a penalty": completion("Count to ten", presence_penalty=0.5, repetition_penalty=1.2),
    "two choices, with a seed": chat("Roll a die", n=2, temperature=0.8, seed=5),
    "two prompts": completion(["Tell me of the sea", "Count to ten"]),
    "echo": completion("Hi", echo=True),
    "unknown fields": chat("Odd", x_unknown={"a": [1.5, None]}, user="somebody"),
    "max_completion_tokens": {**chat("Short"), "max_completion_tokens": 7, "max_tokens": None},
}


def check_whole(engines, cluster):
    results = []
    for name, body in ORDINARY.items():
        expected = whole(engines[0], body)
        same(whole(cluster.url, body), expected, name)
        results.append(expected)
    return f"whole replies: {tokens_in(results)} tokens of {', '.join(ORDINARY)}"


def check_streamed(engines, cluster):
    results = []
    for name, body in ORDINARY.items():
        for options in ({}, {"stream_options": {"include_usage": True}}):
            expected = streamed(engines[0], body | options)
            same(streamed(cluster.url, body | options), expected, name)
            results += expected
    return f"streams: {tokens_in(results)} tokens of the same, with usage and without"


def latest_letter(text):
    """The printable one that comes for the first time as late as can be: to stop at."""
    return max((each for each in set(text) if each.isascii() and each.isprintable()), key=text.index)


TOKENS = {
    "token ids": tokens("Tell me of the sea"),
    "their log-probabilities": tokens("Count to ten", sampling={"logprobs": 2}),
    "their text": tokens("Tell me of the sea", output_mode="text"),
    "two choices": tokens("Roll a die", sampling={"n": 2, "temperature": 0.8, "seed": 5}),
    "no limit": tokens("a" * (CONTEXT_TOKENS - 30), sampling={"max_tokens": None}),
}


def check_tokens(engines, cluster):
    results = []
    for name, body in TOKENS.items():
        expected = whole(engines[0], body)
        same(whole(cluster.url, body), expected, name)
        results.append(expected)
        for options in ({}, {"stream_options": {"include_usage": True}}):
            expected = streamed(engines[0], body | options)
            same(streamed(cluster.url, body | options), expected, f"{name}, streamed")
            results += expected
    return f"token ids in and out: {tokens_in(results)} tokens, whole and streamed, of {', '.join(TOKENS)}"


def check_stops(engines, cluster):
    stops, results = [], []
    for prompt in ("two", "three", "four"):
        body = completion(prompt, 100)
        stop = latest_letter(whole(engines[0], body)[1][0].text)
        stops.append(stop)
        for more in ({}, {"include_stop_str_in_output": True}):
            asked = body | more | {"stop": [stop, "\n\n\n"]}
            expected = whole(engines[0], asked)
            same(expected[1][0].finish, ("stop", stop), "the engine's own end")
            same(whole(cluster.url, asked), expected, f"stop {stop!r}")
            same(streamed(cluster.url, asked), streamed(engines[0], asked), f"stop {stop!r}, streamed")
            results.append(expected)
    return f"stop strings {stops}: {tokens_in(results)} tokens, whole and streamed"


def check_ids_are_asked_for(engines, cluster):
    body = completion("Plain", stream=True)
    del body["return_token_ids"]

    def events(url):
        request = urllib.request.Request(
            url + COMPLETIONS, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return [json.loads(line[6:]) for line in reply.read().split(b"\n") if line.startswith(b"data: {")]
    got = events(cluster.url)
    direct = events(engines[0])

    def told(events):
        return {(name, json.dumps(choice[name])) for event in events for choice in event["choices"] for name in choice
                if "token_ids" in name}
    same(told(got), told(direct), "token ids of a client that did not ask for them")
    same({value for _, value in told(got)} - {"null"}, set(), "token ids told")
    same("".join(each["choices"][0]["text"] for each in got), "".join(each["choices"][0]["text"] for each in direct),
         "text")
    return f"a client that asks for no token ids sees none: {len(got)} events"


REFUSED = {
    "prompt above the context": (400, completion("x" * (CONTEXT_TOKENS + 5))),
    "no room for the output": (400, completion("x" * CONTEXT_TOKENS)),
    "negative max_tokens": (400, completion("Hi", -1)),
    "n with greedy": (400, completion("Hi", n=2)),
    "token outside the vocabulary": (400, completion([42, 99999])),
    "bad temperature": (400, chat("Hi") | {"temperature": -1}),
    "stream_options without stream": (400, chat("Hi", stream_options={"include_usage": True})),
    "no messages": (400, {"model": MODEL, "messages": []}),
    "log-probabilities": (400, completion("Hi", logprobs=25)),
    "bad grammar": (400, chat("Hi", structured_outputs={"regex": "[("})),
    "unknown role": (400, {"model": MODEL, "messages": [{"role": 3, "content": "x"}]}),
}


def check_errors(engines, cluster):
    for name, (status, body) in REFUSED.items():
        path = path_of(body)
        direct = post(engines[0], path, body)
        same(direct[0], status, f"{name}: the engine's own status, {direct}")
        same(post(cluster.url, path, body), direct, name)
    return f"refusals, word for word: {', '.join(REFUSED)}"


def check_streamed_errors(engines, cluster):
    """An engine may find a mistake when it has begun to answer 200; ours says its status then."""
    for name, (status, body) in REFUSED.items():
        asked = body | {"stream": True}
        if "stream_options" not in body:
            same(post(cluster.url, path_of(body), asked), post(engines[0], path_of(body), body), f"{name}, streamed")
    return "the same, streamed"


def check_abort(engines, cluster):
    def running():
        return sum(metric(each, RUNNING) for each in engines)

    async def leave(body):
        stream = TokenStream(cluster.url, body, f"leave-{uuid.uuid4().hex[:8]}")
        run = asyncio.create_task(stream.run(60))
        await until_async(lambda: running() == 1, 30, "it runs")
        left = time.monotonic()
        stream.close()
        await until_async(lambda: running() == 0, 20, "the engine has stopped")
        await run
        return time.monotonic() - left
    until(lambda: running() == 0, 30, "nothing runs")
    took = [asyncio.run(leave(body(f"leave {stream}", CONTEXT_TOKENS - 100, stream=stream)))
            for body in (chat, completion) for stream in (True, False)]
    until(lambda: not cluster.requests(), 10, "the gateway has forgotten them")
    return f"clients that leave: {RUNNING} back to 0 after at most {max(took):.2f} s, streamed and whole"


def check_load(engines, cluster):
    def done():
        return [metric(each, "vllm:request_success_total") for each in engines]
    bodies = [chat(f"load {number}", 100) for number in range(20)]
    expected = [streamed(engines[0], body)[0] for body in bodies]
    before = done()
    same(streamed(cluster.url, *bodies), expected, "a stream among 20")
    shares = [int(now - then) for now, then in zip(done(), before)]
    assert min(shares) >= 5, f"not spread: {shares}"
    return f"20 streams at once, spread {' and '.join(map(str, shares))}: {tokens_in(expected)} tokens"


def check_status(engines, cluster):
    code, out, err = cluster.command("status")
    same(code, 0, f"exit code of `llumnix status`: {err}")
    for each in engines:
        assert each.removeprefix("http://") in out, out
    streamed(cluster.url, completion("why", 5), ids=["why-me"])
    code, out, err = cluster.command("why", "why-me")
    same(code, 0, f"exit code of `llumnix why`: {err}")
    assert "finished" in out and "placed on" in out, out
    return "`llumnix status` knows both engines, `llumnix why` what became of a request"


# --- what breaks streams

USAGE = {"include_usage": True}
KINDS = [  # that can go on elsewhere
    lambda text, tokens: chat(text, tokens),
    lambda text, tokens: completion(text, tokens, logprobs=2),
    lambda text, tokens: completion(encode(text), tokens, stream_options=USAGE),
    lambda text, tokens: chat(text, tokens, logprobs=True, top_logprobs=1, stop=["qqq", "zz"]),
    lambda text, tokens: completion(text, tokens, repetition_penalty=1.3),
    lambda text, tokens: chat(text, tokens, stream_options=USAGE | {"continuous_usage_stats": True}),
    lambda text, tokens: chat(text, tokens, return_token_ids=False),
    lambda text, tokens: completion(text, tokens, min_tokens=tokens - 5, return_tokens_as_token_ids=True, logprobs=0)]
CUT_AFTER = range(3, 28, 6)


def bodies_to_break(count, tokens):
    return [KINDS[number % len(KINDS)](f"break {number}", tokens) for number in range(count)]


def without_numbers(result):
    """Of log-probabilities the tokens only: numbers computed in another batch may differ in their last digits, and
    offsets into a text that is no UTF-8 are vLLM's own."""
    if isinstance(result, tuple):
        for output in result[1].values():
            output.logprobs = [each[1] for each in output.logprobs]
    return result


TOKEN_KINDS = [  # the same of token ids in and out
    lambda text, count: tokens(text, count, stream_options=USAGE),
    lambda text, count: tokens(text, count, {"logprobs": 1, "min_tokens": count - 5}),
    lambda text, count: tokens(text, count, {"repetition_penalty": 1.3}, output_mode="text")]


def check_cuts(engines, kinds=None, what="streams"):
    proxies, counted, number = CuttingProxies(engines), 0, 0
    kinds = kinds or KINDS
    try:
        with front_of(proxies.urls) as cluster:
            for after in CUT_AFTER:
                for body in (kind(f"break {i}", 32) for i, kind in enumerate(kinds)):
                    expected = streamed(engines[0], body)
                    proxies.cut_next(after)
                    got = streamed(cluster.url, body, ids=[f"cut-{number}"])
                    same(without_numbers(got[0]), without_numbers(expected[0]), f"cut-{number}, after {after} events")
                    counted, number = counted + tokens_in(expected), number + 1
            return f"{number} {what}, {proxies.cuts} of them cut after 1 to {max(CUT_AFTER)} events: {counted} tokens"
    finally:
        proxies.close()


STOPS = ["dd", "bc", "cab", "a  a a"]
SAMPLED = {"temperature": 1, "allowed_token_ids": encode("abcd "), "stop": STOPS}
SAMPLED_KINDS = [
    lambda text, tokens: completion(text, tokens, **SAMPLED),
    lambda text, tokens: chat(text, tokens, **SAMPLED, logprobs=True, stream_options=USAGE),
    lambda text, tokens: completion(text, tokens, **SAMPLED, include_stop_str_in_output=True)]


def read_with_stops(ids, shown):
    """What output these ids are, one a character, if the engine was right to end it here."""
    text = decode(ids)
    end, stop = min(((text.find(each) + len(each), each) for each in STOPS if each in text), default=(None, None))
    if stop is None:
        return text, ("length", None)
    return text[:end if shown else end - len(stop)] + " and more" * (end < len(text)), ("stop", stop)


def check_sampled_stops(engines):
    """Two runs are never the same: but the text must be that of the tokens, up to the first stop string in it."""
    proxies, counted, number, stopped = CuttingProxies(engines), 0, 0, 0
    try:
        with front_of(proxies.urls) as cluster:
            for after in range(1, 20, 2):
                for kind in SAMPLED_KINDS:
                    body = kind(f"sampled {number}", 40)
                    proxies.cut_next(after)
                    got = streamed(cluster.url, body, ids=[f"sampled-{number}"])[0]
                    if isinstance(got, str):
                        raise AssertionError(got)
                    output = got[1][0]
                    same((output.text, output.finish), read_with_stops(output.ids, "include_stop_str_in_output" in body),
                         f"sampled-{number}, after {after} events")
                    same(got[2] and got[2]["completion_tokens"], got[2] and len(output.ids), "usage")
                    number, stopped = number + 1, stopped + (output.finish[0] == "stop")
                    counted += len(output.ids)
            return (f"{number} sampled streams with stop strings, {proxies.cuts} of them cut after 1 to 19 events, "
                    f"{stopped} ended by one: {counted} tokens")
    finally:
        proxies.close()


def check_kill(engines, cluster, victim):
    bodies = bodies_to_break(KILLED_STREAMS, KILLED_TOKENS)
    expected = streamed(engines[1], *bodies)
    streams = [TokenStream(cluster.url, body, f"kill-{number}") for number, body in enumerate(bodies)]

    async def break_them():
        run = asyncio.create_task(streams_of(*streams))
        await until_async(
            lambda: all(each.pieces > 5 or each.broken or each.error for each in streams), 60, "all have begun")
        placed = [each["id"] for each in await asyncio.to_thread(cluster.requests) if each["instance"] == victim.id]
        victim.kill()
        return await run, placed
    got, placed = asyncio.run(break_them())
    for number, (one, other) in enumerate(zip(got, expected)):
        same(without_numbers(one), without_numbers(other), f"kill-{number}")
    moved = [each for each in placed if any(event["kind"] == "replayed" for event in cluster.why(each)["events"])]
    same(sorted(moved), sorted(placed), "streams that went on elsewhere")
    assert len(moved) >= 5, f"too few streams were at the engine: {placed}"
    return (f"kill -9 of an engine under {KILLED_STREAMS} streams: {len(moved)} went on at the other, "
            f"{tokens_in(expected)} tokens as unbroken")


def check_all_down(engines, cluster):
    status, document = post(cluster.url, CHAT, chat("Hi", 4))
    same(status, 503, f"status with no engine left: {document}")
    return f"no engine left: 503, {document['error']['message']!r}"


def check_return(engines, cluster):
    body = completion("back again")
    until(lambda: sum(bool(each.get("schedulable")) for each in cluster.instances().values()) == len(engines), 20,
          "the gateway knows that it is back")
    expected = [streamed(each, body)[0] for each in engines]
    same(expected[0], expected[1], "an engine started again")
    got = streamed(cluster.url, *[body] * 8)
    same(got, expected[:1] * 8, "a stream after the return")
    return f"engines that were started again: used at once, {tokens_in(got)} tokens"


CHECKS = [check_models, check_whole, check_streamed, check_tokens, check_stops, check_ids_are_asked_for, check_errors,
          check_streamed_errors, check_abort, check_load, check_status]


class Report:
    def __init__(self):
        self.failures = 0

    def run(self, check, *arguments):
        started = time.monotonic()
        try:
            told = check(*arguments)
        except Exception as failure:
            self.failures += 1
            kind = "" if isinstance(failure, AssertionError) else traceback.format_exc()
            print(f"WRONG  {check.__name__}: {str(failure)[:4000]}\n{kind}", flush=True)
        else:
            print(f"ok     {told}   ({time.monotonic() - started:.1f} s)", flush=True)


def front_of(urls, **knobs):
    cluster = Cluster("--engine", ",".join(urls), **knobs)
    until(lambda: sum(bool(each.get("schedulable")) for each in cluster.instances().values()) == len(urls), 30,
          "the gateway knows its engines")
    return cluster


def check_running(urls, report):
    with front_of(urls) as cluster:
        for check in CHECKS:
            report.run(check, urls, cluster)
    report.run(check_cuts, urls)
    report.run(check_sampled_stops, urls)
    report.run(check_cuts, urls, TOKEN_KINDS, "streams of token ids")


def check_deaths(home, engines, report):
    urls = [each.url for each in engines]
    with front_of(urls, gateway__wait_for_instance="5s") as cluster:
        report.run(check_kill, urls, cluster, engines[0])
        engines[1].kill()
        report.run(check_all_down, urls, cluster)
        print("Starting both engines again", flush=True)
        mark = cluster.mark
        engines[:] = start_engines(home, 2, mark, print, [each.port for each in engines])
        report.run(check_return, urls, cluster)


def main():
    end_in_order()
    parser = argparse.ArgumentParser(description="Compares replies through the gateway with those of vLLM itself.")
    parser.add_argument("--home", type=pathlib.Path, required=True, help="where vLLM is installed")
    parser.add_argument("--engines", metavar="URL,URL", help="those of a running scripts/try_vllm.sh; none is killed")
    arguments = parser.parse_args()
    report, engines, started = Report(), [], time.monotonic()
    try:
        if arguments.engines:
            check_running(arguments.engines.split(","), report)
            print("Not checked: engines that are killed and come back; leave out --engines for that")
        else:
            print("Starting two engines; two to five minutes", flush=True)
            engines = start_engines(arguments.home, 2, uuid.uuid4().hex, print)
            check_running([each.url for each in engines], report)
            check_deaths(arguments.home, engines, report)
    except (RuntimeError, KeyboardInterrupt) as failure:
        print(f"test_vllm: {str(failure) or 'stopped'}")
        report.failures += 1
    finally:
        close_engines(engines)
    print(f"{report.failures} differences" if report.failures else "No difference",
          f"in {time.monotonic() - started:.0f} s")
    return report.failures > 0


if __name__ == "__main__":
    sys.exit(main())
