"""The scripted engine's batch: which requests run, at what pace, and the metrics that tell of it."""

import asyncio
import hashlib
import math
from collections import OrderedDict, deque

PREFIX_BLOCKS = 4096  # remembered
CATCH_UP_S = 0.1  # a request behind its pace by more starts anew from now
QUEUE_S = 0.002  # between two looks of a waiting request


class Running:
    """A job on its way; its sleeps end with an abort."""

    def __init__(self, job, record):
        self.job, self.record, self.aborted, self.sent = job, record, False, 0
        self._told, self._alarm = set(), None  # choices whose end was told

    def abort(self):
        self.aborted = True
        self._wake()

    async def pause(self, seconds):
        if self.aborted or seconds <= 0:
            return await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        self._alarm = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._alarm
        finally:
            timer.cancel()

    def _wake(self):
        if self._alarm and not self._alarm.done():
            self._alarm.set_result(None)

    def finished(self):
        return all(output.finished for output in self.job.outputs)

    def step(self, most, budget):
        """Adds up to `most` tokens to each choice, `budget` to all; yields (index, output, tokens added) to be told."""
        for index, output in enumerate(self.job.outputs):
            before = len(output.ids)
            while not output.finished and len(output.ids) - before < min(most, budget):
                output.step()
            added = len(output.ids) - before
            budget -= added
            self.sent += added
            if added or output.finished and index not in self._told:
                if output.finished:
                    self._told.add(index)
                yield index, output, added

    def blocks(self, size):
        return sum(-(-(len(output.prompt_ids) + len(output.ids)) // size) for output in self.job.outputs)


class Batch:
    """All requests of the engine. `settings` may be replaced at any time."""

    def __init__(self, settings):
        self.settings, self.running, self.waiting, self.prefixes = settings, set(), deque(), Prefixes()
        self.reset()

    def reset(self):
        self.metrics, self.peak = Metrics(), len(self.running)

    async def produce(self, running, reply, fault, tell):
        """Generates at the set pace; awaits `tell` with what each step brings, and lets the fault strike in time."""
        job, loop = running.job, asyncio.get_running_loop()
        began = due = loop.time()
        await self._admit(running)
        await running.pause(self.settings.prefill_ms / 1000)
        self._count_prompts(job)
        while True:
            if fault and running.sent >= fault.after_tokens:
                await fault.strike(reply, running)
                fault = None
            if running.finished():
                break
            budget = fault.after_tokens - running.sent if fault else math.inf
            step = min(self.settings.step_tokens, budget)
            due = max(due, loop.time() - CATCH_UP_S) + step * self.settings.token_ms / 1000
            await running.pause(due - loop.time())
            if running.aborted:
                for output in job.outputs:
                    output.abort()
            await self._step(running, step, budget, tell, began)

    async def _step(self, running, step, budget, tell, began):
        first = running.sent == 0
        for index, output, added in running.step(step, budget):
            if first and running.sent:
                self.metrics.first_token(asyncio.get_running_loop().time() - began)
                first = False
            running.record["tokens"] += added
            self.metrics.generation_tokens += added
            if output.finished:
                self.metrics.finished[output.finish_reason] += 1
            await tell(index, output.take())

    async def _admit(self, running):
        self.waiting.append(running)
        while not running.aborted and (len(self.running) >= self.settings.max_num_seqs
                                       or self.waiting[0] is not running):
            await running.pause(QUEUE_S)
        self.waiting.remove(running)
        self.running.add(running)
        self.peak = max(self.peak, len(self.running))

    def leave(self, running):
        """However it ended."""
        self.running.discard(running)
        if running in self.waiting:
            self.waiting.remove(running)
        self.metrics.finished["abort"] += sum(not output.finished for output in running.job.outputs)

    def abort(self, ids):
        for each in [*self.running, *self.waiting]:
            if not ids.isdisjoint(each.job.external_ids):
                each.abort()

    def _count_prompts(self, job):
        for prompt in job.prompts:
            self.metrics.prompt_tokens += len(prompt)
            self.metrics.prefix_queries += len(prompt)
            self.metrics.prefix_hits += self.prefixes.hit(prompt, self.settings.block_size)

    def page(self):
        size, count = self.settings.block_size, self.settings.num_blocks
        used = sum(each.blocks(size) for each in self.running)
        return self.metrics.page(
            self.settings.model, len(self.running), len(self.waiting), min(1.0, used / count),
            {"block_size": size, "num_gpu_blocks": count, "enable_prefix_caching": True, "cache_dtype": "auto",
             "gpu_memory_utilization": 0.9})


class Prefixes:
    """Prompts' beginnings in whole blocks, as a prefix cache knows them."""

    def __init__(self):
        self._known = OrderedDict()

    def hit(self, prompt, size):
        """How many tokens of this prompt an earlier one began with; remembers it."""
        state, hits, hit = hashlib.blake2b(digest_size=16), 0, True
        for end in range(size, len(prompt), size):  # the last token is always computed
            state.update(repr(prompt[end - size:end]).encode())
            key = state.digest()
            hit = hit and key in self._known
            hits += size if hit else 0
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > PREFIX_BLOCKS:
            self._known.popitem(last=False)
        return hits


class Metrics:
    """Counters, and the page that Prometheus reads."""
    TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    REASONS = ("stop", "length", "abort", "error", "repetition")

    def __init__(self):
        self.prompt_tokens = self.generation_tokens = self.prefix_queries = self.prefix_hits = 0
        self.finished = dict.fromkeys(self.REASONS, 0)
        self.first_token_counts, self.first_token_sum = [0] * (len(self.TTFT_S) + 1), 0.0

    def first_token(self, seconds):
        self.first_token_counts[sum(seconds > bound for bound in self.TTFT_S)] += 1
        self.first_token_sum += seconds

    def page(self, model, running, waiting, kv_usage, cache):
        lines = []

        def family(name, kind, about, samples):
            lines.extend((f"# HELP {name} {about}", f"# TYPE {name} {kind}"))
            for suffix, labels, value in samples:
                labels = {"engine": "0", "model_name": model} | labels
                said = ",".join(f'{key}="{text}"' for key, text in labels.items())
                lines.append(f"{name}{suffix}{{{said}}} {float(value)}")

        def one(name, kind, about, value):
            family(name, kind, about, [("", {}, value)])

        one("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", running)
        one("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", waiting)
        family("vllm:num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.",
               [("", {"reason": "capacity"}, waiting), ("", {"reason": "deferred"}, 0)])
        one("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", kv_usage)
        one("vllm:prefix_cache_queries_total", "counter", "Prefix cache queries, in tokens.", self.prefix_queries)
        one("vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.", self.prefix_hits)
        one("vllm:num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", 0)
        one("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", self.prompt_tokens)
        family("vllm:prompt_tokens_by_source_total", "counter", "Number of prompt tokens by source.",
               [("", {"source": "local_compute"}, self.prompt_tokens - self.prefix_hits),
                ("", {"source": "local_cache_hit"}, self.prefix_hits),
                ("", {"source": "external_kv_transfer"}, 0)])
        one("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", self.generation_tokens)
        family("vllm:request_success_total", "counter", "Count of successfully processed requests.",
               [("", {"finished_reason": reason}, count) for reason, count in self.finished.items()])
        family("vllm:time_to_first_token_seconds", "histogram", "Histogram of time to first token in seconds.",
               self._first_token_samples())
        family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig",
               [("", {key: str(value) for key, value in cache.items()}, 1)])
        return "\n".join(lines) + "\n"

    def _first_token_samples(self):
        total = 0
        for bound, count in zip((*self.TTFT_S, "+Inf"), self.first_token_counts):
            total += count
            yield "_bucket", {"le": str(bound)}, total
        yield "_count", {}, total
        yield "_sum", {}, self.first_token_sum
