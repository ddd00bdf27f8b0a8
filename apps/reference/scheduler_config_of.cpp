#include "apps/reference/scheduler_flags.hpp"
#include "apps/reference/scheduler_rules.hpp"
#include "runtime/migration/request_selection.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

std::uint32_t count(const scheduler_flag_values& values, std::string_view name) {
  constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(values.whole(name), 0, most));
}

/// Of a flag that is a number of `unit`s.
milliseconds
duration(const scheduler_flag_values& values, std::string_view name, milliseconds unit) {
  return count(values, name) * unit;
}

/// HOST:PORT of two flags.
std::string address(
  const scheduler_flag_values& values, std::string_view host_name, std::string_view port_name) {
  auto host = values.text(host_name);
  if (host.find(':') != host.npos && !host.starts_with('['))
    host = "[" + host + "]";
  return host + ":" + std::to_string(values.whole(port_name));
}

void set_load(const scheduler_flag_values& values, scheduler_config& config) {
  config.neutral_load_metric = values.text("dispatch-neutral-load-metric");
  config.neutral_load_threshold = values.number("dispatch-neutral-load-threshold");
  config.prefill_load_metric = values.text("dispatch-prefill-load-metric");
  config.prefill_load_threshold = values.number("dispatch-prefill-load-threshold");
  config.decode_load_metric = values.text("dispatch-decode-load-metric");
  config.decode_load_threshold = values.number("dispatch-decode-load-threshold");
  config.dispatch_top_k = count(values, "dispatch-top-k");
  config.local_account = values.toggle("enable-instance-status-local-account");
  config.local_account_staleness_s = count(values, "request-local-account-staleness-seconds");
  config.failover_domain = values.text("failover-domain");
  config.instance_staleness_s = count(values, "instance-staleness-seconds");
}

void set_latencies(const scheduler_flag_values& values, scheduler_config& config) {
  config.ttft_profile = values.text("ttft-profiling-data-path");
  config.tpot_profile = values.text("tpot-profiling-data-path");
  config.ttft_slo_ms = values.number("ttft-slo");
  config.tpot_slo_ms = values.number("tpot-slo");
  config.ttft_slo_threshold = values.number("ttft-slo-dispatch-threshold");
  config.tpot_slo_threshold = values.number("tpot-slo-dispatch-threshold");
  config.tpot_migrate_out_ceil = values.number("tpot-migrate-out-ceil-threshold");
  config.tpot_migrate_out_floor = values.number("tpot-migrate-out-floor-threshold");
  config.adaptive_pd = values.toggle("enable-adaptive-pd") && config.policy == "slo";
  config.predict_progress = values.toggle("enable-predictor-enhanced-scheduling");
  config.max_num_batched_tokens = count(values, "max-num-batched-tokens");
  config.predictor_warmup_samples = count(values, "num-predictor-warmup-samples");
}

void set_prefixes(const scheduler_flag_values& values, scheduler_config& config) {
  config.cache_aware = values.toggle("enable-cache-aware-scheduling");
  config.cache_aware_min_tokens = count(values, "cache-aware-scheduling-min-tokens");
  config.prefill_cache_locality_metric = values.text("dispatch-prefill-cache-locality-metric");
  config.kv_index = values.text("kvs-backend");
  config.kv_hash = values.text("kvs-hash-algo");
  config.kv_chunk_tokens = count(values, "kvs-chunk-size");
  config.kv_save_unfull_chunk = values.toggle("kvs-enable-save-unfull-chunk");
  config.kv_iris_prefix = values.text("kvs-iris-meta-prefix");
  config.kv_block_prefix = values.text("kvs-vllm-block-prefix");
  config.mooncake = address(
    values, "kvs-metadata-service-http-server-host", "kvs-metadata-service-http-server-port");
  config.kv_attempts = count(values, "kvs-retry-times");
  config.kv_attempt_pause = duration(values, "kvs-retry-interval-ms", milliseconds{1});
  config.kv_down = duration(values, "kvs-metadata-service-down-duration-s", milliseconds{1000});
}

} // namespace

scheduler_config scheduler_config_of(const scheduler_flag_values& values) {
  scheduler_config config;
  config.full_mode = values.toggle("enable-full-mode-scheduling");
  config.policy = values.text("scheduling-policy");
  set_load(values, config);
  set_latencies(values, config);
  set_prefixes(values, config);
  return config;
}

rescheduler_config rescheduler_config_of(const scheduler_flag_values& values) {
  rescheduler_config config;
  config.policies = split_list(values.text("rescheduling-policies"));
  if (values.toggle("enable-adaptive-pd"))
    for (auto policy : {"binpacking_consolidation", "binpacking_mitigation"})
      if (std::ranges::find(config.policies, policy) == config.policies.end())
        config.policies.emplace_back(policy);
  config.decode_load_metric = values.text("rescheduling-decode-load-metric");
  config.decode_load_threshold = values.number("rescheduling-decode-load-threshold");
  config.prefill_load_metric = values.text("rescheduling-prefill-load-metric");
  config.neutral_load_metric = values.text("rescheduling-neutral-load-metric");
  config.neutral_load_threshold = values.number("rescheduling-neutral-load-threshold");
  config.select_rule = values.text("rescheduling-req-select-rule");
  config.select_order = values.text("rescheduling-req-select-order");
  auto order = parse_selection_order(config.select_order);
  if (!order || *order == selection_order::low_priority_shortest)
    // engines of the reference take what they do not know as this
    config.select_order = "FCR";
  config.select_value = values.number("rescheduling-req-select-value");
  config.load_balance_threshold = values.number("rescheduling-load-balance-threshold");
  config.load_balance_scope = values.text("rescheduling-load-balance-scope");
  return config;
}

} // namespace llumnix
