"""Nodes stop in order (SIGTERM) and come back, one after the other, while streams run: no stream may notice."""

import asyncio
import json
import os
import signal
import subprocess
import time
import unittest
import urllib.error
import urllib.request
import uuid

import modeled
from cluster import (
    END_S, MARK, PROGRAM, ROOT, START_S, Cluster, ClusterTest, Stream, chat_body, free_port, processes_marked, until,
    until_async)


class Traffic:
    """Streams that run all the time, so many at once; each goes to the first gateway that takes it, as behind a load
    balancer."""

    def __init__(self, test, urls, tokens=120):
        self.test, self.urls, self.tokens = test, urls, tokens
        self.streams, self.started, self.stopping = [], 0, False

    async def client(self, number):
        turn = 0
        while not self.stopping:
            name = f"s{number}-{turn}"
            turn += 1
            for attempt in range(400):
                url = self.urls[(number + turn + attempt) % len(self.urls)]
                stream = Stream(url, chat_body(name, self.tokens), request_id=name)
                await stream.run()
                if stream.status == 200 or (stream.status is None and attempt == 399):
                    break
                # Not taken: no connection, or closed before a word of the reply, or 503 of a gateway that stops.
                self.test.assertIn(stream.status, (None, 503), stream.raw)
                await asyncio.sleep(0.02)
            self.streams.append(stream)

    async def run(self, count, act):
        clients = [asyncio.create_task(self.client(number)) for number in range(count)]
        try:
            await asyncio.to_thread(act)
        finally:
            self.stopping = True
        await asyncio.gather(*clients)

    def check(self):
        expected = {}
        for stream in self.streams:
            name = stream.request_id
            expected.setdefault(name, modeled.chat(name, self.tokens, ignore_eos=True))
            self.test.assert_exact(stream, expected[name])


class EnginesOfUp(ClusterTest):
    def test_all_engines_in_turn_under_200_streams(self):
        with Cluster(engines=3, engine__speed=4) as cluster:
            traffic = Traffic(self, [cluster.url])

            def restart_all():
                until(lambda: len(cluster.requests()) >= 200, 30, "200 streams run")
                for engine in ("engine-0", "engine-1", "engine-2"):
                    after = len(cluster.events)
                    os.kill(cluster.pid(engine), signal.SIGTERM)
                    down = cluster.wait_event(30, after=after, event="node_down", node=engine)
                    self.assertEqual(down["reason"], "exit 0")
                    cluster.wait_event(30, after=after, event="node_restarted", node=engine)
                    until(lambda: cluster.instances()[engine]["state"] == "ready", 30, f"{engine} is back")
                    until(lambda: cluster.instances()[engine]["scheduling"]["running"] > 0, 30, f"{engine} has work again")

            asyncio.run(traffic.run(200, restart_all))
            traffic.check()
            self.assertGreater(len(traffic.streams), 400)
            cluster.wait_idle()
            metrics = urllib.request.urlopen(cluster.admin + "/metrics", timeout=5).read().decode()
            replays = next(line for line in metrics.splitlines() if line.startswith("llumnix_replays_total"))
            self.assertEqual(float(replays.split()[-1]), 0, "they moved, and none was replayed")


class OnlyEngine(ClusterTest):
    def test_its_streams_end_before_it_does(self):
        async def go(cluster):
            stream = Stream(cluster.url, chat_body("last", 400), request_id="last")
            run = asyncio.create_task(stream.run())
            await until_async(lambda: stream.pieces > 5, 20, "it runs")
            os.kill(cluster.pid("engine-0"), signal.SIGTERM)
            await run
            self.assert_exact(stream, modeled.chat("last", 400, ignore_eos=True))
            kinds = [event["kind"] for event in (await asyncio.to_thread(cluster.why, "last"))["events"]]
            self.assertNotIn("replayed", kinds)

        with Cluster("--drain", "60s", engines=1, engine__speed=4) as cluster:
            asyncio.run(go(cluster))
            began = time.monotonic()
            self.assertEqual(cluster.wait_event(30, event="node_down", node="engine-0")["reason"], "exit 0")
            self.assertLess(time.monotonic() - began, 20, "it ends as soon as they have")
            cluster.wait_event(START_S, event="node_restarted", node="engine-0")


class Demonstration(ClusterTest):
    """scripts/rolling_restart.sh, with a small load."""

    def setUp(self):
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "rolling_restart.sh", "3", "300", "50"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, "LLUMNIX": PROGRAM, MARK: self.mark},
            start_new_session=True)
        self.addCleanup(self.end_all)

    def end_all(self):
        until(lambda: not self.kill_marked(), END_S, "it is gone")
        self.process.wait()
        self.process.stdout.close()

    def kill_marked(self):
        left = processes_marked(self.mark)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return left

    def test_it_shows_that_no_stream_fails(self):
        told, _ = self.process.communicate(timeout=60)
        self.assertEqual(self.process.returncode, 0, told)
        for engine in range(3):
            self.assertRegex(told, rf"engine-{engine} \(pid \d+\): SIGTERM\nengine-{engine} is back\n")
        self.assertRegex(told, r"\nrequests +300 ok, 0 failed; 0 streams broken\n")
        self.assertRegex(told, r"\nverified .* of 300 requests; 0 requests answered wrongly\n")
        self.assertEqual(processes_marked(self.mark), [])

    def test_stopped_in_between_it_leaves_nothing_behind(self):
        self.assertRegex(self.process.stdout.readline(), r"^engine-0 \(pid \d+\): SIGTERM\n$")
        self.process.terminate()
        self.process.wait(30)
        until(lambda: not processes_marked(self.mark), 10, "all it started has ended")


class Node:
    """One `llumnix serve` that keeps its addresses."""

    def __init__(self, mark, name, roles, seeds, *more):
        self.mark, self.name, self.port, self.admin_port = mark, name, free_port(), free_port()
        self.arguments = [
            PROGRAM, "serve", "--name", name, "--roles", roles, "--listen", f"127.0.0.1:{self.port}",
            "--admin", f"127.0.0.1:{self.admin_port}", *(("--seeds", seeds) if seeds else ()), "--drain", "20s", *more]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.arguments, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, MARK: self.mark},
            start_new_session=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def instances(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/admin/v1/cluster", timeout=5) as reply:
                return {each["id"]: each["state"] for each in json.load(reply)["instances"]}
        except (urllib.error.URLError, ConnectionError):
            return {}


class AllNodes(ClusterTest):
    """Two gateways, a node that schedules, three engines: each stops and comes back."""

    def setUp(self):
        self.mark = uuid.uuid4().hex
        self.addCleanup(self.end_all)

    def end_all(self):
        deadline = time.monotonic() + END_S
        while (left := processes_marked(self.mark)) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        for node in self.nodes:
            if node.process:
                node.process.wait()

    def test_every_node_in_turn_under_200_streams(self):
        brain = Node(self.mark, "brain", "scheduler,cms,rescheduler,console", None)
        seeds = f"127.0.0.1:{brain.port}"
        http = [free_port(), free_port()]
        gateways = [Node(self.mark, f"gateway-{i}", "gateway,cms,console", seeds, "--http", f"127.0.0.1:{http[i]}")
                    for i in range(2)]
        engines = [Node(self.mark, f"engine-{i}", "llumlet", ",".join([seeds, *(f"127.0.0.1:{g.port}" for g in gateways)]),
                        "--set", "engine.speed=4") for i in range(3)]
        self.nodes = [brain, *gateways, *engines]
        for node in self.nodes:
            node.start()
        ready = {engine.name: "ready" for engine in engines}

        def all_ready():
            return all(node.instances() == ready for node in (brain, *gateways))

        until(all_ready, START_S, "the cluster is ready")
        traffic = Traffic(self, [f"http://127.0.0.1:{port}" for port in http])

        def restart_all():
            for node in (*engines, brain, *gateways):
                self.assertEqual(node.stop(), 0, node.name)
                node.start()
                until(all_ready, 30, f"{node.name} is back")

        asyncio.run(traffic.run(200, restart_all))
        traffic.check()
        self.assertGreater(len(traffic.streams), 400)


if __name__ == "__main__":
    unittest.main(verbosity=2)
