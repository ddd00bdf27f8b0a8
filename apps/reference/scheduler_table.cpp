#include "apps/reference/common_flags.hpp"
#include "apps/reference/scheduler_flags.hpp"

namespace llumnix {

namespace {

using enum flag_form;
using enum flag_fate;

constexpr std::string_view serving = "Serving";
constexpr std::string_view found = common_flags::discovery;
constexpr std::string_view statuses = "Cluster metadata";
constexpr std::string_view placing = "Placement";
constexpr std::string_view prefixes = "Cache-aware placement";
constexpr std::string_view latencies = "Latency goals and predictions";
constexpr std::string_view failing = "Failover";
constexpr std::string_view moving = "Rescheduling";

constexpr std::string_view of_gateways = "it is a matter of gateways";
constexpr std::string_view by_message = "statuses come as messages, when they change";
constexpr std::string_view rescheduler = "rescheduler in the scheduler";
constexpr std::string_view not_moving
  = "nothing is moved by this program; llumnix decide plans by it";
constexpr std::string_view v6d = "v6d KV store";

// clang-format off
constexpr auto own_flags = std::to_array<reference_flag>({
  {serving, "host", text, "0.0.0.0", "listen address", works},
  {serving, "port", whole, "8002", "listen port; 0 picks a free one", works},
  {serving, "multi-model-support", toggle, "false", "serve several models", taken, "it changes no choice"},
  {serving, "enable-log-input", toggle, "false", "log request bodies", missing, "log of request bodies"},
  {serving, "enable-pprof", toggle, "false", "profiling listener", missing, "profiling listener"},
  {serving, "extra-args", text, "", "more flags, as in port=80,host=::1; they win over others", works},

  {found, "llm-backend-discovery", text, "redis", "lite mode: where engines are found: redis, etcd, endpoints", works},
  {found, "llm-backend-endpoints", text, "", "the engines, as HOST:PORT,HOST:PORT", works},
  {found, "scheduler-discovery", text, "endpoints", "where gateways find the scheduler", taken, of_gateways},
  {found, "scheduler-endpoints", text, "", "the scheduler, as HOST:PORT", taken, of_gateways},

  {statuses, "cms-redis-host", text, "redis.roles", "host of the Redis with the instances' statuses", works},
  {statuses, "cms-redis-port", whole, "10000", "its port", works},
  {statuses, "cms-redis-username", text, "", "its user", knob, "redis.username"},
  {statuses, "cms-redis-password", text, "", "that user's password", knob, "redis.password"},
  {statuses, "cms-redis-timeout", number, "1.0", "for a connection and a reply, in seconds", knob, "redis.timeout", "s"},
  {statuses, "cms-redis-retry-times", whole, "1", "tries of a command", taken, by_message},
  {statuses, "cms-pull-status-interval-ms", whole, "50", "between two reads of statuses; 0 or less: never", knob, "cms.pull_status_interval", "ms"},
  {statuses, "cms-pull-metadata-interval-ms", whole, "10000", "between two reads of metadata; 0 or less: never", knob, "cms.pull_metadata_interval", "ms"},

  {placing, "enable-full-mode-scheduling", toggle, "true", "use loads that engines report; false: only what was sent", knob, "scheduler.full_mode"},
  {placing, "scheduling-policy", text, "load-balance", "how an instance is chosen: load-balance, flood, slo", knob, "scheduler.policy"},
  {placing, "pd-disagg-protocol", text, "", "vllm-kvt, vllm-mooncake, sglang-mooncake", taken, of_gateways},
  {placing, "separate-pd-scheduling", toggle, "false", "choose the decode instance after the prefill", taken, of_gateways},
  {placing, "requests-report-duration", number, "0", "seconds between reports of gateways", taken, of_gateways},
  {placing, "dispatch-top-k", whole, "1", "how many of the best instances one is drawn from", knob, "scheduler.dispatch_top_k"},
  {placing, "dispatch-neutral-load-metric", text, "all_prefills_tokens_num", "load of a neutral instance", knob, "scheduler.neutral_load_metric"},
  {placing, "dispatch-neutral-load-threshold", number, "8192", "load from which it is passed over", knob, "scheduler.neutral_load_threshold"},
  {placing, "dispatch-prefill-load-metric", text, "all_prefills_tokens_num", "load of a prefill instance", knob, "scheduler.prefill_load_metric"},
  {placing, "dispatch-prefill-load-threshold", number, "2048", "load from which it is passed over", knob, "scheduler.prefill_load_threshold"},
  {placing, "dispatch-decode-load-metric", text, "kv_cache_usage_ratio_projected", "load of a decode instance", knob, "scheduler.decode_load_metric"},
  {placing, "dispatch-decode-load-threshold", number, "1.0", "load from which it is passed over", knob, "scheduler.decode_load_threshold"},
  {placing, "enable-instance-status-local-account", toggle, "true", "count what was sent since an instance's last status", knob, "scheduler.local_account"},
  {placing, "request-local-account-staleness-seconds", whole, "10", "seconds until an unconfirmed dispatch is forgotten", knob, "scheduler.local_account_staleness_s"},
  {placing, "allow-concurrent-scheduling", toggle, "false", "decide on several requests at once", taken, "a decision takes microseconds, and each sees the one before"},

  {prefixes, "enable-cache-aware-scheduling", toggle, "false", "prefer instances that hold the prompt's beginning", knob, "scheduler.cache_aware"},
  {prefixes, "cache-aware-scheduling-min-tokens", whole, "1024", "shorter prompts are not looked up", knob, "scheduler.cache_aware_min_tokens"},
  {prefixes, "dispatch-prefill-cache-locality-metric", text, "cache_aware_all_prefills_tokens_num", "what is compared in front of the load", knob, "scheduler.prefill_cache_locality_metric"},
  {prefixes, "kvs-backend", text, "mooncake", "the KV store: mooncake, v6d", knob, "scheduler.kv_index"},
  {prefixes, "kvs-metadata-service-config-path", text, "", "JSON file of a v6d store", missing, v6d},
  {prefixes, "kvs-metadata-service-redis-cluster-hosts", text, "", "Redis cluster of a v6d store", missing, v6d},
  {prefixes, "kvs-metadata-service-redis-cluster-password", text, "", "its password", missing, v6d},
  {prefixes, "kvs-metadata-service-http-server-host", text, "0.0.0.0", "host of Mooncake's metadata service", knob, "scheduler.mooncake"},
  {prefixes, "kvs-metadata-service-http-server-port", whole, "9003", "its port", knob, "scheduler.mooncake"},
  {prefixes, "kvs-hash-algo", text, "sha256_cbor", "of keys: sha256_cbor, sha256_hex, xxhash", knob, "scheduler.kv_hash"},
  {prefixes, "kvs-chunk-size", whole, "256", "tokens per key", knob, "scheduler.kv_chunk_tokens"},
  {prefixes, "kvs-enable-save-unfull-chunk", toggle, "false", "the tail of a prompt has a key too", knob, "scheduler.kv_save_unfull_chunk"},
  {prefixes, "kvs-iris-meta-prefix", text, "iris.", "of xxhash keys", knob, "scheduler.kv_iris_prefix"},
  {prefixes, "kvs-vllm-block-prefix", text, "block.hash.key.", "of xxhash keys, behind the other", knob, "scheduler.kv_block_prefix"},
  {prefixes, "kvs-retry-times", whole, "5", "attempts of a query", knob, "scheduler.kv_attempts"},
  {prefixes, "kvs-retry-interval-ms", whole, "100", "pause after an attempt that failed", knob, "scheduler.kv_attempt_pause"},
  {prefixes, "kvs-metadata-service-down-duration-s", whole, "30", "a store that failed is left alone for this long, in seconds", knob, "scheduler.kv_down"},

  {latencies, "ttft-profiling-data-path", text, "", "file of measured prefill times", knob, "scheduler.ttft_profile"},
  {latencies, "tpot-profiling-data-path", text, "", "file of measured decode step times", knob, "scheduler.tpot_profile"},
  {latencies, "ttft-slo", number, "6000", "time to the first token to stay below, in milliseconds", knob, "scheduler.ttft_slo_ms"},
  {latencies, "tpot-slo", number, "50", "time per output token to stay below, in milliseconds", knob, "scheduler.tpot_slo_ms"},
  {latencies, "ttft-slo-dispatch-threshold", number, "0.85", "share of --ttft-slo that a placement may use", knob, "scheduler.ttft_slo_threshold"},
  {latencies, "tpot-slo-dispatch-threshold", number, "0.85", "share of --tpot-slo that a placement may use", knob, "scheduler.tpot_slo_threshold"},
  {latencies, "tpot-migrate-out-ceil-threshold", number, "0.95", "share of --tpot-slo above which requests move away", taken, not_moving},
  {latencies, "tpot-migrate-out-floor-threshold", number, "0.60", "share of --tpot-slo below which an instance is emptied", taken, not_moving},
  {latencies, "enable-adaptive-pd", toggle, "false", "policy slo: instances take the role that load asks for; other policies pass over it, as the reference does, and the start says so", knob, "scheduler.adaptive_pd"},
  {latencies, "enable-predictor-enhanced-scheduling", toggle, "false", "count prefill work done since the last status", knob, "scheduler.predict_progress"},
  {latencies, "max-num-batched-tokens", whole, "65536", "tokens of a step, where progress is predicted", knob, "scheduler.max_num_batched_tokens"},
  {latencies, "num-predictor-warmup-samples", whole, "20", "steps seen before progress is predicted", knob, "scheduler.predictor_warmup_samples"},

  {failing, "failover-domain", text, "instance-unit", "what is avoided with a failing instance: instance, node, instance-unit, node-unit", knob, "scheduler.failover_domain"},
  {failing, "instance-staleness-seconds", whole, "60", "an instance that was silent for longer gets no work", knob, "scheduler.instance_staleness_s"},

  {moving, "colocated-rescheduling-mode", toggle, "false", "move running requests too", missing, rescheduler},
  {moving, "standalone-rescheduling-mode", toggle, "false", "move running requests and do nothing else", missing, rescheduler},
  {moving, "enable-rescheduling", toggle, "false", "move running requests, in the reference without effect", taken, "only the two rescheduling modes start it"},
  {moving, "rescheduling-policies", text, "decode_load,prefill_failover,decode_failover,neutral_failover", "what moves requests, in order", taken, not_moving},
  {moving, "rescheduling-interval-ms", whole, "500", "between two plans; 0: none", taken, not_moving},
  {moving, "rescheduling-decode-load-metric", text, "kv_cache_usage_ratio_projected", "load of a decode instance", taken, not_moving},
  {moving, "rescheduling-decode-load-threshold", number, "1.0", "load from which requests move away; 0: any", taken, not_moving},
  {moving, "rescheduling-prefill-load-metric", text, "kv_cache_usage_ratio_projected", "load of a prefill instance", taken, not_moving},
  {moving, "rescheduling-neutral-load-metric", text, "kv_cache_usage_ratio_projected", "load of a neutral instance", taken, not_moving},
  {moving, "rescheduling-neutral-load-threshold", number, "1.0", "load from which requests move away; 0: any", taken, not_moving},
  {moving, "rescheduling-req-select-order", text, "SR", "which requests first: LCR, FCR, LR, SR, FCW, FCWSR", taken, not_moving},
  {moving, "rescheduling-req-select-rule", text, "TOKEN", "what is counted: NUM_REQ, TOKEN, RATIO", taken, not_moving},
  {moving, "rescheduling-req-select-value", number, "1024", "how much of it moves", taken, not_moving},
  {moving, "rescheduling-load-balance-threshold", number, "0.7", "least difference of load that a move is worth; 0: any", taken, not_moving},
  {moving, "rescheduling-load-balance-scope", text, "cluster", "moves stay within: cluster, unit", taken, not_moving},
  {moving, "llumlet-grpc-connection-pool-size", whole, "-1", "connections to llumlets; below 1: as many as it takes", taken, not_moving},
  {moving, "llumlet-grpc-timeout-seconds", whole, "-1", "for an answer of a llumlet; below 1: 5", taken, not_moving},
});
// clang-format on

constexpr auto table = join_tables(own_flags, common_flags::record_stores, common_flags::log);

} // namespace

flag_table scheduler_flags() {
  return table;
}

} // namespace llumnix
