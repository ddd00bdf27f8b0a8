"""A gateway whose placements are another scheduler's: asked, told, done without when it is gone, and asked again."""

import asyncio
import contextlib
import os
import signal
import time
import unittest

from cluster import Stream, free_port, until, until_async
from test_discovery import Gateway, field
from test_relay import COMPLETIONS, Engine, completion, post
from test_scheduler_api import METADATA, PODS, STATUS, Keepalive, Redis, Scheduler, cms_record, pod, status_record


class RemoteScheduler(unittest.TestCase):
    def engines(self, count, *options):
        engines = [Engine(*options) for _ in range(count)]
        for each in engines:
            self.addCleanup(each.close)
        return engines

    def scheduler(self, redis, port, *flags):
        return Scheduler("--port", str(port), "--enable-full-mode-scheduling=false", "--discovery-redis-host", "127.0.0.1",
                         "--discovery-redis-port", str(redis.port), "--discovery-redis-refresh-interval-ms", "200", *flags)

    def gateway(self, redis, port, *flags, **knobs):
        return self.enterContext(Gateway(
            "--discovery-redis-host", "127.0.0.1", "--discovery-redis-port", str(redis.port),
            "--discovery-redis-refresh-interval-ms", "200", "--scheduler-endpoints", f"127.0.0.1:{port}",
            "--enable-full-mode-scheduling=false", "--requests-report-duration", "0.2", *flags, **knobs))

    def lite(self, engines=2, scheduler_flags=(), **knobs):
        """Engines that discovery finds, a scheduler in lite mode, and a gateway that asks it."""
        self.found = self.engines(engines, "--token-ms", "2")
        redis = self.enterContext(contextlib.closing(Redis()))
        for number, each in enumerate(self.found):
            redis.set(f"{PODS}pod-{number}", pod(f"pod-{number}", each.id))
        self.port = free_port()
        self.start = lambda: self.scheduler(redis, self.port, *scheduler_flags)
        self.there = self.start()
        self.addCleanup(lambda: self.there.process.poll() is None and self.there.close())
        self.us = self.gateway(redis, self.port, **knobs)
        until(lambda: len(self.us.serving()) == engines, 20, "every engine is known")
        until(lambda: self.number("llumnix_remote_scheduler_ready") == 1, 20, "the scheduler is there")
        until(lambda: {tuple(self.there.place(f"probe-{time.monotonic_ns()}", 1)) for _ in range(2 * engines)
                       } == {(f"pod-{number}_dp0",) for number in range(engines)}, 20, "it knows the engines, too")

    def number(self, name):
        return self.us.metrics().get(name)

    def send(self, request, prompt="hello", headers=()):
        status, _, text = post(self.us.url, COMPLETIONS, completion(prompt, 4, stream=False),
                               {"x-request-id": request, **dict(headers)}.items())
        self.assertEqual(status, 200, text)

    def test_requests_go_where_it_says_and_weigh_on_it_until_they_end(self):
        self.lite()
        for i in range(4):
            self.send(f"r-{i}")
        self.assertEqual(self.number("llumnix_placements_by_remote_total"), 4)
        self.assertEqual(self.number("llumnix_placements_by_view_total"), 0)
        long = Stream(self.us.url, completion("hello", 1500), COMPLETIONS, "long")

        def chosen(probe, gateway):
            instance, = self.there.place(probe, 1, gateway.id)
            self.there.release(probe, gateway.id, instance)
            return instance

        async def while_it_runs():
            running = asyncio.create_task(long.run(60))
            await until_async(lambda: long.pieces > 3, 20, "it has begun")
            busy = next(each for each in self.found if each.state()["running"])
            idle = next(number for number, each in enumerate(self.found) if each is not busy)
            with Keepalive(self.there, port=7) as other:
                for i in range(4):
                    self.assertEqual(await asyncio.to_thread(chosen, f"p-{i}", other), f"pod-{idle}_dp0")
                # What it has come to is reported: more than an own request of 400 tokens on the idle one.
                instance, = self.there.place("own", 400, other.id)
                self.assertEqual(instance, f"pod-{idle}_dp0")
                await until_async(lambda: chosen(f"q-{time.monotonic_ns()}", other) == f"pod-{idle}_dp0", 20, "its tokens are known")
            await running

        asyncio.run(while_it_runs())
        self.assertTrue(long.done, long.broken)
        with Keepalive(self.there, port=8) as other:
            until(lambda: {chosen(f"e-{time.monotonic_ns()}", other) for _ in range(2)} == {"pod-0_dp0", "pod-1_dp0"}, 20,
                  "nothing of it is left")
        self.assertEqual(self.number("llumnix_remote_scheduler_release_failures_total"), 0)

    def test_it_may_be_killed_and_come_back(self):
        self.lite()
        self.send("before")
        self.there.process.kill()
        self.there.process.wait()
        for i in range(4):
            self.send(f"without-{i}")
        self.assertGreaterEqual(self.number("llumnix_placements_by_view_total"), 4)
        until(lambda: self.number("llumnix_remote_scheduler_ready") == 0, 20, "it is noticed")
        until(lambda: "scheduler-gone" in self.us.stderr(), 20, "the log says so")
        self.there.log.close()
        self.there = self.start()
        until(lambda: self.number("llumnix_remote_scheduler_ready") == 1, 20, "it is asked again")
        placed = self.number("llumnix_placements_by_remote_total")
        until(lambda: self.there.place(f"x-{time.monotonic_ns()}", 1) != 429, 20, "it knows engines")
        self.send("after")
        self.assertEqual(self.number("llumnix_placements_by_remote_total"), placed + 1)

    def test_one_that_hangs_holds_up_a_request_once(self):
        self.lite()
        os.kill(self.there.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.send("first")  # 2 s, as the reference waits
            for i in range(3):
                self.send(f"next-{i}")
            self.assertLess(time.monotonic() - began, 4.5)
            self.assertGreaterEqual(self.number("llumnix_placements_by_view_total"), 4)
        finally:
            os.kill(self.there.process.pid, signal.SIGCONT)

    def test_a_key(self):
        redis = self.enterContext(contextlib.closing(Redis()))
        engine, = self.engines(1)
        redis.set(f"{PODS}pod-0", pod("pod-0", engine.id))
        port = free_port()
        there = self.scheduler(redis, port, "--set", "scheduler.http_key=secret")
        self.addCleanup(there.close)
        self.us = self.gateway(redis, port, "--service-token", "secret")
        until(lambda: self.number("llumnix_remote_scheduler_ready") == 1, 20, "the key is right")
        wrong = self.gateway(redis, port, "--service-token", "other")
        until(lambda: "scheduler-gone" in wrong.stderr(), 20, "the key is wrong")

    def test_by_the_statuses_of_llumlets_in_redis(self):
        engine, other = self.engines(2)
        redis = self.enterContext(contextlib.closing(Redis()))
        record = cms_record("metadata: neutral, one rank") + field(4, "127.0.0.1") + field(6, int(engine.id.rsplit(":", 1)[1]))
        redis.set(METADATA + "inst-0000", record)
        redis.set(STATUS + "inst-0000", status_record("inst-0000"))
        there = Scheduler("--cms-redis-host", "127.0.0.1", "--cms-redis-port", str(redis.port), "--cms-pull-metadata-interval-ms", "200")
        self.addCleanup(there.close)
        until(lambda: isinstance(there.place("warm-up", 0), list), 15, "the record is known")
        self.us = self.enterContext(Gateway(
            "--llm-backend-discovery", "endpoints", "--llm-backend-endpoints", f"{engine.id},{other.id}",
            "--scheduler-endpoints", there.address, "--scheduling-policy", "slo"))
        self.us.wait_serving(engine.id, other.id)
        until(lambda: self.number("llumnix_remote_scheduler_ready") == 1, 20, "the scheduler is there")
        for i in range(4):
            self.send(f"r-{i}", [1, 2, 3])
        completions = [request["id"] for request in engine.requests() if request["path"] == "/v1/completions"]
        self.assertEqual(len(completions), 4, completions)  # at the only one that it knows
        self.assertEqual(self.number("llumnix_placements_by_remote_total"), 4)
        status, _, text = there.say(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn("scheduler_scheduling_total 5\n", text)


if __name__ == "__main__":
    unittest.main()
