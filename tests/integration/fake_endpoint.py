"""A small OpenAI endpoint with faults on command, to show that `llumnix load` notices them.

Answers as a modeled engine does, until request number `at` (from 0), which gets the fault:
  wrong_token    one word replaced            broken_token  the engine's mark of a lost block
  missing_token  one word left out            twice         one word sent twice
  early_end      finish_reason too soon       bad_reason    the other finish_reason
  bad_usage      one token too many counted   no_done       the stream ends without [DONE]
  cut            the connection is cut        error_event   an error in place of the rest
  refused        503                          stall         nothing more comes
  text_after     text after the end
"""

import asyncio
import json

import modeled

WRONG_AT = 3  # output token that a fault spoils


class FakeEndpoint:
    def __init__(self, fault=None, at=2, keep_alive_requests=0, token_pause=0.0):
        self.fault, self.at, self.token_pause = fault, at, token_pause
        self.keep_alive_requests = keep_alive_requests  # close after that many without saying so; 0: never
        self.served = 0
        self.bodies = []
        self.running = self.running_max = 0

    async def start(self):
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self):
        self.server.close()

    async def connection(self, reader, writer):
        handled = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path = head.split(b" ")[:2]
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                               if line.lower().startswith(b"content-length")), 0)
                body = await reader.readexactly(length)
                if method == b"GET":
                    self.reply(writer, 200, {"object": "list", "data": [{"id": "modeled", "object": "model"}]})
                else:
                    self.running += 1
                    self.running_max = max(self.running, self.running_max)
                    try:
                        if not await self.answer(writer, path.decode(), json.loads(body)):
                            break
                    finally:
                        self.running -= 1
                await writer.drain()
                handled += 1
                if handled == self.keep_alive_requests:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            writer.close()

    def reply(self, writer, status, document, request_id="none"):
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d X\r\nx-request-id: %s\r\ncontent-type: application/json\r\n"
                     b"content-length: %d\r\n\r\n%s" % (status, request_id.encode(), len(body), body))

    async def answer(self, writer, path, body):
        number, self.served = self.served, self.served + 1
        self.bodies.append(body)
        request_id = f"fake-{number}"
        fault = self.fault if number == self.at else None
        if fault == "refused":
            error = {"message": "none", "type": "service_unavailable", "param": None, "code": "no_available_worker"}
            self.reply(writer, 503, {"error": error}, request_id)
            return True
        chat = path.endswith("/chat/completions")
        ids = modeled.chat_ids(body["messages"]) if chat else modeled.prompt_ids(body["prompt"])
        seed = body.get("seed") if body.get("temperature", 1) else None
        outputs = [modeled.Output(ids, body["max_tokens"], choice, seed, ignore_eos=body.get("ignore_eos", False))
                   for choice in range(body.get("n", 1))]
        pieces = [list(output.pieces) for output in outputs]
        reasons = [output.finish_reason for output in outputs]
        completed = sum(len(output.ids) for output in outputs)
        if fault == "wrong_token":
            pieces[0][WRONG_AT] = " zzzz"
        elif fault == "broken_token":
            pieces[0][WRONG_AT] = "⟂"
        elif fault == "missing_token":
            del pieces[0][WRONG_AT]
        elif fault == "twice":
            pieces[0].insert(WRONG_AT, pieces[0][WRONG_AT])
        elif fault == "early_end":
            del pieces[0][WRONG_AT:]
        elif fault == "bad_reason":
            reasons[0] = "stop" if reasons[0] == "length" else "length"
        elif fault == "bad_usage":
            completed += 1
        usage = {"prompt_tokens": len(ids), "completion_tokens": completed, "total_tokens": len(ids) + completed}
        if not body["stream"]:
            if fault == "cut":
                return False
            choices = [{"index": i, "finish_reason": reason, "logprobs": None,
                        **({"message": {"role": "assistant", "content": "".join(text)}} if chat
                           else {"text": "".join(text)})}
                       for i, (text, reason) in enumerate(zip(pieces, reasons))]
            self.reply(writer, 200, {"id": request_id, "choices": choices, "usage": usage}, request_id)
            return True
        return await self.stream(writer, request_id, chat, fault, pieces, reasons, usage)

    async def stream(self, writer, request_id, chat, fault, pieces, reasons, usage):
        def event(text):
            data = f"data: {text}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))

        def choice(index, text=None, reason=None):
            part = {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
            event(json.dumps({"id": request_id, "choices": [{"index": index, "finish_reason": reason, **part}]}))

        writer.write(b"HTTP/1.1 200 OK\r\nX-Request-Id: %s\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                     b"transfer-encoding: chunked\r\n\r\n" % request_id.encode())
        writer.write(b"7\r\n: hi\n\n\n\r\n")
        for at in range(max(map(len, pieces))):
            if at == WRONG_AT and fault in ("cut", "stall", "error_event"):
                if fault == "stall":
                    await writer.drain()
                    await asyncio.sleep(60)
                if fault == "error_event":
                    event(json.dumps({"error": {"message": "lost", "type": "internal_error", "code": "internal"}}))
                    writer.write(b"0\r\n\r\n")
                    return True
                return False
            for index, words in enumerate(pieces):
                if at < len(words):
                    choice(index, words[at])
            if self.token_pause:
                await writer.drain()
                await asyncio.sleep(self.token_pause)
        for index, reason in enumerate(reasons):
            choice(index, None, reason)
        if fault == "text_after":
            choice(0, " bara")
        event(json.dumps({"id": request_id, "choices": [], "usage": usage}))
        if fault != "no_done":
            event("[DONE]")
        writer.write(b"0\r\n\r\n")
        return True
