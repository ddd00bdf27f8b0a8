"""How the scripted engine misbehaves. A fault befalls one generation request once `after_tokens` tokens were sent.

What follows on the right are parameters with their defaults. `before_head` (cut, hang, freeze, exit, raw) strikes before
anything is answered. On a reply that is not streamed, a fault strikes when that many tokens were generated, and what
spoils an event spoils the document.

  status        an error in place of a reply            status=503, message, type, retry_after (s), body (raw text)
  error_event   an error event, or a 500                status=500, message, type, done=true (then [DONE], as vLLM does)
  cut           the connection ends                     reset=false (true: RST)
  hang          nothing more comes
  garble        the next event is no JSON; then on
  half_event    the next event is cut in its middle, and so is the connection
  no_done       the stream ends in order, without finish_reason, usage and [DONE]
  unsaid_done   the stream ends in order after its output, but without [DONE]     usage=true (false: nor the usage)
  wrong_id      the id of the chunks changes            id="cmpl-someone-else"
  endless       an event that never ends                bytes=67108864, then cut
  gzip          content-encoding: gzip, from the start
  early_eof     the body ends before its length, or without the last chunk
  slow_head     the head comes in pieces                ms=200
  bad_chunk     a chunk size that is none, then cut
  duplicate     the next event comes twice
  freeze        nobody is answered any more, /control excepted     ms=1000
  http10        HTTP/1.0, body until the connection ends
  stop_aborted  finish_reason "abort"
  exit          the process is gone, as by kill -9 (only `python3 scripted_engine.py`)
  token_ids     from then on each chunk tells these ids instead of its own   ids (absent: none are told)
  raw           any bytes: `start`, then `text` again and again     start="", text="", bytes=0 (of text; -1: without end),
                in the body, or with before_head on the wire        then="cut" ("hang"; "go_on": and all is well);
                $ID in them is the id of the reply
"""

import asyncio
import os
import signal

from scripted_http import JSON, EVENTS, Hangup
from scripted_openai import error

KINDS = {
    "status": {"status", "message", "type", "retry_after", "body"},
    "error_event": {"status", "message", "type", "done"},
    "cut": {"reset", "before_head"}, "hang": {"before_head"}, "exit": {"before_head"}, "freeze": {"ms", "before_head"},
    "wrong_id": {"id"}, "endless": {"bytes"}, "slow_head": {"ms"}, "token_ids": {"ids"},
    "raw": {"start", "text", "bytes", "then", "before_head"}, "unsaid_done": {"usage"},
    **dict.fromkeys(("garble", "half_event", "no_done", "gzip", "early_eof", "bad_chunk", "duplicate", "http10",
                     "stop_aborted"), set()),
}
ENDLESS_BYTES = 64 << 20
PIECE = b"x" * (64 << 10)


class Failed(Exception):
    """The engine reports an error in place of the rest."""

    def __init__(self, document, done):
        super().__init__()
        self.document, self.done = document, done


class Truncated(Exception):
    """The reply ends as if it were complete."""


class Fault:
    """What shall happen to the next `times` generation requests; -1 for ever."""

    def __init__(self, kind, after_tokens=0, times=1, **parameters):
        if kind not in KINDS:
            raise ValueError(f"no such fault: {kind}; there are {', '.join(KINDS)}")
        if parameters.keys() - KINDS[kind]:
            raise ValueError(f"{kind} has no parameter {', '.join(sorted(parameters.keys() - KINDS[kind]))}")
        self.kind, self.after_tokens, self.times, self.parameters = kind, int(after_tokens), int(times), parameters

    def __getitem__(self, name):
        return self.parameters.get(name)

    def describe(self):
        return {"kind": self.kind, "after_tokens": self.after_tokens, "times": self.times, **self.parameters}

    def prepare(self, reply):
        """Turns what has to be turned before the head."""
        reply.old = reply.old or self.kind == "http10"
        reply.compressed = self.kind == "gzip"
        reply.unsaid_done = self.kind == "unsaid_done"
        reply.unsaid_usage = reply.unsaid_done and not self.parameters.get("usage", True)
        reply.short = self.kind == "early_eof"
        if self.kind == "slow_head":
            reply.slow_head_s = self.parameters.get("ms", 200) / 1000

    async def refuse(self, reply):
        """The whole answer of kind "status"."""
        status = self.parameters.get("status", 503)
        headers = [("retry-after", self["retry_after"])] if self["retry_after"] is not None else []
        if self["body"] is not None:
            body = self["body"].encode()
            await reply.start(status, "text/plain; charset=utf-8", len(body), headers)
            await reply.raw(body)
        else:
            await reply.document(status, self._error(status), headers)

    async def strike(self, reply, running):
        """Comes back where the request goes on."""
        match self.kind:
            case "cut":
                raise Hangup(bool(self["reset"]))
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "freeze":
                reply.gate.freeze(self.parameters.get("ms", 1000) / 1000)
                await reply.gate.wait()
            case "exit":
                os.kill(os.getpid(), signal.SIGKILL)
            case "garble" | "half_event" | "duplicate":
                reply.spoil = self.kind
            case "wrong_id":
                running.job.id = self.parameters.get("id", "cmpl-someone-else")
            case "stop_aborted":
                running.abort()
            case "error_event":
                raise Failed(self._error(self.parameters.get("status", 500)), self.parameters.get("done", True))
            case "no_done":
                raise Truncated
            case "endless":
                await self._begin(reply, running)
                await reply.send(b'data: {"id":"')
                for _ in range(self.parameters.get("bytes", ENDLESS_BYTES) // len(PIECE)):
                    await reply.send(PIECE)
                raise Hangup
            case "bad_chunk":
                await self._begin(reply, running)
                await reply.raw(b"oops\r\nno chunk\r\n")
                raise Hangup
            case "token_ids":
                reply.alter = self._tell_other_ids
            case "raw":
                await self._say_raw(reply, running)

    def _error(self, status):
        kind = self["type"] or ("InternalServerError" if status == 500 else "ServiceUnavailableError")
        return error(self["message"] or "scripted", kind, status)

    def _tell_other_ids(self, document):
        for choice in document.get("choices", []):
            if choice.get("token_ids"):
                choice["token_ids"] = self["ids"]
            if "ids" not in self.parameters:
                choice.pop("token_ids", None)

    async def _say_raw(self, reply, running):
        if not self["before_head"]:
            await self._begin(reply, running)
        write = reply.raw if self["before_head"] else reply.send
        start, text = ((self[name] or "").replace("$ID", running.job.id).encode("latin-1") for name in ("start", "text"))
        left = self.parameters.get("bytes", 0)
        if start:
            await write(start)
        piece = text * max(1, len(PIECE) // max(1, len(text)))
        while text and left:
            await write(piece if left < 0 else piece[:left])
            left -= min(left, len(piece)) if left > 0 else 0
            await asyncio.sleep(0)  # others are served, too
        match self.parameters.get("then", "cut"):
            case "cut":
                raise Hangup
            case "hang":
                await asyncio.get_running_loop().create_future()

    async def _begin(self, reply, running):
        """A reply that is not streamed has said nothing yet."""
        if not reply.begun:
            await reply.start(200, EVENTS if running.job.stream else JSON)
