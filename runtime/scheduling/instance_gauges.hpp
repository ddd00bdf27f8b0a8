#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/cluster/reported_requests.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix {

/// How loaded an instance is, by the metrics that dashboards show (spec/scheduling.md 5), without
/// any request in mind.
struct instance_load {
  float kv_usage = 0; ///< kv_cache_usage_ratio_projected
  float decode_batch = 0;
  float prefill_tokens = 0;
  float decode_tokens = 0;
};
instance_load load_of(const instance_view& instance, const inflight_load& inflight);

/// The names of the gauges of an instance, `instance_cms_` in front (spec/cms.md 11).
inline constexpr std::array<std::string_view, 24> instance_gauge_names{
  "used_gpu_tokens",
  "waiting_requests",
  "loading_requests",
  "running_requests",
  "scheduler_waiting_to_decode_requests",
  "scheduler_running_to_decode_requests",
  "hybrid_scheduler_waiting_to_decode_requests",
  "uncomputed_tokens_all_waiting_prefills",
  "uncomputed_tokens_scheduler_running_prefills",
  "unallocated_tokens_scheduler_running_prefills",
  "unallocated_tokens_hybrid_scheduler_waiting_decodes",
  "hybrid_scheduler_waiting_to_decode_tokens",
  "scheduler_waiting_to_decode_tokens",
  "scheduler_running_to_decode_tokens",
  "tokens_loading_requests",
  "inflight_dispatch_requests",
  "inflight_dispatch_prefill_requests",
  "inflight_dispatch_decode_requests",
  "uncomputed_tokens_inflight_dispatch_prefill_requests",
  "tokens_inflight_dispatch_decode_requests",
  "kv_cache_usage_ratio_projected",
  "decode_batch_size",
  "all_prefills_tokens_num",
  "all_decodes_tokens_num"};

/// What dashboards show of an instance.
struct instance_gauges {
  instance_id instance;
  std::string role;
  /// By name. Counts are whole, whatever they are; metrics are as decisions compare them.
  std::array<double, instance_gauge_names.size()> values{};
};
/// As of its last status and its account.
instance_gauges gauges_of(const instance_view& instance, const inflight_load& inflight);

/// What is known of an instance in lite mode: the requests that were sent there and have not ended
/// (spec/cms.md 7.5).
struct request_gauges {
  instance_id instance;
  std::string address; ///< HOST:PORT of its HTTP server; its id where it has none
  std::string role;
  std::uint64_t tokens = 0, waiting_tokens = 0;
  std::uint64_t requests = 0, waiting_requests = 0;
};
/// By its account, and by what gateways reported: what of it waits for its first token, nobody else
/// tells.
request_gauges requests_of(
  const instance_view& instance, const inflight_load& account,
  const reported_requests::load& reported);

} // namespace llumnix
