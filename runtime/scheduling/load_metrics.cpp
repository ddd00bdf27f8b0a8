#include "runtime/scheduling/load_metrics.hpp"

#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/freeness.hpp"
#include "runtime/scheduling/latency_profile.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>

namespace llumnix {

namespace {

using input = const metric_input&;

/// A sum in 32 bits, as in the reference; what does not fit stays at the limit, where the
/// reference's comes back from the other end and makes the fullest instance look emptiest (weakness
/// 11 of spec/scheduling.md).
std::int32_t sum(std::initializer_list<std::int64_t> parts) {
  std::int64_t total = 0;
  for (auto part : parts)
    total += part;
  return saturated(total);
}

/// What is given for a name in place of its computed value.
float or_given(input x, std::string_view name, float computed) {
  if (x.given)
    if (auto found = x.given->find(name); found != x.given->end())
      return found->second;
  return computed;
}

float kv_cache_usage_ratio_projected(input x) {
  if (!x.instance.has_status)
    return 0;
  auto& s = x.instance.status;
  if (s.num_total_gpu_tokens == 0)
    return std::numeric_limits<float>::max();
  auto promised = sum(
    {s.num_used_gpu_tokens, s.num_uncomputed_tokens_all_waiting_prefills,
     s.num_unallocated_tokens_scheduler_running_prefills,
     s.num_unallocated_tokens_hybrid_scheduler_waiting_decodes, x.inflight.decode_tokens});
  return static_cast<float>(promised) / static_cast<float>(s.num_total_gpu_tokens);
}

float decode_batch_size(input x) {
  auto& s = x.instance.status;
  return static_cast<float>(sum(
    {s.hybrid_scheduler_waiting_to_decode_requests_num, s.num_loading_requests,
     s.scheduler_waiting_to_decode_requests_num, s.scheduler_running_to_decode_requests_num,
     x.inflight.decode_requests}));
}

float num_waiting_requests(input x) {
  return static_cast<float>(sum({x.instance.status.num_waiting_requests, x.inflight.requests}));
}

float hit_tokens(input x) {
  return or_given(x, "hit_tokens", static_cast<float>(x.share.hit_tokens));
}

float hit_ratio(input x) {
  if (x.share.prompt_tokens == 0)
    return 0;
  return static_cast<float>(x.share.hit_tokens) / static_cast<float>(x.share.prompt_tokens);
}

float miss_tokens(input x) {
  return or_given(x, "miss_tokens", static_cast<float>(x.share.miss_tokens));
}

/// Given as a number of any kind; progress is a count.
std::int32_t predicted_progress_tokens(input x) {
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  auto given = or_given(x, "predicted_progress", static_cast<float>(x.share.predicted_progress));
  if (given == static_cast<float>(x.share.predicted_progress))
    return x.share.predicted_progress;
  return static_cast<std::int32_t>(std::clamp(static_cast<double>(given), -most, most));
}

float progress_metric(input x) {
  return static_cast<float>(x.share.predicted_progress);
}

float all_prefills_tokens_num(input x) {
  auto& s = x.instance.status;
  return static_cast<float>(sum(
    {s.num_uncomputed_tokens_all_waiting_prefills,
     s.num_uncomputed_tokens_scheduler_running_prefills, x.inflight.prefill_tokens,
     -std::int64_t{predicted_progress_tokens(x)}}));
}

float cache_aware_all_prefills_tokens_num(input x) {
  return miss_tokens(x) + or_given(x, "all_prefills_tokens_num", all_prefills_tokens_num(x));
}

/// A neutral request in flight counts twice here, once per stage, as in the reference.
float num_requests(input x) {
  auto& s = x.instance.status;
  return static_cast<float>(sum(
    {s.num_waiting_requests, s.num_loading_requests, s.num_running_requests,
     x.inflight.prefill_requests, x.inflight.decode_requests}));
}

float all_decodes_tokens_num(input x) {
  auto& s = x.instance.status;
  return static_cast<float>(sum(
    {s.hybrid_scheduler_waiting_to_decode_tokens_num, s.scheduler_waiting_to_decode_tokens_num,
     s.scheduler_running_to_decode_tokens_num, s.num_tokens_loading_requests,
     x.inflight.decode_tokens}));
}

/// What a prediction is made from, as other metrics say it (spec/scheduling.md 9.3, 9.4).
predicted_work work_of(input x, std::int32_t prompt_tokens) {
  auto& s = x.instance.status;
  return {
    .all_prefills_tokens = or_given(x, "all_prefills_tokens_num", all_prefills_tokens_num(x)),
    .decode_batch = or_given(x, "decode_batch_size", decode_batch_size(x)),
    .all_decodes_tokens = or_given(x, "all_decodes_tokens_num", all_decodes_tokens_num(x)),
    .reported_prefills = sum(
      {s.num_uncomputed_tokens_all_waiting_prefills,
       s.num_uncomputed_tokens_scheduler_running_prefills}),
    .inflight_prefills = x.inflight.prefill_tokens,
    .chunk = x.instance.metadata.max_num_batched_tokens,
    .elapsed_ms = x.instance.has_status ? x.share.now - s.timestamp_ms : 0,
    .prompt_tokens = static_cast<std::uint32_t>(prompt_tokens)};
}

float predicted_ttft_metric(input x) {
  return x.profile ? predicted_ttft(*x.profile, work_of(x, x.share.prompt_tokens))
                   : std::numeric_limits<float>::infinity();
}

float backlog_ttft_metric(input x) {
  return x.profile ? predicted_ttft(*x.profile, work_of(x, 0))
                   : std::numeric_limits<float>::infinity();
}

float predicted_tpot_metric(input x) {
  return x.profile ? predicted_tpot(*x.profile, work_of(x, x.share.prompt_tokens))
                   : std::numeric_limits<float>::infinity();
}

float requests_sent(input x) {
  return static_cast<float>(x.inflight.requests);
}

/// A neutral request's tokens are in both counters, those of one stage in its own; and what is sent
/// to an instance is all for one role.
float tokens_sent(input x) {
  return static_cast<float>(std::max(x.inflight.prefill_tokens, x.inflight.decode_tokens));
}

/// Of those in flight, what goes before a request of this priority or is its equal.
float requests_ahead(input x) {
  auto& sent = x.inflight;
  if (x.share.priority < 0)
    return static_cast<float>(sent.urgent_requests);
  return static_cast<float>(
    x.share.priority > 0 ? sent.requests : sent.requests - sent.low_requests);
}

float tokens_ahead(input x) {
  auto& sent = x.inflight;
  if (x.share.priority < 0)
    return static_cast<float>(sent.urgent_tokens);
  return x.share.priority > 0 ? tokens_sent(x)
                              : tokens_sent(x) - static_cast<float>(sent.low_tokens);
}

/// What is not computed yet of requests that run is not known here: all that was not cached of
/// them counts until they end.
float cache_aware_num_tokens(input x) {
  return miss_tokens(x) + static_cast<float>(x.inflight.prefill_tokens);
}

float adapter_miss(input x) {
  bool active
    = !x.share.adapter || std::ranges::binary_search(x.instance.status.adapters, *x.share.adapter);
  return active ? 0 : 1;
}

using enum scheduling_mode;

constexpr std::array metrics{
  load_metric{"kv_cache_usage_ratio_projected", better::lower, kv_cache_usage_ratio_projected},
  load_metric{"decode_batch_size", better::lower, decode_batch_size},
  load_metric{"num_waiting_requests", better::lower, num_waiting_requests},
  load_metric{"all_prefills_tokens_num", better::lower, all_prefills_tokens_num},
  load_metric{"kv_cache_hit_len", better::higher, hit_tokens, full, true},
  load_metric{
    "cache_aware_all_prefills_tokens_num", better::lower, cache_aware_all_prefills_tokens_num, full,
    true},
  load_metric{"num_requests", better::lower, num_requests},
  load_metric{"all_decodes_tokens_num", better::lower, all_decodes_tokens_num},
  load_metric{"predicted_ttft", better::lower, predicted_ttft_metric, full, true},
  load_metric{"predicted_tpot", better::lower, predicted_tpot_metric, full, true},
  load_metric{"hit_tokens", better::higher, hit_tokens, full, true},
  load_metric{"hit_ratio", better::higher, hit_ratio, full, true},
  load_metric{"miss_tokens", better::lower, miss_tokens, full, true},
  load_metric{"predicted_progress", better::higher, progress_metric, full, true},
  load_metric{"remaining_steps", better::higher, remaining_steps},
  load_metric{"remaining_steps_defrag", better::higher, remaining_steps_defrag},
  load_metric{"kv_blocks_ratio", better::lower, kv_blocks_ratio},
  load_metric{"adaptive_decode", better::lower, adaptive_decode},
  load_metric{"miss_waiting_tokens", better::lower, miss_waiting_tokens},
  load_metric{"freeness", better::higher, freeness},
  load_metric{"num_requests", better::lower, requests_sent, lite},
  load_metric{"num_tokens", better::lower, tokens_sent, lite},
  load_metric{"num_requests_ahead", better::lower, requests_ahead, lite, true},
  load_metric{"num_tokens_ahead", better::lower, tokens_ahead, lite, true},
  load_metric{"cache_aware_num_tokens", better::lower, cache_aware_num_tokens, lite, true},
  load_metric{"adapter_miss", better::lower, adapter_miss, lite, true},
};

constexpr load_metric ttft_without_request{
  "predicted_ttft", better::lower, backlog_ttft_metric, full, true, backlog_ttft_name};

} // namespace

float to_float(double value) {
  constexpr double most = std::numeric_limits<float>::max();
  if (std::abs(value) <= most || std::isnan(value) || std::isinf(value))
    return static_cast<float>(value);
  return std::copysign(std::numeric_limits<float>::infinity(), value < 0 ? -1.0f : 1.0f);
}

float value_of(const load_metric& metric, const metric_input& of) {
  if (of.given)
    for (auto name : {metric.given_first, metric.name})
      if (auto found = of.given->find(name); found != of.given->end())
        return found->second;
  return metric.compute(of);
}

std::span<const load_metric> load_metrics() {
  return metrics;
}

const load_metric* find_load_metric(std::string_view name, scheduling_mode mode) {
  auto found = std::ranges::find_if(
    metrics, [&](const load_metric& x) { return x.name == name && x.mode == mode; });
  return found == metrics.end() ? nullptr : &*found;
}

const load_metric& backlog_ttft() {
  return ttft_without_request;
}

std::string known_load_metrics(scheduling_mode mode) {
  std::string names;
  for (auto& metric : metrics)
    if (metric.mode == mode)
      names.append(names.empty() ? "" : ", ").append(metric.name);
  return names;
}

std::uint8_t metric_number(std::string_view name) {
  auto found = std::ranges::find(metrics, name, &load_metric::name);
  return static_cast<std::uint8_t>(found - metrics.begin());
}

std::string_view metric_name(std::uint8_t number) {
  return number < metrics.size() ? metrics[number].name : std::string_view{"unknown"};
}

} // namespace llumnix
