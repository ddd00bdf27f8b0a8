"""The cluster's records in Redis, and that nothing depends on Redis being there."""

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import unittest

import modeled
from cluster import MARK, Cluster, ClusterTest, Stream, chat_body, free_port, until, until_async

METADATA, STATUS = "llumnix:instance_metadata:", "llumnix:instance_status:"


def redis_cli(port, *command):
    # Records are binary: every byte is a character here, so that two records are equal only if they are.
    done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, encoding="latin-1", timeout=10)
    return done.stdout if done.returncode == 0 and "Could not connect" not in done.stderr else None


def keys(port):
    return set((redis_cli(port, "KEYS", "llumnix:*") or "").split())


def wanted_keys(engines):
    return {prefix + f"engine-{number}" for number in range(engines) for prefix in (METADATA, STATUS)}


def port_of(address):
    return int(re.search(r":(\d+)/?$", address)[1])


async def exact_streams(test, cluster, name, count, tokens, during):
    streams = [Stream(cluster.url, chat_body(f"{name} {i}", tokens), request_id=f"{name}-{i}") for i in range(count)]
    runs = [asyncio.create_task(stream.run()) for stream in streams]
    await until_async(lambda: all(s.pieces > 5 or s.broken for s in streams), 30, "streams run")
    await during()
    test.assertFalse(all(s.done for s in streams), "streams ended too soon to show anything: raise their length")
    await asyncio.gather(*runs)
    for i, stream in enumerate(streams):
        test.assert_exact(stream, modeled.chat(f"{name} {i}", tokens, ignore_eos=True))


class Spawned(ClusterTest):
    def test_records_appear_live_and_expire(self):
        with Cluster("--redis", "spawn", engines=2) as cluster:
            port = port_of(cluster.ready["redis"])
            until(lambda: keys(port) >= wanted_keys(2), 10, "both records of both instances")
            for key in wanted_keys(2):
                self.assertEqual(redis_cli(port, "TYPE", key).strip(), "string")
                self.assertTrue(0 < int(redis_cli(port, "TTL", key)) <= 100, key)
            self.assertIn("engine-0", redis_cli(port, "GET", METADATA + "engine-0"))
            first = redis_cli(port, "GET", STATUS + "engine-0")
            until(lambda: redis_cli(port, "GET", STATUS + "engine-0") != first, 10, "the status is kept fresh")

    def test_a_killed_redis_loses_nothing_and_comes_back(self):
        with Cluster("--redis", "spawn", engines=2, engine__speed=2) as cluster:
            port = port_of(cluster.ready["redis"])
            until(lambda: keys(port) >= wanted_keys(2), 10, "records")

            async def kill():
                pid = int(re.search(r"process_id:(\d+)", redis_cli(port, "INFO", "server"))[1])
                os.kill(pid, signal.SIGKILL)
                await until_async(lambda: redis_cli(port, "PING") == "PONG\n", 20, "Redis is back")

            asyncio.run(exact_streams(self, cluster, "redis", 40, 300, kill))
            until(lambda: keys(port) >= wanted_keys(2), 30, "the records are written again")
            self.assertEqual({each["state"] for each in cluster.instances().values()}, {"ready"})

    def test_a_killed_head_serves_again(self):
        with Cluster("--redis", "spawn", engines=2, engine__speed=10) as cluster:
            os.kill(cluster.pid("head"), signal.SIGKILL)
            cluster.wait_event(60, event="node_restarted", node="head")

            def serving():
                try:
                    stream = asyncio.run(Stream(cluster.url, chat_body("back", 20)).run(10))
                except OSError:
                    return False
                return stream.done and stream.text == modeled.chat("back", 20, ignore_eos=True).text

            until(serving, 30, "the new head serves")
            until(lambda: len([i for i in cluster.instances().values() if i["state"] == "ready"]) == 2, 30, "instances")
            until(lambda: keys(port_of(cluster.ready["redis"])) >= wanted_keys(2), 10, "the records of both")


class External(ClusterTest):
    """A Redis that is not `up`'s: the test starts, kills and restarts it."""

    def start(self, port, mark):
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
             self.directory.name], stdout=subprocess.DEVNULL, env={**os.environ, MARK: mark})
        self.addCleanup(lambda: (server.kill(), server.wait()))
        until(lambda: redis_cli(port, "PING") == "PONG\n", 10, "redis-server answers")
        return server

    def test_loss_and_return_under_load(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        port = free_port()
        server = self.start(port, "external")
        with Cluster("--redis", f"127.0.0.1:{port}", engines=2, engine__speed=2) as cluster:
            until(lambda: keys(port) >= wanted_keys(2), 10, "records")

            async def kill():
                server.kill()
                server.wait()

            asyncio.run(exact_streams(self, cluster, "alone", 30, 250, kill))
            self.assertEqual({each["state"] for each in cluster.instances().values()}, {"ready"})
            self.start(port, "external")
            until(lambda: keys(port) >= wanted_keys(2), 30, "the records are written again")

    def test_a_cluster_starts_without_its_redis(self):
        with Cluster("--redis", f"127.0.0.1:{free_port()}", engines=1, engine__speed=10) as cluster:
            stream = asyncio.run(Stream(cluster.url, chat_body("no redis", 20)).run(20))
            self.assert_exact(stream, modeled.chat("no redis", 20, ignore_eos=True))


if __name__ == "__main__":
    unittest.main(verbosity=2)
