"""Scripts and schedulers of other makes drive our llumlets over gRPC, as Llumnix v1 does with its own."""

import asyncio
import concurrent.futures
import os
import signal
import socket
import subprocess
import time
import unittest
import urllib.request

import grpc

import modeled
from cluster import PROGRAM, Cluster, ClusterTest, Stream, chat_body, free_port, until, until_async
from llumlet_rpc import call, cms, migrate, rpc
from test_migration import MigrationTest, places, post
from test_redis_mirror import METADATA, port_of

TOKENS = 500
PROMPTS = {"b": 3000, "a": 10, "d": 6000, "c": 1000}  # in order of arrival
COUNTS = " accepted={} rejected={} failed={}"


def grpc_addresses(cluster):
    return {node["node"]: node["grpc"] for node in cluster.ready["nodes"] if "grpc" in node}


class GrpcTest(MigrationTest):
    knobs = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(engines=2, engine__speed=5, llumlet__grpc="127.0.0.1:0", engine__blocks=2048, **cls.knobs)
        cls.addClassCleanup(cls.cluster.close)
        cls.addresses = grpc_addresses(cls.cluster)
        cls.channels = {name: grpc.insecure_channel(address) for name, address in cls.addresses.items()}
        for channel in cls.channels.values():
            cls.addClassCleanup(channel.close)

        def linked(source, destination):
            return "is known" not in migrate(cls.channels[source], source, destination, num_reqs=0)[2]

        # Engines find each other a moment after the head found them.
        until(lambda: linked("engine-0", "engine-1") and linked("engine-1", "engine-0"), 20, "engines know each other")

    def tearDown(self):
        self.wait_quiet(self.cluster)

    def migrate(self, source, destination, **order):
        return migrate(self.channels[source], source, destination, **order)

    def on_engine_0(self, act, prompts=None, tokens=TOKENS, started=lambda stream: stream.pieces > 0):
        """Streams that all begin at engine-0, in order; `act` gets their ids. Each must come out exact."""
        prompts = prompts or PROMPTS
        self.serial = getattr(self, "serial", 0) + 1
        names = {short: f"{self.id().rsplit('.', 1)[1]}-{self.serial}-{short}" for short in prompts}

        async def go():
            status, _ = await asyncio.to_thread(post, self.cluster, "/admin/v1/instances/engine-1/drain?timeout=30s")
            self.assertEqual(status, 200)
            streams, runs = {}, []
            for short, length in prompts.items():
                content = (names[short] + " ").ljust(length, "x")
                stream = streams[short] = Stream(self.cluster.url, chat_body(content, tokens), request_id=names[short])
                stream.content = content
                runs.append(asyncio.create_task(stream.run()))
                await until_async(
                    lambda: started(stream) or stream.broken or stream.error
                    or places(self.cluster).get(names[short]) == "engine-0" and self.waiting_allowed, 30, "it runs")
            await until_async(lambda: set(places(self.cluster).values()) == {"engine-0"}, 10, "all are there")
            status, _ = await asyncio.to_thread(post, self.cluster, "/admin/v1/instances/engine-1/undrain")
            self.assertEqual(status, 200)
            await until_async(lambda: self.cluster.instances()["engine-1"]["state"] == "ready", 10, "it is ready")
            result = await asyncio.to_thread(act, names)
            await asyncio.gather(*runs)
            return streams, result

        streams, result = asyncio.run(go())
        for stream in streams.values():
            self.assert_exact(stream, modeled.chat(stream.content, tokens, ignore_eos=True))
        return result

    waiting_allowed = False

    def moved(self, names, wanted):
        """Those are at engine-1 soon, and no others."""
        def there():
            at = places(self.cluster)
            return {short for short, name in names.items() if at.get(name) == "engine-1"}

        until(lambda: there() == set(wanted), 10, f"{wanted} moved; {there()} did")


class Moves(GrpcTest):
    def test_what_is_chosen_moves_and_nothing_else(self):
        for order, amount, wanted in (
                ("SR", {"num_reqs": 2}, "ac"),
                ("LR", {"num_reqs": 1}, "d"),
                ("LCR", {"num_reqs": 1}, "c"),
                ("FCR", {"num_reqs": 1}, "b"),
                ("SR", {"num_tokens": 2000}, "ac"),
                ("LR", {"num_tokens": 2000}, "ac"),
                ("FCR", {"num_tokens": 3950}, "ba"),  # d and c are more than is left
                ("SR", {"kv_cache_usage_ratio": 2000 / (2048 * 16)}, "ac"),
                ("LR", {"num_reqs": -1}, "abcd")):
            with self.subTest(order=order, **amount):
                def act(names):
                    self.assertEqual(
                        self.migrate("engine-0", "engine-1", order=order, **amount),
                        ("OK", True, f"migrate requests from engine-0 to engine-1;{COUNTS.format(len(wanted), 0, 0)}"))
                    self.moved(names, wanted)
                    return names

                names = self.on_engine_0(act)
                for short in names:
                    kinds = [event["kind"] for event in self.cluster.why(names[short])["events"]]
                    self.assertEqual(kinds.count("moved"), 1 if short in wanted else 0, kinds)
                    self.assertNotIn("replayed", kinds)

    def test_every_trigger_policy_is_taken_and_told(self):
        for trigger, told in (
                ("", "grpc"), ("neutral_load", "neutral_load"), ("DECODE_LOAD", "decode_load"),
                ("prefill_failover", "prefill_failover"), ("DECODE_FAILOVER", "decode_failover"),
                ("neutral_failover", "neutral_failover"), ("binpacking_mitigation", "binpacking_mitigation"),
                ("binpacking_consolidation", "binpacking_consolidation"),
                ("AGGREGATE_DECODE_REQUESTS_ON_PREFILL", "aggregate_decode_requests_on_prefill")):
            with self.subTest(trigger):
                def act(names):
                    code, success, message = self.migrate("engine-0", "engine-1", num_reqs=1, trigger=trigger)
                    self.assertEqual((code, success), ("OK", True), message)
                    self.moved(names, "a")
                    return names["a"]

                name = self.on_engine_0(act, {"a": 50}, 200)
                self.assertIn(told, str(self.cluster.why(name)["events"]))

    def test_a_destination_is_named_by_its_address_too(self):
        ip, port = self.addresses["engine-1"].rsplit(":", 1)
        own_ip, own_port = self.addresses["engine-0"].rsplit(":", 1)

        def act(names):
            for destination, at, wanted in (
                    ("engine-1", (own_ip, int(own_port)), "INVALID_ARGUMENT"), ("", (ip, 1), "OK"), ("", ("", 0), "INVALID_ARGUMENT")):
                code, success, message = migrate(
                    self.channels["engine-0"], "engine-0", destination, num_reqs=1, ip=at[0], port=at[1])
                self.assertEqual((code, success), (wanted, False), message)
            code, success, message = migrate(
                self.channels["engine-0"], "engine-0", "", num_reqs=1, ip=ip, port=int(port))
            self.assertEqual((code, success), ("OK", True), message)
            self.moved(names, "a")

        self.on_engine_0(act, {"a": 10, "b": 500}, 300)

    def test_what_cannot_be_is_told_by_code_and_sentence(self):
        def act(names):
            none = COUNTS.format(0, 0, 0).strip()
            for order, code, told in (
                    ({"destination": "engine-7", "num_reqs": 1}, "OK", 'no instance "engine-7" is known; ' + none),
                    ({"destination": "engine-0", "num_reqs": 1}, "INVALID_ARGUMENT", "it is there already; " + none),
                    ({"num_reqs": 0}, "OK", "the engine core of engine-0 cannot find expected requests; " + none),
                    ({"num_tokens": 3}, "OK", "the engine core of engine-0 cannot find expected requests; " + none),
                    ({"num_reqs": 5}, "RESOURCE_EXHAUSTED", "5 may have to leave, slots for 4 are free; " + none),
                    ({"num_reqs": 1, "kind": "TOKEN"}, "INVALID_ARGUMENT", "migration_type TOKEN wants num_tokens"),
                    ({"num_reqs": 1, "kind": "ALL"}, "INVALID_ARGUMENT", 'migration_type "ALL" is none of NUM_REQ, TOKEN, RATIO'),
                    ({"kv_cache_usage_ratio": float("nan")}, "INVALID_ARGUMENT", "kv_cache_usage_ratio is no finite number"),
                    ({"num_reqs": 1, "order": "BOGUS"}, "INVALID_ARGUMENT",
                     'migration_req_policy "BOGUS" is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR'),
                    ({"num_reqs": 1, "order": ""}, "INVALID_ARGUMENT",
                     'migration_req_policy "" is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR'),
                    ({"num_reqs": 1, "port": 70000}, "INVALID_ARGUMENT", "dst_engine_port 70000 is no port"),
                    ({"num_reqs": 1, "trigger": "x" * 300}, "INVALID_ARGUMENT", "trigger_policy has 300 bytes; 256 are the most"),
                    ({"num_reqs": 1, "op": "k" * 300}, "INVALID_ARGUMENT", "llumnix-op-id has more than 256 bytes")):
                with self.subTest(**order):
                    given = {"destination": "engine-1", **order}
                    self.assertEqual(self.migrate("engine-0", **given), (code, False, told))
            self.assertEqual(
                migrate(self.channels["engine-0"], "engine-1", "engine-0", num_reqs=1),
                ("INVALID_ARGUMENT", False, 'src_engine_id "engine-1" is not here; this llumlet speaks for engine-0'))
            self.assertEqual(set(places(self.cluster).values()), {"engine-0"})

        self.on_engine_0(act, {"a": 10}, 400)
        code, success, message = self.migrate("engine-0", "engine-1", num_reqs=1)
        self.assertEqual((code, success), ("OK", False), message)

    def test_bytes_that_are_no_request_harm_nobody(self):
        channel = self.channels["engine-0"]
        for body, code in (
                # As gRPC's own service code says it.
                (b"\xff" * 20, "UNIMPLEMENTED"), (b"\x0a\x7fshort", "UNIMPLEMENTED"), (b"\x0a\x02\xff\xfe", "UNIMPLEMENTED"),
                (b"", "INVALID_ARGUMENT"), (b"\x0a" + b"\xff" * 9 + b"\x01", "UNIMPLEMENTED"),
                (rpc.MigrateRequest(src_engine_id="x" * 300_000).SerializeToString(), "RESOURCE_EXHAUSTED")):
            with self.subTest(body[:20]):
                got, success, message = call(channel, "Migrate", body)
                self.assertEqual((got, success), (code, False), message)
        ip, port = self.addresses["engine-0"].rsplit(":", 1)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, b"\x00" * 100):
            with socket.create_connection((ip, int(port)), timeout=10) as raw:
                raw.sendall(words)
        got, success, message = call(channel, "Migrate", rpc.MigrateRequest(), big="x" * 20_000)
        self.assertNotEqual(got, "OK")
        # gRPC may have closed that caller's connection; the next one is as good as ever.
        until(lambda: self.migrate("engine-0", "engine-1", num_reqs=1)[0] == "OK", 20, "it is served again")

    def test_calls_between_engines_of_other_makes_are_declined(self):
        channel = self.channels["engine-0"]
        for method, request in (
                ("MigrateIn", rpc.MigrateInRequest(serialized_migrate_req=b"\x80\x04.", serialization_format="pickle")),
                ("AbortMigrateIn", rpc.AbortMigrateInRequest(request_ids=["x"])),
                ("PushInstanceStatus", cms.InstanceStatus(instance_id="engine-0"))):
            code, _, message = call(channel, method, request)
            self.assertEqual(code, "UNIMPLEMENTED")
            self.assertGreater(len(message), 20)

    def test_a_key_is_one_call(self):
        def act(names):
            first = self.migrate("engine-0", "engine-1", num_reqs=1, op="once")
            self.assertEqual(first[:2], ("OK", True), first)
            self.moved(names, "a")
            for _ in range(3):
                self.assertEqual(self.migrate("engine-0", "engine-1", num_reqs=1, op="once"), first)
            other = self.migrate("engine-0", "engine-1", num_reqs=2, op="once")
            self.assertEqual(other, ("INVALID_ARGUMENT", False, "llumnix-op-id is that of another call: once"))
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = set(pool.map(
                    lambda _: self.migrate("engine-0", "engine-1", num_reqs=1, op="together"), range(8)))
            self.assertEqual(len(answers), 1, answers)
            self.moved(names, "ab")

        self.on_engine_0(act, {"a": 10, "b": 500, "c": 1500}, 400)

    def test_a_hundred_calls_at_once_move_each_request_once(self):
        def act(names):
            with concurrent.futures.ThreadPoolExecutor(100) as pool:
                answers = list(pool.map(lambda _: self.migrate("engine-0", "engine-1", num_reqs=1), range(100)))
            self.assertLessEqual({code for code, _, _ in answers}, {"OK", "RESOURCE_EXHAUSTED"}, answers)
            accepted = sum(success for _, success, _ in answers)
            self.assertTrue(1 <= accepted <= 4, answers)
            return accepted, names

        accepted, names = self.on_engine_0(act)
        moves = [[event["kind"] for event in self.cluster.why(name)["events"]].count("moved") for name in names.values()]
        self.assertLessEqual(max(moves), 1)
        self.assertTrue(1 <= sum(moves) <= accepted, (moves, accepted))

    def test_an_abort_ends_the_request_for_its_client(self):
        async def go():
            streams = [Stream(self.cluster.url, chat_body(f"end {i}", 5000), request_id=f"end-{i}") for i in range(3)]
            runs = [asyncio.create_task(stream.run()) for stream in streams]
            await until_async(lambda: all(stream.pieces > 3 for stream in streams), 30, "they run")
            at = await asyncio.to_thread(places, self.cluster)
            for i, form in enumerate(("end-0", "chatcmpl-end-1", "cmpl-end-2-0")):
                other = "engine-1" if at[f"end-{i}"] == "engine-0" else "engine-0"
                for where in (other, at[f"end-{i}"]):  # where it is not, nothing happens
                    reply = await asyncio.to_thread(
                        call, self.channels[where], "Abort", rpc.AbortRequests(request_ids=[form, "nobody"]))
                    self.assertEqual(reply, ("OK", True, "abort 2 requests"))
                await asyncio.wait_for(runs[i], 10)
                self.assertEqual(streams[i].error["code"], "cancelled")
            self.assertEqual(await asyncio.to_thread(places, self.cluster), {})

        asyncio.run(go())


class Waiting(GrpcTest):
    knobs = {"engine__max_num_seqs": 2}
    waiting_allowed = True

    def test_waiting_requests_move_first(self):
        for order, count, wanted in (("FCW", 1, "d"), ("FCW", 3, "dc"), ("FCWSR", 3, "dca")):
            with self.subTest(order=order, count=count):
                def act(names):
                    until(lambda: self.cluster.instances()["engine-0"]["scheduling"] == {"running": 2, "waiting": 2},
                          10, "two run and two wait")
                    code, success, message = self.migrate("engine-0", "engine-1", order=order, num_reqs=count)
                    self.assertEqual((code, success), ("OK", True), message)
                    self.moved(names, wanted)

                self.on_engine_0(act)


class Silent(GrpcTest):
    """Destinations that stand still, and are not given up."""
    knobs = {"migration__out_slots": 1, "migration__offer_timeout": "20s", "node__connection_timeout": "60s",
             "gateway__silence": "60s", "migration__headroom_tokens": 2000}  # what it generates meanwhile has room

    def while_silent(self, act, prompts):
        def silently(names):
            os.kill(self.cluster.pid("engine-1"), signal.SIGSTOP)
            try:
                act(names)
            finally:
                os.kill(self.cluster.pid("engine-1"), signal.SIGCONT)
            self.moved(names, "a")

        self.on_engine_0(silently, prompts, 1500)

    def timed(self, **order):
        began = time.monotonic()
        return self.migrate("engine-0", "engine-1", **order), time.monotonic() - began

    def test_time_is_up_for_the_caller_and_the_move_goes_on(self):
        def act(names):
            (code, _, message), took = self.timed(num_reqs=1, seconds=1, op="late")
            self.assertEqual((code, took < 2), ("DEADLINE_EXCEEDED", True), (message, took))
            # It has the only slot.
            told = "1 may have to leave, slots for 0 are free; accepted=0 rejected=0 failed=0"
            for amount in ({"num_reqs": 1}, {"num_tokens": 10_000}, {"kv_cache_usage_ratio": 1}):
                self.assertEqual(self.migrate("engine-0", "engine-1", **amount), ("RESOURCE_EXHAUSTED", False, told))
            # The same key is the same call, which has waited once already.
            (code, _, message), took = self.timed(num_reqs=1, op="late")
            self.assertEqual((code, took < 1), ("DEADLINE_EXCEEDED", True), message)
            self.assertIn("waiting=1", message)

        self.while_silent(act, {"a": 10, "b": 500})

    def test_the_service_has_a_limit_of_its_own(self):
        def act(names):
            (code, _, message), took = self.timed(num_reqs=1, seconds=30)
            self.assertEqual(code, "DEADLINE_EXCEEDED", message)
            self.assertEqual(
                message, "engine-1 has not answered yet, and what was chosen still may move; "
                         "accepted=0 rejected=0 failed=0 waiting=1")
            self.assertTrue(4.5 < took < 6.5, took)
            # Whoever wants all gone joins it.
            self.assertEqual(
                self.migrate("engine-0", "engine-1", num_reqs=-1, trigger="neutral_failover"),
                ("OK", True, "engine-0 is being emptied already; accepted=0 rejected=0 failed=0 joined=1"))

        self.while_silent(act, {"a": 10})

    def test_a_caller_that_goes_away_leaves_no_call_behind(self):
        def act(names):
            ask = self.channels["engine-0"].unary_unary(
                "/llumlet.Llumlet/Migrate", request_serializer=rpc.MigrateRequest.SerializeToString,
                response_deserializer=rpc.MigrateResponse.FromString)
            wanted = rpc.MigrateRequest(
                src_engine_id="engine-0", dst_engine_id="engine-1", migration_type="NUM_REQ", num_reqs=1,
                migration_req_policy="SR")
            calls = [ask.future(wanted, timeout=60) for _ in range(50)]
            until(lambda: self.cluster.instances()["engine-0"]["migrations"]["out"] == 1, 10, "one is offered")
            for each in calls:
                each.cancel()
            self.assertEqual(self.migrate("engine-0", "engine-1", num_reqs=1)[0], "RESOURCE_EXHAUSTED")

        self.while_silent(act, {"a": 10})


class Closed(ClusterTest):
    def run_serve(self, *settings):
        arguments = [part for setting in settings for part in ("--set", setting)]
        return subprocess.run(
            [PROGRAM, "serve", "--name", "x", "--roles", "llumlet", "--listen", "127.0.0.1:0", *arguments],
            capture_output=True, text=True, timeout=30)

    def test_off_loopback_it_wants_a_key(self):
        done = self.run_serve("llumlet.grpc=0.0.0.0:0")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("llumlet.grpc: 0.0.0.0:0 is off loopback; set llumlet.grpc_key", done.stderr)

    def test_a_port_that_is_taken_is_told(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = self.run_serve(f"llumlet.grpc={address}", "admin.listen=")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(done.stderr, f"llumnix: llumlet.grpc: {address} cannot be listened on\n")

    def test_who_has_no_key_moves_nothing(self):
        with Cluster(engines=1, llumlet__grpc="127.0.0.1:0", llumlet__grpc_key="open-sesame") as cluster:
            with grpc.insecure_channel(grpc_addresses(cluster)["engine-0"]) as channel:
                request = rpc.MigrateRequest(
                    src_engine_id="engine-0", dst_engine_id="engine-1", migration_type="NUM_REQ", num_reqs=1,
                    migration_req_policy="SR")
                for given in ({}, {"authorization": "Bearer open"}, {"authorization": "open-sesame"}):
                    for method, body in (("Migrate", request), ("Abort", rpc.AbortRequests(request_ids=["x"]))):
                        self.assertEqual(call(channel, method, body, **given)[0], "UNAUTHENTICATED")
                self.assertEqual(call(channel, "Migrate", request, authorization="Bearer open-sesame")[0], "OK")

    def test_a_node_that_stops_answers_what_is_under_way(self):
        with Cluster("--drain", "0s", engines=2, engine__speed=2, migration__offer_timeout="20s",
                     node__connection_timeout="60s", llumlet__grpc="127.0.0.1:0") as cluster:
            async def go():
                stream = Stream(cluster.url, chat_body("stop", 3000), request_id="stop")
                run = asyncio.create_task(stream.run())
                await until_async(lambda: stream.pieces > 3, 30, "it runs")
                at = (await asyncio.to_thread(places, cluster))["stop"]
                other = "engine-1" if at == "engine-0" else "engine-0"
                os.kill(cluster.pid(other), signal.SIGSTOP)
                with grpc.insecure_channel(grpc_addresses(cluster)[at]) as channel:
                    caller = asyncio.create_task(
                        asyncio.to_thread(migrate, channel, at, other, num_reqs=1, seconds=60))
                    await until_async(lambda: cluster.instances()[at]["migrations"]["out"] == 1, 10, "it is offered")
                    began = time.monotonic()
                    os.kill(cluster.pid(at), signal.SIGTERM)
                    answer = await caller
                    self.assertEqual(
                        answer, ("UNAVAILABLE", False, "the node stops; what was chosen goes on"))
                    self.assertLess(time.monotonic() - began, 1.5)
                os.kill(cluster.pid(other), signal.SIGCONT)
                await asyncio.to_thread(cluster.wait_event, 30, event="node_restarted", node=at)
                await run
                self.assert_exact(stream, modeled.chat("stop", 3000, ignore_eos=True))

            asyncio.run(go())

    def test_calls_are_counted_and_a_node_with_callers_ends(self):
        calls, admin = free_port(), free_port()
        node = subprocess.Popen(
            [PROGRAM, "serve", "--name", "x", "--roles", "llumlet", "--listen", "127.0.0.1:0", "--admin",
             f"127.0.0.1:{admin}", "--set", f"llumlet.grpc=127.0.0.1:{calls}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            def metrics():
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as reply:
                    return reply.read().decode().splitlines()

            with grpc.insecure_channel(f"127.0.0.1:{calls}") as channel:
                grpc.channel_ready_future(channel).result(timeout=20)
                until(lambda: migrate(channel, "x", "x", num_reqs=1)[0] == "INVALID_ARGUMENT", 10, "it is there")
                self.assertEqual(migrate(channel, "x", "y", num_reqs=1)[:2], ("OK", False))
                call(channel, "Abort", rpc.AbortRequests())
                call(channel, "MigrateIn", rpc.MigrateInRequest())
                lines = metrics()
                self.assertIn('llumnix_llumlet_calls_total{method="Abort"} 1', lines)
                self.assertIn('llumnix_llumlet_calls_ended_total{code="0"} 2', lines)
                self.assertIn('llumnix_llumlet_calls_ended_total{code="12"} 1', lines)
                self.assertIn("llumnix_llumlet_calls_open 0", lines)
                began = time.monotonic()
                node.send_signal(signal.SIGTERM)
                self.assertEqual(node.wait(20), 0)
                self.assertLess(time.monotonic() - began, 3)
        finally:
            node.kill()
            node.wait()


class Records(ClusterTest):
    def test_the_cms_says_where_it_is(self):
        with Cluster("--redis", "spawn", engines=2, llumlet__grpc="127.0.0.1:0") as cluster:
            port = port_of(cluster.ready["redis"])
            for name, address in grpc_addresses(cluster).items():
                def record():
                    raw = subprocess.run(
                        ["redis-cli", "-p", str(port), "--no-raw", "EXISTS", METADATA + name], capture_output=True, text=True)
                    return "1" in raw.stdout

                until(record, 10, "its record")
                with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                    key = METADATA + name
                    raw.sendall(f"*2\r\n$3\r\nGET\r\n${len(key)}\r\n{key}\r\n".encode())
                    reader = raw.makefile("rb")
                    data = reader.read(int(reader.readline()[1:]))
                metadata = cms.InstanceMetadata.FromString(data)
                self.assertEqual(f"{metadata.ip}:{metadata.llumlet_port}", address)
                self.assertEqual((metadata.ip_kvs, metadata.kvt_port), (metadata.ip, metadata.llumlet_port))
            # As a scheduler would: everything it needs is in the records.
            with grpc.insecure_channel(grpc_addresses(cluster)["engine-0"]) as channel:
                code, success, message = migrate(
                    channel, "engine-0", "engine-1", ip=metadata.ip_kvs, port=metadata.kvt_port, num_tokens=1024,
                    trigger="neutral_load")
                self.assertEqual((code, success), ("OK", False), message)


if __name__ == "__main__":
    unittest.main()
