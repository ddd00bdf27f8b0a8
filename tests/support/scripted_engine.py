#!/usr/bin/env python3
"""A vLLM server without a model: stock vLLM's HTTP API and bytes, tokens worked out by arithmetic, faults on command.

    python3 tests/support/scripted_engine.py --port 0 --model tiny [--token-ms 5] [--help]

prints {"event":"ready","port":N,"url":"http://127.0.0.1:N"} when it listens, and ends on SIGTERM or SIGINT. In a
test's own loop:

    engine = ScriptedEngine(token_ms=1)
    url = await engine.start()
    engine.fault("cut", after_tokens=3)
    ...
    await engine.stop()

scripted_tokens.py says which tokens come: `generate(prompt_ids, max_tokens, **options)`, or `expected(path, body)` for
a request as it stands. scripted_faults.py lists the faults. Over HTTP, never frozen and never refused:

    POST   /control/fault     {"kind", "after_tokens": 0, "times": 1, parameters}, or a list of such; they queue up
    GET    /control/fault     those left        DELETE  /control/fault    none any more, and thaw
    POST   /control/ready     {"ready": false}: /health and all else answer 503, as a model that loads
    POST   /control/settings  {"token_ms", "step_tokens", "prefill_ms", "max_num_seqs"}: from now on
    GET    /control/state     counts: see state()
    GET    /control/requests  the last 100 POST requests, oldest first; ?method=GET: the last 100 GET requests
    POST   /control/reset     counts, records, faults and LoRA adapters as at the start

Of a request is recorded: method, path, headers (pairs), body (as text, at most 256 KiB), body_bytes, id, outcome,
status, tokens, gone ("eof" or "reset" of a client that went), fault, received_at, ended_at (time.monotonic()).
Outcomes: running, finished, aborted (by the abort API or stop_aborted), disconnected, faulted (we broke it), refused
(an error status), stopped. A client that closes its socket and one that closes its sending side look alike until
written to, and are treated alike: gone "eof". "reset" is an RST, also that of a client that closed with bytes unread.
"""

import argparse
import asyncio
import dataclasses
import json
import signal
import time
from collections import deque
from urllib.parse import parse_qs, urlsplit

from scripted_batch import Batch, Running
from scripted_faults import Failed, Fault, Truncated
from scripted_http import EVENTS, Connection, Gate
from scripted_openai import BAD_REQUEST, JOBS, VERSION, error, expected, invalid, models, parse, tokenize, understand
from scripted_tokens import Refused, chat_ids, detokenize, encode, generate

__all__ = ["ScriptedEngine", "Settings", "chat_ids", "encode", "expected", "generate"]

RECORDS = 100
RECORDED_BODY = 256 << 10
ABORTS = 1000
GENERATE = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
SCALE_OUT_OFF = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
CHANGEABLE = {"token_ms", "step_tokens", "prefill_ms", "max_num_seqs"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Each is an option of the command line, and of ScriptedEngine."""
    host: str = "127.0.0.1"
    port: int = 0
    model: str = "tiny"
    max_model_len: int = 4096
    token_ms: float = 5.0  # between two tokens of a request
    step_tokens: int = 1  # tokens in a chunk, which then comes every step_tokens * token_ms
    prefill_ms: float = 0.0  # before the first token
    max_num_seqs: int = 256  # requests that run; more wait
    block_size: int = 16
    num_blocks: int = 8192
    load_seconds: float = 0.0  # 503 so long
    keep_alive_s: float = 5.0  # an idle connection is closed then, as vLLM's server does
    enable_scale_out: bool = False  # /inference/v1/*
    api_key: str = ""  # wanted on /v1/* and /inference/*, as vLLM's --api-key
    owned_by: str = "vllm"  # anything else, "sglang" say, is an engine that tells no version and no token ids


class ScriptedEngine:
    owns_process = False  # whether a fault may end it

    def __init__(self, **settings):
        self.settings = Settings(**settings)
        self.batch, self.gate, self.connections, self.ready = Batch(self.settings), Gate(), set(), True
        self._timer = None
        self.reset()

    def reset(self):
        self.batch.reset()
        self.clear_faults()
        self.adapters = {}
        self.request_count = self.disconnect_count = 0
        self.aborts = deque(maxlen=ABORTS)
        self.records = {"POST": deque(maxlen=RECORDS), "GET": deque(maxlen=RECORDS)}

    async def start(self):
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._serve, self.gate, self.connections, self.settings.keep_alive_s),
            self.settings.host, self.settings.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.settings.load_seconds > 0:
            self.ready = False
            self._timer = loop.call_later(self.settings.load_seconds, setattr, self, "ready", True)
        return f"http://{self.settings.host}:{self.port}"

    async def stop(self):
        """No connection survives it."""
        self._server.close()
        if self._timer:
            self._timer.cancel()
        self.gate.thaw()
        tasks = [connection.task for connection in self.connections]
        for connection in list(self.connections):
            connection.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what a test orders and asks

    def fault(self, kind, after_tokens=0, times=1, **parameters):
        if kind == "exit" and not self.owns_process:
            raise ValueError("only a scripted engine with a process of its own can exit")
        self.faults.append(Fault(kind, after_tokens, times, **parameters))

    def clear_faults(self):
        self.faults = deque()
        self.gate.thaw()

    def state(self):
        """`peak` is of `running`; `connections` leaves out those that speak to /control."""
        return {"running": len(self.batch.running), "waiting": len(self.batch.waiting), "peak": self.batch.peak,
                "connections": sum(not connection.control for connection in self.connections),
                "aborts": list(self.aborts), "disconnects": self.disconnect_count, "requests": self.request_count,
                "tokens": self.batch.metrics.generation_tokens, "finished": dict(self.batch.metrics.finished),
                "faults": len(self.faults), "ready": self.ready}

    def requests(self, method="POST"):
        return list(self.records[method])

    def set(self, **changes):
        if changes.keys() - CHANGEABLE:
            raise ValueError(f"to be set are {', '.join(sorted(CHANGEABLE))}")
        self.settings = self.batch.settings = dataclasses.replace(self.settings, **changes)

    # --- serving

    async def _serve(self, request, reply, connection):
        if request.path.startswith("/control/"):
            connection.control, reply.gate = True, Gate()
            return await self._control(request, reply)
        record = self._record(request)
        try:
            if connection.gone:
                raise asyncio.CancelledError
            await self._answer(request, reply, record)
            if record["outcome"] == "running":
                record["outcome"] = "refused" if reply.status >= 400 else "finished"
        except (asyncio.CancelledError, ConnectionError):
            record.update(outcome="disconnected" if connection.gone else "stopped", gone=connection.gone)
            self.disconnect_count += connection.gone is not None
            raise
        except BaseException:
            record["outcome"] = "faulted"
            raise
        finally:
            record.update(status=reply.status, ended_at=time.monotonic())

    def _record(self, request):
        record = {
            "method": request.method, "path": request.target, "headers": request.headers,
            "body": request.body[:RECORDED_BODY].decode("utf-8", "replace"), "body_bytes": len(request.body),
            "id": None, "outcome": "running", "status": None, "tokens": 0, "gone": None, "fault": None,
            "received_at": time.monotonic(), "ended_at": None}
        self.records["GET" if request.method == "GET" else "POST"].append(record)
        return record

    async def _answer(self, request, reply, record):
        method, handler = self._routes.get(request.path, (None, None))
        if not self.ready:
            return await reply.document(503, error("the model is loading", "ServiceUnavailableError", 503))
        if not self._is_authorized(request):
            return await reply.document(401, {"error": "Unauthorized"})
        if handler is None:
            return await reply.document(404, error("Not Found", "Not Found", 404))
        if method != request.method:
            refusal = error("Method Not Allowed", "Method Not Allowed", 405)
            return await reply.document(405, refusal, [("allow", method)])
        try:
            await handler(self, request, reply, record)
        except Refused as refusal:
            await reply.document(refusal.status,
                                 error(refusal.message, refusal.kind, refusal.status, refusal.param))

    def _is_authorized(self, request):
        guarded = request.path.startswith(("/v1", "/v2", "/inference", "/cohere"))
        scheme, _, key = request.header("authorization", "").partition(" ")
        return not (self.settings.api_key and guarded) or (scheme.lower(), key) == ("bearer", self.settings.api_key)

    async def _health(self, request, reply, record):
        await reply.start(200, length=0)

    async def _version(self, request, reply, record):
        if self.settings.owned_by != "vllm":
            return await reply.document(404, error("Not Found", "Not Found", 404))
        await reply.document(200, {"version": VERSION})

    async def _load(self, request, reply, record):
        await reply.document(200, {"server_load": len(self.batch.running) + len(self.batch.waiting)})

    async def _models(self, request, reply, record):
        await reply.document(200, models(self.settings.model, self.settings.max_model_len,
                                         self.settings.owned_by, self.adapters.items()))

    async def _load_adapter(self, request, reply, record):
        asked = _json_of(request)
        self.adapters[asked["lora_name"]] = asked["lora_path"]
        await reply.document(200, f"Success: LoRA adapter '{asked['lora_name']}' added successfully.")

    async def _unload_adapter(self, request, reply, record):
        name = _json_of(request)["lora_name"]
        self.adapters.pop(name, None)
        await reply.document(200, f"Success: LoRA adapter '{name}' removed successfully.")

    async def _metrics(self, request, reply, record):
        page = self.batch.page().encode()
        await reply.start(200, "text/plain; version=0.0.4; charset=utf-8", len(page))
        await reply.raw(page)

    async def _tokenize(self, request, reply, record):
        try:
            answer = tokenize(_json_of(request), self.settings.max_model_len)
        except (KeyError, TypeError, AttributeError) as failure:
            raise invalid("value_error", "body", repr(failure)) from failure
        await reply.document(200, answer)

    async def _detokenize(self, request, reply, record):
        asked = _json_of(request)
        if asked.get("model") not in (None, self.settings.model, *self.adapters):
            raise Refused(f"The model `{asked['model']}` does not exist.", "model", 404, "NotFoundError")
        await reply.document(200, {"prompt": detokenize(asked.get("tokens", []))})

    async def _abort(self, request, reply, record):
        self._check_scale_out()
        ids = parse(request.body).get("request_ids")
        if not isinstance(ids, list):
            raise Refused("Missing 'request_ids' in request body", kind=BAD_REQUEST)
        self.aborts.extend(map(str, ids))
        asyncio.get_running_loop().call_soon(self.batch.abort, set(map(str, ids)))  # vLLM answers first, too
        await reply.start(200, length=0)

    def _check_scale_out(self):
        if not self.settings.enable_scale_out:
            raise Refused(SCALE_OUT_OFF, status=403, kind="PermissionDeniedError")

    # --- generation

    async def _generate(self, request, reply, record):
        if request.path == GENERATE:
            self._check_scale_out()
        body = _json_of(request)
        model = body["model"] if body.get("model") in self.adapters else self.settings.model
        job = understand(request.path, body, model, self.settings.max_model_len, request.header("x-request-id"))
        job.return_ids = job.return_ids and self.settings.owned_by == "vllm"
        self.request_count += 1
        running, fault = Running(job, record), self._next_fault()
        record.update(id=job.id, fault=fault and fault.kind)
        if fault:
            fault.prepare(reply)
            if fault.kind == "status":
                return await fault.refuse(reply)
            if fault["before_head"]:
                await fault.strike(reply, running)
                fault = None
        try:
            await (self._stream if job.stream else self._whole)(running, reply, fault)
        except (Failed, Truncated):
            record["outcome"] = "faulted"
        finally:
            self.batch.leave(running)
        if any(output.finish_reason == "abort" for output in job.outputs):
            record["outcome"] = "aborted"

    def _next_fault(self):
        if not self.faults:
            return None
        fault = self.faults[0]
        fault.times -= fault.times > 0
        if fault.times == 0:
            self.faults.popleft()
        return fault

    async def _stream(self, running, reply, fault):
        job = running.job
        await reply.start(200, EVENTS)
        opened = False

        async def tell(index, delta):
            nonlocal opened
            for chunk in () if opened else job.opening():
                await reply.event(chunk)
            opened = True
            if chunk := job.chunk(index, delta):
                await reply.event(chunk)

        try:
            await self.batch.produce(running, reply, fault, tell)
            for chunk in () if reply.unsaid_usage else job.closing():
                await reply.event(chunk)
        except Failed as failure:
            await reply.event(failure.document)
            if failure.done:
                await reply.event(b"[DONE]")
            await reply.finish()
            raise
        except Truncated:
            await reply.finish()
            raise
        if not reply.unsaid_done:
            await reply.event(b"[DONE]")
        await reply.finish()

    async def _whole(self, running, reply, fault):
        async def tell(index, delta):
            pass

        try:
            await self.batch.produce(running, reply, fault, tell)
        except Failed as failure:
            await reply.document(failure.document["error"]["code"], failure.document)
            raise
        except Truncated:
            document = running.job.whole()
            for choice in document["choices"]:
                choice["finish_reason"] = None
            await reply.document(200, document)
            raise
        await reply.document(200, running.job.whole())

    # --- control

    async def _control(self, request, reply):
        parts = urlsplit(request.target)
        try:
            answer = self._obey(request.method, parts.path.removeprefix("/control/"), parse_qs(parts.query),
                                json.loads(request.body or b"{}"))
        except (ValueError, TypeError, KeyError, AttributeError) as failure:
            return await reply.document(400, error(f"{failure}"))
        if answer is None:
            return await reply.document(404, error("no such control", "Not Found", 404))
        await reply.document(200, answer)

    def _obey(self, method, what, query, body):
        match method, what:
            case "POST", "fault":
                for each in body if isinstance(body, list) else [body]:
                    self.fault(**each)
                return {"faults": len(self.faults)}
            case "GET", "fault":
                return [fault.describe() for fault in self.faults]
            case "DELETE", "fault":
                self.clear_faults()
                return {"faults": 0}
            case "POST", "ready":
                self.ready = bool(body["ready"])
                return {"ready": self.ready}
            case "POST", "settings":
                self.set(**body)
                return dataclasses.asdict(self.settings)
            case "GET", "state":
                return self.state()
            case "GET", "requests":
                return self.requests(query.get("method", ["POST"])[0])
            case "POST", "reset":
                self.reset()
                return {}

    _routes = {
        "/health": ("GET", _health), "/version": ("GET", _version), "/load": ("GET", _load),
        "/v1/models": ("GET", _models), "/metrics": ("GET", _metrics),
        "/v1/load_lora_adapter": ("POST", _load_adapter), "/v1/unload_lora_adapter": ("POST", _unload_adapter),
        "/tokenize": ("POST", _tokenize), "/detokenize": ("POST", _detokenize), ABORT: ("POST", _abort),
        **dict.fromkeys(JOBS, ("POST", _generate)),
    }


def _json_of(request):
    if request.header("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
                      kind=BAD_REQUEST)
    return parse(request.body)


# --- the program

def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for setting in dataclasses.fields(Settings):
        how = {"action": "store_true"} if setting.type is bool else {"type": setting.type, "default": setting.default}
        parser.add_argument("--" + setting.name.replace("_", "-"), **how)
    return vars(parser.parse_args())


async def _main():
    engine = ScriptedEngine(**_arguments())
    engine.owns_process = True
    url = await engine.start()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print(json.dumps({"event": "ready", "port": engine.port, "url": url}, separators=(",", ":")), flush=True)
    await ended.wait()
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(_main())
