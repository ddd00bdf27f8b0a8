#include "runtime/scheduling/freeness.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();

std::int64_t blocks_of(std::int64_t tokens, std::int64_t block_tokens) {
  return tokens <= 0 ? 0 : (tokens + block_tokens - 1) / block_tokens;
}

/// Requests and KV blocks of an instance, from its lists or its status.
struct occupancy {
  std::int64_t block_tokens = 16;
  std::int64_t total_blocks = 0;
  std::int64_t free_blocks = 0;
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  std::int64_t wanted_by_first = 0; ///< blocks
  std::int64_t wanted_by_all = 0;   ///< blocks, of waiting requests
};

void count_waiting(const instance_view& instance, occupancy& into) {
  auto size = into.block_tokens;
  if (instance.requests && instance.requests->waiting) {
    auto& waiting = *instance.requests->waiting;
    into.waiting = static_cast<std::int64_t>(waiting.size());
    for (auto& request : waiting)
      into.wanted_by_all += blocks_of(request.tokens, size);
    if (!waiting.empty())
      into.wanted_by_first = blocks_of(waiting.front().tokens, size);
    return;
  }
  auto& status = instance.status;
  into.waiting = std::max(status.num_waiting_requests, 0);
  if (into.waiting == 0)
    return;
  std::int64_t tokens = status.num_uncomputed_tokens_all_waiting_prefills;
  into.wanted_by_all = blocks_of(tokens, size);
  into.wanted_by_first = blocks_of(tokens, size * into.waiting);
}

occupancy occupancy_of(const instance_view& instance) {
  auto& status = instance.status;
  occupancy made;
  if (instance.metadata.block_size > 0)
    made.block_tokens = instance.metadata.block_size;
  // Both are whole blocks where an engine reports them.
  made.total_blocks = std::max(status.num_total_gpu_tokens, 0) / made.block_tokens;
  made.free_blocks = made.total_blocks - status.num_used_gpu_tokens / made.block_tokens;
  if (instance.requests && instance.requests->running)
    made.running = static_cast<std::int64_t>(instance.requests->running->size());
  else
    made.running = std::max(status.num_running_requests, 0);
  count_waiting(instance, made);
  return made;
}

float per_request(std::int64_t amount, std::int64_t requests) {
  return requests == 0 ? infinite : static_cast<float>(amount) / static_cast<float>(requests);
}

/// Tokens in use by running requests, headroom included.
std::int64_t virtual_usage(const instance_view& instance, std::int64_t block_tokens) {
  auto& status = instance.status;
  if (!instance.requests || !instance.requests->running)
    return status.num_used_gpu_tokens;
  std::int64_t usage = 0;
  bool any_high = false;
  for (auto& request : *instance.requests->running) {
    usage += blocks_of(request.tokens, block_tokens) * block_tokens;
    any_high |= request.high_priority;
  }
  // Each high-priority request has an equal share of the headroom: together all of it.
  return any_high ? usage + status.num_total_gpu_tokens - high_priority_target_tokens : usage;
}

/// Of the running requests those that generate.
std::int64_t decoding(const std::vector<listed_request>& running) {
  return std::ranges::count_if(
    running, [](const listed_request& x) { return x.output_tokens > 0; });
}

/// The metric `decode_batch_size`; listed requests stand for the status' count of those that run.
float decode_batch(const metric_input& of) {
  static const auto& batch_size = *find_load_metric("decode_batch_size");
  if (!of.instance.requests || !of.instance.requests->running)
    return value_of(batch_size, of);
  auto listed = of.instance;
  listed.status.scheduler_running_to_decode_requests_num
    = static_cast<std::int32_t>(decoding(*of.instance.requests->running));
  return value_of(batch_size, {listed, of.inflight, of.share, of.profile, of.given});
}

} // namespace

float remaining_steps(const metric_input& of) {
  if (!of.instance.has_status)
    return infinite;
  auto is = occupancy_of(of.instance);
  return per_request(is.free_blocks - is.wanted_by_all, is.running + is.waiting);
}

float remaining_steps_defrag(const metric_input& of) {
  if (!of.instance.has_status)
    return infinite;
  auto is = occupancy_of(of.instance);
  return per_request(is.free_blocks - is.wanted_by_first, is.running + (is.waiting > 0 ? 1 : 0));
}

float kv_blocks_ratio(const metric_input& of) {
  if (!of.instance.has_status)
    return 0;
  auto is = occupancy_of(of.instance);
  if (is.total_blocks == 0)
    return infinite;
  auto promised = is.total_blocks - is.free_blocks + is.wanted_by_all;
  return static_cast<float>(promised) / static_cast<float>(is.total_blocks);
}

float adaptive_decode(const metric_input& of) {
  constexpr float full_batch = 128;
  if (!of.instance.has_status)
    return 0;
  auto batch = decode_batch(of);
  return batch >= full_batch ? batch : full_batch - batch;
}

float miss_waiting_tokens(const metric_input& of) {
  auto& instance = of.instance;
  auto told = instance.status.num_uncomputed_tokens_all_waiting_prefills;
  bool listed = instance.requests && instance.requests->waiting;
  if (!listed || (told != 0 && !instance.requests->waiting->empty())) // cached tokens no list tells
    return static_cast<float>(told);
  std::int64_t tokens = 0;
  for (auto& request : *instance.requests->waiting)
    tokens += std::max(request.tokens, 0);
  return static_cast<float>(tokens);
}

float freeness(const metric_input& of) {
  auto& instance = of.instance;
  if (instance.state == instance_state::draining)
    return -infinite;
  if (!instance.has_status)
    return infinite;
  auto is = occupancy_of(instance);
  auto left = instance.status.num_total_gpu_tokens - virtual_usage(instance, is.block_tokens)
              - is.wanted_by_first * is.block_tokens;
  return per_request(left, std::max<std::int64_t>(is.running, is.waiting > 0 ? 1 : 0));
}

} // namespace llumnix
