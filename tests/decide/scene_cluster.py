"""The cluster of a scene: what is known of every instance, and the numbers worked out from it.

"S" is scheduling.md, "C" cms.md, "R" rescheduling.md.
"""

import re
import bisect
import fractions
import math

from chunk_keys import chunk_keys
from scene_form import ACCOUNT, INFINITY, LARGEST_FLOAT32, STATUS, SceneError, effective_flags, float32, int32, real


class NoPrediction(Exception):
    """S 9.2: outside the table, or a hole in it."""


# ---- C 3 and 4: ids, and the account of what was sent but not yet reported -------------------------

KIND = re.compile("^(cmpl|chatcmpl|generate-tokens)-")
NUMBERED = re.compile("-[0-9]+-[0-9A-Fa-f]{8}$")


def dispatched_as(reported, dispatched):
    """C 3 and 12 item 18 (wanted): the one of those dispatched here that is reported; None if none is."""
    bare = KIND.sub("", reported)
    tries = [reported, bare, bare.split("+", 1)[0], bare.rsplit("-", 1)[0], NUMBERED.sub("", bare)]
    return next((request for request in tries if request in dispatched), None)


class Account:
    def __init__(self):
        self.entries = {}
        self.all = self.p = self.d = self.pt = self.dt = 0

    def add(self, request, role, tokens, uncomputed, age_ms):  # C 4.2
        entry = self.entries.get(request)
        if entry is None:
            self.all += 1
            self.entries[request] = {"role": role, "tokens": tokens, "uncomputed": uncomputed, "age_ms": age_ms,
                                     "found": False}
        elif entry["role"] in (role, "neutral") or role == "neutral":
            return
        else:
            entry["role"] = "neutral"
        if role in ("prefill", "neutral"):
            self.p += 1
            self.pt += uncomputed
        if role in ("decode", "neutral"):
            self.d += 1
            self.dt += tokens

    def subtract(self, entry):  # C 4.3
        if entry["role"] in ("prefill", "neutral"):
            self.p -= 1
            self.pt -= entry["uncomputed"]
        if entry["role"] in ("decode", "neutral"):
            self.d -= 1
            self.dt -= entry["tokens"]
        self.all -= 1

    def confirm(self, request):  # C 4.4, rule 1
        entry = self.entries[request]
        if not entry["found"]:
            entry["found"] = True
            self.subtract(entry)

    def reconcile(self, recent, waiting, staleness_s):  # C 4.4
        r = {dispatched_as(request, self.entries) for request in recent}
        w = {dispatched_as(request, self.entries) for request in waiting}
        for request in list(self.entries):
            entry = self.entries[request]
            if not entry["found"] and request in r:
                self.confirm(request)
            if entry["found"] and request not in w:
                del self.entries[request]
            elif not entry["found"] and request not in w and toward_zero(entry["age_ms"], 1000) >= staleness_s:
                self.subtract(entry)
                del self.entries[request]

    def read(self):
        """The counters in 32 bits each."""
        for counter in ("all", "p", "d", "pt", "dt"):
            setattr(self, counter, int32(getattr(self, counter)))

    def uncomputed_of(self, waiting):
        known = [dispatched_as(request, self.entries) for request in waiting]
        return int32(sum(self.entries[request]["uncomputed"] for request in known if request is not None))


def toward_zero(x, by):
    return x // by if x >= 0 else -(-x // by)


# ---- S 9.2: interpolation tables ------------------------------------------------------------------

class Table:
    def __init__(self, points):
        self.values = dict(points)  # duplicate points: the last one wins
        self.known_a = sorted({a for a, _ in self.values})
        self.known_b = sorted({b for _, b in self.values})

    def lookup(self, a, b):
        if a == 0 and b == 0:
            return 0.0
        a1, a2 = bounds(self.known_a, a)
        b1, b2 = bounds(self.known_b, b)
        try:
            v11, v12 = self.values[a1, b1], self.values[a1, b2]
            v21, v22 = self.values[a2, b1], self.values[a2, b2]
        except KeyError:
            raise NoPrediction from None
        if a2 - a1 < 1e-10 and b2 - b1 < 1e-10:
            return v11
        if a2 - a1 < 1e-10:
            return v11 + (v12 - v11) * ((b - b1) / (b2 - b1))
        if b2 - b1 < 1e-10:
            return v11 + (v21 - v11) * ((a - a1) / (a2 - a1))
        wa, wb = (a - a1) / (a2 - a1), (b - b1) / (b2 - b1)
        return v11 * (1 - wa) * (1 - wb) + v21 * wa * (1 - wb) + v12 * (1 - wa) * wb + v22 * wa * wb


def bounds(known, x):
    below = bisect.bisect_right(known, x) - 1  # the largest known <= x
    above = bisect.bisect_left(known, x)  # the smallest known >= x
    if below < 0 or above == len(known):
        raise NoPrediction
    return known[below], known[above]


def tables_of(profiles):
    ttft = tpot = None
    if "ttft" in profiles:
        if not profiles["ttft"]:
            raise SceneError("config.profiles.ttft", "empty")
        ttft = Table(((float(e.get("tokens_num", 0)), 0.0), float(e.get("p50", 0))) for e in profiles["ttft"])
    if "tpot" in profiles:
        if not profiles["tpot"]:
            raise SceneError("config.profiles.tpot", "empty")
        tpot = Table(((float(e.get("batch_size", 0)), float(e.get("tokens_per_request", 0))), float(e.get("p50", 0)))
                     for e in profiles["tpot"])
    return ttft, tpot


# ---- S 9.1: the model of a prefill step -----------------------------------------------------------

def fitted(samples, warmup):
    """Least squares by exact fractions: (a, b, c), or None before the warm-up is over."""
    samples = [(fractions.Fraction(x), fractions.Fraction(y)) for x, y in samples if x != 0 and y > 0]
    if not samples or len(samples) < warmup:
        return None
    distinct = len({x for x, _ in samples})
    degree = 2 if distinct >= 3 else 1 if distinct == 2 else 0
    power = [sum(x**k for x, _ in samples) for k in range(2 * degree + 1)]
    rows = [[power[i + j] for j in range(degree + 1)] + [sum(y * x**i for x, y in samples)]
            for i in range(degree + 1)]
    for i in range(degree + 1):  # Gauss and Jordan; the matrix is positive definite, so no pivoting
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(degree + 1):
            if j != i:
                rows[j] = [x - rows[j][i] * y for x, y in zip(rows[j], rows[i])]
    c, b, a = [float(row[-1]) for row in rows] + [0.0] * (2 - degree)
    return a, b, c


def step_model_of(block, flags):
    if block is None:
        return None
    if "samples" in block:
        return fitted(block["samples"], flags["num-predictor-warmup-samples"])
    return float(block.get("a", 0)), float(block.get("b", 0)), float(block.get("c", 0))


def step_ms(model, tokens):
    a, b, c = model
    t = a * tokens * tokens + b * tokens + c
    return None if math.isnan(t) or math.isinf(t) or t <= 0 or t < 0.001 or t > 1e6 else t


def half_away(x):
    return math.floor(x + 0.5) if x >= 0 else math.ceil(x - 0.5)


# ---- the cluster of a scene -----------------------------------------------------------------------

class Instance:
    def __init__(self, given, cluster):
        flags = cluster.flags
        metadata, status = given.get("metadata", {}), given.get("status", {})
        self.cluster = cluster
        self.id = given["id"]
        self.role = metadata.get("instance_type", "neutral")
        self.state = given.get("state", "ready")
        self.node = metadata.get("node_id", "")
        self.unit = metadata.get("unit_id", "")
        self.data_parallel_size = metadata.get("data_parallel_size", 1)
        self.ip_kvs = metadata.get("ip_kvs", "")
        self.block_size = metadata.get("block_size", 0) or 16
        self.chunk = metadata.get("max_num_batched_tokens", 0)
        self.status = status
        self.override_25 = None
        self.schedulable = status.get("schedulable", True) and self.state == "ready"
        # Ours: who drains or stopped is no failure (docs/decide.md).
        self.failing = (self.state == "lost"
                        or self.state == "ready" and not status.get("schedulable", True))
        self.age_ms = (cluster.now_ms - status["timestamp_ms"] if "timestamp_ms" in status
                       else given.get("status_age_ms", 0))
        self.reserved = given.get("reserved", "")
        self.chunks = given.get("chunks", [])
        self.running = given.get("running")
        self.waiting = given.get("waiting")
        self.given = {name: real(value) for name, value in given.get("metrics", {}).items()}
        # What it carries into a request (S 3).
        self.needs_failover = False
        self.hit_tokens, self.hit_ratio, self.miss_tokens, self.progress = 0, 0.0, 0, 0
        self.known = {}
        self.account = Account()
        self.book(given, flags)

    def book(self, given, flags):  # C 4.2, then 4.4
        dispatched = given.get("dispatched", [])
        self.ledger_requests = len(dispatched)  # C 7: lite mode
        self.ledger_tokens = int32(sum(entry.get("num_tokens", 0) for entry in dispatched))
        if flags["enable-instance-status-local-account"]:
            cache_aware = flags["enable-cache-aware-scheduling"]
            for entry in dispatched:
                tokens = entry.get("num_tokens", 0)
                hit = entry.get("prefix_hit_tokens", 0) if cache_aware else 0
                self.account.add(entry["request_id"], entry.get("infer_type", "neutral"), tokens, tokens - hit,
                                 entry.get("age_ms", 0))
                if entry.get("found", False):
                    self.account.confirm(entry["request_id"])
            waiting = self.status.get("waiting_requests", [])
            self.account.reconcile(self.status.get("recent_waiting_requests", []), waiting,
                                   flags["request-local-account-staleness-seconds"])
            if cache_aware and waiting:
                self.override_25 = self.account.uncomputed_of(waiting)
            self.account.read()
        for name, short in zip(ACCOUNT, ("all", "p", "d", "pt", "dt")):
            if name in given.get("account", {}):
                setattr(self.account, short, given["account"][name])

    def field(self, number_of_field):
        if number_of_field == 25 and self.override_25 is not None:
            return self.override_25
        return self.status.get(STATUS[number_of_field], 0)

    def stale(self):  # C 2.4, S 6
        return toward_zero(self.age_ms, 1000) > self.cluster.flags["instance-staleness-seconds"]

    # -- S 5

    def metric(self, name, with_request=True):
        """Its value as float32, computed once; without the request where that makes a difference."""
        form = (name, with_request and name.startswith("predicted_t"))
        if form not in self.known:
            value = self.given[name] if name in self.given else self.compute(name, with_request)
            self.known[form] = float32(value)
        return self.known[form]

    def carried(self, name):
        return self.given.get(name, {"hit_tokens": self.hit_tokens, "hit_ratio": self.hit_ratio,
                                     "miss_tokens": self.miss_tokens, "predicted_progress": self.progress}[name])

    def sum(self, fields, *counters):
        return int32(sum(map(self.field, fields)) + sum(counters))

    def all_prefills(self, progress):
        return self.sum((25, 21), self.account.pt, -progress)

    def compute(self, name, with_request):
        account = self.account
        if name == "kv_cache_usage_ratio_projected":
            if self.field(14) == 0:
                return LARGEST_FLOAT32
            return float32(self.sum((15, 25, 22, 17), account.dt)) / float32(self.field(14))
        if name == "decode_batch_size":
            return self.sum((8, 13, 9, 11), account.d)
        if name == "num_waiting_requests":
            return self.sum((10,), account.all)
        if name == "all_prefills_tokens_num":
            return self.all_prefills(int(self.carried("predicted_progress")))
        if name == "kv_cache_hit_len":
            return self.carried("hit_tokens")
        if name == "cache_aware_all_prefills_tokens_num":
            return float32(self.carried("miss_tokens")) + self.metric("all_prefills_tokens_num")
        if name == "num_requests":
            if not self.cluster.full_mode:
                return self.ledger_requests
            return self.sum((10, 13, 12), account.p, account.d)
        if name == "num_tokens":
            return self.ledger_tokens
        if name == "all_decodes_tokens_num":
            return self.sum((18, 20, 23, 24), account.dt)
        tokens = self.cluster.prompt_tokens if with_request else 0
        try:
            return self.predicted_ttft(tokens) if name == "predicted_ttft" else self.predicted_tpot(tokens)
        except NoPrediction:
            return INFINITY

    # -- S 9.3 and 9.4

    def predicted_ttft(self, r):
        a = int(self.metric("all_prefills_tokens_num"))
        b = int(self.metric("decode_batch_size"))
        k = int(self.metric("all_decodes_tokens_num"))
        q = self.cluster.prefill_latency
        expected = q(self.sum((25, 21)), b, k, self.chunk)
        if self.age_ms > int(expected):
            return q(self.account.pt + r, b, k, self.chunk)
        return q(a + r, b, k, self.chunk) - self.age_ms

    def predicted_tpot(self, r):
        batch = int(float32(self.metric("decode_batch_size") + 1))
        return self.cluster.decode_latency(batch, int(self.metric("all_decodes_tokens_num")) + r)

    # -- S 9.1

    def find_progress(self, model, most):
        elapsed = self.age_ms
        if elapsed <= 0:
            return 0
        work = int(self.metric_without_progress())
        at_first, run, done = work, self.field(21), 0
        while elapsed > 0 and work > 0:
            if 0 < run < most:
                step, run = run, 0
            else:
                step = min(work, most)
            t = step_ms(model, step)
            if t is None:
                done = 0
                break
            if elapsed >= t:
                done, elapsed, work = done + step, elapsed - t, work - step
            else:
                done, elapsed, work = done + half_away(step * elapsed / t), 0, 0
        return min(done, at_first)

    def metric_without_progress(self):
        given = self.given.get("all_prefills_tokens_num")
        return float32(self.all_prefills(0) if given is None else given)

    # -- R 7: freeness and its kin; None where the scene does not say how long the waiting ones are

    def steps_metric(self, name):
        if name in self.given:
            return float32(self.given[name])
        size = self.block_size
        total, used = self.field(14) // size, self.field(15) // size
        running = len(self.running) if self.running is not None else self.field(12)
        waiting = len(self.waiting) if self.waiting is not None else self.field(10)
        if self.waiting is not None:
            wanted = [-(-request.get("len", 0) // size) for request in self.waiting]
        else:
            wanted = [] if waiting == 0 else None
        if name == "adaptive_decode":
            b = self.metric("decode_batch_size")
            if self.running is not None and "decode_batch_size" not in self.given:  # surface: the list's, not [11]
                b = self.sum((8, 13, 9), self.account.d + sum(r.get("out", 0) > 0 for r in self.running))
            return 128.0 if b == 0 else b if b >= 128 else float32(128 - b)
        if name == "miss_waiting_tokens":
            listed = self.waiting is not None and not (self.waiting and self.field(25))  # what is cached no list says
            return float32(sum(r.get("len", 0) for r in self.waiting) if listed else self.field(25))
        if wanted is None:
            return None
        if name == "kv_blocks_ratio":
            return float32((used + sum(wanted)) / total) if total else INFINITY
        if name == "remaining_steps":
            return float32((total - used - sum(wanted)) / (running + waiting)) if running + waiting else INFINITY
        if name == "remaining_steps_defrag":
            batch = running + (1 if waiting else 0)
            return float32((total - used - sum(wanted[:1])) / batch) if batch else INFINITY
        return self.freeness(running, wanted)

    def freeness(self, running, wanted):  # R 7.2
        if self.state == "draining":
            return -INFINITY
        if running == 0:
            return INFINITY if not wanted else None
        memory, size = self.field(14), self.block_size
        used = self.field(15)
        if self.running is not None:
            used = sum(-(-request.get("len", 0) // size) * size for request in self.running)
            if any(request.get("priority") == "high" for request in self.running):
                used += memory - 1600  # the headrooms of all high-priority ones together
        return float32((memory - used - sum(wanted[:1]) * size) / running)


class Cluster:
    def __init__(self, scene):
        config = scene.get("config", {})
        self.settings = config.get("set", {})
        self.flags = effective_flags(config.get("flags", {}), self.settings)
        self.full_mode = self.flags["enable-full-mode-scheduling"]
        self.environment = config.get("env", {})
        self.now_ms = scene.get("now_ms", 0)
        self.ttft, self.tpot = tables_of(config.get("profiles", {}))
        self.step_model = step_model_of(config.get("step_model"), self.flags)
        self.request = scene.get("request", {})
        self.prompt_tokens = self.request.get("prompt_num_tokens", 0)
        self.last = scene.get("last", {})
        given = sorted(scene.get("instances", []), key=lambda instance: instance["id"].encode())
        self.instances = [Instance(instance, self) for instance in given]  # ascending id, always
        self.by_id = {instance.id: instance for instance in self.instances}
        if len(self.by_id) != len(self.instances):
            raise SceneError("instances", "an id stands twice")
        self.adaptive = (self.full_mode and self.flags["enable-adaptive-pd"]
                         and self.flags["scheduling-policy"] == "slo")
        self.reserved_as_given = any("reserved" in instance for instance in given)
        if self.adaptive and not self.reserved_as_given:
            prefill, decode = self.reservations()
            for role, name in (("decode", decode), ("prefill", prefill)):
                if name:
                    self.by_id[name].reserved = role

    # -- C 5

    def reservations(self):
        if self.reserved_as_given:
            named = {i.reserved: i.id for i in self.instances if i.reserved}
            return named.get("prefill", ""), named.get("decode", "")
        # Wanted (C 12 item 7): nobody who takes no work, and nobody for both.
        prefill = decode = ""
        fit = [i for i in self.instances if i.schedulable and not i.stale()]
        for i in fit:
            if not decode and i.id != prefill and i.sum((25, 21)) == 0:
                decode = i.id
            if not prefill and i.id != decode and i.sum((8, 13, 9, 11)) == 0:
                prefill = i.id
        if not decode:
            others = [(i.sum((8, 13, 9, 11)), i.id.encode(), i.id) for i in fit if i.id != prefill]
            decode = min(others)[2] if others else ""
        if not prefill:
            others = [(i.sum((25, 21)), i.id.encode(), i.id) for i in fit if i.id != decode]
            prefill = min(others)[2] if others else ""
        return prefill, decode

    # -- S 9.2

    def decode_latency(self, batch, tokens):
        if batch <= 0 or tokens <= 0:
            return 0.0
        if self.tpot is None:
            raise SceneError("config.profiles.tpot", "a predicted value needs it")
        return self.tpot.lookup(batch, max(8, tokens / batch))

    def prefill_latency(self, tokens, batch, decode_tokens, chunk):
        if self.ttft is None:
            raise SceneError("config.profiles.ttft", "a predicted value needs it")
        decode = self.decode_latency(batch, decode_tokens)  # even when there is no piece
        total = 0.0
        while tokens > 0:
            if chunk <= 0:
                raise NoPrediction
            piece = min(tokens, chunk)
            total += self.ttft.lookup(piece, 0) + decode
            tokens -= piece
        return total

    # -- S 3: what happens before a role is chosen

    def prepare(self):
        self.find_hits()
        if self.full_mode and self.flags["enable-predictor-enhanced-scheduling"] and self.step_model:
            for i in self.instances:
                if i.role == "prefill":
                    i.progress = i.find_progress(self.step_model, self.flags["max-num-batched-tokens"])

    def find_hits(self):  # S 8
        if not (self.full_mode and self.flags["enable-cache-aware-scheduling"]
                and self.prompt_tokens >= self.flags["cache-aware-scheduling-min-tokens"]):
            return
        if "prefix_hit_tokens" in self.request:
            hits = self.request["prefix_hit_tokens"]
        else:
            keys = self.request.get("chunk_keys")
            if keys is None:
                try:
                    keys = chunk_keys(self.request.get("prompt_token_ids") or [], self.flags, self.environment)
                except SceneError:
                    return  # any failure leaves hits at zero
            hits = self.hits_of(keys)
        for i in self.instances:
            i.hit_tokens = hits.get(i.id, 0)
            i.hit_ratio = (float32(float32(i.hit_tokens) / float32(self.prompt_tokens)) if self.prompt_tokens else 0.0)
            i.miss_tokens = self.prompt_tokens - i.hit_tokens  # wanted: for every candidate

    def hits_of(self, keys):  # S 8.3
        held = {}
        for i in self.instances:
            held.setdefault(i.ip_kvs or ("own", i.id), set()).update(i.chunks)
        hits = {}
        for i in self.instances:
            run = 0
            while run < len(keys) and keys[run] in held[i.ip_kvs or ("own", i.id)]:
                run += 1
            hits[i.id] = min(run * self.flags["kvs-chunk-size"], self.prompt_tokens)
        return hits

    def groups(self):
        return {i.role for i in self.instances}
