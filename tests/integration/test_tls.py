"""Node links with mutual TLS: a cluster works over them, and strangers stay outside."""

import os
import pathlib
import signal
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
                import asyncio
                running = asyncio.create_task(stream.run(60))
                await asyncio.sleep(0)
                while not any(each["output_tokens"] > 3 for each in await asyncio.to_thread(cluster.requests)):
                    await asyncio.sleep(0.02)
                owner = (await asyncio.to_thread(cluster.requests))[0]["instance"]
                os.kill(cluster.pid(owner), signal.SIGKILL)
                await running

            import asyncio
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

    def test_half_a_tls_configuration_is_refused(self):
        done = subprocess.run(
            [PROGRAM, "serve", "--name", "x", "--roles", "llumlet", "--admin", "127.0.0.1:0",
             "--set", f"node.tls_certificate={self.ours['node__tls_certificate']}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 2)
        self.assertIn("node.tls", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
