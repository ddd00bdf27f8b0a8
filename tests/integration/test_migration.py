"""Requests move between engines while they stream, by hand and by drains: no client sees anything of it."""

import asyncio
import http.client
import json
import os
import random
import signal
import subprocess
import time
import unittest
import urllib.parse

import modeled
from cluster import MARK, PROGRAM, START_S, Cluster, ClusterTest, Stream, chat_body, until, until_async


def streams_for(cluster, name, count, tokens):
    return [Stream(cluster.url, chat_body(f"{name} {number}", tokens), request_id=f"{name}-{number}")
            for number in range(count)]


def expected_for(name, count, tokens):
    return [modeled.chat(f"{name} {number}", tokens, ignore_eos=True) for number in range(count)]


def post(cluster, path, body=None, **headers):
    """Status and document of a changing call; `body`: an object, or text as it is."""
    address = urllib.parse.urlsplit(cluster.admin)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request("POST", path, text, given)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def migrate(cluster, **order):
    status, document = post(cluster, "/admin/v1/migrate", order)
    assert status == 200, document
    return document["moves"]


def places(cluster):
    return {each["id"]: each["instance"] for each in cluster.requests()}


def kinds(cluster, request):
    return [event["kind"] for event in cluster.why(request)["events"]]


async def run_all(test, cluster, name, count, tokens, act, pieces=5):
    """Runs streams, does something meanwhile, and checks each token of each of them."""
    streams, expected = streams_for(cluster, name, count, tokens), expected_for(name, count, tokens)
    runs = [asyncio.create_task(stream.run()) for stream in streams]
    await until_async(lambda: all(s.pieces >= pieces or s.broken or s.error for s in streams), 60, "streams run")
    result = await act(streams)
    await asyncio.gather(*runs)
    for stream, output in zip(streams, expected):
        test.assert_exact(stream, output)
    return result


class MigrationTest(ClusterTest):
    def wait_quiet(self, cluster):
        """No block and no slot is held by anybody any more."""
        def quiet():
            return cluster.is_idle() and all(
                each["migrations"]["in"] == 0 and each["migrations"]["out"] == 0
                for each in cluster.instances().values() if each["state"] not in ("lost", "stopped"))

        until(quiet, 10, f"nothing is held: {cluster.instances()}")


class Moves(MigrationTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(engines=3, engine__speed=3)
        cls.addClassCleanup(cls.cluster.close)

    def tearDown(self):
        self.wait_quiet(self.cluster)

    def run_one(self, name, tokens, act, pieces=4, **fields):
        """A stream of that name, and what `act` makes of it on another thread once `pieces` came."""
        async def go():
            stream = Stream(self.cluster.url, chat_body(name, tokens, **fields), request_id=name)
            run = asyncio.create_task(stream.run())
            await until_async(lambda: stream.pieces >= pieces, 30, "it runs")
            result = await asyncio.to_thread(act)
            self.assertFalse(stream.done, "it ended too early to mean anything")
            await run
            return stream, result

        return asyncio.run(go())

    def elsewhere(self, *instances):
        return next(f"engine-{i}" for i in range(3) if f"engine-{i}" not in instances)

    def test_a_request_moves_and_its_client_sees_nothing(self):
        def act():
            source = places(self.cluster)["sea"]
            self.to = self.elsewhere(source)
            code, out, err = self.cluster.command("migrate", "chatcmpl-sea", "--to", self.to, "--json")
            self.assertEqual((code, err), (0, ""), out)
            move, = json.loads(out)["moves"]
            self.assertEqual(places(self.cluster)["sea"], self.to)
            back, out, err = self.cluster.command("migrate", "sea", "--to", source)
            self.assertEqual((back, err), (0, ""))
            self.assertRegex(out, rf"^sea moved from {self.to} to {source} by kv: \d+ rounds?, \S+B, \S+ between two steps\n$")
            self.assertEqual(places(self.cluster)["sea"], source)
            return source, move

        # So many pieces that it is no matter of a few tokens, which are computed and not copied.
        stream, (source, move) = self.run_one("sea", 600, act, pieces=60)
        self.assert_exact(stream, modeled.chat("sea", 600, ignore_eos=True))
        self.assertEqual(
            (move["request"], move["outcome"], move["reason"], move["path"], move["from"], move["to"], move["policy"]),
            ("sea", "moved", None, "kv", source, self.to, "by hand"))
        self.assertEqual(move["epoch"], 1)
        self.assertGreater(move["rounds"], 0)
        self.assertGreater(move["bytes"], 0)
        self.assertGreaterEqual(move["downtime_ms"], 0)
        why = self.cluster.why("sea")
        moved = [event for event in why["events"] if event["kind"] == "moved"]
        self.assertEqual([event["instance"] for event in moved], [self.to, source])
        self.assertEqual(why["events"][-1]["kind"], "finished")
        code, out, _ = self.cluster.command("why", "sea")
        self.assertEqual(code, 0)
        self.assertIn(f"moved on {self.to}", out)
        self.assertIn(source, out)

    def test_all_choices_of_a_request_move_with_it(self):
        def act():
            before = {name: at for name, at in places(self.cluster).items() if name.startswith("many")}
            self.assertEqual(sorted(before), ["many", "many.1", "many.2"])
            to = self.elsewhere(before["many"])
            moves = migrate(self.cluster, request="many", to=to)
            self.assertEqual([move["request"] for move in moves], ["many", "many.1", "many.2"])
            for move in moves:
                there = before[move["request"]] == to
                self.assertEqual(move["outcome"], "refused" if there else "moved", move)
            after = places(self.cluster)
            self.assertEqual({after[name] for name in before}, {to})
            back = self.elsewhere(to)
            code, out, err = self.cluster.command("migrate", "many.1", "--to", back)
            self.assertEqual((code, err), (0, ""), out)
            code, out, err = self.cluster.command("migrate", "many", "--to", back)
            self.assertEqual((code, err), (0, ""), out)
            self.assertIn(f"many.1 stays: it is at {back} already\n", out)
            self.assertTrue(out.endswith("\n2 moved, 1 was there already\n"), out)

        stream, _ = self.run_one("many", 600, act, n=3)
        for choice in range(3):
            self.assert_exact(stream, modeled.chat("many", 600, choice=choice, ignore_eos=True), choice)

    def test_seeds_penalties_of_chance_and_logprobs_go_along(self):
        def act():
            for _ in range(4):
                at = places(self.cluster)["seeded"]
                self.assertEqual(migrate(self.cluster, request="seeded", to=self.elsewhere(at))[0]["outcome"], "moved")

        stream, _ = self.run_one("seeded", 400, act, temperature=0.8, seed=7)
        self.assert_exact(stream, modeled.chat("seeded", 400, seed=7, ignore_eos=True))

    def test_some_requests_of_an_instance_move(self):
        async def go():
            async def act(streams):
                at = await asyncio.to_thread(places, self.cluster)
                source = at["some-0"]
                to = self.elsewhere(source)
                there = [name for name, instance in at.items() if instance == source]
                self.assertGreaterEqual(len(there), 3, at)
                code, out, err = await asyncio.to_thread(
                    self.cluster.command, "migrate", "--from", source, "--to", to, "--policy", "LR", "--num-requests",
                    "2", "--json")
                self.assertEqual((code, err), (0, ""), out)
                moves = json.loads(out)["moves"]
                self.assertEqual([move["outcome"] for move in moves], ["moved", "moved"])
                self.assertLessEqual({move["request"] for move in moves}, set(there))
                for rule in ({"num_tokens": 1000}, {"kv_ratio": 0.05}, {}):
                    for move in await asyncio.to_thread(migrate, self.cluster, **{"from": to, "to": source}, **rule):
                        self.assertIn(move["outcome"], ("moved", "finished"), move)
                for move in await asyncio.to_thread(
                        migrate, self.cluster, **{"from": source, "to": to, "policy": "FCWSR", "num_requests": -1}):
                    self.assertIn(move["outcome"], ("moved", "finished"), move)

            await run_all(self, self.cluster, "some", 12, 500, act)

        asyncio.run(go())

    def test_requests_travel_as_fast_as_they_can(self):
        """To and fro and in circles: tokens are exact, and only KV paths were taken."""
        async def go():
            async def travel(stream):
                moved, tried = 0, 0
                while not stream.done and not stream.broken:
                    to = f"engine-{random.randrange(3)}"
                    status, document = await asyncio.to_thread(
                        post, self.cluster, "/admin/v1/migrate", {"request": stream.request_id, "to": to})
                    if status == 404:
                        break  # it has just ended
                    self.assertEqual(status, 200, document)
                    for move in document["moves"]:
                        tried += 1
                        self.assertIn(move["outcome"], ("moved", "finished", "refused", "failed"), move)
                        moved += move["outcome"] == "moved"
                return moved, tried

            async def act(streams):
                return await asyncio.gather(*(travel(stream) for stream in streams[:6]))

            return await run_all(self, self.cluster, "travel", 12, 500, act)

        travels = asyncio.run(go())
        self.assertGreater(sum(moved for moved, _ in travels), 30, travels)
        for number in range(6):
            self.assertNotIn("replayed", kinds(self.cluster, f"travel-{number}"))

    def test_load_verifies_while_random_requests_move(self):
        load = subprocess.Popen(
            [PROGRAM, "load", self.cluster.url, "--verify", "--json", "--requests", "200", "--concurrency", "40",
             "--max-tokens", "50-300", "--prompt-tokens", "5-900", "--n", "2", "--temperature", "0.8"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: self.cluster.mark})
        chance, moved, pace = random.Random(1), 0, 0
        while load.poll() is None:
            pace += 1
            running = [(name, at) for name, at in places(self.cluster).items() if at]
            if not running:
                continue
            name, at = chance.choice(running)
            to = self.elsewhere(at) if chance.random() < 0.5 else f"engine-{chance.randrange(3)}"
            status, document = post(self.cluster, "/admin/v1/migrate", {"request": name, "to": to})
            moved += sum(move["outcome"] == "moved" for move in document.get("moves", ()))
        out, err = load.communicate(timeout=10)
        self.assertEqual(load.returncode, 0, out + err)
        report = json.loads(out)
        self.assertEqual((report["requests"]["ok"], report["requests"]["failed"]), (200, 0))
        self.assertGreater(moved, 20, pace)

    def test_what_cannot_be_is_refused_with_a_reason(self):
        def act():
            at = places(self.cluster)["stays"]
            code, out, err = self.cluster.command("migrate", "stays", "--to", at)
            self.assertEqual((code, err), (4, ""))
            self.assertEqual(out, f"stays refused: it is at {at} already; name another instance\n")
            code, out, err = self.cluster.command("migrate", "--from", at, "--to", at, "--json")
            self.assertEqual((code, err), (4, ""))
            self.assertEqual(json.loads(out)["moves"][0]["outcome"], "refused")
            idle = self.elsewhere(at)
            code, out, err = self.cluster.command("migrate", "--from", idle, "--to", at)
            self.assertEqual((code, err), (4, ""))
            self.assertTrue(out.startswith("Nothing moved"), out)
            for arguments, told in (
                    (("migrate", "stays", "--to", "engin-1"), "there is no instance engin-1; did you mean engine-1?"),
                    (("migrate", "--from", "nowhere", "--to", at), "there is no instance nowhere"),
                    (("migrate", "nobody", "--to", at), "no request nobody is running"),
                    (("drain", "nowhere"), "there is no instance nowhere"),
                    (("undrain", "nowhere"), "there is no instance nowhere")):
                for form in ((), ("--json",)):
                    with self.subTest(arguments):
                        code, out, err = self.cluster.command(*arguments, *form)
                        self.assertEqual((code, out), (1, ""))
                        self.assertIn(told, err)

        stream, _ = self.run_one("stays", 600, act)
        self.assert_exact(stream, modeled.chat("stays", 600, ignore_eos=True))

    def test_wrong_words_are_exit_2(self):
        for arguments, told in (
                (("migrate",), "--to INSTANCE"),
                (("migrate", "x"), "--to INSTANCE"),
                (("migrate", "--to", "engine-1"), "what is to move"),
                (("migrate", "x", "--from", "engine-0", "--to", "engine-1"), "not both"),
                (("migrate", "x", "--to", "engine-1", "--policy", "SR"), "--from"),
                (("migrate", "--from", "a", "--to", "b", "--policy", "XX"), "none of SR"),
                (("migrate", "--from", "a", "--to", "b", "--num-requests", "0"), "from 1 to"),
                (("migrate", "--from", "a", "--to", "b", "--num-requests", "-2"), "from 1 to"),
                (("migrate", "--from", "a", "--to", "b", "--num-tokens", "x"), "from 1 to"),
                (("migrate", "--from", "a", "--to", "b", "--kv-ratio", "2"), "from 0.001 to 1"),
                (("migrate", "--from", "a", "--to", "b", "--kv-ratio", "0.5", "--num-tokens", "3"), "exclude"),
                (("migrate", "x", "--ot", "b"), "did you mean --to?"),
                (("drain",), "instance is required"),
                (("drain", ""), "give an instance"),
                (("drain", "engine-0", "--timeout", "5"), "no duration"),
                (("drain", "engine-0", "--timeout", "48h"), "--timeout"),
                (("undrain", "engine-0", "--timeout", "5s"), "unknown option --timeout")):
            with self.subTest(arguments):
                code, out, err = self.cluster.command(*arguments)
                self.assertEqual((code, out), (2, ""), err)
                self.assertIn(told, err)
        for command in ("migrate", "drain", "undrain"):
            code, out, _ = self.cluster.command(command, "--help")
            self.assertEqual(code, 0)
            self.assertIn(f"  llumnix {command} ", out)

    def test_nobody_there_is_exit_3(self):
        for command in (("migrate", "x", "--to", "y"), ("drain", "y"), ("undrain", "y")):
            done = subprocess.run(
                [PROGRAM, *command, "--json", "--admin", "127.0.0.1:1"], capture_output=True, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stdout), (3, ""), done.stderr)

    def test_routes_take_nothing_that_they_do_not_know(self):
        drain = "/admin/v1/instances/engine-0/drain"
        for path, body, headers, status, code, told in (
                ("/admin/v1/migrate", {"request": "x", "to": "engine-0", "now": True}, {}, 400, "invalid_request", "now"),
                ("/admin/v1/migrate", {"request": 7, "to": "engine-0"}, {}, 400, "invalid_request", "request"),
                ("/admin/v1/migrate", {"from": "engine-0", "to": "engine-1", "policy": "XX"}, {}, 400, "invalid_request", "policy"),
                ("/admin/v1/migrate", {}, {}, 400, "invalid_request", "to"),
                ("/admin/v1/migrate", "{", {}, 400, "invalid_request", "JSON"),
                ("/admin/v1/migrate", '{"to":"a","to":"b","request":"x"}', {}, 400, "invalid_request", "twice"),
                ("/admin/v1/migrate", "[" * 60000, {}, 400, "invalid_request", "JSON"),
                ("/admin/v1/migrate", " " * 70000, {}, 413, "invalid_request", ""),
                ("/admin/v1/migrate", {"request": "nobody", "to": "engine-0"}, {}, 404, "unknown_request", "nobody"),
                ("/admin/v1/migrate", {"request": "nobody", "to": "nowhere"}, {}, 404, "unknown_instance", "nowhere"),
                ("/admin/v1/migrate", {"request": "x", "to": "engine-0"}, {"content_type": "text/plain"}, 415,
                 "unsupported_media_type", "application/json"),
                ("/admin/v1/migrate", {"request": "x", "to": "engine-0"}, {"host": "evil.example"}, 403, "wrong_host", "host"),
                (drain, None, {"content_type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type", ""),
                (drain, None, {"host": "evil.example:80"}, 403, "wrong_host", ""),
                (drain + "?timeout=5", None, {}, 400, "invalid_request", "timeout"),
                (drain + "?timout=5s", None, {}, 400, "invalid_request", "did you mean timeout?"),
                (drain, {"timeout": "5s"}, {}, 400, "invalid_request", "timeout"),
                ("/admin/v1/instances/nowhere/drain", None, {}, 404, "unknown_instance", "nowhere"),
                ("/admin/v1/instances/nowhere/undrain", None, {}, 404, "unknown_instance", "nowhere"),
                ("/admin/v1/instances//drain", None, {}, 404, "not_found", ""),
                ("/admin/v1/cluster", None, {}, 405, "method_not_allowed", "")):
            with self.subTest(path=path, body=str(body)[:50], headers=headers):
                got, document = post(self.cluster, path, body, **headers)
                self.assertEqual(got, status, document)
                self.assertEqual(document["error"]["code"], code)
                self.assertIn(told, document["error"]["message"])
        address = urllib.parse.urlsplit(self.cluster.admin)
        for path in ("/admin/v1/migrate", drain, "/admin/v1/instances/engine-0/undrain"):
            for method in ("GET", "PUT", "OPTIONS", "DELETE"):
                connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
                connection.request(method, path)
                reply = connection.getresponse()
                self.assertEqual((reply.status, reply.getheader("allow")), (405, "POST"), (method, path))
                self.assertIsNone(reply.getheader("access-control-allow-origin"))
                connection.close()
        self.assertEqual({each["state"] for each in self.cluster.instances().values()}, {"ready"})

    def test_names_of_loopback_are_this_address(self):
        port = urllib.parse.urlsplit(self.cluster.admin).port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            status, document = post(self.cluster, "/admin/v1/migrate", {"request": "nobody", "to": "engine-0"}, host=host)
            self.assertEqual(status, 404, document)


class Drains(MigrationTest):
    def test_an_instance_is_emptied_under_50_streams_and_taken_back(self):
        async def go(cluster):
            async def act(streams):
                before = await asyncio.to_thread(places, cluster)
                there = [name for name, at in before.items() if at == "engine-1"]
                self.assertGreater(len(there), 8, before)
                drain = asyncio.create_task(asyncio.to_thread(
                    cluster.command, "drain", "engine-1", "--timeout", "60s", "--json"))
                await until_async(lambda: cluster.instances()["engine-1"]["state"] == "draining", 10, "it shows")
                late = streams_for(cluster, "late", 9, 40)
                ends = [asyncio.create_task(stream.run()) for stream in late]
                code, out, err = await drain
                self.assertEqual((code, err), (0, ""), out)
                done = json.loads(out)
                self.assertEqual(done["left"], 0)
                self.assertEqual(done["moved"] + done["finished"], len(there), (done, before))
                self.assertGreater(done["moved"], len(there) / 2)
                self.assertNotIn("engine-1", (await asyncio.to_thread(places, cluster)).values())
                await asyncio.gather(*ends)
                for stream, output in zip(late, expected_for("late", 9, 40)):
                    self.assert_exact(stream, output)
                    placed = [event["instance"] for event in (await asyncio.to_thread(cluster.why, stream.request_id))["events"]
                              if event["kind"] == "placed"]
                    self.assertNotIn("engine-1", placed)
                # Already empty, and told so at once.
                code, out, _ = await asyncio.to_thread(cluster.command, "drain", "engine-1")
                self.assertEqual((code, out), (0, "engine-1: 0 moved, 0 finished, 0 left\n"))
                # Nothing comes by hand either.
                moves = await asyncio.to_thread(migrate, cluster, **{"from": "engine-0", "to": "engine-1"})
                self.assertEqual(moves[0]["outcome"], "refused")
                self.assertIn("llumnix undrain engine-1", moves[0]["reason"])
                return there

            moved = await run_all(self, cluster, "drain", 50, 400, act)
            for name in moved:
                self.assertNotIn("replayed", await asyncio.to_thread(kinds, cluster, name), name)

        async def again(cluster):
            async def act(streams):
                self.assertIn("engine-1", (await asyncio.to_thread(places, cluster)).values())

            await run_all(self, cluster, "again", 9, 100, act)

        with Cluster(engines=3, engine__speed=3) as cluster:
            asyncio.run(go(cluster))
            self.wait_quiet(cluster)
            code, out, err = cluster.command("undrain", "engine-1")
            self.assertEqual((code, out, err), (0, "engine-1 takes requests again\n", ""))
            until(lambda: cluster.instances()["engine-1"]["state"] == "ready", 5, "it is ready again")
            asyncio.run(again(cluster))

    def test_one_instance_after_the_other(self):
        async def go(cluster):
            async def act(streams):
                for number in range(6):
                    instance = f"engine-{number % 3}"
                    status, done = await asyncio.to_thread(
                        post, cluster, f"/admin/v1/instances/{instance}/drain?timeout=30s")
                    self.assertEqual((status, done.get("left")), (200, 0), done)
                    status, done = await asyncio.to_thread(post, cluster, f"/admin/v1/instances/{instance}/undrain")
                    self.assertEqual(status, 200, done)

            await run_all(self, cluster, "round", 40, 600, act)

        with Cluster(engines=3, engine__speed=3) as cluster:
            asyncio.run(go(cluster))
            self.wait_quiet(cluster)

    def test_nowhere_to_go(self):
        """The time runs out, the instance stays as it is, and what runs ends by itself."""
        async def go(cluster):
            async def act(streams):
                code, out, err = await asyncio.to_thread(cluster.command, "drain", "engine-0", "--timeout", "700ms")
                self.assertEqual(code, 1, err)
                self.assertIn("5 left; 5 requests are still there after 700ms", out)
                self.assertIn("engine-0 drains: 5 requests are there", err)
                self.assertEqual(cluster.instances()["engine-0"]["state"], "draining")
                status, done = await asyncio.to_thread(post, cluster, "/admin/v1/instances/engine-0/drain?timeout=60s")
                self.assertEqual((status, done["moved"], done["finished"], done["left"]), (200, 0, 5, 0), done)

            await run_all(self, cluster, "alone", 5, 250, act)

        with Cluster(engines=1, engine__speed=3) as cluster:
            asyncio.run(go(cluster))
            code, _, err = cluster.command("undrain", "engine-0")
            self.assertEqual(code, 0, err)
            stream = asyncio.run(Stream(cluster.url, chat_body("after", 8)).run(20))
            self.assert_exact(stream, modeled.chat("after", 8, ignore_eos=True))

    def test_a_drain_outlives_an_engine_that_stands_still(self):
        async def go(cluster):
            def state(engine, *states):
                return cluster.instances()[engine]["state"] in states

            async def act(streams):
                drain = asyncio.create_task(asyncio.to_thread(
                    cluster.command, "drain", "engine-0", "--timeout", "50s", "--json"))
                await until_async(lambda: state("engine-0", "draining"), 10, "it shows")
                pid = cluster.pid("engine-0")
                os.kill(pid, signal.SIGSTOP)
                try:
                    await until_async(lambda: state("engine-0", "lost"), 20, "it is missed")
                    # What is replayed has somewhere to go now.
                    code, _, err = await asyncio.to_thread(cluster.command, "undrain", "engine-1")
                    self.assertEqual(code, 0, err)
                finally:
                    os.kill(pid, signal.SIGCONT)
                code, out, err = await drain
                self.assertEqual((code, err), (0, ""), out)
                self.assertEqual(json.loads(out)["left"], 0)
                self.assertTrue(state("engine-0", "draining"))
                self.assertEqual(cluster.pid("engine-0"), pid)

            code, _, err = await asyncio.to_thread(cluster.command, "drain", "engine-1")
            self.assertEqual(code, 0, err)
            await run_all(self, cluster, "still", 4, 600, act)

        with Cluster(engines=2, engine__speed=3, gateway__wait_for_instance="30s") as cluster:
            asyncio.run(go(cluster))
            self.wait_quiet(cluster)

    def test_a_drained_instance_that_dies_comes_back_ready(self):
        async def go(cluster):
            async def act(streams):
                drain = asyncio.create_task(asyncio.to_thread(
                    post, cluster, "/admin/v1/instances/engine-0/drain?timeout=60s"))
                await asyncio.sleep(0.02)
                os.kill(cluster.pid("engine-0"), signal.SIGKILL)
                status, done = await drain
                self.assertIn(status, (200, 503), done)
                if status == 503:
                    self.assertIn("replayed elsewhere", done["error"]["message"])

            await run_all(self, cluster, "dies", 30, 400, act)

        with Cluster(engines=3, engine__speed=3) as cluster:
            asyncio.run(go(cluster))
            cluster.wait_event(START_S, event="node_restarted", node="engine-0")
            until(lambda: cluster.instances()["engine-0"]["state"] == "ready", 20, "it is ready")
            self.wait_quiet(cluster)


class Faults(MigrationTest):
    def test_engines_die_while_requests_move(self):
        """Sources and destinations, again and again: every stream is whole."""
        async def go(cluster):
            async def keep_moving(streams, counts):
                chance = random.Random(2)
                while not all(stream.done or stream.broken for stream in streams):
                    stream = chance.choice(streams)
                    if stream.done:
                        await asyncio.sleep(0)
                        continue
                    status, document = await asyncio.to_thread(
                        post, cluster, "/admin/v1/migrate",
                        {"request": stream.request_id, "to": f"engine-{chance.randrange(3)}"})
                    self.assertIn(status, (200, 404), document)
                    for move in document.get("moves", ()):
                        counts[move["outcome"]] = counts.get(move["outcome"], 0) + 1

            async def act(streams):
                counts = {}
                movers = [asyncio.create_task(keep_moving(streams, counts)) for _ in range(4)]
                for number in range(3):
                    await asyncio.sleep(0.7)
                    node = f"engine-{number}"
                    os.kill(cluster.pid(node), signal.SIGKILL)
                    await until_async(
                        lambda: any(e["event"] == "node_restarted" and e["node"] == node for e in list(cluster.events)),
                        30, f"{node} is back")
                    await until_async(lambda: cluster.instances().get(node, {}).get("state") == "ready", 20, "it is ready")
                await asyncio.gather(*movers)
                return counts

            return await run_all(self, cluster, "fault", 24, 600, act)

        with Cluster(engines=3, engine__speed=3) as cluster:
            counts = asyncio.run(go(cluster))
            self.assertGreater(counts.get("moved", 0), 10, counts)
            self.wait_quiet(cluster)

    def test_a_destination_that_stops_for_a_while_harms_nobody(self):
        async def go(cluster):
            async def act(streams):
                at = (await asyncio.to_thread(places, cluster))["stop-0"]
                to = "engine-1" if at == "engine-0" else "engine-0"
                pid = cluster.pid(to)
                os.kill(pid, signal.SIGSTOP)
                try:
                    began = time.monotonic()
                    moves = await asyncio.to_thread(migrate, cluster, request="stop-0", to=to)
                    self.assertIn(moves[0]["outcome"], ("failed", "refused"), moves)
                    self.assertTrue(moves[0]["reason"])
                    self.assertLess(time.monotonic() - began, 15)
                finally:
                    os.kill(pid, signal.SIGCONT)

            await run_all(self, cluster, "stop", 6, 400, act)

        with Cluster(engines=2, engine__speed=3) as cluster:
            asyncio.run(go(cluster))
            self.wait_quiet(cluster)


if __name__ == "__main__":
    unittest.main(verbosity=2)
