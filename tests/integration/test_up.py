"""`llumnix up` starts, reports and ends as it should, whatever ends it."""

import asyncio
import contextlib
import json
import os
import random
import pathlib
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import modeled
from cluster import (Cluster, ClusterTest, END_S, PROGRAM, START_S, Stream, chat_body, free_port, resident_kib, until,
                     until_async)
from test_relay import Engine


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


    def test_a_port_of_node_links_in_use_is_one_clear_line(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = subprocess.run([PROGRAM, "serve", "--name", "x", "--roles", "llumlet", "--listen", address],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 2, done.stderr)
            told = [line for line in done.stderr.splitlines() if address in line]
            self.assertEqual(told, [f"llumnix: cannot listen on {address} for node links: the port is taken, or the address "
                                    "is not ours. Choose another with --listen HOST:PORT (port 0 picks a free one)"])


class Strangers(ClusterTest):
    """Whoever reaches the port of node links, without TLS, costs little and ends nothing."""

    HUGE = bytes.fromhex("01000000f0000000") + bytes(24)  # a handshake that announces 4 GB
    HOLLOW = bytes.fromhex("01") + bytes(31)              # one without content

    def setUp(self):
        cluster = Cluster(engines=2, node__connection_timeout="5s")  # that a busy machine loses no link
        self.cluster = self.enterContext(cluster)
        self.port = int(next(node["address"] for node in cluster.admin_get("/admin/v1/cluster")["nodes"]
                             if node["node"] == "head").rsplit(":", 1)[1])
        self.head = cluster.pid("head")

    def connect(self, data=b""):
        stranger = socket.create_connection(("127.0.0.1", self.port))
        self.addCleanup(stranger.close)
        try:
            stranger.sendall(data)
        except OSError:  # it has been turned away already
            pass
        return stranger

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.head}/fd"))

    def assert_unharmed(self):
        stream = Stream(self.cluster.url, chat_body("unharmed", 4))
        asyncio.run(stream.run(20))
        self.assert_exact(stream, modeled.chat("unharmed", 4, ignore_eos=True))
        self.assertEqual(self.cluster.stderr(), "")  # no link was lost
        self.assertLess(resident_kib(self.head), 100_000)
        self.assertEqual(self.cluster.pid("head"), self.head)

    def assert_closed(self, stranger):
        stranger.settimeout(10)
        try:
            while stranger.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def test_a_header_alone_neither_allocates_nor_crashes(self):
        for data in (self.HUGE, self.HOLLOW, bytes(32), b"\xff" * 32):
            with self.subTest(data=data[:8]):
                self.assert_closed(self.connect(data))
                self.assert_unharmed()

    def test_garbage_of_all_kinds_changes_nothing(self):
        chance = random.Random(7)
        for number in range(300):
            self.connect((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", chance.randbytes(chance.randrange(2000)), b"\xff" * 64,
                          bytes(64), b"")[number % 5])
        self.assert_unharmed()

    def test_who_says_nothing_or_half_a_word_is_not_waited_for(self):
        before = self.descriptors()
        waiting = [self.connect(bytes.fromhex("010000000000ffff") + bytes(24) if number % 2 else b"")
                   for number in range(600)]
        until(lambda: self.descriptors() < before + 300, 10, "no more than some hundreds are kept")
        self.assert_unharmed()
        until(lambda: self.descriptors() <= before + 2, 10, "those are given up, too")
        self.assert_closed(waiting[0])
        self.assert_closed(waiting[-1])


class Stop(ClusterTest):
    def test_sigterm_and_sigint_end_an_idle_cluster_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number), Cluster("--redis", "spawn", engines=2, node__connection_timeout="5s") as cluster:
                cluster.signal(number)
                self.assertEqual(cluster.wait_end(), 0, cluster.stderr())
                self.assertEqual(cluster.events[-1], {"event": "stopped"})
                self.assertNotIn("node_down", [e["event"] for e in cluster.events])
                self.assertEqual(cluster.alive(), [])
                self.assertEqual(cluster.stderr(), "")  # nothing to be alarmed about

    def test_nodes_that_are_interrupted_together_warn_of_nothing(self):
        for _ in range(5):
            head = f"127.0.0.1:{free_port()}"
            nodes = [self.serve(0, "started: ", "--name", "head", "--roles", "gateway,scheduler,cms,console", "--listen", head,
                                "--http", "127.0.0.1:0")]
            for name in ("e0", "e1"):
                nodes.append(self.serve(nodes[0].pid, "peer-up: head", "--name", name, "--roles", "llumlet", "--listen",
                                        "127.0.0.1:0", "--seeds", head))
            os.killpg(nodes[0].pid, signal.SIGINT)
            for node in nodes:
                self.assertEqual(node.wait(END_S), 0)
                rest = node.stderr.read()
                self.assertNotIn(b" W ", rest)
                self.assertIn(b"stopped: ", rest)

    def serve(self, group, until_said, *options):
        """A node in a process group, 0 for a new one, that has logged some words."""
        node = subprocess.Popen(
            [PROGRAM, "serve", "--admin", "127.0.0.1:0", "--set", "node.connection_timeout=5s", *options],
            process_group=group, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(node.stderr.close)
        self.addCleanup(node.wait, END_S)
        self.addCleanup(node.kill)
        os.set_blocking(node.stderr.fileno(), False)
        said = b""

        def told():
            nonlocal said
            said += node.stderr.read() or b""
            return until_said.encode() in said

        until(told, 20, until_said)
        return node

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
                if life > 1:
                    cluster.wait_event(20, event="node_restarted", node="engine-1", incarnation=life)
                until(lambda: cluster.instances()["engine-1"]["incarnation"] == life, 20, f"life {life} is linked")
                os.kill(cluster.pid("engine-1"), signal.SIGKILL)
                after = len(cluster.events)
                until(lambda: cluster.instances()["engine-1"]["state"] == "lost" or len(cluster.events) > after, 20,
                      "its end is seen")
            until(lambda: cluster.instances()["engine-1"]["state"] == "lost", 20, "its budget is spent")
            self.assertIsNone(cluster.process.poll())
            self.assertEqual(cluster.instances()["engine-0"]["state"], "ready")
            until(lambda: "the next try is in" in cluster.stderr(), 20, "it is said once, with the way on")


def run_up(*options, engines=("--engines", "1"), seconds=START_S, **pipes):
    """`llumnix up` as a person runs it, to its end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    free = [part for name in ("--http", "--admin") if name not in options for part in (name, "127.0.0.1:0")]
    return subprocess.run(
        [PROGRAM, "up", *engines, *free, *options], stdin=subprocess.DEVNULL, text=True, timeout=seconds,
        **pipes)


class InFrontOfEngines(unittest.TestCase):
    def test_ready_says_how_many_answer_and_names_the_model(self):
        nobody = f"http://127.0.0.1:{free_port()}"
        with contextlib.closing(Engine("--model", "tiny")) as a, contextlib.closing(Engine("--model", "tiny")) as b:
            for urls, answering, model in (((nobody,), "0 of 1 answers yet", None), ((nobody, a.url), "1 of 2 answer yet", "tiny"),
                                           ((a.url, b.url), None, "tiny")):
                with self.subTest(answering=answering):
                    for _ in range(5):  # `up` waits half a second for engines, which a busy machine may exceed
                        done = run_up("--engine", ",".join(urls), "--for", "50ms", engines=())
                        if (answering in done.stdout) if answering else ("yet" not in done.stdout):
                            break
                    self.assertEqual(done.returncode, 0, done.stderr)
                    if answering:
                        self.assertIn("  engines      " + answering + "; ", done.stdout)
                    else:
                        self.assertNotIn("yet", done.stdout)
                    self.assertIn(f"model {model}\n" if model else "models: see /v1/models\n", done.stdout)
                    self.assertIn('"model":"%s"' % (model or "MODEL"), done.stdout)

    def test_what_only_simulated_engines_have_is_refused_beside_them(self):
        done = run_up("--engine", "http://127.0.0.1:1", "--model", "tiny")
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertEqual([line.split(" ")[1] for line in done.stderr.splitlines()], ["--engines:", "--model:"], done.stderr)
        done = run_up("--set", "gateway.engines=http://127.0.0.1:1")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)


class WrongStart(unittest.TestCase):
    """One clear line with the way out."""

    def test_what_can_be_known_is_told_before_anything_starts(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for options, told in (
                    (("--policy", "nope"), ("scheduler.policy", "load-balance")),
                    (("--set", "scheduler.decode_load_metric=nope"), ("scheduler.decode_load_metric", "known")),
                    (("--set", "engine.latency=nope"), ("engine.latency", "such as")),
                    (("--set", "engine.blocks=200000000"), ("engine.blocks", "134217727")),
                    (("--set", "engine.blocks=100000000", "--set", "engine.kv_bytes_per_token=1MiB"),
                     ("engine.blocks", "1562500.0 GiB", "this machine has")),
                    (("--http", address), (address, "in use", "--http")),
                    (("--admin", address), (address, "in use", "--admin"))):
                for form in ((), ("--json",)):
                    with self.subTest(options=options, form=form):
                        done = run_up(*options, *form)
                        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                        for each in told:
                            self.assertIn(each, done.stderr)

    def test_what_a_node_finds_wrong_is_its_own_line_and_no_more(self):
        broken = {name: f"/no/such/{name}.pem" for name in ("certificate", "key", "ca")}
        options = [part for name, path in broken.items() for part in ("--set", f"node.tls_{name}={path}")]
        done = run_up(*options)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout.splitlines(), ["Starting a head and 1 engine"])
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        done = run_up("--json", *options)
        self.assertEqual([json.loads(line) for line in done.stdout.splitlines()], [{"event": "stopped"}])

    def test_a_full_disk_is_no_success(self):
        for form in ((), ("--json",)):
            with self.subTest(form), open("/dev/full", "w", encoding="utf-8") as full:
                done = run_up("--for", "100ms", *form, stdout=full)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertEqual(done.stderr.count("No space left"), 1, done.stderr)

    def test_a_redis_that_is_not_there_is_no_secret(self):
        done = run_up("--for", "100ms", "--redis", f"127.0.0.1:{free_port()}", "--log-level", "error")
        self.assertEqual(done.returncode, 0, done.stderr)
        line = next(line for line in done.stdout.splitlines() if "Redis" in line)
        self.assertIn("not reachable yet", line)
        done = run_up("--for", "100ms", "--redis", "spawn")
        line = next(line for line in done.stdout.splitlines() if "Redis" in line)
        self.assertNotIn("not reachable", line)


class Processes(ClusterTest):
    def test_secrets_are_in_no_command_line_and_every_node_has_them(self):
        secrets = {"redis.password": "pass-4711", "http.key": "http-4711", "admin.key": "admin-4711"}
        settings = [part for name, value in secrets.items() for part in ("--set", f"{name}={value}")]
        with Cluster(*settings, engines=1, wait=False) as cluster:
            ready = cluster.wait_event(START_S, event="ready")  # which `up` asked for with the operators' key
            for life in range(2):  # the second has them too
                for node in ("head", "engine-0"):
                    pid = cluster.pid(node)
                    line = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
                    self.assertIn(node, line)
                    self.assertNotIn("4711", line)
                    self.assertEqual(pathlib.Path(f"/proc/{pid}/comm").read_text(), "llumnix\n")
                for address, path, key in ((ready["http"], "/v1/models", "http-4711"),
                                           (ready["admin"], "/admin/v1/cluster", "admin-4711")):
                    for given, status in ((key, 200), ("wrong", 401)):
                        self.assertEqual(self.status_of(address + path, given), status, (path, given))
                if life == 0:
                    after = len(cluster.events)
                    os.kill(cluster.pid("head"), signal.SIGKILL)
                    cluster.wait_event(START_S, after, event="node_restarted", node="head")

    def status_of(self, url, key):
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(asked, timeout=5) as reply:
                return reply.status
        except urllib.error.HTTPError as refusal:
            return refusal.code


if __name__ == "__main__":
    unittest.main(verbosity=2)
