#include "runtime/engine/engine_status.hpp"

namespace llumnix {

namespace {

/// Whether vLLM would expect it to decode: it saw no output limit but that of what is still to
/// come. What decodes elsewhere does not decode here.
bool outlives_prefill(const engine_request& request) {
  return !request.stand_at
         && request.sampling.max_tokens - (request.submitted_tokens - request.prompt_tokens) > 1;
}

std::int32_t count(std::size_t value) {
  return static_cast<std::int32_t>(value);
}

void collect_waiting(
  const engine_request& request, const block_manager& blocks, std::uint32_t block_tokens,
  instance_status& status) {
  auto tokens = count(request.tokens());
  status.waiting_requests.push_back(request.status_id);
  if (tokens > 1)
    status.num_uncomputed_tokens_scheduler_waiting_prefills
      += tokens - count(blocks.count_cached(request.keys) * block_tokens);
  if (outlives_prefill(request) || tokens == 1) {
    ++status.scheduler_waiting_to_decode_requests_num;
    status.scheduler_waiting_to_decode_tokens_num += tokens;
  }
}

void collect_running(const engine_request& request, instance_status& status) {
  auto tokens = count(request.tokens());
  if (request.computed < request.submitted_tokens) {
    auto left = tokens - count(request.computed);
    status.num_uncomputed_tokens_scheduler_running_prefills += left;
    status.num_unallocated_tokens_scheduler_running_prefills += left;
  }
  if (outlives_prefill(request)) {
    ++status.scheduler_running_to_decode_requests_num;
    status.scheduler_running_to_decode_tokens_num += tokens;
  }
}

} // namespace

void collect_load(
  const batch_scheduler& scheduler, const block_manager& blocks, std::uint32_t block_tokens,
  instance_status& status) {
  status.num_total_gpu_tokens = count(std::size_t{blocks.total()} * block_tokens);
  status.num_used_gpu_tokens = count(std::size_t{blocks.total() - blocks.free()} * block_tokens);
  status.waiting_requests.reserve(scheduler.waiting().size());
  for (const auto* request : scheduler.waiting())
    collect_waiting(*request, blocks, block_tokens, status);
  for (const auto* request : scheduler.running())
    collect_running(*request, status);
  status.num_waiting_requests = count(status.waiting_requests.size());
  status.num_running_requests = count(scheduler.running().size());
  status.num_uncomputed_tokens_all_waiting_prefills
    = status.num_uncomputed_tokens_scheduler_waiting_prefills;
}

} // namespace llumnix
