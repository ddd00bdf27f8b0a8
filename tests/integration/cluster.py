"""Starts `llumnix up` for a test, watches it, and leaves nothing behind."""

import asyncio
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LLUMNIX") or str(ROOT / "build" / "release" / "llumnix")
MARK = "LLUMNIX_TEST_RUN"  # in the environment of every process that a test starts
START_S = 60
END_S = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(reached, seconds, what):
    """Asks `reached` until it says something true, and returns that; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = reached()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


async def until_async(reached, seconds, what):
    """The same beside running streams; `reached` may block for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        value = await asyncio.to_thread(reached)
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)


def processes_marked(mark):
    """Live processes that carry the mark of one run."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environment = pathlib.Path(entry.path, "environ").read_bytes().split(b"\0")
            state = pathlib.Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if wanted in environment and state != "Z":
            found.append(int(entry.name))
    return found


def resident_kib(pid):
    """Memory of a process that is really there."""
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


class Cluster:
    """One `llumnix up`. Use as a context; at its end every process it started is gone."""

    def __init__(self, *options, engines=None, wait=True, http="127.0.0.1:0", admin="127.0.0.1:0", **knobs):
        self.mark = uuid.uuid4().hex
        self.log = tempfile.TemporaryFile()
        settings = [part for name, value in knobs.items()
                    for part in ("--set", f"{name.replace('__', '.')}={value}")]
        self.events, self.ended, self.changed = [], False, threading.Condition()
        self.process = subprocess.Popen(
            [PROGRAM, "up", "--json", "--http", http, "--admin", admin,
             *(("--engines", str(engines)) if engines else ()), *settings, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
            env={**os.environ, MARK: self.mark}, start_new_session=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if wait:
            try:
                self.ready = self.wait_event(START_S, event="ready")
            except BaseException:
                self.close()
                raise
            self.url, self.admin = self.ready["http"], self.ready["admin"]

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)  # anything else on stdout breaks the test, as it should
            with self.changed:
                self.events.append(event)
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait_event(self, seconds, after=0, **fields):
        """The first event, from number `after` on, that has these fields."""
        def found():
            return next((event for event in self.events[after:]
                         if all(event.get(name) == value for name, value in fields.items())), None)

        with self.changed:
            self.changed.wait_for(lambda: found() or self.ended, seconds)
            event = found()
            if event is None:
                raise AssertionError(f"no event {fields} within {seconds} s; events: {self.events}\n{self.stderr()}")
            return event

    def stderr(self, limit=20_000):
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - limit))
        return self.log.read().decode(errors="replace")

    def pid(self, node):
        """The node's process now, restarts included."""
        with self.changed:
            known = [entry for event in self.events for entry in event.get("nodes", [event])
                     if entry.get("node") == node and event["event"] in ("ready", "node_started", "node_restarted")]
        return known[-1]["pid"]

    # --- what the operators' address says

    def admin_get(self, path, seconds=5):
        with urllib.request.urlopen(self.admin + path, timeout=seconds) as reply:
            return json.load(reply)

    def instances(self):
        return {each["id"]: each for each in self.admin_get("/admin/v1/cluster")["instances"]}

    def requests(self):
        return self.admin_get("/admin/v1/requests")["requests"]

    def why(self, request):
        return self.admin_get(f"/admin/v1/requests/{request}/why")

    def is_idle(self):
        """Nothing runs, waits or holds blocks on any ready instance."""
        return all(
            each["scheduling"]["running"] == 0 and each["scheduling"]["waiting"] == 0
            and each["kv_blocks"]["used"] == 0
            for each in self.instances().values() if each["state"] not in ("lost", "stopped")) and not self.requests()

    def wait_idle(self, seconds=10):
        until(self.is_idle, seconds, f"an idle cluster")

    # --- the program's other commands

    def command(self, *arguments, seconds=60):
        """Runs a command against this cluster's admin address: its exit code, stdout and stderr."""
        done = subprocess.run(
            [PROGRAM, *arguments, "--admin", self.admin.removeprefix("http://")], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, env={**os.environ, MARK: self.mark})
        return done.returncode, done.stdout, done.stderr

    # --- its end

    def signal(self, number):
        self.process.send_signal(number)

    def wait_end(self, seconds=END_S):
        code = self.process.wait(seconds)
        self.reader.join(seconds)
        return code

    def alive(self):
        return processes_marked(self.mark)

    def close(self):
        """Ends what is left, at once. Tests that are about an orderly end do that themselves."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + END_S
        while (left := self.alive()) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        self.reader.join(5)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, failure, trace):
        if kind is not None and not issubclass(kind, unittest.SkipTest):
            print(f"events: {self.events}\nstderr of up:\n{self.stderr()}", flush=True)
        self.close()
        self.log.close()


class Stream:
    """What one streamed request got. `run` ends when the reply does, however that is."""

    def __init__(self, url, body, path="/v1/chat/completions", request_id=None):
        self.address = url.removeprefix("http://").rsplit(":", 1)
        self.body, self.path, self.request_id = body, path, request_id
        self.status, self.headers, self.error, self.broken = None, {}, None, None
        self.texts, self.finish, self.usage, self.done = {}, {}, None, False
        self.pieces = 0
        self.raw = b""  # of a reply that is no stream

    @property
    def text(self):
        return self.texts.get(0, "")

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*self.address, limit=1 << 22)
        body = json.dumps(self.body).encode()
        extra = f"x-request-id: {self.request_id}\r\n" if self.request_id else ""
        self.writer.write(
            f"POST {self.path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()

    async def run(self, seconds=120):
        try:
            async with asyncio.timeout(seconds):
                await self.open()
                await self.read()
        except (asyncio.IncompleteReadError, ConnectionError) as failure:
            self.broken = repr(failure)
        except TimeoutError:
            self.broken = f"no end within {seconds} s"
        finally:
            self.close()
        return self

    def close(self):
        if hasattr(self, "writer"):
            self.writer.close()

    async def read_head(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}

    async def read(self):
        await self.read_head()
        if self.headers.get("transfer-encoding") != "chunked":
            self.raw = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
            return
        buffer = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            buffer += (await self.reader.readexactly(size + 2))[:-2]
            *events, buffer = buffer.split(b"\n\n")
            for event in events:
                self.on_event(event)
        await self.reader.readuntil(b"\r\n")

    def on_event(self, event):
        if not event.startswith(b"data: "):
            return
        if self.done:
            raise AssertionError(f"after [DONE]: {event!r}")
        if event == b"data: [DONE]":
            self.done = True
            return
        document = json.loads(event[6:])
        if "error" in document:
            self.error = document["error"]
            return
        self.usage = document.get("usage") or self.usage
        for choice in document["choices"]:
            index = choice["index"]
            piece = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            if piece:
                self.pieces += 1
                self.texts[index] = self.texts.get(index, "") + piece
            if choice["finish_reason"] is not None:
                if index in self.finish:
                    raise AssertionError(f"choice {index} ended twice")
                self.finish[index] = choice["finish_reason"]


def chat_body(content, max_tokens, **fields):
    return {"model": "modeled", "stream": True, "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
            "messages": [{"role": "user", "content": content}], **fields}


class ClusterTest(unittest.TestCase):
    """Checks that tests share."""

    def assert_exact(self, stream, expected, choice=0):
        """The stream is whole and says just what the engine's arithmetic says."""
        self.assertEqual((stream.broken, stream.error, stream.status), (None, None, 200), stream.request_id)
        got = stream.texts.get(choice, "")
        if got != expected.text:
            at = next((i for i, (a, b) in enumerate(zip(got, expected.text)) if a != b), min(len(got), len(expected.text)))
            self.fail(f"{stream.request_id}: wrong from character {at}: got ...{got[max(0, at - 15):at + 15]!r}, "
                      f"expected ...{expected.text[max(0, at - 15):at + 15]!r}; {len(got)} of {len(expected.text)}")
        self.assertEqual(stream.finish.get(choice), expected.finish_reason, stream.request_id)
        self.assertTrue(stream.done, f"{stream.request_id}: no [DONE]")
