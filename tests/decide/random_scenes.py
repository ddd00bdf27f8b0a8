"""Random scenes for `llumnix decide`: small clusters of coarse values, so that ties, thresholds met
exactly, fallbacks and failover domains are common. The same seed and index give the same scene.

Left out is what the specification leaves open: an unready `state`, different data-parallel sizes in one cluster,
hits given to a request that is too short, given hits without the misses, a profile of one kind where both are asked.
"""

import random

from chunk_keys import chunk_keys
from scene_form import ACCOUNT, POLICIES, ROLES, effective_flags

ASKS = (("place", 52), ("plan", 22), ("choose", 7), ("metrics", 6), ("predict", 2), ("reserve", 2), ("keys", 3),
        ("scale", 2), ("config", 2), ("bad", 2))
FULL_METRICS = ("kv_cache_usage_ratio_projected", "decode_batch_size", "num_waiting_requests",
                "all_prefills_tokens_num", "kv_cache_hit_len", "cache_aware_all_prefills_tokens_num", "num_requests",
                "all_decodes_tokens_num")
IDS = ("i1", "i2", "i3", "i10", "i11", "a", "b", "B", "engine-0", "engine-1", "engine-10", "x_dp0", "x_dp1")
QUEUED = ("q1", "q2", "q3", "q3-0", "req-7", "550e8400-e29b", "r+1", "cmpl-q1",
          "550e8400-e29b-41d4-a716-446655440000")
LARGEST_INT32 = (1 << 31) - 1
SUMMED = ("num_used_gpu_tokens", "num_uncomputed_tokens_all_waiting_prefills",
          "num_uncomputed_tokens_scheduler_running_prefills", "scheduler_running_to_decode_tokens_num",
          "num_tokens_loading_requests")
TTFT_GRID = (64, 128, 256, 512, 1024, 2048)
BATCH_GRID = (1, 2, 4, 8, 16)
TOKENS_GRID = (8, 64, 256, 1024)


def scene(seed, index):
    """The scene of that index as a value ready for JSON; a text where the line is not even JSON."""
    r = random.Random(f"{seed}:{index}")
    ask = r.choices([name for name, _ in ASKS], [weight for _, weight in ASKS])[0]
    return Writer(r).write(ask)


class Writer:
    def __init__(self, r):
        self.r = r
        self.flags = {}
        self.config = {}

    def maybe(self, chance):
        return self.r.random() < chance

    def pick(self, *values):
        return self.r.choice(values)

    def write(self, ask):
        made = getattr(self, "ask_" + ask)()
        if self.flags or self.maybe(0.1):
            self.config["flags"] = self.flags
        if self.config:
            made["config"] = self.config
        if self.maybe(0.1):
            made["name"] = "scene"
        if ask == "bad":
            return self.spoil(made)
        if made.get("ask") == "place" and self.maybe(0.5):
            del made["ask"]
        return made

    # -- instances

    def cluster(self, roles, most=8):
        r = self.r
        count = r.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8))
        count = min(count, most)
        if len(roles) > 1 and self.maybe(0.8):
            count = max(count, 2)
        self.parallel = self.maybe(0.4)
        self.units = r.choice((("",), ("u1",), ("u1", "u2"), ("", "u1"), ("u1", "u2", "u3")))
        self.nodes = r.choice((("",), ("", "n1"), ("n1", "n2"), ("n1", "n2", "n3")))
        self.sick = r.choice((0, 0, 0.15, 0.4))
        self.now_ms = r.choice((0, 100000, 1700000000000))
        ids = r.sample(IDS, count)
        every = list(roles) if count >= len(roles) and self.maybe(0.9) else []  # each role at least once
        return [self.instance(name, role)
                for name, role in zip(ids, every + [r.choice(roles) for _ in range(count - len(every))])]

    def instance(self, name, role):
        r = self.r
        metadata = {}
        if role != "neutral" or self.maybe(0.5):
            metadata["instance_type"] = role
        unit, node = r.choice(self.units), r.choice(self.nodes)
        if unit:
            metadata["unit_id"] = unit
        if node:
            metadata["node_id"] = node
        if self.parallel:
            metadata["data_parallel_size"] = 2
        elif self.maybe(0.2):
            metadata["data_parallel_size"] = 1
        if self.maybe(0.9):
            metadata["max_num_batched_tokens"] = r.choice((256, 512, 1024, 2048))
        made = {"id": name}
        if metadata:
            made["metadata"] = metadata
        made["status"] = self.status()
        if self.maybe(self.sick):
            made["status"]["schedulable"] = False
        elif self.maybe(0.2):
            made["status"]["schedulable"] = True
        age = None
        if self.maybe(self.sick):
            age = r.choice((60000, 60999, 61000, 120000, 5000, 5999, 6000))
        elif self.maybe(0.4):
            age = r.choice((0, 10, 40, 100, 500, -20))
        if age is not None:
            if self.maybe(0.5):
                made["status_age_ms"] = age
            else:
                made["status"]["timestamp_ms"] = self.now_ms - age
                if self.maybe(0.3):
                    made["status_age_ms"] = 70000  # loses
        elif self.maybe(0.2):
            made["status"]["timestamp_ms"] = self.now_ms
        if not made["status"]:
            del made["status"]
        return made

    def status(self):
        r, made = self.r, {}
        total = r.choice((0, 1000, 1600, 1600, 16000, 16000))
        if total:
            made["num_total_gpu_tokens"] = total
            made["num_used_gpu_tokens"] = total // 10 * r.choice((0, 1, 3, 5, 5, 7, 9, 10))
        for name, chance in (
                ("num_uncomputed_tokens_all_waiting_prefills", 0.3),
                ("num_uncomputed_tokens_scheduler_running_prefills", 0.3),
                ("num_unallocated_tokens_scheduler_running_prefills", 0.1),
                ("num_unallocated_tokens_hybrid_scheduler_waiting_decodes", 0.1),
                ("hybrid_scheduler_waiting_to_decode_tokens_num", 0.1),
                ("scheduler_waiting_to_decode_tokens_num", 0.1),
                ("scheduler_running_to_decode_tokens_num", 0.4), ("num_tokens_loading_requests", 0.1),
                ("num_uncomputed_tokens_hybrid_scheduler_waiting_prefills", 0.05),
                ("num_uncomputed_tokens_scheduler_waiting_prefills", 0.05)):
            if self.maybe(chance):
                made[name] = r.choice((0, 64, 100, 300, 512, 1024, 2048))
        for name, chance in (
                ("hybrid_scheduler_waiting_to_decode_requests_num", 0.1),
                ("scheduler_waiting_to_decode_requests_num", 0.1), ("num_waiting_requests", 0.2),
                ("scheduler_running_to_decode_requests_num", 0.4), ("num_running_requests", 0.3),
                ("num_loading_requests", 0.1)):
            if self.maybe(chance):
                made[name] = r.choice((0, 1, 1, 2, 3, 5))
        return made

    def decorated(self, name):
        return (self.pick("", "", "cmpl-", "chatcmpl-", "generate-tokens-") + name
                + self.pick("", "", "-0", "-ab12", "+0+x", "-0+1", "-0-1a2b3c4d", "-1a2b3c4d"))

    def dispatch(self, instances, chance=0.3, lite=False):
        r = self.r
        for made in instances:
            if not self.maybe(chance):
                continue
            role = made.get("metadata", {}).get("instance_type", "neutral")
            names = r.sample(QUEUED, r.choice((1, 1, 2, 3)))
            entries = []
            for name in names:
                kind = role if lite or self.maybe(0.7) else r.choice(ROLES)
                tokens = r.choice((0, 100, 512, 600, 1024))
                entry = {"request_id": name, "num_tokens": tokens, "infer_type": kind}
                if tokens >= 512 and self.maybe(0.4):
                    entry["prefix_hit_tokens"] = r.choice((0, 256, tokens))
                if self.maybe(0.6):
                    entry["age_ms"] = r.choice((0, 20, 9999, 10000, 10999, 11000, 50000))
                if self.maybe(0.2):
                    entry["found"] = self.maybe(0.8)
                entries.append(entry)
                if not lite and kind != "neutral" and not entry.get("found") and self.maybe(0.2):
                    entries.append({**entry, "infer_type": {"prefill": "decode", "decode": "prefill"}[kind]})
            if not lite and self.maybe(0.1):
                entries.append(dict(r.choice(entries)))  # a duplicate
                if entries[-1].get("found"):
                    entries.pop()
            made["dispatched"] = entries
            status = made.setdefault("status", {})
            for name in ("recent_waiting_requests", "waiting_requests"):
                if self.maybe(0.4):
                    status[name] = [self.decorated(r.choice(QUEUED)) for _ in range(r.choice((1, 2, 3)))]
        if not lite and "enable-instance-status-local-account" not in self.flags and self.maybe(0.05) and instances:
            made = r.choice(instances)
            names = r.sample(ACCOUNT, r.choice((1, 3, 5)))
            made["account"] = {name: r.choice((0, 1, 3, 100, 512, -1)) for name in names}

    def override(self, instances, names, chance=0.15):
        for made in instances:
            if names and self.maybe(chance):
                made["metrics"] = {name: self.metric_value(name)
                                   for name in self.r.sample(names, min(len(names), self.pick(1, 1, 2, 3)))}

    def metric_value(self, name):
        r = self.r
        if name in ("kv_cache_usage_ratio_projected", "hit_ratio"):
            return r.choice((0.0, 0.1, 0.3, 0.35, 0.5, 0.7, 0.9, 1.0, 1.25, "inf"))
        if name == "decode_batch_size":
            return r.choice((0, 0.05, 0.1, 1, 2, 4, 20))
        if name.startswith("predicted_t"):
            return r.choice((0.0, 10.0, 30.0, 30.000002, 35.5, 42.5, 42.49, 47.5, 50.0, 640.0, 5100.0, 5099.5, "inf"))
        if name == "freeness":
            return r.choice((-5.5, 0, 5, 10, 25.25, 50, 60, 100))
        return r.choice((0, 0, 1, 64, 128, 512, 1024, 2048, 8192))

    def infinities(self, instances, names):
        for made in instances:
            if names and self.maybe(0.03):
                made.setdefault("metrics", {})[self.r.choice(names)] = self.pick("inf", "-inf")

    # -- profiles and models

    def profiles(self, only_tpot=False):
        r, made = self.r, {}
        slope, steep = r.choice((0.5, 1.0, 0.25)), r.choice((0.25, 0.5, 2.0))
        base = r.choice((5.0, 8.0, 20.0))
        if not only_tpot:
            made["ttft"] = [{"tokens_num": tokens, "p50": 10.0 + slope * tokens / 8} for tokens in TTFT_GRID]
            if self.maybe(0.5):
                made["ttft"].insert(0, {"tokens_num": 8, "p50": 10.0, "mean": 11.0})
            if self.maybe(0.2):
                made["ttft"].append({"tokens_num": 256, "p50": 31.25})  # the last one wins
        made["tpot"] = [{"batch_size": batch, "tokens_per_request": tokens, "p50": base + steep * batch + tokens / 64}
                        for batch in BATCH_GRID for tokens in TOKENS_GRID]
        if self.maybe(0.15):
            del made["tpot"][r.randrange(len(made["tpot"]))]  # a hole
        if self.maybe(0.3):
            r.shuffle(made["tpot"])
        self.config["profiles"] = made

    def step_model(self):
        r = self.r
        if self.maybe(0.7):
            self.config["step_model"] = {"a": r.choice((0, 0, 2.0**-12)), "b": r.choice((0, 0.03125, 0.0625)),
                                         "c": r.choice((0, 4, 8.5, -1))}
            return
        count = r.choice((0, 1, 2, 3, 5, 19, 20, 25))
        lengths = r.choice(((64,), (64, 256), (64, 128, 256, 512)))
        samples = [[r.choice(lengths), r.choice((4.5, 8, 11.0, 23.5))] for _ in range(count)]
        if self.maybe(0.2):
            samples.append(r.choice(([0, 10], [64, 0], [64, -3])))
        self.config["step_model"] = {"samples": samples}
        if self.maybe(0.7):
            self.flags["num-predictor-warmup-samples"] = r.choice((0, 1, 2, 3, 5))

    # -- place

    def request(self):
        r = self.r
        made = {"id": "new", "prompt_num_tokens": r.choice((0, 1, 64, 100, 300, 512, 1023, 1024, 2048, 5000))}
        mode = r.choice(("neutral", "neutral", "pd_batch", "pd_batch", "pd_staged", "pd_staged", "pd_staged"))
        if self.maybe(0.02):
            mode = r.choice(("", "other"))
        if mode:
            made["scheduling_mode"] = mode
        if mode == "pd_staged" or self.maybe(0.2):
            made["scheduling_stage"] = r.choice(("prefill", "decode", "prefill", "decode", "other"))
        return made

    def common_flags(self):
        r = self.r
        if self.maybe(0.7):
            self.flags["failover-domain"] = r.choice(("instance", "node", "instance-unit", "node-unit"))
        if self.maybe(0.2):
            self.flags["instance-staleness-seconds"] = r.choice((5, 60, 120))
        if self.maybe(0.1):
            self.flags["enable-instance-status-local-account"] = self.maybe(0.3)
        if self.maybe(0.1):
            self.flags["request-local-account-staleness-seconds"] = r.choice((0, 10, 11))
        if self.maybe(0.2):
            self.flags["ttft-slo"] = r.choice((100, 640, 6000.0))
        if self.maybe(0.2):
            self.flags["tpot-slo"] = r.choice((20, 50, 25.5))
        if self.maybe(0.15):
            self.flags["ttft-slo-dispatch-threshold"] = r.choice((0.5, 1.0))
        if self.maybe(0.15):
            self.flags["tpot-slo-dispatch-threshold"] = r.choice((0.7, 0.85, 0.9))

    def cache_aware(self, request, instances):
        r, flags = self.r, self.flags
        flags["enable-cache-aware-scheduling"] = True
        flags["cache-aware-scheduling-min-tokens"] = least = r.choice((1, 64, 512, 1024))
        if self.maybe(0.5):
            flags["dispatch-prefill-cache-locality-metric"] = r.choice(
                ("kv_cache_hit_len", "cache_aware_all_prefills_tokens_num", "kv_cache_usage_ratio_projected"))
        prompt = request["prompt_num_tokens"]
        if prompt < least or prompt == 0:
            return
        way = r.choice(("hits", "keys", "tokens", "none"))
        if way == "hits":
            request["prefix_hit_tokens"] = {
                made["id"]: min(prompt, r.choice((0, 64, 256, 512, prompt))) for made in instances if self.maybe(0.6)}
        if way in ("keys", "tokens"):
            addresses = r.choice((("10.0.0.1",), ("10.0.0.1", "10.0.0.2"), None))
            for number, made in enumerate(instances):
                made.setdefault("metadata", {})["ip_kvs"] = (
                    r.choice(addresses) if addresses else f"10.0.1.{number}")
        if way == "keys":
            flags["kvs-chunk-size"] = size = r.choice((64, 128, 256))
            tail = flags["kvs-enable-save-unfull-chunk"] = self.maybe(0.5)
            count = prompt // size + (1 if tail and prompt % size else 0)
            keys = [f"k{number}" for number in range(min(count, 12))]
            if not keys:
                return
            request["chunk_keys"] = keys
            self.hold(instances, keys)
        if way == "tokens" and prompt <= 512:
            flags["kvs-chunk-size"] = r.choice((64, 100, 128))
            flags["kvs-enable-save-unfull-chunk"] = self.maybe(0.5)
            flags["kvs-hash-algo"] = r.choice(("sha256_cbor", "sha256_hex", "xxhash"))
            request["prompt_token_ids"] = [r.choice((1, 23, 24, 255, 256, 70000)) for _ in range(prompt)]
            self.hold(instances, chunk_keys(request["prompt_token_ids"], effective_flags(flags), {}))
            if instances and not any("chunks" in made for made in instances):
                instances[0]["chunks"] = ["other"]

    def hold(self, instances, keys):
        for made in instances:
            if self.maybe(0.7):
                made["chunks"] = keys[:self.r.randrange(len(keys) + 1)] if self.maybe(0.6) else [
                    key for key in keys if self.maybe(0.7)]

    def ask_place(self):
        r = self.r
        kind = r.choices(("load-balance", "flood", "slo", "adaptive", "lite", "own"), (37, 7, 13, 22, 9, 12))[0]
        request = self.request()
        if kind in ("slo", "adaptive") and self.maybe(0.95):
            request["scheduling_mode"] = r.choice(("pd_batch", "pd_staged"))
            request["scheduling_stage"] = r.choice(("prefill", "decode"))
            roles = ("prefill", "decode")
        elif request.get("scheduling_mode") == "neutral" and self.maybe(0.9):
            roles = r.choice((("neutral",), ("neutral",), ROLES))
        else:
            pair = ("prefill", "decode")
            roles = r.choice((pair, pair, pair, ROLES, ("prefill",)))
        instances = self.cluster(roles)
        getattr(self, "place_" + kind.replace("-", "_"))(request, instances)
        made = {"ask": "place", "instances": instances, "request": request}
        if self.now_ms or self.maybe(0.5):
            made["now_ms"] = self.now_ms
        if self.maybe(0.05):
            if kind != "own":
                self.flags["dispatch-top-k"] = r.choice((1, 2, 3, 100))
            made["seed"] = r.randrange(1000)
        if kind in ("flood", "own") and instances and self.maybe(0.8):
            made["last"] = {role: r.choice(instances)["id"] for role in ROLES if self.maybe(0.6)}
        return made

    def place_load_balance(self, request, instances):
        r = self.r
        self.common_flags()
        for role, thresholds in (("neutral", (512, 1024, 8192)), ("prefill", (300, 1024, 2048)),
                                 ("decode", (0.5, 0.7, 1.0))):
            if self.maybe(0.35):
                name = r.choice(FULL_METRICS) if self.maybe(0.9) else r.choice(("num_tokens", "predicted_ttft"))
                self.flags[f"dispatch-{role}-load-metric"] = name
                thresholds = ((0.5, 0.7, 0.9, 1.0) if name == "kv_cache_usage_ratio_projected"
                              else (1, 2, 64, 512, 1024.0))
            if self.maybe(0.5):
                self.flags[f"dispatch-{role}-load-threshold"] = r.choice(thresholds)
        if self.maybe(0.35):
            self.cache_aware(request, instances)
        self.dispatch(instances)
        if self.maybe(0.25):
            self.flags["enable-predictor-enhanced-scheduling"] = True
            self.flags["max-num-batched-tokens"] = r.choice((64, 256, 65536))
            self.step_model()
        names = [n for n in FULL_METRICS if self.maybe(0.5)]
        if self.maybe(0.4):
            self.override(instances, names)
            if "enable-predictor-enhanced-scheduling" not in self.flags:
                self.infinities(instances, names)

        elif self.maybe(0.06) and "enable-predictor-enhanced-scheduling" not in self.flags:
            self.swell(instances)

    def swell(self, instances):
        """Numbers whose sums are beyond 32 bits."""
        for made in instances:
            if self.maybe(0.5):
                status = made.setdefault("status", {})
                for name in self.r.sample(SUMMED, self.pick(1, 2, 3)):
                    status[name] = LARGEST_INT32
            if self.maybe(0.5):
                for entry in made.get("dispatched", ()):
                    entry["num_tokens"] = LARGEST_INT32

    def place_own(self, request, instances):
        """Policies and knobs that the reference does not have."""
        r = self.r
        way = r.choice(("round-robin", "cache-aware", "top-k", "power-of-two", "hysteresis"))
        self.place_load_balance(request, instances)
        self.config["set"] = {
            "round-robin": {"scheduler.policy": "round-robin"},
            "cache-aware": {"scheduler.policy": "cache-aware"},
            "top-k": {"scheduler.dispatch_top_k": r.choice((1, 2, 3, 100))},
            "power-of-two": {"scheduler.power_of_two": self.maybe(0.9)},
            "hysteresis": {"scheduler.hysteresis": r.choice((0, 0.1, 0.2, 0.5, 1))}}[way]

    def place_flood(self, request, instances):
        self.flags["scheduling-policy"] = "flood"
        self.common_flags()

    def place_slo(self, request, instances):
        self.flags["scheduling-policy"] = "slo"
        self.common_flags()
        self.slo_metrics(instances)

    def slo_metrics(self, instances):
        if self.maybe(0.7):
            self.profiles()
            self.dispatch(instances)
            self.override(instances, ("predicted_ttft", "predicted_tpot", "decode_batch_size"), 0.25)
        else:
            for made in instances:
                made["metrics"] = {name: self.metric_value(name) for name in ("predicted_ttft", "predicted_tpot")}
                if self.maybe(0.5):
                    made["metrics"]["decode_batch_size"] = self.metric_value("decode_batch_size")

    def place_adaptive(self, request, instances):
        self.flags["scheduling-policy"] = "slo"
        self.flags["enable-adaptive-pd"] = True
        self.common_flags()
        self.slo_metrics(instances)
        self.reserve_some(instances)
        for made in instances:
            if made.get("reserved") == "prefill" and self.maybe(0.6):  # as it should be: without decodes
                made.setdefault("metrics", {})["decode_batch_size"] = 0

    def reserve_some(self, instances, chance=0.7):
        if self.maybe(chance):
            for made, role in zip(self.r.sample(instances, len(instances)), ("prefill", "decode", "")):
                made["reserved"] = role

    def place_lite(self, request, instances):
        r = self.r
        self.flags["enable-full-mode-scheduling"] = False
        if self.maybe(0.3):
            self.flags["enable-cache-aware-scheduling"] = True
        for role in ROLES:
            if self.maybe(0.5):
                self.flags[f"dispatch-{role}-load-metric"] = self.pick(
                    "num_tokens", "num_requests", "decode_batch_size")
            if self.maybe(0.5):
                self.flags[f"dispatch-{role}-load-threshold"] = r.choice((1, 2, 600, 1024))
        self.dispatch(instances, 0.7, lite=True)
        if self.maybe(0.06):
            self.swell(instances)
        if self.maybe(0.3):
            self.override(instances, ("num_tokens", "num_requests"))

    # -- plan

    def ask_plan(self):
        r = self.r
        self.common_flags()
        adaptive = self.maybe(0.3)
        if adaptive:
            self.flags.update({"scheduling-policy": "slo", "enable-adaptive-pd": True})
        chosen = r.sample(POLICIES, r.choice((1, 1, 2, 3, 4, 7)))
        if self.maybe(0.9):
            self.flags["rescheduling-policies"] = ",".join(chosen)
        else:
            chosen = ["decode_load", "prefill_failover", "decode_failover", "neutral_failover"]
        instances = self.cluster(r.choice((("decode",), ("neutral",), ("prefill", "decode"), ROLES)))
        for role in ("decode", "neutral"):
            if self.maybe(0.4):
                self.flags[f"rescheduling-{role}-load-metric"] = name = r.choice(FULL_METRICS)
                self.flags[f"rescheduling-{role}-load-threshold"] = (
                    r.choice((0, 0.5, 0.7, 1.0)) if name == "kv_cache_usage_ratio_projected"
                    else r.choice((-1, 0, 1, 2, 64, 512, 1024)))
            elif self.maybe(0.6):
                self.flags[f"rescheduling-{role}-load-threshold"] = r.choice((0, 0.5, 0.7, 0.9))
        if self.maybe(0.8):
            self.flags["rescheduling-load-balance-threshold"] = r.choice((0, 0, -1, 0.1, 0.25, 0.5, 100, 0.3))
        if self.maybe(0.3):
            self.flags["rescheduling-load-balance-scope"] = r.choice(("cluster", "unit", "unit"))
        if self.maybe(0.3):
            self.flags["rescheduling-req-select-rule"] = r.choice(("NUM_REQ", "TOKEN", "RATIO"))
            self.flags["rescheduling-req-select-order"] = r.choice(("LCR", "FCR", "LR", "SR", "FCW", "FCWSR"))
            self.flags["rescheduling-req-select-value"] = r.choice((1, 3, 1024, 0.25))
        if adaptive or any(name.startswith("binpacking") for name in chosen):
            if self.maybe(0.6):
                self.profiles(only_tpot=self.maybe(0.3))
                self.override(instances, ("predicted_tpot", "decode_batch_size"), 0.5)
            else:
                for made in instances:
                    made["metrics"] = {"predicted_tpot": self.metric_value("predicted_tpot"),
                                       "decode_batch_size": self.metric_value("decode_batch_size")}
            self.reserve_some(instances, 0.7 if adaptive else 1.0)
        self.dispatch(instances, 0.2)
        if self.maybe(0.4):
            for made in instances:
                if "metrics" not in made and self.maybe(0.6):
                    made["metrics"] = {"kv_cache_usage_ratio_projected":
                                       self.metric_value("kv_cache_usage_ratio_projected")}
        made = {"ask": "plan", "instances": instances}
        if self.now_ms or self.maybe(0.5):
            made["now_ms"] = self.now_ms
        return made

    # -- choose

    def ask_choose(self):
        r = self.r
        running = [{"id": f"q{n}", "len": r.choice((16, 100, 100, 320, 640, 950)), "out": r.choice((0, 1, 2, 10))}
                   for n in range(r.choice((0, 1, 3, 5, 8)))]
        waiting = [{"id": f"w{n}", "len": r.choice((16, 100, 320, 640)), "out": 0}
                   for n in range(r.choice((0, 0, 1, 2, 4)))]
        for one in running:
            if self.maybe(0.15):
                one["migrating"] = True
            elif self.maybe(0.1):
                one["migrating"] = False
            if self.maybe(0.15):
                one["priority"] = r.choice(("normal", "high"))
        made = {"id": "i1", "status": {"num_total_gpu_tokens": r.choice((1000, 1600))}}
        if running or self.maybe(0.5):
            made["running"] = running
        if waiting or self.maybe(0.5):
            made["waiting"] = waiting
        if self.maybe(0.3):
            made["status"]["num_available_migrate_out_slots"] = r.choice((-2, -1, 0, 1, 2, 3))
        rule = r.choice(("NUM_REQ", "TOKEN", "RATIO"))
        value = {"NUM_REQ": (-1, -1, 0, 1, 2, 3, 100), "TOKEN": (0, 16, 100, 420, 1024, 5000),
                 "RATIO": (0, 0.125, 0.25, 0.5, 1.0)}[rule]
        return {"ask": "choose", "instances": [made, {"id": "i2"}],
                "choose": {"instance": "i1", "rule": rule, "value": r.choice(value),
                           "order": r.choice(("LCR", "FCR", "LR", "SR", "FCW", "FCWSR"))}}

    # -- metrics

    def ask_metrics(self):
        self.common_flags()
        instances = self.cluster(ROLES, most=3)
        request = self.request()
        if self.maybe(0.3):
            self.cache_aware(request, instances)
        self.dispatch(instances, 0.6)
        if self.maybe(0.3):
            self.profiles()
        if self.maybe(0.3):
            self.flags["enable-predictor-enhanced-scheduling"] = True
            self.step_model()
        if self.maybe(0.5):
            for made in instances:
                self.lists(made)
        if self.maybe(0.4):
            self.override(instances, [n for n in FULL_METRICS if n != "kv_cache_hit_len"], 0.5)
        made = {"ask": "metrics", "instances": instances}
        if self.now_ms or self.maybe(0.5):
            made["now_ms"] = self.now_ms
        if self.maybe(0.8):
            made["request"] = request
        return made

    def lists(self, made):
        """Running and waiting requests that agree with the counts and sums of the status."""
        r = self.r
        size = r.choice((16, 16, 32))
        if size != 16 or self.maybe(0.5):
            made.setdefault("metadata", {})["block_size"] = size
        running = [{"id": f"q{n}", "len": size * r.choice((1, 2, 4, 10)), "out": r.choice((1, 5))}
                   for n in range(r.choice((0, 1, 2, 4)))]
        for one in running:
            if self.maybe(0.2):
                one["priority"] = "high"
        waiting = [{"id": f"w{n}", "len": r.choice((1, size - 1, size, size + 1, 100)), "out": 0}
                   for n in range(r.choice((0, 0, 1, 3)))]
        status = made.setdefault("status", {})
        status["num_total_gpu_tokens"] = size * r.choice((100, 128, 1000))
        status["num_used_gpu_tokens"] = sum(one["len"] for one in running)
        status["num_running_requests"], status["num_waiting_requests"] = len(running), len(waiting)
        made["running"], made["waiting"] = running, waiting

    # -- the small ones

    def ask_predict(self):
        r = self.r
        self.profiles()
        self.step_model()
        return {"ask": "predict", "predict": {
            "prefill": [r.choice((0, 1, 8, 64, 65, 100, 256, 700, 2048, 2049)) for _ in range(3)],
            "decode": [[r.choice((0, 1, 3, 4, 6, 16, 17)), r.choice((0, 1, 24, 100, 3000, 50000))] for _ in range(4)],
            "step": [r.choice((1, 64, 100, 450)) for _ in range(2)]}}

    def ask_reserve(self):
        r = self.r
        self.flags.update({"scheduling-policy": "slo", "enable-adaptive-pd": True})
        instances = self.cluster(("prefill", "decode"))
        if self.maybe(0.5):
            for made in instances:
                made.setdefault("status", {}).update(
                    num_uncomputed_tokens_scheduler_running_prefills=r.choice((64, 64, 512)),
                    num_loading_requests=r.choice((1, 1, 2)))
        self.reserve_some(instances, 0.1)
        return {"ask": "reserve", "instances": instances, "now_ms": self.now_ms}

    def ask_keys(self):
        r = self.r
        flags = self.flags
        flags["kvs-chunk-size"] = r.choice((1, 2, 4, 5, 32, 256))
        if self.maybe(0.6):
            flags["kvs-hash-algo"] = r.choice(("sha256_cbor", "sha256_hex", "xxhash", "xxhash"))
        if self.maybe(0.5):
            flags["kvs-enable-save-unfull-chunk"] = self.maybe(0.8)
        if self.maybe(0.1):
            flags["kvs-backend"] = "v6d"
        if self.maybe(0.2):
            flags["kvs-iris-meta-prefix"] = r.choice(("", "p."))
            flags["kvs-vllm-block-prefix"] = "b:"
        if self.maybe(0.3):
            seed = r.choice(("", "0", "42", "a longer seed than twenty-three letters"))
            self.config["env"] = {"GO_HASH_SEED": seed}
        edge = (0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
        tokens = [r.choice(edge) for _ in range(r.choice((1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 33, 100, 520)))]
        return {"ask": "keys", "request": {"prompt_num_tokens": len(tokens), "prompt_token_ids": tokens}}

    def ask_scale(self):
        instances = self.cluster(ROLES, most=4) or [{"id": "i1"}]
        for made in instances:
            made["metrics"] = {"freeness": self.metric_value("freeness")}
        return {"ask": "scale", "instances": instances, "now_ms": 100000, "scale": {
            "low": self.pick(5, 10), "high": self.pick(50, 60), "min": self.pick(1, len(instances)),
            "max": self.pick(len(instances), 8)}}

    def some_flags(self):
        r = self.r
        choices = {
            "scheduling-policy": ("load-balance", "load-balance", "flood", "slo"),
            "enable-full-mode-scheduling": (True, True, False), "enable-cache-aware-scheduling": (True, False),
            "enable-predictor-enhanced-scheduling": (True,), "enable-rescheduling": (True,),
            "dispatch-neutral-load-metric": FULL_METRICS + ("num_tokens", "predicted_ttft"),
            "dispatch-prefill-load-metric": FULL_METRICS + ("num_tokens", "predicted_ttft"),
            "dispatch-decode-load-metric": FULL_METRICS + ("num_tokens", "predicted_tpot"),
            "dispatch-decode-load-threshold": (0.5, 1, 0.1), "kvs-chunk-size": (16, 256),
            "kvs-hash-algo": ("sha256_hex",),
            "kvs-backend": ("mooncake", "v6d"), "ttft-slo": (100, 250.5), "dispatch-top-k": (1, 4),
            "kvs-metadata-service-redis-cluster-hosts": ("h1:1,h2:2",),
            "kvs-metadata-service-redis-cluster-password": ("p",), "tpot-slo": (1, 50),
            "rescheduling-policies": ("neutral_load", "decode_load,neutral_load"), "failover-domain": ("node",)}
        return {name: r.choice(choices[name]) for name in r.sample(sorted(choices), r.choice((0, 1, 3, 6)))}

    def ask_config(self):
        r = self.r
        self.flags.update(self.some_flags())
        if self.flags.get("kvs-backend") == "v6d":
            self.flags["kvs-metadata-service-redis-cluster-hosts"] = "h1:1,h2:2"
            self.flags["kvs-metadata-service-redis-cluster-password"] = "p"
        pieces = ("dispatch-top-k=3", " kvs-chunk-size = 64 ", "", "unknown=1", "no-equals", "kvs-chunk-size=many",
                  "enable-cache-aware-scheduling=true", "enable-cache-aware-scheduling=0",
                  "llm-backend-endpoints='a:1,b:2'",
                  'scheduler-endpoints="a,b"', "scheduler-endpoints=[a,'b,c]", "scheduler-endpoints=[a,[b],c]",
                  "scheduler-endpoints=a\\,b", "scheduler-endpoints= 'a,b'", "scheduler-endpoints='a", "tpot-slo=12.5",
                  "scheduler-endpoints=a=b", "failover-domain=node-unit", "kvs-iris-meta-prefix='  x '",
                  "scheduling-policy=flood", "enable-full-mode-scheduling=false", 'kvs-iris-meta-prefix="', "tpot-slo=")
        if self.maybe(0.7):
            self.flags["extra-args"] = ",".join(r.choice(pieces) for _ in range(r.choice((1, 2, 3, 5))))
        return {"ask": "config"}

    def spoil(self, made):
        """A scene that nothing can answer: with one thing wrong."""
        r = self.r
        way = r.randrange(17)
        config = made.setdefault("config", {})
        flags = config.setdefault("flags", {})
        if way == 0:
            return r.choice(('{"ask":', "[1, 2", '{"ask" "place"}', "nonsense"))
        if way == 1:
            made[r.choice(("asks", "Instances", "requests"))] = 1
        elif way == 2:
            flags[r.choice(("scheduling_policy", "reschedule-policies", "nonsense"))] = "x"
        elif way == 3:
            made["ask"] = r.choice(("placing", "", "PLACE"))
        elif way == 4:
            made[r.choice(("choose", "scale", "predict"))] = {}
        elif way == 5:
            flags["scheduling-policy"] = r.choice(("round-robin", "best", ""))
        elif way == 6:
            flags["failover-domain"] = "rack"
        elif way == 7:
            made["instances"] = [{"id": "i1", r.choice(("role", "State")): "x"}]
        elif way == 8:
            made["instances"] = [{"id": "i1", "status": {"num_running": 1}}]
        elif way == 9:
            made["instances"] = [{"id": "i1", "metadata": {"type": "decode"}}]
        elif way == 10:
            made["instances"] = [{"id": "i1", "metrics": {"kv_usage": 1}}]
        elif way == 11:
            made["request"] = {"scheduling_mode": "neutral", "prompt_num_tokens": "many"}
        elif way == 12:
            flags["enable-full-mode-scheduling"] = False
            flags["scheduling-policy"] = "flood"
        elif way == 15:
            config["set"] = {r.choice(("scheduler.nonsense", "nonsense", "")): 1}
        elif way == 16:
            config["set"] = {"scheduler.policy": r.choice(("best", "", "adaptive-pd"))}
        elif way == 13:
            flags["instance-staleness-seconds"] = "soon"
        else:
            config[r.choice(("flag", "profile"))] = {}
        return made

    def ask_bad(self):
        return {"ask": "place", "instances": [{"id": "i1"}], "request": {"scheduling_mode": "neutral"}}
