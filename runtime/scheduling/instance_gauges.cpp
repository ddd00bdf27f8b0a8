#include "runtime/scheduling/instance_gauges.hpp"

#include "runtime/cluster/foreign_instances.hpp"
#include "runtime/scheduling/load_metrics.hpp"

#include <algorithm>

namespace llumnix {

instance_load load_of(const instance_view& instance, const inflight_load& inflight) {
  static const auto& kv_usage = *find_load_metric("kv_cache_usage_ratio_projected");
  static const auto& decode_batch = *find_load_metric("decode_batch_size");
  static const auto& prefills = *find_load_metric("all_prefills_tokens_num");
  static const auto& decodes = *find_load_metric("all_decodes_tokens_num");
  const decision_share nothing_asked;
  const metric_input of{instance, inflight, nothing_asked};
  return {
    kv_usage.compute(of), decode_batch.compute(of), prefills.compute(of), decodes.compute(of)};
}

instance_gauges gauges_of(const instance_view& instance, const inflight_load& inflight) {
  const auto& s = instance.status;
  auto load = load_of(instance, inflight);
  auto count = [](std::int32_t value) { return static_cast<double>(value); };
  auto metric = [](float value) { return static_cast<double>(value); };
  return {
    instance.metadata.instance_id,
    instance.metadata.instance_type,
    {count(s.num_used_gpu_tokens),
     count(s.num_waiting_requests),
     count(s.num_loading_requests),
     count(s.num_running_requests),
     count(s.scheduler_waiting_to_decode_requests_num),
     count(s.scheduler_running_to_decode_requests_num),
     count(s.hybrid_scheduler_waiting_to_decode_requests_num),
     count(s.num_uncomputed_tokens_all_waiting_prefills),
     count(s.num_uncomputed_tokens_scheduler_running_prefills),
     count(s.num_unallocated_tokens_scheduler_running_prefills),
     count(s.num_unallocated_tokens_hybrid_scheduler_waiting_decodes),
     count(s.hybrid_scheduler_waiting_to_decode_tokens_num),
     count(s.scheduler_waiting_to_decode_tokens_num),
     count(s.scheduler_running_to_decode_tokens_num),
     count(s.num_tokens_loading_requests),
     count(inflight.requests),
     count(inflight.prefill_requests),
     count(inflight.decode_requests),
     count(inflight.prefill_tokens),
     count(inflight.decode_tokens),
     metric(load.kv_usage),
     metric(load.decode_batch),
     metric(load.prefill_tokens),
     metric(load.decode_tokens)}};
}

request_gauges requests_of(
  const instance_view& instance, const inflight_load& account,
  const reported_requests::load& reported) {
  const auto& what = instance.metadata;
  auto count = [](std::int32_t x) { return static_cast<std::uint64_t>(std::max(x, 0)); };
  request_gauges x{
    what.instance_id, http_endpoint(what).value_or(what.instance_id), what.instance_type};
  x.tokens = count(std::max(account.prefill_tokens, account.decode_tokens));
  x.requests = count(account.requests);
  x.waiting_tokens = std::min(x.tokens, reported.waiting_tokens);
  x.waiting_requests = std::min(x.requests, reported.waiting_requests);
  return x;
}

} // namespace llumnix
