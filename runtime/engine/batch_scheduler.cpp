#include "runtime/engine/batch_scheduler.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>

namespace llumnix {

batch_scheduler::batch_scheduler(
  batch_limits limits, block_manager& blocks, std::uint32_t block_tokens)
  : limits_{limits}, blocks_{blocks}, block_tokens_{block_tokens} {}

void batch_scheduler::add(engine_request& request) {
  waiting_.insert(&request);
}

void batch_scheduler::remove(engine_request& request) {
  if (request.running)
    running_.erase(std::find(running_.begin(), running_.end(), &request));
  else
    waiting_.erase(&request);
  blocks_.release(request.blocks);
}

bool batch_scheduler::has_work() const {
  auto may_run = [](const engine_request* request) { return request->may_run(); };
  return std::any_of(running_.begin(), running_.end(), may_run)
         || std::any_of(waiting_.begin(), waiting_.end(), may_run);
}

const batch& batch_scheduler::plan() {
  batch_.requests.clear();
  batch_.preemptions = 0;
  budget_ = limits_.max_num_batched_tokens;
  plan_running();
  if (batch_.preemptions == 0)
    plan_waiting();
  // Nobody runs, yet somebody could: seats and blocks are held by requests that wait for their
  // clients.
  while (batch_.requests.empty() && next_waiting() != nullptr) {
    LLUMNIX_ASSERT(!running_.empty());
    preempt(*running_.back());
    plan_waiting();
  }
  return batch_;
}

void batch_scheduler::plan_running() {
  // Victims come from the end, which is never before `i`: who was scheduled in this step stays so.
  for (std::size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
    auto& request = *running_[i];
    if (!request.may_run())
      continue;
    auto tokens = std::min(request.tokens() - request.computed, budget_);
    while (request.running && !extend(request, tokens))
      preempt(*running_.back());
    if (request.running)
      schedule(request, tokens);
  }
}

void batch_scheduler::plan_waiting() {
  while (budget_ > 0 && running_.size() < limits_.max_num_seqs) {
    auto* request = next_waiting();
    if (request == nullptr || !admit(*request))
      return;
  }
}

bool batch_scheduler::admit(engine_request& request) {
  // At least the last position is computed: the next token is read off it.
  auto reusable
    = std::min<std::size_t>(request.keys.size(), (request.tokens() - 1) / block_tokens_);
  std::span<const std::uint64_t> keys{request.keys.data(), reusable};
  keys = keys.first(blocks_.count_cached(keys));
  auto cached = static_cast<std::uint32_t>(keys.size()) * block_tokens_;
  auto tokens = std::min(request.tokens() - cached, budget_);
  auto needed = (cached + tokens + block_tokens_ - 1) / block_tokens_;
  if (!blocks_.take(keys, needed - static_cast<std::uint32_t>(keys.size()), request.blocks))
    return false;
  waiting_.erase(&request);
  running_.insert(
    std::upper_bound(running_.begin(), running_.end(), &request, served_before{}), &request);
  request.running = true;
  request.computed = cached;
  request.written = std::max(request.written, cached);
  request.prefill_tokens = request.tokens();
  if (!request.cached_tokens)
    request.cached_tokens = std::min(cached, request.prompt_tokens);
  schedule(request, tokens);
  return true;
}

bool batch_scheduler::extend(engine_request& request, std::uint32_t tokens) {
  auto needed = (request.computed + tokens + block_tokens_ - 1) / block_tokens_;
  auto held = static_cast<std::uint32_t>(request.blocks.size());
  return needed <= held || blocks_.take({}, needed - held, request.blocks);
}

void batch_scheduler::schedule(engine_request& request, std::uint32_t tokens) {
  budget_ -= tokens;
  batch_.requests.push_back({&request, tokens});
  if (request.broken)
    return;
  // Cached before it is computed, as in vLLM: who shares it is scheduled, and computed, after it.
  for (auto i = request.computed / block_tokens_; i < (request.computed + tokens) / block_tokens_;
       ++i)
    blocks_.cache(
      request.blocks[i], request.keys[i], i == 0 ? 0 : request.keys[i - 1],
      std::span{request.ids}.subspan(std::size_t{i} * block_tokens_, block_tokens_));
}

void batch_scheduler::preempt(engine_request& request) {
  remove(request);
  request.running = false;
  request.computed = 0;
  waiting_.insert(&request);
  ++batch_.preemptions;
}

engine_request* batch_scheduler::next_waiting() const {
  auto next = std::find_if(
    waiting_.begin(), waiting_.end(), [](const engine_request* x) { return x->may_run(); });
  return next == waiting_.end() ? nullptr : *next;
}

} // namespace llumnix
