"""`llumnix up` starts, reports and ends as it should, whatever ends it."""

import asyncio
import os
import signal
import socket
import time
import unittest

import modeled
from cluster import END_S, START_S, Cluster, ClusterTest, Stream, chat_body, until, until_async


class Start(ClusterTest):
    def test_events_say_what_was_started(self):
        with Cluster(engines=3) as cluster:
            ready = cluster.ready
            nodes = {node["node"]: node for node in ready["nodes"]}
            self.assertEqual(list(nodes), ["head", "engine-0", "engine-1", "engine-2"])
            self.assertEqual(nodes["head"]["instances"], [])
            self.assertIn("gateway", nodes["head"]["roles"])
            for name in ("engine-0", "engine-1", "engine-2"):
                self.assertEqual((nodes[name]["roles"], nodes[name]["instances"]), (["llumlet"], [name]))
            self.assertEqual((ready["redis"], ready["model"]), (None, "modeled"))
            started = {e["node"]: e["pid"] for e in cluster.events if e["event"] == "node_started"}
            self.assertEqual(started, {name: node["pid"] for name, node in nodes.items()})
            for pid in started.values():
                self.assertIn(pid, cluster.alive())
            self.assertEqual(set(cluster.instances()), {"engine-0", "engine-1", "engine-2"})

    def test_for_ends_by_itself(self):
        with Cluster("--for", "300ms", engines=1) as cluster:
            self.assertEqual(cluster.wait_end(), 0)
            self.assertEqual(cluster.events[-1], {"event": "stopped"})
            self.assertEqual(cluster.alive(), [])

    def test_a_port_in_use_is_exit_2_and_one_clear_line(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for which in ("http", "admin"):
                with self.subTest(which), Cluster(engines=1, wait=False, **{which: address}) as cluster:
                    self.assertEqual(cluster.wait_end(), 2, cluster.stderr())
                    told = [line for line in cluster.stderr().splitlines() if address in line]
                    self.assertEqual(len(told), 1, cluster.stderr())
                    self.assertIn("in use", told[0])
                    self.assertEqual(cluster.alive(), [])

    def test_a_wrong_knob_is_exit_2_before_anything_starts(self):
        for setting, told in (("engine.sped=3", "engine.speed"), ("engine.speed=fast", "engine.speed"),
                              ("engine.speed=-1", "engine.speed"), ("gateway.max_queue", "gateway.max_queue")):
            with self.subTest(setting), Cluster("--set", setting, engines=1, wait=False) as cluster:
                self.assertEqual(cluster.wait_end(), 2, cluster.stderr())
                self.assertIn(told, cluster.stderr())
                self.assertEqual([e["event"] for e in cluster.events if e["event"] != "stopped"], [])

    def test_every_wrong_knob_is_told_at_once(self):
        with Cluster("--set", "engine.sped=3", "--set", "node.heartbeat=soon", engines=1, wait=False) as cluster:
            self.assertEqual(cluster.wait_end(), 2)
            for path in ("engine.sped", "node.heartbeat"):
                self.assertIn(path, cluster.stderr())


class Stop(ClusterTest):
    def test_sigterm_and_sigint_end_an_idle_cluster_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number), Cluster("--redis", "spawn", engines=2) as cluster:
                cluster.signal(number)
                self.assertEqual(cluster.wait_end(), 0, cluster.stderr())
                self.assertEqual(cluster.events[-1], {"event": "stopped"})
                self.assertNotIn("node_down", [e["event"] for e in cluster.events])
                self.assertEqual(cluster.alive(), [])

    def test_running_streams_end_well_and_new_requests_are_refused(self):
        async def act(cluster):
            stream = Stream(cluster.url, chat_body("last words", 250))
            run = asyncio.create_task(stream.run())
            await until_async(lambda: stream.pieces > 5, 20, "the stream runs")
            cluster.signal(signal.SIGTERM)

            async def refused():
                late = await Stream(cluster.url, chat_body("too late", 2)).run(20)
                return late.broken or late.status == 503

            deadline = time.monotonic() + 5
            while not await refused():
                self.assertLess(time.monotonic(), deadline, "new requests are still taken")
            await run
            self.assert_exact(stream, modeled.chat("last words", 250, ignore_eos=True))

        with Cluster("--drain", "20s", engines=2, engine__speed=2) as cluster:
            asyncio.run(act(cluster))
            self.assertEqual(cluster.wait_end(), 0, cluster.stderr())
            self.assertEqual(cluster.events[-1], {"event": "stopped"})
            self.assertEqual(cluster.alive(), [])

    def test_the_drain_is_bounded(self):
        async def act(cluster):
            stream = Stream(cluster.url, chat_body("endless", 5000))
            run = asyncio.create_task(stream.run())
            await until_async(lambda: stream.pieces > 5, 20, "the stream runs")
            cluster.signal(signal.SIGTERM)
            await run
            self.assertFalse(stream.done, "half an answer must not look whole")

        with Cluster("--drain", "500ms", engines=1) as cluster:
            asyncio.run(act(cluster))
            begin = time.monotonic()
            self.assertEqual(cluster.wait_end(), 0, cluster.stderr())
            self.assertLess(time.monotonic() - begin, 8)
            self.assertEqual(cluster.alive(), [])

    def test_a_second_signal_stops_at_once(self):
        async def act(cluster):
            stream = Stream(cluster.url, chat_body("endless", 5000))
            run = asyncio.create_task(stream.run())
            await until_async(lambda: stream.pieces > 5, 20, "the stream runs")
            cluster.signal(signal.SIGTERM)
            # Two signals that come together count as one: wait until the first has been taken.
            await until_async(lambda: self.takes_nothing(cluster), 10, "the first signal has been heard")
            begin = time.monotonic()
            cluster.signal(signal.SIGTERM)
            code = await asyncio.to_thread(cluster.wait_end)
            self.assertEqual(code, 130, cluster.stderr())
            self.assertLess(time.monotonic() - begin, 5)
            await run
            self.assertFalse(stream.done)

        with Cluster("--drain", "60s", engines=1) as cluster:
            asyncio.run(act(cluster))
            self.assertEqual(cluster.alive(), [])

    def takes_nothing(self, cluster):
        late = asyncio.run(Stream(cluster.url, chat_body("late", 1)).run(10))
        return late.broken is not None or late.status == 503

    def test_kill_9_of_up_leaves_no_process(self):
        with Cluster("--redis", "spawn", engines=3) as cluster:
            self.assertGreaterEqual(len(cluster.alive()), 5)  # head, three engines, Redis
            cluster.process.kill()
            cluster.process.wait(END_S)
            until(lambda: not cluster.alive(), 10, "every process has ended")


class Restart(ClusterTest):
    def test_a_node_that_ends_in_any_way_is_reported_and_restarted(self):
        with Cluster(engines=2) as cluster:
            for number, reason in ((signal.SIGTERM, None), (signal.SIGABRT, "signal 6")):
                after = len(cluster.events)
                pid = cluster.pid("engine-1")
                os.kill(pid, number)
                down = cluster.wait_event(20, after, event="node_down", node="engine-1")
                self.assertEqual(down["pid"], pid)
                if reason:
                    self.assertEqual(down["reason"], reason)
                back = cluster.wait_event(START_S, after, event="node_restarted", node="engine-1")
                until(lambda: cluster.instances()["engine-1"]["state"] == "ready", 20, "engine-1 is ready")
                self.assertEqual(cluster.instances()["engine-1"]["incarnation"], back["incarnation"])
            self.assertEqual(back["incarnation"], 3)

    def test_an_engine_that_keeps_ending_takes_nobody_with_it(self):
        with Cluster(engines=2) as cluster:
            for life in range(1, 7):
                until(lambda: cluster.instances()["engine-1"]["incarnation"] == life, 20, f"life {life} is linked")
                os.kill(cluster.pid("engine-1"), signal.SIGKILL)
                after = len(cluster.events)
                until(lambda: cluster.instances()["engine-1"]["state"] == "lost" or len(cluster.events) > after, 20,
                      "its end is seen")
            until(lambda: cluster.instances()["engine-1"]["state"] == "lost", 20, "its budget is spent")
            self.assertIsNone(cluster.process.poll())
            self.assertEqual(cluster.instances()["engine-0"]["state"], "ready")
            until(lambda: "the next try is in" in cluster.stderr(), 20, "it is said once, with the way on")


if __name__ == "__main__":
    unittest.main(verbosity=2)
