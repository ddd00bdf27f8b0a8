"""Engines come and go while a gateway runs: by a list, by a file, by the records of discovery sidecars in Redis."""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from cluster import MARK, PROGRAM, Cluster, Stream, free_port, until, until_async
from test_relay import CHAT, COMPLETIONS, Engine, RelayTest, chat, completion, post

PREFIX = "llumnix:discovery:"


class Gateway:
    """One `llumnix gateway`. Use as a context; at its end it is gone."""

    def __init__(self, *flags, **knobs):
        self.mark = f"discovery-{os.getpid()}-{time.monotonic_ns()}"
        self.log = tempfile.TemporaryFile()
        settings = [part for name, value in knobs.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [PROGRAM, "gateway", "--host", "127.0.0.1", "--port", "0", "--admin", "127.0.0.1:0", "--ready-fd",
             str(writing), *settings, *flags],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=(writing,),
            env={**os.environ, MARK: self.mark})
        os.close(writing)
        with open(reading) as announced:
            line = announced.readline()
        if not line:
            self.close()
            raise AssertionError(f"the gateway did not start:\n{self.stderr()}")
        self.ready = json.loads(line)
        self.url, self.admin = "http://" + self.ready["http"], "http://" + self.ready["admin"]

    def instances(self):
        try:
            with urllib.request.urlopen(self.admin + "/admin/v1/cluster", timeout=5) as reply:
                return {each["id"]: each for each in json.load(reply)["instances"]}
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503:  # in its first moments
                raise
            return {}

    def serving(self):
        """Ids of the engines that would be given work."""
        return sorted(id for id, each in self.instances().items() if each["state"] == "ready" and each["schedulable"])

    def wait_serving(self, *ids, seconds=15):
        until(lambda: self.serving() == sorted(ids) == sorted(self.instances()), seconds,
              f"{sorted(ids)} serve, and nothing else is known")

    def metrics(self):
        """Samples by name and labels, as written."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def stderr(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, failure, trace):
        if kind is not None and not issubclass(kind, unittest.SkipTest):
            print(f"the gateway's log:\n{self.stderr()}", flush=True)
        self.close()
        self.log.close()


class Redis:
    """A redis-server of its own, on a port that stays."""

    def __init__(self):
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory()
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", self.directory.name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(lambda: self.call("PING") == b"PONG\n", 10, "redis-server answers")

    def call(self, *command, value=None):
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *(["-x"] if value is not None else []), *command], input=value,
            capture_output=True, timeout=10)
        return done.stdout

    def register(self, pod, *engines, at_s=None, **fields):
        """Writes a pod's record as its sidecar would: each engine is a rank."""
        ranks = [instance_record(engine, dp_rank=rank, dp_size=len(engines), **fields)
                 for rank, engine in enumerate(engines)]
        self.call("SET", PREFIX + pod, value=pod_record(pod, ranks, at_s))

    def forget(self, pod):
        self.call("DEL", PREFIX + pod)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()


# --- protobuf by hand (spec/discovery.md A)

def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """One field; what proto3 leaves out is left out."""
    if not value:
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def instance_record(engine, type="neutral", dp_rank=0, dp_size=1, model="", version=1):
    host, _, port = engine.id.rpartition(":")
    return b"".join((
        field(1, type), field(2, host), field(3, int(port)), field(4, host), field(5, 20000), field(6, dp_rank),
        field(7, dp_size), field(8, model), field(9, version)))


def pod_record(pod, instances, at_s=None):
    now_ms = int((time.time() if at_s is None else at_s) * 1000)
    return field(1, pod) + field(3, now_ms) + b"".join(field(4, each) for each in instances)


@contextlib.contextmanager
def engines(count, *options):
    started = []
    try:
        for _ in range(count):
            started.append(Engine(*options))
        yield started
    finally:
        for each in started:
            each.close()


def outcomes(engine):
    """Of the generating requests that an engine got."""
    return [each["outcome"] for each in engine.requests() if each["path"] in (CHAT, COMPLETIONS)]


def asked(engine):
    return len(outcomes(engine))


def models(gateway):
    with urllib.request.urlopen(gateway.url + "/v1/models", timeout=5) as reply:
        return sorted(each["id"] for each in json.load(reply)["data"])


class DiscoveryTest(RelayTest):
    def some_streams(self, gateway, name, count=4, max_tokens=10):
        streams = [Stream(gateway.url, chat(f"{name} {i}", max_tokens), CHAT, f"{name}-{i}") for i in range(count)]
        self.run_streams(*streams)
        for stream in streams:
            self.assert_whole(stream)

    def while_streams_run(self, gateway, name, then, count=6, max_tokens=300):
        """Long streams, beside which `then` runs in a thread once all have begun; all must be whole."""
        streams = [Stream(gateway.url, (chat if i % 2 else completion)(f"{name} {i}", max_tokens),
                          CHAT if i % 2 else COMPLETIONS, f"{name}-{i}") for i in range(count)]

        async def all_of_it():
            running = [asyncio.create_task(stream.run(60)) for stream in streams]
            await until_async(lambda: all(stream.pieces > 3 for stream in streams), 20, "all streams have begun")
            await asyncio.to_thread(then)
            self.assertFalse(any(stream.done for stream in streams), "the streams were too short for this test")
            await asyncio.gather(*running)

        asyncio.run(all_of_it())
        for stream in streams:
            self.assert_whole(stream)


class Lists(DiscoveryTest):
    def test_a_static_list_as_the_reference_takes_it(self):
        with engines(2) as (a, b), Gateway(
                "-llm-backend-discovery=endpoints", "--llm-backend-endpoints", f"{a.id}, ,{b.id},",
                "--extra-args", "max-queue-size='100'", "-wait-queue-threads", "5", "--forward-tokens=false") as gateway:
            self.assertEqual(sorted(gateway.ready["instances"]), sorted([a.id, b.id]))
            gateway.wait_serving(a.id, b.id)
            self.some_streams(gateway, "static", 6)
            self.assertEqual((asked(a), asked(b)), (3, 3))
            self.assertEqual(gateway.metrics()['discovery_instances{source="fixed"}'], 2)

    def test_an_orderly_end(self):
        with engines(1) as (a,), Gateway("--llm-backend-discovery", "endpoints", "--llm-backend-endpoints", a.id) as gateway:
            gateway.wait_serving(a.id)

            def stop():
                gateway.process.send_signal(signal.SIGTERM)
            self.while_streams_run(gateway, "end", stop, max_tokens=100)
            self.assertEqual(gateway.process.wait(20), 0)


class Files(DiscoveryTest):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.file = pathlib.Path(self.directory.name, "engines")

    def tearDown(self):
        self.directory.cleanup()

    def write(self, *engines, text=""):
        fresh = self.file.with_suffix(".new")
        fresh.write_text("".join(f"{each.id}  # one of them\n" for each in engines) + text)
        fresh.replace(self.file)

    def gateway(self, **knobs):
        return Gateway(discovery__files=self.file, discovery__files_interval="100ms",
                       gateway__engine_check_interval="200ms", **knobs)

    def test_an_engine_that_leaves_the_list_ends_what_it_began_and_gets_nothing_new(self):
        with engines(2) as (a, b):
            self.write(a)
            with self.gateway() as gateway:
                gateway.wait_serving(a.id)

                def change():
                    self.write(b)
                    gateway.wait_serving(b.id)
                    self.some_streams(gateway, "meanwhile", 4)
                self.while_streams_run(gateway, "begun", change)
                self.assertEqual((asked(a), asked(b)), (6, 4))
                self.assertEqual(set(outcomes(a)), {"finished"})
                self.write(a, b)
                gateway.wait_serving(a.id, b.id)
                self.some_streams(gateway, "both", 8)
                self.assertEqual((asked(a), asked(b)), (10, 8))
                until(lambda: gateway.metrics()['discovery_instances{source="files"}'] == 2, 5, "the metric knows both")

    def test_a_request_goes_to_engines_that_serve_its_model(self):
        with contextlib.ExitStack() as stack:
            a, b = (stack.enter_context(contextlib.closing(Engine("--model", name, "--token-ms", 1)))
                    for name in ("alpha", "beta"))
            self.write(a, b)
            gateway = stack.enter_context(self.gateway(gateway__wait_for_instance="1s"))
            gateway.wait_serving(a.id, b.id)
            until(lambda: models(gateway) == ["alpha", "beta"], 10, "both models are known")
            for number in range(6):
                for engine, name in ((a, "alpha"), (b, "beta")):
                    status, _, text = post(gateway.url, COMPLETIONS, completion("x", 3, model=name, stream=False))
                    self.assertEqual((status, json.loads(text).get("model")), (200, name), text)
                    self.assertEqual(asked(engine), number + 1)
            status, _, text = post(gateway.url, COMPLETIONS, completion("x", 3, model="gamma", stream=False))
            self.assertEqual((status, json.loads(text)["error"]["code"]), (404, "model_not_found"))
            b.call("/control/ready", {"ready": False})
            until(lambda: gateway.serving() == [a.id], 10, "one is not ready any more")
            status, _, text = post(gateway.url, COMPLETIONS, completion("x", 3, model="beta", stream=False))
            self.assertEqual((status, json.loads(text)["error"]["message"]),
                             (503, "no engine that serves 'beta' takes work"), text)
            self.assertEqual((asked(a), asked(b)), (6, 6))

    def test_a_record_names_the_model_of_an_engine_that_has_not_told_it(self):
        with contextlib.ExitStack() as stack:
            a, b = (stack.enter_context(contextlib.closing(Engine("--model", name, "--token-ms", 1)))
                    for name in ("alpha", "beta"))
            b.call("/control/ready", {"ready": False})
            self.write(a, text=f"model=beta@{b.id}\n")
            gateway = stack.enter_context(self.gateway(gateway__wait_for_instance="15s"))
            until(lambda: models(gateway) == ["alpha", "beta"], 10, "one is told, the other in the record")
            self.assertEqual(gateway.serving(), [a.id])

            async def wait_for_it():
                waiting = asyncio.create_task(asyncio.to_thread(
                    post, gateway.url, COMPLETIONS, completion("x", 3, model="beta", stream=False)))
                await asyncio.sleep(0.5)
                self.assertFalse(waiting.done())
                b.call("/control/ready", {"ready": True})
                return await waiting
            status, _, text = asyncio.run(wait_for_it())
            self.assertEqual((status, json.loads(text).get("model")), (200, "beta"), text)
            self.assertEqual(asked(a), 0)

    def test_one_that_left_and_then_dies_or_hangs_is_replaced(self):
        for how in ("dies", "hangs"):
            with self.subTest(how=how), engines(2) as (a, b):
                self.write(a)
                with self.gateway(gateway__engine_silence="2s") as gateway:
                    gateway.wait_serving(a.id)

                    def change():
                        self.write(b)
                        gateway.wait_serving(b.id)
                        a.process.send_signal(signal.SIGKILL if how == "dies" else signal.SIGSTOP)
                    self.while_streams_run(gateway, how, change)
                    self.assertEqual(asked(b), 6)

    def test_one_that_left_and_hangs_before_its_first_token_is_replaced(self):
        with engines(2) as (a, b):
            self.write(a)
            with self.gateway(gateway__engine_silence="1s") as gateway:
                gateway.wait_serving(a.id)
                a.call("/control/settings", {"prefill_ms": 60000})
                stream = Stream(gateway.url, chat("patience", 10), CHAT)

                async def all_of_it():
                    running = asyncio.create_task(stream.run(30))
                    await until_async(lambda: asked(a) == 1, 10, "the engine was asked")
                    self.write(b)
                    await asyncio.to_thread(gateway.wait_serving, b.id)
                    await asyncio.sleep(1.5)  # it answers questions, so it is waited for
                    self.assertFalse(running.done())
                    a.process.send_signal(signal.SIGSTOP)
                    await running
                asyncio.run(all_of_it())
                self.assert_whole(stream)
                self.assertEqual(asked(b), 1)

    def test_a_list_with_a_mistake_changes_nothing(self):
        with engines(2) as (a, b):
            self.write(a)
            with self.gateway() as gateway:
                gateway.wait_serving(a.id)
                for broken in ("nonsense:x\n", f"{b.id}\n{b.id}\n", "\0\n"):
                    before = gateway.metrics()['discovery_errors_total{source="files"}']
                    self.write(b, text=broken)
                    until(lambda: gateway.metrics()['discovery_errors_total{source="files"}'] > before, 10, "it was seen")
                    self.assertEqual(gateway.serving(), [a.id])
                self.file.unlink()
                self.some_streams(gateway, "still", 2)
                self.write(b)
                gateway.wait_serving(b.id)

    def test_an_empty_list_is_no_engine_and_requests_wait_for_one(self):
        self.write(text="# none yet\n")
        with engines(1) as (a,), self.gateway() as gateway:
            stream = Stream(gateway.url, chat("early", 10), CHAT)

            async def all_of_it():
                running = asyncio.create_task(stream.run(20))
                await asyncio.sleep(0.5)
                self.write(a)
                await running
            asyncio.run(all_of_it())
            self.assert_whole(stream)
            self.write()
            gateway.wait_serving()
            status, _, text = post(gateway.url, CHAT, chat("late", 10))
            self.assertEqual(status, 503, text)

    def test_hundreds_come_and_go(self):
        with engines(1) as (a,):
            self.write(a)
            with self.gateway() as gateway:
                gateway.wait_serving(a.id)

                def change():
                    for count in (300, 5, 1200, 0):
                        others = "".join(f"127.9.9.9:{1 + i}\n" for i in range(count))
                        self.write(a, text=others)
                        until(lambda: len(gateway.instances()) == min(count + 1, 1024), 20, f"{count} more are known")
                        self.assertIn(a.id, gateway.instances())
                self.while_streams_run(gateway, "many", change, max_tokens=3000)
                gateway.wait_serving(a.id)
                self.assertEqual(gateway.stderr().count("too-many-engines"), 1)


@unittest.skipUnless(shutil.which("redis-server") and shutil.which("redis-cli"), "there is no redis-server")
class Records(DiscoveryTest):
    def gateway(self, redis, **knobs):
        return Gateway("--discovery-redis-host", "127.0.0.1", "--discovery-redis-port", str(redis.port),
                       "--discovery-redis-refresh-interval-ms", "100", "--discovery-redis-socket-timeout", "0.5",
                       gateway__engine_check_interval="200ms", **knobs)

    def source(self, redis, name):
        return f'{name}{{source="redis 127.0.0.1:{redis.port}"}}'

    def test_pods_come_and_go(self):
        with contextlib.ExitStack() as stack:
            redis, (a, b, c) = stack.enter_context(Redis()), stack.enter_context(engines(3))
            redis.register("stale-0", b, at_s=time.time() - 100)
            redis.register("pod-0", a, b)
            gateway = stack.enter_context(self.gateway(redis))
            gateway.wait_serving("pod-0_dp0", "pod-0_dp1")
            self.some_streams(gateway, "ranks", 4)
            self.assertEqual((asked(a), asked(b), asked(c)), (2, 2, 0))

            def change():
                redis.register("pod-1", c)
                redis.forget("pod-0")
                gateway.wait_serving("pod-1_dp0")
                self.some_streams(gateway, "new", 3)
            self.while_streams_run(gateway, "begun", change)
            self.assertEqual((asked(a), asked(b), asked(c)), (5, 5, 3))
            self.assertEqual(gateway.metrics()[self.source(redis, "discovery_instances")], 1)
            redis.register("prefill-0", a, type="prefill")  # not for us
            redis.call("SET", PREFIX + "broken", value=b"\xff\xff\xff")
            redis.call("SET", PREFIX + "far-away", value=pod_record(
                "far-away", [field(1, "neutral") + field(2, "93.184.216.34") + field(3, 80)]))
            before = gateway.metrics()[self.source(redis, "discovery_last_success_timestamp_seconds")]
            until(lambda: gateway.metrics()[self.source(redis, "discovery_last_success_timestamp_seconds")] > before + 1,
                  10, "it was read again")
            self.assertEqual(list(gateway.instances()), ["pod-1_dp0"])

    def test_a_pod_that_comes_back_elsewhere_is_another_engine(self):
        with Redis() as redis, engines(2) as (a, b), self.gateway(redis) as gateway:
            redis.register("pod-0", a)
            gateway.wait_serving("pod-0_dp0")

            def change():
                redis.register("pod-0", b)
                until(lambda: b.id in gateway.instances()["pod-0_dp0"]["engine"], 10, "it moved")
                gateway.wait_serving("pod-0_dp0")
                self.some_streams(gateway, "there", 3)
            self.while_streams_run(gateway, "here", change)
            self.assertEqual((asked(a), asked(b)), (6, 3))

    def test_one_that_moved_and_whose_old_place_hangs(self):
        with Redis() as redis, engines(3) as (a, b, c), self.gateway(redis, gateway__engine_silence="1s") as gateway:
            redis.register("pod-0", a)
            gateway.wait_serving("pod-0_dp0")
            a.call("/control/settings", {"prefill_ms": 60000})
            stream = Stream(gateway.url, chat("patience", 10), CHAT)

            async def all_of_it():
                running = asyncio.create_task(stream.run(30))
                await until_async(lambda: asked(a) == 1, 10, "the engine was asked")
                redis.register("pod-0", b)
                redis.register("pod-1", c)
                await asyncio.to_thread(gateway.wait_serving, "pod-0_dp0", "pod-1_dp0")
                a.process.send_signal(signal.SIGSTOP)
                await running
            asyncio.run(all_of_it())
            self.assert_whole(stream)
            self.assertEqual(asked(b) + asked(c), 1)

    def test_without_redis_the_list_stays(self):
        with Redis() as redis, engines(2) as (a, b):
            redis.kill()
            with self.gateway(redis) as gateway:  # it need not be there at the start
                errors = self.source(redis, "discovery_errors_total")
                until(lambda: gateway.metrics()[errors] > 0, 10, "the outage is counted")
                self.assertEqual(gateway.metrics()[self.source(redis, "discovery_last_success_timestamp_seconds")], 0)
                redis.start()
                redis.register("pod-0", a)
                gateway.wait_serving("pod-0_dp0")

                def change():
                    before = gateway.metrics()[errors]
                    redis.kill()
                    until(lambda: gateway.metrics()[errors] > before, 10, "the outage is noticed")
                    self.assertEqual(gateway.serving(), ["pod-0_dp0"])
                    self.some_streams(gateway, "without", 3)
                self.while_streams_run(gateway, "before", change)
                redis.start()
                redis.register("pod-1", b)
                redis.register("pod-0", a)
                gateway.wait_serving("pod-0_dp0", "pod-1_dp0")

    def test_a_secret_stays_one(self):
        with Redis() as redis:
            redis.call("CONFIG", "SET", "requirepass", "hunter2")
            with engines(1) as (a,), self.gateway(redis, discovery__redis_password="hunter2") as gateway:
                subprocess.run(["redis-cli", "-p", str(redis.port), "-a", "hunter2", "--no-auth-warning", "-x", "SET", PREFIX + "p"],
                               input=pod_record("p", [instance_record(a)]), capture_output=True, timeout=10)
                gateway.wait_serving("p_dp0")
                self.assertNotIn("hunter2", gateway.stderr())


class Commands(DiscoveryTest):
    def refused(self, *arguments):
        done = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        return done.stderr

    def test_what_a_gateway_is_not_is_said_at_once(self):
        self.assertIn("--host: 0.0.0.0:8001 is off loopback", self.refused("gateway"))
        here = ("gateway", "--host=127.0.0.1")
        self.assertIn("did you mean --llm-backend-discovery?", self.refused(*here, "--llm-backend-discovry", "redis"))
        self.assertIn("--llm-backend-discovery: consul is none of redis, etcd, endpoints",
                      self.refused(*here, "--llm-backend-discovery", "consul"))
        self.assertIn("--tokenizer-path: this build has no tokenizers", self.refused(*here, "-tokenizer-path", "/t"))
        self.assertIn("--route-policy: this build has no routes", self.refused(*here, "--extra-args", "route-policy=prefix"))
        self.assertIn("--llm-backend-endpoints: names no engine", self.refused(*here, "--llm-backend-discovery=endpoints"))
        self.assertIn("discovery.networks: ", self.refused(*here, "--set", "discovery.networks=10.0.0.0/99"))

    def test_up_and_serve_in_front_of_engines(self):
        with engines(2) as (a, b):
            with Cluster("--set", f"gateway.engines={a.url},{b.url}") as cluster:
                self.assertEqual([node["node"] for node in cluster.ready["nodes"]], ["head"])
                until(lambda: all(each["schedulable"] for each in cluster.instances().values()), 10, "both are ready")
                self.assertEqual(sorted(cluster.instances()), sorted([a.id, b.id]))
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(a.id + "\n")
                file.flush()
                with Cluster("--set", f"discovery.files={file.name}") as cluster:
                    self.assertEqual([node["node"] for node in cluster.ready["nodes"]], ["head"])
                    until(lambda: list(cluster.instances()) == [a.id], 10, "the engine is found")
            reading, writing = os.pipe()
            node = subprocess.Popen(
                [PROGRAM, "serve", "--roles", "gateway,cms,console", "--engine", f"{a.url},{b.url}", "--http",
                 "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-fd", str(writing), "--log-level", "warn"],
                stdin=subprocess.DEVNULL, pass_fds=(writing,))
            os.close(writing)
            try:
                with open(reading) as announced:
                    ready = json.loads(announced.readline())
                stream = Stream("http://" + ready["http"], chat("served", 10), CHAT)
                self.run_streams(stream)
                self.assert_whole(stream)
            finally:
                node.terminate()
                self.assertEqual(node.wait(20), 0)


if __name__ == "__main__":
    unittest.main()
