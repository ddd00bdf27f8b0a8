"""Node links with mutual TLS: a cluster works over them, and strangers stay outside."""

import asyncio
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import unittest

import modeled
from cluster import PROGRAM, Cluster, ClusterTest, Stream, chat_body, until


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder, name):
    """A certificate authority and one node certificate of it, as the three PEM files a node wants."""
    at = pathlib.Path(folder, name)
    at.mkdir()
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/ca.key", "-out", f"{at}/ca.pem",
            "-days", "2", "-subj", f"/CN={name}")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/node.key", "-out", f"{at}/node.csr",
            "-subj", "/CN=node")
    openssl("x509", "-req", "-in", f"{at}/node.csr", "-CA", f"{at}/ca.pem", "-CAkey", f"{at}/ca.key",
            "-CAcreateserial", "-out", f"{at}/node.pem", "-days", "2")
    return {"node__tls_certificate": f"{at}/node.pem", "node__tls_key": f"{at}/node.key", "node__tls_ca": f"{at}/ca.pem"}


class Tls(ClusterTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.ours = authority(self.folder.name, "ours")

    def joiner(self, seed, name, knobs):
        settings = [part for key, value in knobs.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
        process = subprocess.Popen(
            [PROGRAM, "serve", "--name", name, "--roles", "llumlet", "--listen", "127.0.0.1:0", "--seeds", seed,
             "--admin", "127.0.0.1:0", *settings], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.kill)
        return process

    def refusals(self, process):
        """Reads the node's log until it says that a dial failed."""
        os.set_blocking(process.stderr.fileno(), False)
        text = b""

        def failed():
            nonlocal text
            text += process.stderr.read() or b""
            return b"dial-failed" in text

        until(failed, 20, "the stranger is turned away")

    def test_a_cluster_over_tls_serves_and_survives_a_kill(self):
        with Cluster(engines=2, engine__speed=5, **self.ours) as cluster:
            stream = Stream(cluster.url, chat_body("over TLS", 300), request_id="tls")

            async def act():
                running = asyncio.create_task(stream.run(60))
                await asyncio.sleep(0)
                while not any(each["output_tokens"] > 3 for each in await asyncio.to_thread(cluster.requests)):
                    await asyncio.sleep(0.02)
                owner = (await asyncio.to_thread(cluster.requests))[0]["instance"]
                os.kill(cluster.pid(owner), signal.SIGKILL)
                await running

            asyncio.run(asyncio.wait_for(act(), 60))
            self.assert_exact(stream, modeled.chat("over TLS", 300, ignore_eos=True))

    def test_strangers_are_turned_away(self):
        theirs = authority(self.folder.name, "theirs")
        with Cluster(engines=1, **self.ours) as cluster:
            seed = next(node["address"] for node in cluster.admin_get("/admin/v1/cluster")["nodes"]
                        if node["node"] == "head")
            for name, knobs in (("plain", {}), ("foreign", theirs)):
                with self.subTest(name):
                    self.refusals(self.joiner(seed, name, knobs))
                    self.assertNotIn(name, cluster.instances())
            self.joiner(seed, "friend", self.ours)
            until(lambda: "friend" in cluster.instances(), 20, "a node with a certificate of ours joins")

    def test_plain_connections_to_a_tls_listener_leave_its_links_up(self):
        noise = random.Random(1).randbytes(500)
        with Cluster(engines=2, node__connection_timeout="5s", **self.ours) as cluster:
            port = int(next(node["address"] for node in cluster.admin_get("/admin/v1/cluster")["nodes"]
                            if node["node"] == "head").rsplit(":", 1)[1])
            for number in range(60):
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall((b"hello", b"GET / HTTP/1.1\r\n\r\n", noise, b"", b"\x16\x03\x01" + noise)[number % 5])
                stream = Stream(cluster.url, chat_body(f"beside {number}", 2)) if number % 10 == 0 else None
                if stream:
                    asyncio.run(stream.run(20))
                    self.assert_exact(stream, modeled.chat(f"beside {number}", 2, ignore_eos=True))
            self.assertEqual(cluster.stderr(), "")
            self.assertEqual([each["state"] for each in cluster.instances().values()], ["ready", "ready"])

    def serve(self, **knobs):
        settings = [part for key, value in knobs.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
        return subprocess.run(
            [PROGRAM, "serve", "--name", "x", "--roles", "llumlet", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
             *settings], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)

    def test_half_a_tls_configuration_is_refused(self):
        done = self.serve(node__tls_certificate=self.ours["node__tls_certificate"])
        self.assertEqual(done.returncode, 2)
        self.assertIn("node.tls", done.stderr)

    def test_files_that_cannot_work_are_refused_with_one_line(self):
        theirs = authority(self.folder.name, "theirs")
        at = pathlib.Path(self.folder.name)
        (at / "noise.pem").write_bytes(random.Random(2).randbytes(300))
        (at / "empty.pem").touch()
        openssl("rsa", "-aes128", "-passout", "pass:secret", "-in", self.ours["node__tls_key"], "-out", f"{at}/locked.key")
        openssl("x509", "-req", "-in", f"{at}/ours/node.csr", "-CA", f"{at}/ours/ca.pem", "-CAkey", f"{at}/ours/ca.key",
                "-CAcreateserial", "-out", f"{at}/expired.pem", "-days", "-1")
        certificate, key, ca = "node__tls_certificate", "node__tls_key", "node__tls_ca"
        for knob, file, told, others in (
                (certificate, at / "nowhere.pem", "No such file", {}),
                (key, at / "nowhere.key", "No such file", {}),
                (ca, at / "nowhere.pem", "No such file", {}),
                (certificate, at / "noise.pem", "no PEM certificate", {}),
                (key, at / "empty.pem", "no PEM key", {}),
                (ca, at / "empty.pem", "no PEM certificates", {}),
                (key, self.ours[certificate], "no PEM key", {}),
                (key, theirs[key], "belongs to another certificate", {}),
                (key, at / "locked.key", "encrypted", {}),
                (certificate, at / "expired.pem", "expired", {}),
                (certificate, theirs[certificate], "issuer", {key: theirs[key]})):
            with self.subTest(knob=knob, file=str(file)):
                done = self.serve(**{**self.ours, **others, knob: file})
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                for words in (knob.replace("__", "."), str(file), told):
                    self.assertIn(words, done.stderr)

    def test_files_that_break_later_cost_new_links_and_not_the_node(self):
        with Cluster(engines=1, **self.ours) as cluster:
            held = pathlib.Path(self.ours["node__tls_certificate"])
            good = held.read_bytes()
            held.write_bytes(good[:100])
            pid = cluster.pid("engine-0")
            os.kill(pid, signal.SIGSTOP)  # its links are lost, and it dials again
            until(lambda: "peer-down" in cluster.stderr(), 20, "the head misses it")
            os.kill(pid, signal.SIGCONT)
            until(lambda: "tls-files" in cluster.stderr(), 20, "somebody says that the files cannot be used")
            held.write_bytes(good)
            until(lambda: cluster.instances()["engine-0"]["state"] == "ready", 20, "the link is back")
            self.assertEqual(cluster.instances()["engine-0"]["incarnation"], 1)
            self.assertIn("peer-back: engine-0 (incarnation 1)", cluster.stderr())


if __name__ == "__main__":
    unittest.main(verbosity=2)
