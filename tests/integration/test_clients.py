"""Clients that leave, that do not read, and that speak badly."""

import asyncio
import http.client
import json
import socket
import unittest

import modeled
from cluster import Cluster, ClusterTest, Stream, chat_body, resident_kib, until_async


class Leaving(ClusterTest):
    def test_a_disconnect_frees_slots_and_blocks(self):
        async def act(cluster, whole):
            streams = [Stream(cluster.url, chat_body(f"leave {i}", 5000, stream=not whole)) for i in range(20)]
            for stream in streams:
                await stream.open()
            await until_async(
                lambda: sum(each["scheduling"]["running"] for each in cluster.instances().values()) == 20, 20,
                "all of them run")
            self.assertGreater(sum(each["kv_blocks"]["used"] for each in cluster.instances().values()), 0)
            for stream in streams:
                stream.close()
            await until_async(cluster.is_idle, 3, "slots and blocks are free again")

        with Cluster(engines=2, engine__speed=5) as cluster:
            self.assertTrue(cluster.is_idle())
            for whole in (False, True):
                with self.subTest(whole=whole):
                    asyncio.run(act(cluster, whole))


class SlowReader(ClusterTest):
    TOKENS = 60000  # far more text than the kernel's socket buffers take

    def slow_client(self, cluster):
        host, port = cluster.url.removeprefix("http://").split(":")
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        body = json.dumps(chat_body("slow", self.TOKENS)).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-request-id: slow\r\n"
                       b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return client

    async def others(self, cluster):
        streams = [Stream(cluster.url, chat_body(f"other {i}", 150), request_id=f"other-{i}") for i in range(20)]
        await asyncio.gather(*(stream.run(60) for stream in streams))
        for i, stream in enumerate(streams):
            self.assert_exact(stream, modeled.chat(f"other {i}", 150, ignore_eos=True))

    def produced(self, cluster):
        return next((each["output_tokens"] for each in cluster.requests() if each["id"] == "slow"), None)

    def test_others_go_on_memory_stays_and_it_gets_every_token_in_the_end(self):
        async def act(cluster):
            await self.others(cluster)  # pools and buffers have their size after this
            before = {node["node"]: resident_kib(node["pid"]) for node in cluster.ready["nodes"]}
            with self.slow_client(cluster) as client:
                await until_async(lambda: (self.produced(cluster) or 0) > 0, 20, "the slow stream runs")
                await self.others(cluster)
                last = -1

                def paused():
                    nonlocal last
                    now, last = self.produced(cluster), self.produced(cluster)
                    return now == last

                await until_async(paused, 20, "the engine waits for the reader")
                await self.others(cluster)
                self.assertLess(self.produced(cluster), self.TOKENS)
                for node in cluster.ready["nodes"]:
                    grown = resident_kib(node["pid"]) - before[node["node"]]
                    self.assertLess(grown, 32 * 1024, f"{node['node']} grew by {grown} KiB")
                await asyncio.to_thread(self.read_all, client)

        with Cluster(engines=1, engine__speed=0, engine__blocks=8000, engine__kv_bytes_per_token=16) as cluster:
            asyncio.run(act(cluster))
            cluster.wait_idle()

    def read_all(self, client):
        client.settimeout(60)
        reply = http.client.HTTPResponse(client)
        reply.begin()
        stream = Stream("http://x:0", None, request_id="slow")
        stream.status = reply.status
        for event in reply.read().split(b"\n\n"):
            stream.on_event(event)
        self.assert_exact(stream, modeled.chat("slow", self.TOKENS, ignore_eos=True))

    def test_one_that_never_reads_is_cancelled(self):
        async def act(cluster):
            with self.slow_client(cluster):
                await until_async(lambda: (self.produced(cluster) or 0) > 0, 20, "the slow stream runs")
                await until_async(lambda: self.produced(cluster) is None, 20, "it is cancelled")

        with Cluster(engines=1, engine__speed=0, gateway__stalled_client="3s") as cluster:
            asyncio.run(act(cluster))
            cluster.wait_idle()


class BadRequests(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(engines=1, engine__speed=0, http__max_body_bytes="1MiB")
        cls.addClassCleanup(cls.cluster.close)

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.cluster.url.removeprefix("http://"), timeout=20)
        try:
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply, reply.read()
        finally:
            connection.close()

    def test_errors_have_the_shape_of_openais(self):
        chat, good = "/v1/chat/completions", json.dumps(chat_body("x", 1)).encode()
        deep = b'{"model":"modeled","messages":' + b"[" * 50000 + b"]" * 50000 + b"}"
        rows = (
            ("malformed JSON", 400, "POST", chat, b'{"model": "modeled", '),
            ("no JSON at all", 400, "POST", chat, b"hello"),
            ("empty body", 400, "POST", chat, b""),
            ("a list", 400, "POST", chat, b"[]"),
            ("nesting without end", 400, "POST", chat, deep),
            ("messages missing", 400, "POST", chat, b'{"model": "modeled"}'),
            ("messages of a wrong type", 400, "POST", chat, b'{"model": "modeled", "messages": 5}'),
            ("prompt of a wrong type", 400, "POST", "/v1/completions", b'{"model": "modeled", "prompt": true}'),
            ("unknown model", 404, "POST", chat, json.dumps(chat_body("x", 1, model="gone")).encode()),
            ("unknown path", 404, "POST", "/v1/nonsense", good),
            ("unknown path", 404, "GET", "/nonsense", None),
            ("wrong method", 405, "GET", chat, None),
            ("wrong method", 405, "DELETE", "/v1/completions", None),
            ("wrong method", 405, "POST", "/v1/models", b"{}"),
        )
        for name, status, method, path, body in rows:
            with self.subTest(name, path=path):
                reply, raw = self.ask(method, path, body)
                self.assertEqual(reply.status, status, raw)
                self.assert_error(reply, raw)
                if status == 405:
                    self.assertIn("GET" if path == "/v1/models" else "POST", reply.headers["Allow"])

    def assert_error(self, reply, raw):
        self.assertEqual(reply.headers["Content-Type"].split(";")[0], "application/json")
        self.assertTrue(reply.headers["x-request-id"])
        error = json.loads(raw)["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertTrue(error["message"])

    def test_a_body_too_large_is_413_before_it_is_sent(self):
        connection = http.client.HTTPConnection(self.cluster.url.removeprefix("http://"), timeout=20)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(8 << 20))
        connection.endheaders(b"{")
        reply = connection.getresponse()
        self.assertEqual(reply.status, 413)
        self.assert_error(reply, reply.read())
        connection.close()

    def test_what_is_no_http_does_not_stop_others(self):
        host, port = self.cluster.url.removeprefix("http://").split(":")
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a" * 100_000,
                      b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(noise)
                client.shutdown(socket.SHUT_WR)
                try:
                    answer = client.recv(65536)
                except ConnectionResetError:
                    answer = b""  # closed with our bytes unread
                self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer)
        reply, raw = self.ask("POST", "/v1/chat/completions", json.dumps(chat_body("still here", 3, stream=False)))
        self.assertEqual(json.loads(raw)["choices"][0]["message"]["content"],
                         modeled.chat("still here", 3, ignore_eos=True).text)

    def test_request_ids(self):
        body = json.dumps(chat_body("x", 1, stream=False))
        for sent, kept in (("mine-1.a:b_c", True), ("x" * 128, True), ("x" * 129, False), ("not this one", False)):
            with self.subTest(sent):
                reply, raw = self.ask("POST", "/v1/chat/completions", body,
                                      {"Content-Type": "application/json", "x-request-id": sent})
                self.assertEqual(reply.headers["x-request-id"] == sent, kept)
                self.assertEqual(json.loads(raw)["id"], "chatcmpl-" + reply.headers["x-request-id"])

    def test_health_and_metrics(self):
        for path in ("/health", "/healthz", "/metrics"):
            reply, raw = self.ask("GET", path)
            self.assertEqual(reply.status, 200, path)
            self.assertTrue(reply.headers["x-request-id"], path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
