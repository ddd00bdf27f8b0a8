"""The scheduler's HTTP API towards gateways of other makes: what the reference said on the wire, said to ours."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from cluster import MARK, PROGRAM, free_port, until
from test_discovery import field, varint
from test_relay import Engine

# Bytes of the reference, recorded.
TESTS = pathlib.Path(__file__).resolve().parents[1]
WIRE = {path.stem: path for folder in ("support/wire", "redis") for path in (TESTS / folder).glob("*.json")}
METADATA, STATUS, PODS = "llumnix:instance_metadata:", "llumnix:instance_status:", "llumnix:discovery:"
UPGRADE = (b"GET /keepalive HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nSec-WebSocket-Key: qjYorhAInocUldiDEFNb0Q==\r\n"
           b"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n")


def recorded(name):
    return json.loads(WIRE[name].read_text())["items"]


class Redis:
    """A redis-server. Use as a context; at its end it is gone."""

    def __init__(self):
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
             self.directory.name], stdout=subprocess.DEVNULL, env={**os.environ, MARK: "scheduler-api"})
        until(lambda: self.call("PING") == b"PONG\n", 10, "redis-server answers")

    def call(self, *words):
        stdin = words[-1] if isinstance(words[-1], bytes) else None
        arguments = ["-x", *words[:-1]] if stdin is not None else list(words)
        done = subprocess.run(["redis-cli", "-p", str(self.port), *arguments], input=stdin, capture_output=True, timeout=10)
        return done.stdout

    def set(self, key, value):
        assert self.call("SET", key, value) == b"OK\n"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Scheduler:
    """One `llumnix scheduler`. Use as a context; at its end it is gone."""

    def __init__(self, *flags, host="127.0.0.1"):
        self.log = tempfile.TemporaryFile()
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [PROGRAM, "scheduler", "--host", host, "--port", "0", "--admin", "127.0.0.1:0", "--ready-fd", str(writing), *flags],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=(writing,),
            env={**os.environ, MARK: "scheduler-api"})
        os.close(writing)
        with open(reading) as announced:
            line = announced.readline()
        if not line:
            self.process.wait(20)
            raise AssertionError(f"the scheduler did not start:\n{self.stderr()}")
        self.address = json.loads(line)["scheduler"]
        self.admin = json.loads(line)["admin"]

    def why(self, request):
        """What `llumnix why` says: exit code, stdout, stderr."""
        done = subprocess.run([PROGRAM, "why", request, "--admin", self.admin], capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def stderr(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def connect(self):
        host, port = self.address.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def say(self, request):
        """The whole reply to the bytes of one request: status, headers, body."""
        with self.connect() as connection:
            connection.sendall(request)
            got = b""
            while b"\r\n\r\n" not in got:
                more = connection.recv(65536)
                assert more, f"closed after {got!r}"
                got += more
            head, body = got.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
            while len(body) < int(headers["content-length"]):
                body += connection.recv(65536)
            return int(lines[0].split()[1]), headers, body.decode()

    def ask(self, path, body):
        text = json.dumps(body).encode() if not isinstance(body, bytes) else body
        return self.say(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(text), text))

    def place(self, request, tokens, gateway="", mode="neutral"):
        """Ids of the instances that were chosen, or the status."""
        status, _, body = self.ask("/schedule", {"id": request, "gateway_id": gateway, "scheduling_mode": mode,
                                                 "prompt_num_tokens": tokens})
        return [each["id"] for each in json.loads(body)["scheduling_result"]] if status == 200 else status

    def release(self, request, gateway, *instances):
        at = [{"id": id, "infer_type": "neutral"} for id in instances]
        return self.ask("/release", {"id": request, "gateway_id": gateway, "scheduling_result": at})[0]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        said = self.stderr()
        self.log.close()
        if code not in (0, 2):
            raise AssertionError(f"exit {code}:\n{said}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Keepalive:
    """A gateway's keepalive connection, frame by frame."""

    def __init__(self, scheduler, host="127.0.0.1", port=41174):
        self.connection = scheduler.connect()
        self.connection.sendall(UPGRADE)
        self.head = self.read_until(b"\r\n\r\n")
        self.send(1, json.dumps({"host": host, "port": port}).encode())
        self.id = f"{host}:{port}"
        self.answer = self.frame()

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read_until(self, end):
        data = b""
        while not data.endswith(end):
            data += self.read(1)
        return data

    def send(self, opcode, payload):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.connection.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def frame(self):
        head = self.read(2)
        return head + self.read(head[1])

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def cms_record(what):
    return next(bytes.fromhex(item["hex"]) for item in recorded("cms_records") if item["what"] == what)


def status_record(instance, schedulable=True, update=None):
    """The recorded status of an idle instance, written now by another: the last of a field counts."""
    record = cms_record("status: idle") + field(1, instance) + varint(3 << 3) + varint(int(time.time() * 1000)) + b"\x10" + varint(schedulable)
    return record if update is None else record + varint(5 << 3) + varint(update)


def pod(name, *addresses, type="neutral", age_s=0):
    record = field(1, name) + field(3, int((time.time() - age_s) * 1000))
    for rank, address in enumerate(addresses):
        host, port = address.rsplit(":", 1)
        record += field(4, field(1, type) + field(2, host) + field(3, int(port)) + field(4, host) + field(5, 24251)
                        + field(6, rank) + field(7, len(addresses)) + field(8, "m") + field(9, 1))
    return record


def request_of(item):
    return item["request"]["text"].encode()


def reply_of(item, ports):
    """What the reference answered: status, the headers that matter, and the body with our ports."""
    head, body = item["reply"]["text"].split("\r\n\r\n", 1)
    lines = head.split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    for theirs, ours in ports.items():
        body = body.replace(f'"port":{theirs}', f'"port":{ours}').replace(f'"aux_port":{theirs}', f'"aux_port":{ours}')
    kept = {name: headers[name] for name in ("content-type", "x-content-type-options", "sec-websocket-version") if name in headers}
    return int(lines[0].split()[1]), kept, body


class ApiTest(unittest.TestCase):
    def check(self, scheduler, item, ports):
        status, headers, body = scheduler.say(request_of(item))
        wanted_status, wanted_headers, wanted_body = reply_of(item, ports)
        self.assertEqual((status, body), (wanted_status, wanted_body), item["what"])
        got = {name: headers[name] for name in ("content-type", "x-content-type-options", "sec-websocket-version") if name in headers}
        self.assertEqual(got, wanted_headers, item["what"])


class FullMode(ApiTest):
    PORTS = {24111: 21010, 24151: 21050}  # of the recorded instance, and of the record that stands for it

    def setUp(self):
        self.redis = Redis()
        self.addCleanup(self.redis.close)
        self.redis.set(METADATA + "inst-0000", cms_record("metadata: neutral, one rank"))
        self.redis.set(STATUS + "inst-0000", status_record("inst-0000"))
        self.scheduler = Scheduler("--cms-redis-host", "127.0.0.1", "--cms-redis-port", str(self.redis.port),
                                   "--cms-pull-metadata-interval-ms", "200")
        self.addCleanup(self.scheduler.close)
        until(lambda: isinstance(self.scheduler.place("warm-up", 0), list), 15, "the record is known")
        self.scheduler.release("warm-up", "", "x")

    def test_the_recorded_exchanges(self):
        for item in recorded("scheduler_direct"):
            if "every instance unschedulable" in item["what"]:
                self.redis.set(STATUS + "inst-0000", status_record("inst-0000", schedulable=False, update=2))
                until(lambda: self.scheduler.place("x", 0) == 429, 10, "the status is read")
            if "Redis gone" in item["what"]:
                self.redis.process.kill()
                until(lambda: self.scheduler.place("x", 0) == 400, 20, "the loss of Redis is noticed")
            with self.subTest(item["what"]):
                self.check(self.scheduler, item, self.PORTS)

    def test_what_a_gateway_of_the_reference_was_told(self):
        for item in recorded("gateway_scheduler_full"):
            if "request" in item:
                with self.subTest(item["what"]):
                    self.check(self.scheduler, item, self.PORTS)

    def test_the_recorded_keepalive(self):
        items = [item for item in recorded("gateway_scheduler_full") if "keepalive" in item["what"] or "frame" in item["what"]]
        text = {item["what"]: item.get("text") for item in items}
        sent = [bytes.fromhex(item["hex"]) for item in items if item["what"] == "frame from client"]
        heard = [bytes.fromhex(item["hex"]) for item in items if item["what"] == "frame from server"]
        with self.scheduler.connect() as connection:
            connection.sendall(text["keepalive handshake, client"].encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                self.assertTrue(byte, head)
                head += byte
            lines = head.decode().lower().split("\r\n")
            self.assertEqual(lines[0], "http/1.1 101 switching protocols")
            for line in text["keepalive handshake, server"].lower().split("\r\n")[1:]:
                self.assertIn(line, lines)  # the key is the recorded one, so its answer is, too
            connection.sendall(sent[0])
            self.assertEqual(connection.recv(len(heard[0])), heard[0])
            for ping, pong in zip(heard[1:], sent[1:]):
                self.assertEqual(connection.recv(2), ping)
                connection.sendall(pong)
            self.assertEqual(connection.recv(2), heard[1])  # once more: the pongs count, or all would end now

    def test_a_request_counts_until_it_is_released(self):
        self.redis.set(METADATA + "inst-0004", cms_record("metadata: rank 0: zero is absent"))
        self.redis.set(STATUS + "inst-0004", status_record("inst-0004"))

        def port(request, tokens=100):
            status, _, body = self.scheduler.ask(
                "/schedule", {"id": request, "scheduling_mode": "neutral", "prompt_num_tokens": tokens})
            return json.loads(body)["scheduling_result"][0]["endpoint"]["port"] if status == 200 else None

        def both_known():
            ports = [port(f"probe-{i}") for i in range(2)]
            for i in range(2):
                self.scheduler.release(f"probe-{i}", "", "x")
            return set(ports) == {21010, 21014}

        until(both_known, 15, "both records are known")
        first, second = port("a", 300), port("b", 100)
        self.assertNotEqual(first, second)
        self.assertEqual(port("c", 100), second)
        self.assertEqual(self.scheduler.release("a", "", "anything at all"), 200)  # by its id alone
        self.assertEqual(port("d", 1), first)

    def test_prefill_and_decode_come_together_or_not_at_all(self):
        self.redis.set(METADATA + "inst-0001", cms_record("metadata: prefill"))
        self.redis.set(STATUS + "inst-0001", status_record("inst-0001"))
        self.redis.set(METADATA + "inst-0002", cms_record("metadata: decode"))
        self.redis.set(STATUS + "inst-0002", status_record("inst-0002"))
        until(lambda: isinstance(self.scheduler.place("pd", 1, mode="pd_batch"), list), 10, "all roles are there")
        body = json.loads(self.scheduler.ask("/schedule", {"id": "pd2", "scheduling_mode": "pd_batch"})[2])
        self.assertEqual([each["infer_type"] for each in body["scheduling_result"]], ["prefill", "decode"])
        for key in (METADATA + "inst-0002", STATUS + "inst-0002"):
            self.redis.call("DEL", key)  # the prefill instance is as it was
        until(lambda: self.scheduler.place("s", 1, mode="pd_batch") == 429, 10, "no decode instance: nothing")

    def test_why_tells_where_requests_went_and_what_was_in_their_way(self):
        self.assertEqual(self.scheduler.place("abc", 10, gateway="g"), ["127.0.0.1_instance0_1"])
        self.scheduler.release("abc", "g", "127.0.0.1_instance0_1")
        self.assertEqual(self.scheduler.place("pd", 10, mode="pd_batch"), 429)
        code, told, _ = self.scheduler.why("abc")
        self.assertEqual(code, 0)
        for part in ("placed on ", "policy load-balance, 1 candidate\n", "asked for over HTTP by gateway g", "released"):
            self.assertIn(part, told)
        self.assertIn("refused, epoch 0: prefill and decode apart want instances of two roles", self.scheduler.why("pd")[1])
        self.assertNotEqual(self.scheduler.why("nobody")[0], 0)
        self.redis.set(STATUS + "inst-0000", status_record("inst-0000", schedulable=False, update=2))
        until(lambda: self.scheduler.place("late", 0) == 429, 10, "the status is read")
        self.assertIn("filter schedulability", self.scheduler.why("late")[1])

    def test_hostile_bytes_do_no_harm(self):
        for body in (b"[" * 100_000, b'{"id":"' + b"x" * 1_000_000 + b'"}', b'{"prompt_token_ids":[' + b"1," * 100_000,
                     b"\xff" * 1000, b'{"id":"\\ud800"}' * 3, b'{"scheduling_result":[' + b"{}," * 50_000 + b"0]}"):
            self.assertEqual(self.scheduler.ask("/schedule", body)[0], 400)
            self.assertEqual(self.scheduler.ask("/release", body)[0], 400)
        many = json.dumps({"id": "long", "scheduling_mode": "neutral", "prompt_num_tokens": 100_000,
                           "prompt_token_ids": list(range(100_000))}, separators=(",", ":")).encode()
        status, _, body = self.scheduler.ask("/schedule", many)
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(body)["prompt_token_ids"], list(range(100_000)))
        for bytes_ in (b"\x81\x05hello", b"\x81\xfe\xff\xff\0\0\0\0", b"\xff" * 100, b"\x81\x80\0\0\0\0"):
            with self.scheduler.connect() as connection:
                connection.sendall(UPGRADE)
                self.assertIn(b"101", connection.recv(4096))
                connection.sendall(bytes_)
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
        self.assertEqual(self.scheduler.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")[0], 200)

    def test_metrics(self):
        self.scheduler.place("m1", 1)
        self.scheduler.ask("/schedule", {"scheduling_mode": "other"})
        text = self.scheduler.say(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")[2]
        self.assertRegex(text, r"(?m)^scheduler_scheduling_total [1-9]")
        self.assertRegex(text, r'(?m)^scheduler_scheduling_failed_total\{error_type="no_available_endpoint"\} [1-9]')
        self.assertRegex(text, r'(?m)^request_full_mode_schedule_duration_milliseconds_bucket\{le="0.1"\} ')
        self.assertRegex(text, r"(?m)^uptime_seconds ")
        known = {item["name"]: item for item in recorded("metrics_scheduler")}
        edges = re.findall(r'request_full_mode_schedule_duration_milliseconds_bucket\{le="([^"]+)"\}', text)
        self.assertEqual(edges, known["request_full_mode_schedule_duration_milliseconds"]["buckets"])
        for kind in ("metadata", "status"):  # which the scheduler has read, or it would place nothing
            name = f"scheduler_cms_refresh_{kind}_duration_milliseconds"
            self.assertEqual(re.findall(rf'(?m)^{name}_bucket\{{le="([^"]+)"\}} ', text), known[name]["buckets"])
            self.assertRegex(text, rf"(?m)^{name}_count [1-9]")
        shown = [item for name, item in known.items() if name.startswith(("instance_cms_", "selected_instance_"))]
        self.assertEqual(len(shown), 24 + 4)
        for item in shown:
            with self.subTest(item["name"]):
                self.assertIn(f"# TYPE {item['name']} {item['type']}\n", text)
                series = re.findall(rf"(?m)^{item['name']}(?:_bucket)?\{{(.*)\}} ", text)
                labels = {name for name in re.findall(r'(\w+)="', series[0]) if name != "le"}
                self.assertEqual(labels, set(item["labels"]))
                if item["type"] == "histogram":
                    edges = [re.search(r'le="([^"]+)"', one)[1] for one in series if 'infer_type="prefill"' in one]
                    self.assertEqual(edges, item["buckets"])

    def test_metrics_as_openmetrics(self):
        self.scheduler.place("m2", 1)
        asked = (b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text;version=1.0.0,"
                 b"application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\r\n")  # Prometheus
        status, headers, text = self.scheduler.say(asked)
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.assertTrue(text.endswith("\n# EOF\n"))
        suffixes = {"counter": ["_total"], "gauge": [""], "unknown": [""], "histogram": ["_bucket", "_sum", "_count"]}
        types, family = {}, None
        for line in text.splitlines()[:-1]:
            if line.startswith("# TYPE "):
                family, kind = line.split()[2:]
                self.assertNotIn(family, types)  # all of a family stands together
                types[family] = kind
            elif not line.startswith("# "):
                name = re.match(r"[a-z_]+", line)[0]
                self.assertIn(name, [family + suffix for suffix in suffixes[types[family]]])
        self.assertEqual(types["scheduler_scheduling"], "counter")


class LiteMode(ApiTest):
    def start(self, engines, *flags, redis=None):
        where = (["--discovery-redis-host", "127.0.0.1", "--discovery-redis-port", str(redis.port),
                  "--discovery-redis-refresh-interval-ms", "200"] if redis else
                 ["--llm-backend-discovery", "endpoints", "--llm-backend-endpoints", ",".join(each.id for each in engines)])
        scheduler = Scheduler("--enable-full-mode-scheduling=false", *where, *flags)
        self.addCleanup(scheduler.close)
        return scheduler

    def engines(self, count):
        engines = [Engine() for _ in range(count)]
        for each in engines:
            self.addCleanup(each.close)
        return engines

    def ready(self, scheduler, count):
        def known():
            ids = [scheduler.place(f"probe-{time.monotonic_ns()}", 1) for _ in range(2 * count)]
            return all(isinstance(each, list) for each in ids) and len({each[0] for each in ids}) == count
        until(known, 20, "all engines are known")  # without a gateway's connection none of it counts

    def test_the_recorded_exchanges(self):
        engine, = self.engines(1)
        with Redis() as redis:
            redis.set(PODS + "pod-1", pod("pod-1", engine.id))
            scheduler = self.start([], redis=redis)
            self.ready(scheduler, 1)
            with Keepalive(scheduler, port=41470):
                for item in recorded("gateway_scheduler_lite"):
                    with self.subTest(item["what"]):
                        self.check(scheduler, item, {24211: int(engine.id.rsplit(":", 1)[1])})

    def test_engines_of_a_list_hand_out_kv_20000_above_their_ports(self):
        scheduler = self.start(self.engines(1))
        self.ready(scheduler, 1)
        told, = json.loads(scheduler.ask("/schedule", {"id": "r", "scheduling_mode": "neutral"})[2])["scheduling_result"]
        port = told["endpoint"]["port"] + 20000  # wherever the system put the engine: such a port may not exist
        self.assertEqual((told["aux_ip"], told["aux_port"]), ("127.0.0.1", port) if port < 65536 else ("", 0))

    def shown(self, scheduler, instance):
        """Its gauges of requests, by name."""
        text = scheduler.say(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")[2]
        found = re.findall(rf'^instance_lrs_(\w+){{model="[^"]*",instance_id="{instance}",infer_type="neutral"}} (\d+)$', text, re.M)
        return {name: int(value) for name, value in found}

    def shown_as(self, **total_and_waiting):
        return {f"{part}_{name}": value for name, (total, waiting) in total_and_waiting.items()
                for part, value in (("total", total), ("waiting", waiting), ("running", total - waiting))}

    def test_load_is_what_gateways_report(self):
        scheduler = self.start(self.engines(2))
        self.ready(scheduler, 2)
        with Keepalive(scheduler) as gateway:
            self.assertEqual(gateway.answer, b"\x81\x02ok")
            first, = scheduler.place("r1", 100, gateway.id)
            second, = scheduler.place("r2", 1, gateway.id)
            self.assertNotEqual(first, second)
            self.assertEqual(scheduler.place("r3", 1, gateway.id), [second])
            scheduler.ask("/report", [{"kind": "state_update", "id": "r2", "infer_type": "neutral", "instance_id": second,
                                       "gateway_id": gateway.id, "num_tokens": 500}])
            scheduler.ask("/report", [{"kind": "prefill_done", "id": "r2", "infer_type": "neutral", "instance_id": second,
                                       "gateway_id": gateway.id}])
            until(lambda: self.shown(scheduler, second) == self.shown_as(tokens=(501, 1), requests=(2, 1)), 20, "it is shown")
            self.assertEqual(self.shown(scheduler, first), self.shown_as(tokens=(100, 100), requests=(1, 1)))
            self.assertEqual(scheduler.place("r4", 1, gateway.id), [first])
            scheduler.release("r2", "somebody:1", second)  # not its gateway
            self.assertEqual(scheduler.place("r5", 1, gateway.id), [first])
            scheduler.release("r2", gateway.id, second)
            self.assertEqual(scheduler.place("r6", 1, gateway.id), [second])
            scheduler.release("nobody", gateway.id, second)  # nothing to release
            for request in ("r1", "r4", "r5"):
                scheduler.release(request, gateway.id, first)
            self.assertEqual(scheduler.place("r7", 1, gateway.id), [first])

    def test_the_requests_of_a_lost_gateway_end(self):
        scheduler = self.start(self.engines(2))
        self.ready(scheduler, 2)
        with Keepalive(scheduler, port=1) as staying:
            with Keepalive(scheduler, port=2) as leaving:
                first, = scheduler.place("big", 1000, leaving.id)
                second, = scheduler.place("small", 10, staying.id)
                self.assertEqual(scheduler.place("small-2", 10, staying.id), [second])
            until(lambda: scheduler.place(f"n-{time.monotonic_ns()}", 1) == [first], 10, "what the lost one had is over")

    def test_a_silent_gateway_is_given_up(self):
        scheduler = self.start(self.engines(1))
        self.ready(scheduler, 1)
        with Keepalive(scheduler) as gateway:
            began = time.monotonic()
            gateway.connection.settimeout(20)
            self.assertEqual([gateway.frame(), gateway.frame()], [b"\x89\0", b"\x89\0"])
            with self.assertRaises((EOFError, ConnectionResetError)):
                gateway.frame()
            self.assertGreater(time.monotonic() - began, 6)  # it missed two; the socket's timeout bounds the other side

    def test_without_a_connection_nothing_is_counted(self):
        scheduler = self.start(self.engines(2))
        self.ready(scheduler, 2)
        places = [scheduler.place(f"r{i}", 1000)[0] for i in range(4)]
        self.assertEqual(places[0], places[2])
        self.assertNotEqual(places[0], places[1])  # equals take turns

    def test_a_failed_engine_gets_no_work(self):
        one, other = self.engines(2)
        scheduler = self.start([one, other])
        self.ready(scheduler, 2)
        one.close()
        until(lambda: all(scheduler.place(f"x-{time.monotonic_ns()}", 1) == [other.id] for _ in range(4)), 20, "it is noticed")


class Start(unittest.TestCase):
    def refused(self, *flags):
        done = subprocess.run([PROGRAM, "scheduler", "--admin", "127.0.0.1:0", *flags], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_off_loopback_wants_a_key_or_a_word(self):
        self.assertIn("--host: 0.0.0.0:8002 is off loopback", self.refused())
        lite = ["--enable-full-mode-scheduling=false", "--llm-backend-discovery", "endpoints",
                "--llm-backend-endpoints", "127.0.0.1:1", "--set", "scheduler.http_key=secret"]
        with Scheduler(*lite, host="0.0.0.0") as scheduler:
            scheduler.address = scheduler.address.replace("0.0.0.0", "127.0.0.1")
            self.assertEqual(scheduler.place("r", 1), 401)
            self.assertEqual(scheduler.say(b"POST /report HTTP/1.1\r\nHost: a\r\nAuthorization: secret\r\nContent-Length: 2\r\n\r\n[]")[0], 200)

    def test_flags_that_do_nothing_here_are_refused_by_name(self):
        self.assertIn("--colocated-rescheduling-mode: this build has no", self.refused("--host", "127.0.0.1", "--colocated-rescheduling-mode"))
        self.assertIn("--scheduling-policy", self.refused("--host", "127.0.0.1", "--scheduling-policy", "flod"))

    def test_what_is_wrong_is_told_by_the_flag_that_was_given(self):
        here = ("--host", "127.0.0.1", "--port", "0")
        lite = (*here, "--enable-full-mode-scheduling=false", "--llm-backend-discovery", "endpoints", "--llm-backend-endpoints")
        self.assertIn("--llm-backend-endpoints: takes no options of engines", self.refused(*lite, "type=prefill@127.0.0.1:1"))
        self.assertIn("--llm-backend-endpoints (gateway.engines): http://localhost:1 is the same place as 127.0.0.1:1",
                      self.refused(*lite, "127.0.0.1:1,localhost:1"))
        self.assertIn("--dispatch-top-k: 0 is below 1", self.refused(*here, "--dispatch-top-k", "0"))


if __name__ == "__main__":
    unittest.main()
