"""HTTP/1.1 for the scripted engine: strict about what it reads, and able to answer wrongly on command.

A Connection serves requests one after the other (pipelined ones wait their turn) and cancels the one at work when the
client goes. As under uvicorn, an end of the client's sending side counts as gone, even if it could still receive.
Not noticed: a client that goes after having pipelined over 128 KiB ahead, for reading pauses there.
"""

import asyncio
import gzip
import http
import re
import socket
import struct
import zlib
from dataclasses import dataclass
from email.utils import formatdate

from scripted_openai import dumps

HEAD_LIMIT = 64 << 10  # of a request's head, and of each line in a chunked body
BODY_LIMIT = 32 << 20
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"

_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


class Malformed(Exception):
    """What arrived is no request."""


class Hangup(Exception):
    """Ends the connection here: orderly, or with a reset."""

    def __init__(self, reset=False):
        super().__init__()
        self.reset = reset


@dataclass
class Request:
    method: str
    target: str
    version: str
    headers: list  # (name, value), as they came
    body: bytes = b""

    @property
    def path(self):
        return self.target.partition("?")[0]

    def header(self, name, default=None):
        return next((value for key, value in self.headers if key.lower() == name), default)


# --- reading

async def read_request(reader, writer):
    """The next request, or None when the client has no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as failure:
        if failure.partial.strip():
            raise Malformed("the head is cut") from None
        return None
    except asyncio.LimitOverrunError:
        raise Malformed("the head is too long") from None
    request = _parse_head(head)
    if request.header("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        request.body = await _read_body(reader, request)
    except asyncio.LimitOverrunError:
        raise Malformed("a line is too long") from None
    return request


def _parse_head(head):
    first, *lines = head[:-4].lstrip(b"\r\n").split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if not line:
        raise Malformed(f"no request line: {first[:100]!r}")
    headers = []
    for each in lines:
        header = _HEADER.fullmatch(each)
        if not header:
            raise Malformed(f"no header: {each[:100]!r}")
        headers.append((header[1].decode(), header[2].decode("latin-1")))
    return Request(line[1].decode(), line[2].decode(), "1." + line[3].decode(), headers)


async def _read_body(reader, request):
    lengths = [value for name, value in request.headers if name.lower() == "content-length"]
    codings = [value.lower() for name, value in request.headers if name.lower() == "transfer-encoding"]
    if codings:
        if lengths or codings != ["chunked"]:
            raise Malformed("which length?")
        return await _read_chunks(reader)
    if not lengths:
        return b""
    if len(lengths) > 1 or not re.fullmatch("[0-9]{1,12}", lengths[0]) or int(lengths[0]) > BODY_LIMIT:
        raise Malformed("not a length to be had")
    return await reader.readexactly(int(lengths[0]))


async def _read_chunks(reader):
    body = bytearray()
    while True:
        size = (await reader.readuntil(b"\r\n"))[:-2].partition(b";")[0].strip()
        if not re.fullmatch(b"[0-9A-Fa-f]{1,8}", size) or len(body) + int(size, 16) > BODY_LIMIT:
            raise Malformed(f"no chunk size: {size[:20]!r}")
        if int(size, 16) == 0:
            break
        chunk = await reader.readexactly(int(size, 16) + 2)
        if not chunk.endswith(b"\r\n"):
            raise Malformed("a chunk longer than it said")
        body += chunk[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return bytes(body)


# --- writing

class Gate:
    """What every write passes; frozen, it lets nothing out."""

    def __init__(self):
        self._open, self._timer = asyncio.Event(), None
        self._open.set()

    async def wait(self):
        await self._open.wait()

    def freeze(self, seconds):
        self.thaw()
        self._open.clear()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.thaw)

    def thaw(self):
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._open.set()


class Reply:
    """One answer being written. Faults turn its switches."""

    def __init__(self, writer, request, gate):
        self.writer, self.gate = writer, gate
        self.old = request.version == "1.0"
        self.keep = not self.old and "close" not in request.header("connection", "").lower()
        self.status = self._packer = None
        self._chunked = False
        self.compressed = False  # gzip, asked for or not
        self.slow_head_s = 0.0  # over which the head is stretched
        self.unsaid_done = self.unsaid_usage = False  # the stream ends without
        self.short = False  # ends before the length it said, or without the last chunk
        self.alter = None  # called with each chunk's document before it is written
        self.spoil = None  # what befalls the next event, or the whole document: garble, half_event or duplicate

    @property
    def begun(self):
        return self.status is not None

    async def start(self, status, content_type=None, length=None, headers=()):
        self.status, self._chunked = status, length is None and not self.old
        self.keep = self.keep and not self.old
        lines = [f"HTTP/1.{0 if self.old else 1} {status} {http.HTTPStatus(status).phrase}",
                 f"date: {formatdate(usegmt=True)}", "server: uvicorn"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is not None:
            lines.append(f"content-length: {length}")
        if content_type:
            lines.append(f"content-type: {content_type}")
        if self.compressed:
            lines.append("content-encoding: gzip")
            self._packer = zlib.compressobj(wbits=31) if length is None else None
        if self._chunked:
            lines.append("transfer-encoding: chunked")
        if not self.keep:
            lines.append("connection: close")
        pause = self.slow_head_s / len(lines)
        for line in [*lines, ""] if pause else ["\r\n".join([*lines, ""])]:
            await self.raw(line.encode("latin-1") + b"\r\n")
            if pause:
                await asyncio.sleep(pause)

    async def send(self, data):
        """Bytes of the body."""
        if self._packer:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        await self.raw(self._framed(data))

    async def finish(self):
        if self.short:
            raise Hangup
        if self._packer:
            await self.raw(self._framed(self._packer.flush()))
        if self._chunked:
            await self.raw(b"0\r\n\r\n")

    def _framed(self, data):
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data

    async def raw(self, data):
        """Bytes as they are, whatever they mean to HTTP."""
        await self.gate.wait()
        self.writer.write(data)
        await self.writer.drain()

    async def document(self, status, document, headers=()):
        """A whole JSON answer."""
        spoil, self.spoil = self.spoil, None
        data = dumps(document)
        if spoil == "garble":
            data = data[:-1] + b","
        elif spoil == "duplicate":
            data += data
        if self.compressed:
            data = gzip.compress(data)
        await self.start(status, JSON, len(data) + (64 if self.short else 0), headers)
        if spoil == "half_event":
            await self.raw(data[:len(data) // 2])
            raise Hangup
        await self.raw(data)
        await self.finish()

    async def event(self, document):
        """A chunk of a stream."""
        spoil, self.spoil = self.spoil, None
        if self.alter and isinstance(document, dict):
            self.alter(document)
        data = dumps(document) if isinstance(document, dict) else document
        event = b"data: %s\n\n" % data
        if spoil == "garble":
            event = b"data: %s\n\n" % data[:len(data) // 2]
        elif spoil == "half_event":
            await self.send(event[:len(event) // 2])
            raise Hangup
        elif spoil == "duplicate":
            await self.send(event)
        await self.send(event)


class Connection(asyncio.StreamReaderProtocol):
    """One client. `serve(request, reply, connection)` answers; `known` is the set of those that are open."""

    def __init__(self, serve, gate, known, keep_alive_s):
        super().__init__(asyncio.StreamReader(limit=HEAD_LIMIT), self._begin)
        self.serve, self.gate, self.known, self.keep_alive_s = serve, gate, known, keep_alive_s
        self.gone = None  # how the client went: "eof" or "reset"
        self.control = False  # whether a test speaks here, to steer
        self._working, self._idle = False, None

    def _begin(self, reader, writer):
        self.known.add(self)
        self.writer = writer
        self.task = asyncio.get_running_loop().create_task(self._run(reader, writer))

    async def _run(self, reader, writer):
        try:
            while request := await read_request(reader, writer):
                reply = Reply(writer, request, self.gate)
                await self._work(request, reply)
                if not reply.keep:
                    break
                self._idle = asyncio.get_running_loop().call_later(self.keep_alive_s, writer.close)
        except Malformed as failure:
            text = f"Invalid HTTP request received. ({failure})".encode()
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
                         b"content-length: %d\r\n\r\n%s" % (len(text), text))
        except Hangup as order:
            if order.reset:
                self.reset()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the engine stops
        finally:
            writer.close()

    async def _work(self, request, reply):
        self._working = True
        try:
            await self.serve(request, reply, self)
        finally:
            self._working = False

    def reset(self):
        """Closes with RST; what is still on its way to the client may be lost."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def stop(self):
        self.task.cancel()
        self.writer.transport.abort()

    # --- what the event loop tells

    def data_received(self, data):
        if self._idle:
            self._idle.cancel()
            self._idle = None
        super().data_received(data)

    def eof_received(self):
        super().eof_received()
        self._went("eof")
        return False  # the transport closes

    def connection_lost(self, failure):
        super().connection_lost(failure)
        self._went("reset" if failure else "eof")
        self.known.discard(self)
        if self._idle:
            self._idle.cancel()

    def _went(self, how):
        if self.gone is None:
            self.gone = how
            if self._working:
                self.task.cancel()
