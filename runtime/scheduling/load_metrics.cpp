#include "runtime/scheduling/load_metrics.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>

namespace llumnix {

namespace {

using view = const instance_view&;
using account = const inflight_load&;

/// Sums as the reference does, in 32 bits that wrap.
std::int32_t sum(std::initializer_list<std::int32_t> parts) {
  std::uint32_t total = 0;
  for (auto part : parts)
    total += static_cast<std::uint32_t>(part);
  return static_cast<std::int32_t>(total);
}

float kv_cache_usage_ratio_projected(view x, account sent) {
  if (!x.has_status)
    return 0;
  auto& s = x.status;
  if (s.num_total_gpu_tokens == 0)
    return std::numeric_limits<float>::max();
  auto promised = sum(
    {s.num_used_gpu_tokens, s.num_uncomputed_tokens_all_waiting_prefills,
     s.num_unallocated_tokens_scheduler_running_prefills,
     s.num_unallocated_tokens_hybrid_scheduler_waiting_decodes, sent.decode_tokens});
  return static_cast<float>(promised) / static_cast<float>(s.num_total_gpu_tokens);
}

float decode_batch_size(view x, account sent) {
  auto& s = x.status;
  return static_cast<float>(sum(
    {s.hybrid_scheduler_waiting_to_decode_requests_num, s.num_loading_requests,
     s.scheduler_waiting_to_decode_requests_num, s.scheduler_running_to_decode_requests_num,
     sent.decode_requests}));
}

float num_waiting_requests(view x, account sent) {
  return static_cast<float>(sum({x.status.num_waiting_requests, sent.requests}));
}

float all_prefills_tokens_num(view x, account sent) {
  auto& s = x.status;
  return static_cast<float>(sum(
    {s.num_uncomputed_tokens_all_waiting_prefills,
     s.num_uncomputed_tokens_scheduler_running_prefills, sent.prefill_tokens}));
}

/// A neutral request in flight counts twice here, once per stage, as in the reference.
float num_requests(view x, account sent) {
  auto& s = x.status;
  return static_cast<float>(sum(
    {s.num_waiting_requests, s.num_loading_requests, s.num_running_requests, sent.prefill_requests,
     sent.decode_requests}));
}

float all_decodes_tokens_num(view x, account sent) {
  auto& s = x.status;
  return static_cast<float>(sum(
    {s.hybrid_scheduler_waiting_to_decode_tokens_num, s.scheduler_waiting_to_decode_tokens_num,
     s.scheduler_running_to_decode_tokens_num, s.num_tokens_loading_requests, sent.decode_tokens}));
}

float requests_sent(view, account sent) {
  return static_cast<float>(sent.requests);
}

/// A neutral request's tokens are in both counters, those of one stage in its own; and what is sent
/// to an instance is all for one role.
float tokens_sent(view, account sent) {
  return static_cast<float>(std::max(sent.prefill_tokens, sent.decode_tokens));
}

constexpr std::array metrics{
  load_metric{"kv_cache_usage_ratio_projected", better::lower, kv_cache_usage_ratio_projected},
  load_metric{"decode_batch_size", better::lower, decode_batch_size},
  load_metric{"num_waiting_requests", better::lower, num_waiting_requests},
  load_metric{"all_prefills_tokens_num", better::lower, all_prefills_tokens_num},
  load_metric{"num_requests", better::lower, num_requests},
  load_metric{"all_decodes_tokens_num", better::lower, all_decodes_tokens_num},
  load_metric{"num_requests", better::lower, requests_sent, scheduling_mode::lite},
  load_metric{"num_tokens", better::lower, tokens_sent, scheduling_mode::lite},
};

} // namespace

const load_metric* find_load_metric(std::string_view name, scheduling_mode mode) {
  auto found = std::ranges::find_if(
    metrics, [&](const load_metric& x) { return x.name == name && x.mode == mode; });
  return found == metrics.end() ? nullptr : &*found;
}

std::string known_load_metrics(scheduling_mode mode) {
  std::string names;
  for (auto& metric : metrics)
    if (metric.mode == mode)
      names.append(names.empty() ? "" : ", ").append(metric.name);
  return names;
}

candidate_table::candidate_table(std::vector<const load_metric*> metrics)
  : metrics_{std::move(metrics)}, values_(metrics_.size()) {}

void candidate_table::put(const instance_view& instance, const inflight_load& inflight) {
  auto& id = instance.metadata.instance_id;
  auto at = at_or_above(id);
  if (at == size() || ids_[at] != id)
    insert(at, id);
  bool judged = instance.has_status && instance.state != instance_state::stopped;
  states_[at] = instance.state;
  schedulable_[at] = !judged || instance.status.schedulable;
  written_[at] = judged ? instance.status.timestamp_ms : std::numeric_limits<unix_ms>::max();
  for (std::size_t slot = 0; slot < metrics_.size(); ++slot)
    values_[slot][at] = metrics_[slot]->value(instance, inflight);
  auto& known = locations_[at];
  auto& told = instance.metadata;
  bool data_parallel = told.data_parallel_size > 1;
  if (
    known.node != told.node_id || known.unit != told.unit_id
    || known.data_parallel != data_parallel) {
    known = {told.node_id, told.unit_id, data_parallel};
    ++layout_;
  }
}

void candidate_table::erase(const instance_id& id) {
  auto found = find(id);
  if (!found)
    return;
  auto drop = [at = *found](auto& column) { column.erase(column.begin() + at); };
  drop(ids_), drop(states_), drop(schedulable_), drop(written_), drop(locations_);
  std::ranges::for_each(values_, drop);
  ++layout_;
}

void candidate_table::insert(row at, const instance_id& id) {
  auto open = [at](auto& column) { column.emplace(column.begin() + at); };
  open(ids_), open(states_), open(schedulable_), open(written_), open(locations_);
  std::ranges::for_each(values_, open);
  ids_[at] = id;
  ++layout_;
}

std::optional<candidate_table::row> candidate_table::find(const instance_id& id) const {
  auto at = at_or_above(id);
  if (at == size() || ids_[at] != id)
    return std::nullopt;
  return at;
}

candidate_table::row candidate_table::at_or_above(const instance_id& id) const {
  return static_cast<row>(std::ranges::lower_bound(ids_, id) - ids_.begin());
}

candidate_table::row candidate_table::first_above(const instance_id& id) const {
  return static_cast<row>(std::ranges::upper_bound(ids_, id) - ids_.begin());
}

} // namespace llumnix
