"""The form of a scene: the flags and names it may use, and what a start makes of them.

"S" is scheduling.md, "C" cms.md, "R" rescheduling.md and "surface" surface.md 5.
"""

import ctypes
import math

INFINITY = math.inf
LARGEST_FLOAT32 = 3.4028234663852886e38


def float32(x):
    return ctypes.c_float(x).value


def int32(x):
    """What does not fit stays at the limit (wanted; S 11 item 11: it wraps in the reference)."""
    return max(-(1 << 31), min(x, (1 << 31) - 1))


class SceneError(Exception):
    """What a start would refuse, or what nothing knows: `path` says where it stands."""

    def __init__(self, path, message):
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


# ---- S 1.3: the flags, with their defaults ---------------------------------------------------------

FLAGS = {
    "port": 8002, "host": "0.0.0.0", "multi-model-support": False,
    "colocated-rescheduling-mode": False, "standalone-rescheduling-mode": False,
    "enable-log-input": False, "enable-pprof": False, "extra-args": "",
    "llm-backend-discovery": "redis",
    "scheduler-discovery": "endpoints", "scheduler-endpoints": "", "llm-backend-endpoints": "",
    "discovery-redis-host": "redis", "discovery-redis-port": 6379,
    "discovery-redis-username": "", "discovery-redis-password": "",
    "discovery-redis-socket-timeout": 1.0, "discovery-redis-retry-times": 1,
    "discovery-redis-status-ttl-ms": 60000, "discovery-redis-refresh-interval-ms": 1000,
    "discovery-etcd-endpoints": "etcd:2379", "discovery-etcd-username": "", "discovery-etcd-password": "",
    "discovery-etcd-dial-timeout": 5.0, "discovery-etcd-lease-ttl": 60, "discovery-etcd-refresh-interval-sec": 3600,
    "pd-disagg-protocol": "", "separate-pd-scheduling": False,
    "enable-full-mode-scheduling": True, "scheduling-policy": "load-balance", "requests-report-duration": 0,
    "cms-redis-host": "redis.roles", "cms-redis-port": 10000, "cms-redis-username": "", "cms-redis-password": "",
    "cms-redis-timeout": 1.0, "cms-redis-retry-times": 1,
    "cms-pull-status-interval-ms": 50, "cms-pull-metadata-interval-ms": 10000,
    "enable-cache-aware-scheduling": False, "cache-aware-scheduling-min-tokens": 1024,
    "kvs-backend": "mooncake", "kvs-metadata-service-config-path": "",
    "kvs-hash-algo": "sha256_cbor", "kvs-chunk-size": 256, "kvs-enable-save-unfull-chunk": False,
    "kvs-iris-meta-prefix": "iris.", "kvs-vllm-block-prefix": "block.hash.key.",
    "kvs-retry-times": 5, "kvs-retry-interval-ms": 100, "kvs-metadata-service-down-duration-s": 30,
    "kvs-metadata-service-redis-cluster-hosts": "", "kvs-metadata-service-redis-cluster-password": "",
    "kvs-metadata-service-http-server-host": "0.0.0.0", "kvs-metadata-service-http-server-port": 9003,
    "dispatch-top-k": 1,
    "dispatch-neutral-load-metric": "all_prefills_tokens_num", "dispatch-neutral-load-threshold": 8192.0,
    "dispatch-prefill-load-metric": "all_prefills_tokens_num", "dispatch-prefill-load-threshold": 2048.0,
    "dispatch-decode-load-metric": "kv_cache_usage_ratio_projected", "dispatch-decode-load-threshold": 1.0,
    "dispatch-prefill-cache-locality-metric": "cache_aware_all_prefills_tokens_num",
    "enable-instance-status-local-account": True, "request-local-account-staleness-seconds": 10,
    "allow-concurrent-scheduling": False, "enable-predictor-enhanced-scheduling": False,
    "max-num-batched-tokens": 65536, "num-predictor-warmup-samples": 20,
    "ttft-profiling-data-path": "", "tpot-profiling-data-path": "",
    "ttft-slo": 6000.0, "tpot-slo": 50.0,
    "ttft-slo-dispatch-threshold": 0.85, "tpot-slo-dispatch-threshold": 0.85,
    "tpot-migrate-out-ceil-threshold": 0.95, "enable-adaptive-pd": False,
    "tpot-migrate-out-floor-threshold": 0.60, "failover-domain": "instance-unit",
    "instance-staleness-seconds": 60, "enable-rescheduling": False,
    "rescheduling-policies": "decode_load,prefill_failover,decode_failover,neutral_failover",
    "rescheduling-interval-ms": 500,
    "rescheduling-decode-load-metric": "kv_cache_usage_ratio_projected", "rescheduling-decode-load-threshold": 1.0,
    "rescheduling-prefill-load-metric": "kv_cache_usage_ratio_projected",
    "rescheduling-neutral-load-metric": "kv_cache_usage_ratio_projected", "rescheduling-neutral-load-threshold": 1.0,
    "rescheduling-req-select-order": "SR", "rescheduling-req-select-rule": "TOKEN",
    "rescheduling-req-select-value": 1024.0,
    "rescheduling-load-balance-threshold": 0.7, "rescheduling-load-balance-scope": "cluster",
    "llumlet-grpc-connection-pool-size": -1, "llumlet-grpc-timeout-seconds": -1,
}

METRICS = (  # S 5
    "kv_cache_usage_ratio_projected", "decode_batch_size", "num_waiting_requests", "all_prefills_tokens_num",
    "kv_cache_hit_len", "cache_aware_all_prefills_tokens_num", "num_requests", "num_tokens",
    "all_decodes_tokens_num", "predicted_ttft", "predicted_tpot")
CARRIED = ("hit_tokens", "hit_ratio", "miss_tokens", "predicted_progress")  # surface: into a request
STEPS = ("remaining_steps", "remaining_steps_defrag", "kv_blocks_ratio", "adaptive_decode",  # R 7
         "miss_waiting_tokens", "freeness")
FULL_DISPATCH_METRICS = (  # S 1.2
    "kv_cache_usage_ratio_projected", "decode_batch_size", "num_waiting_requests", "all_prefills_tokens_num",
    "kv_cache_hit_len", "cache_aware_all_prefills_tokens_num", "num_requests", "all_decodes_tokens_num")
POLICIES = ("decode_load", "neutral_load", "prefill_failover", "decode_failover", "neutral_failover",
            "binpacking_mitigation", "binpacking_consolidation")  # R 2
DOMAINS = ("instance", "node", "instance-unit", "node-unit")
ROLES = ("neutral", "prefill", "decode")

STATUS = {  # C 1.2: names by field number
    1: "instance_id", 2: "schedulable", 3: "timestamp_ms", 4: "step_id", 5: "update_id",
    6: "recent_waiting_requests", 7: "waiting_requests", 8: "hybrid_scheduler_waiting_to_decode_requests_num",
    9: "scheduler_waiting_to_decode_requests_num", 10: "num_waiting_requests",
    11: "scheduler_running_to_decode_requests_num", 12: "num_running_requests", 13: "num_loading_requests",
    14: "num_total_gpu_tokens", 15: "num_used_gpu_tokens",
    16: "num_uncomputed_tokens_hybrid_scheduler_waiting_prefills",
    17: "num_unallocated_tokens_hybrid_scheduler_waiting_decodes",
    18: "hybrid_scheduler_waiting_to_decode_tokens_num", 19: "num_uncomputed_tokens_scheduler_waiting_prefills",
    20: "scheduler_waiting_to_decode_tokens_num", 21: "num_uncomputed_tokens_scheduler_running_prefills",
    22: "num_unallocated_tokens_scheduler_running_prefills", 23: "scheduler_running_to_decode_tokens_num",
    24: "num_tokens_loading_requests", 25: "num_uncomputed_tokens_all_waiting_prefills",
    26: "num_migrate_in_reqs", 27: "num_migrate_out_reqs", 28: "num_available_migrate_in_slots",
    29: "num_available_migrate_out_slots", 30: "num_migrate_in_tokens", 31: "num_migrate_out_tokens",
    32: "num_available_migrate_in_tokens", 33: "num_available_migrate_out_tokens",
    34: "kv_cache_usage_ratio_migrate_in", 35: "kv_cache_usage_ratio_migrate_out",
    36: "available_kv_cache_usage_ratio_migrate_in", 37: "available_kv_cache_usage_ratio_migrate_out",
    38: "profiling_id", 39: "step_duration", 40: "num_scheduled_prefill_tokens"}
ACCOUNT = ("num_inflight_dispatch_requests", "num_inflight_dispatch_prefill_requests",  # C 4.1
           "num_inflight_dispatch_decode_requests", "num_uncomputed_tokens_inflight_dispatch_prefill_requests",
           "num_tokens_inflight_dispatch_decode_requests")


# ---- surface: what may stand in a scene -----------------------------------------------------------

def at(step, check, value):
    """Checks a member; an error in it gets the step that leads to it put before its path."""
    try:
        check(value)
    except SceneError as error:
        error.path = step + ("." if error.path and not error.path.startswith("[") else "") + error.path
        raise


def whole(low, high):
    def check(value):
        if type(value) is not int or not low <= value <= high:
            raise SceneError("", f"not a whole number from {low} to {high}")
    return check


INT32 = whole(-(1 << 31), (1 << 31) - 1)
INT64 = whole(-(1 << 63), (1 << 63) - 1)
UINT32 = whole(0, (1 << 32) - 1)


def number(value):
    if type(value) not in (int, float) and value not in ("inf", "-inf"):
        raise SceneError("", "not a number")


def text(value):
    if not isinstance(value, str):
        raise SceneError("", "not a text")


def truth(value):
    if not isinstance(value, bool):
        raise SceneError("", "neither true nor false")


def one_of(*names):
    def check(value):
        if not isinstance(value, str) or value not in names:
            raise SceneError("", f"none of {', '.join(names)}")
    return check


def list_of(check_item):
    def check(value):
        if not isinstance(value, list):
            raise SceneError("", "not a list")
        for index, item in enumerate(value):
            at(f"[{index}]", check_item, item)
    return check


def map_of(check_item, names=None):
    def check(value):
        if not isinstance(value, dict):
            raise SceneError("", "not an object")
        for name, item in value.items():
            if names is not None and name not in names:
                raise SceneError(name, "nothing knows this name")
            at(name, check_item, item)
    return check


def record(**fields):
    def check(value):
        if not isinstance(value, dict):
            raise SceneError("", "not an object")
        for name, item in value.items():
            if name not in fields:
                raise SceneError(name, "nothing knows this name")
            at(name, fields[name], item)
    return check


def tuple_of(*checks):
    def check(value):
        if not isinstance(value, list) or len(value) != len(checks):
            raise SceneError("", f"not a list of {len(checks)}")
        for index, (item, check_item) in enumerate(zip(value, checks)):
            at(f"[{index}]", check_item, item)
    return check


def anything(value):
    pass


def optional_list(check_item):
    check_list = list_of(check_item)
    return lambda value: value is None or check_list(value)


FLAG_TYPES = {bool: truth, int: INT64, float: number, str: text}


def flags_block(value):
    if not isinstance(value, dict):
        raise SceneError("", "not an object")
    for name, item in value.items():
        if name not in FLAGS:
            raise SceneError(name, "no such flag")
        at(name, FLAG_TYPES[type(FLAGS[name])], item)


def status_field(number_of_field):
    if number_of_field == 1:
        return text
    if number_of_field == 2:
        return truth
    if number_of_field == 3:
        return INT64
    if number_of_field in (6, 7):
        return list_of(text)
    if 34 <= number_of_field <= 37 or number_of_field == 39:
        return number
    return INT32


METADATA_BLOCK = record(
    instance_id=text, instance_type=one_of(*ROLES), backend_type=text, ip=text, ip_kvs=text, api_server_port=INT32,
    llumlet_port=INT32, kvt_port=INT32, node_id=text, data_parallel_size=INT32, tensor_parallel_size=INT32,
    unit_id=text, dp_rank=INT32, ep_rank=INT32, dp_local_rank=INT32, utc_create=number, utc_update=number,
    ip_kvt=text, block_size=INT32, max_num_batched_tokens=INT32)

EXTRAS = dict(mean=number, std=number, min=number, max=number, p50=number, p95=number, p99=number, raw_data=anything)

SCENE = record(
    name=text, now_ms=INT64, seed=INT64,
    config=record(
        flags=flags_block, env=map_of(text), set=map_of(anything),
        profiles=record(
            ttft=list_of(record(tokens_num=number, **EXTRAS)),
            tpot=list_of(record(batch_size=number, tokens_per_request=number, **EXTRAS))),
        step_model=record(a=number, b=number, c=number, samples=list_of(tuple_of(number, number)))),
    instances=list_of(record(
        id=text, state=one_of("ready", "draining", "lost", "stopped"), metadata=METADATA_BLOCK,
        status=record(**{name: status_field(n) for n, name in STATUS.items()}), status_age_ms=INT64,
        dispatched=list_of(record(request_id=text, infer_type=one_of(*ROLES), num_tokens=INT32,
                                  prefix_hit_tokens=INT32, age_ms=INT64, found=truth)),
        account=map_of(INT32, ACCOUNT), metrics=map_of(number, METRICS + CARRIED + STEPS),
        reserved=one_of("prefill", "decode", ""), chunks=list_of(text),
        running=list_of(record(id=text, len=INT64, out=INT64, priority=one_of("normal", "high"), migrating=truth)),
        waiting=list_of(record(id=text, len=INT64, out=INT64, priority=one_of("normal", "high"), migrating=truth)))),
    last=map_of(text, ROLES),
    request=record(
        id=text, model=text, gateway_id=text, scheduling_mode=text, scheduling_stage=text, prompt_num_tokens=INT64,
        prompt_token_ids=optional_list(UINT32), scheduling_result=list_of(anything),
        prefix_hit_tokens=map_of(INT64), chunk_keys=list_of(text)),
    ask=one_of("place", "plan", "choose", "metrics", "predict", "reserve", "keys", "scale", "config"),
    choose=record(instance=text, rule=one_of("NUM_REQ", "TOKEN", "RATIO"), order=text, value=number),
    scale=record(low=number, high=number, min=INT64, max=INT64),
    predict=record(prefill=list_of(number), decode=list_of(tuple_of(number, number)), step=list_of(number)))


def real(value):
    return float(value) if isinstance(value, (int, float)) else INFINITY if value == "inf" else -INFINITY


# ---- S 1.1: extra-args ----------------------------------------------------------------------------

def split_extra_args(line):
    pieces, piece, quote, depth, literal = [], "", "", 0, False
    for letter in line:
        if literal:  # the character after a backslash
            literal = False
        elif letter == "\\":
            literal = True
        elif quote:
            if letter == quote:
                quote = ""
        elif letter == "[":
            depth += 1
        elif letter == "]" and depth:
            depth -= 1
        elif depth:
            pass  # quotes inside brackets are plain text
        elif letter in "'\"":
            quote = letter
        elif letter == ",":
            pieces.append(piece)
            piece = ""
            continue
        piece += letter
    return [p.strip() for p in pieces + [piece] if p.strip()]


def parsed_flag(value, default):
    """The value a flag takes from a text, or None where it cannot be parsed."""
    if isinstance(default, bool):
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        return False if value in ("0", "f", "F", "false", "FALSE", "False") else None
    try:
        return type(default)(value)
    except ValueError:
        return None


def apply_extra_args(flags):
    for piece in split_extra_args(flags["extra-args"]):
        name, equals, value = piece.partition("=")
        if not equals:
            continue
        if len(value) >= 2 and value[0] in "'\"" and value[-1] == value[0]:
            value = value[1:-1]
        name, value = name.strip(), value.strip()
        if name in FLAGS:
            parsed = parsed_flag(value, FLAGS[name])
            if parsed is not None:
                flags[name] = parsed


# ---- S 1.2: verification and coercion -------------------------------------------------------------

def refuse_unless(flags, name, allowed):
    if flags[name] not in allowed:
        raise SceneError(f"config.flags.{name}", f"{flags[name]!r} is none of {', '.join(allowed)}")


def effective_flags(given, settings=()):
    flags = dict(FLAGS)
    for name, value in given.items():
        flags[name] = real(value) if isinstance(FLAGS[name], float) else value
    apply_extra_args(flags)
    dispatch = {role: f"dispatch-{role}-load-metric" for role in ROLES}
    if flags["enable-full-mode-scheduling"]:
        refuse_unless(flags, "scheduling-policy", ("load-balance", "flood", "slo"))
        fallback = {"neutral": "kv_cache_usage_ratio_projected", "prefill": "all_prefills_tokens_num",
                    "decode": "kv_cache_usage_ratio_projected"}
        for role, name in dispatch.items():
            if flags[name] not in FULL_DISPATCH_METRICS:
                flags[name] = fallback[role]
    else:
        refuse_unless(flags, "scheduling-policy", ("load-balance",))
        for name in ("enable-cache-aware-scheduling", "enable-predictor-enhanced-scheduling", "enable-adaptive-pd",
                     "enable-rescheduling", "enable-instance-status-local-account"):
            flags[name] = False
        for name in dispatch.values():
            if flags[name] not in ("num_requests", "num_tokens"):
                flags[name] = "num_tokens"
    if flags["kvs-backend"] == "v6d":
        flags["kvs-hash-algo"] = "xxhash"
    refuse_unless(flags, "llm-backend-discovery", ("redis", "etcd", "endpoints"))
    refuse_unless(flags, "kvs-backend", ("mooncake", "v6d"))
    refuse_unless(flags, "kvs-hash-algo", ("sha256_cbor", "sha256_hex", "xxhash"))
    refuse_unless(flags, "failover-domain", DOMAINS)
    refuse_unless(flags, "rescheduling-load-balance-scope", ("cluster", "unit"))
    for name in ("dispatch-prefill-cache-locality-metric", "rescheduling-decode-load-metric",
                 "rescheduling-prefill-load-metric", "rescheduling-neutral-load-metric"):
        refuse_unless(flags, name, METRICS)
    for policy in flags["rescheduling-policies"].split(","):
        if policy not in POLICIES:
            raise SceneError("config.flags.rescheduling-policies", f"no policy {policy!r}")
    apply_settings(flags, settings)
    return flags


# ---- our own knobs (docs/policies.md), over what the flags came to ---------------------------------

SETTINGS = ("scheduler.policy", "scheduler.dispatch_top_k", "scheduler.power_of_two", "scheduler.hysteresis")


def apply_settings(flags, settings):
    for name in settings:
        if name not in SETTINGS:
            raise SceneError(f"config.set.{name}", "no such knob")
    if "scheduler.policy" in settings:
        policy = settings["scheduler.policy"]
        if policy not in ("load-balance", "flood", "slo", "round-robin", "cache-aware"):
            raise SceneError("config.set.scheduler.policy", f"no policy {policy!r}")
        if policy == "cache-aware":
            flags["enable-cache-aware-scheduling"] = True
        flags["scheduling-policy"] = "load-balance" if policy == "cache-aware" else policy
    if "scheduler.dispatch_top_k" in settings:
        flags["dispatch-top-k"] = settings["scheduler.dispatch_top_k"]
