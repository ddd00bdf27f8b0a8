#include "runtime/engine/batch_scheduler.hpp"

#include <algorithm>

namespace llumnix {

namespace {

/// Whether a room has positions to be computed.
bool unfinished(const engine_request* room) {
  return !room->decoding();
}

} // namespace

batch_scheduler::batch_scheduler(
  batch_limits limits, block_manager& blocks, std::uint32_t block_tokens)
  : limits_{limits}, blocks_{blocks}, block_tokens_{block_tokens} {}

void batch_scheduler::add(engine_request& request) {
  waiting_.insert(&request);
}

void batch_scheduler::remove(engine_request& request) {
  if (!request.frozen)
    freeze(request);
  blocks_.release(request.blocks);
}

void batch_scheduler::freeze(engine_request& request) {
  if (request.running)
    running_.erase(std::find(running_.begin(), running_.end(), &request));
  else
    waiting_.erase(&request);
  request.frozen = true;
}

void batch_scheduler::thaw(engine_request& request) {
  request.frozen = false;
  if (request.running)
    run(request);
  else
    waiting_.insert(&request);
}

void batch_scheduler::adopt(engine_request& request) {
  cache(request, 0, request.computed);
  enter(request);
}

void batch_scheduler::compute_ahead(engine_request& room) {
  auto place = std::lower_bound(ahead_.begin(), ahead_.end(), &room, served_before{});
  if (place == ahead_.end() || *place != &room)
    ahead_.insert(place, &room);
}

void batch_scheduler::forget_ahead(engine_request& room) {
  std::erase(ahead_, &room);
}

bool batch_scheduler::has_work() const {
  auto may_run = [](const engine_request* request) { return request->may_run(); };
  return std::any_of(running_.begin(), running_.end(), may_run)
         || std::any_of(waiting_.begin(), waiting_.end(), may_run)
         || std::any_of(ahead_.begin(), ahead_.end(), unfinished);
}

const batch& batch_scheduler::plan(time_point now) {
  batch_.requests.clear();
  batch_.preemptions = 0;
  budget_ = limits_.max_num_batched_tokens;
  now_ = now;
  plan_running();
  plan_waiting(batch_.preemptions == 0);
  // Nobody runs, yet somebody could: seats and blocks are held by requests that wait for their
  // clients. Or by pins and rooms: then it waits for those.
  while (batch_.requests.empty() && !running_.empty() && next_waiting() != nullptr) {
    auto& last = victim(0);
    if (last.stands())
      break; // all do, and leave soon
    preempt(last);
    plan_waiting(true);
  }
  return batch_;
}

void batch_scheduler::plan_running() {
  // Victims are never before `i`: who was scheduled in this step stays so.
  for (std::size_t i = 0; i < running_.size() && budget_ > 0;) {
    auto& request = *running_[i];
    if (!request.may_run()) {
      ++i;
      continue;
    }
    auto tokens = std::min(request.tokens() - request.computed, budget_);
    while (request.running && !extend(request, tokens))
      preempt(victim(i));
    if (!request.running)
      continue; // another one is at `i` now
    schedule(request, tokens);
    ++i;
  }
}

void batch_scheduler::plan_waiting(bool admits) {
  for (auto room = ahead_.begin(); budget_ > 0;) {
    room = std::find_if(room, ahead_.end(), unfinished);
    auto* request = admits && running_.size() < limits_.max_num_seqs ? next_waiting() : nullptr;
    if (room != ahead_.end() && (request == nullptr || served_before{}(*room, request))) {
      schedule(**room, std::min((*room)->prefill_tokens - (*room)->computed, budget_));
      ++room;
    } else if (request != nullptr) {
      admits = admit(*request);
    } else {
      return;
    }
  }
}

bool batch_scheduler::admit(engine_request& request) {
  auto keys = request.reusable_keys();
  keys = keys.first(blocks_.count_cached(keys));
  auto cached = static_cast<std::uint32_t>(keys.size()) * block_tokens_;
  auto tokens = std::min(request.tokens() - cached, budget_);
  auto needed = (cached + tokens + block_tokens_ - 1) / block_tokens_;
  if (!blocks_.take(keys, needed - static_cast<std::uint32_t>(keys.size()), request.blocks))
    return false;
  waiting_.erase(&request);
  enter(request);
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
  // Cached before it is computed, as in vLLM: who shares it is scheduled, and computed, after it.
  cache(request, request.computed, request.computed + tokens);
}

/// Unlike one that is put back (`thaw`), it is the latest of the running now.
void batch_scheduler::enter(engine_request& request) {
  request.admitted = ++admissions_;
  run(request);
}

void batch_scheduler::run(engine_request& request) {
  running_.insert(
    std::upper_bound(running_.begin(), running_.end(), &request, served_before{}), &request);
  request.running = true;
}

/// Caches the blocks that positions [from, to) fill.
void batch_scheduler::cache(engine_request& request, std::uint32_t from, std::uint32_t to) {
  if (request.broken)
    return;
  for (auto i = from / block_tokens_; i < to / block_tokens_; ++i)
    blocks_.cache(
      request.blocks[i], request.keys[i], i == 0 ? 0 : request.keys[i - 1],
      std::span{request.ids}.subspan(std::size_t{i} * block_tokens_, block_tokens_));
}

void batch_scheduler::preempt(engine_request& request) {
  remove(request);
  request.running = false;
  request.computed = 0;
  ++request.preemptions;
  thaw(request);
  ++batch_.preemptions;
}

/// Whose blocks to take among the running from `first` on: the last in order of service, but rather
/// not one that came a moment ago, nor one whose blocks are pinned and would not become free, and
/// least of all one that stands with a prefill done.
engine_request& batch_scheduler::victim(std::size_t first) const {
  auto rank = [this](const engine_request& x) {
    return x.stands() ? 3 : x.pinned ? 2 : x.spared_until > now_ ? 1 : 0;
  };
  auto* best = running_.back();
  for (auto i = running_.size(); i-- > first && rank(*best) > 0;)
    if (rank(*running_[i]) < rank(*best))
      best = running_[i];
  return *best;
}

engine_request* batch_scheduler::next_waiting() const {
  auto next = std::find_if(
    waiting_.begin(), waiting_.end(), [](const engine_request* x) { return x->may_run(); });
  return next == waiting_.end() ? nullptr : *next;
}

} // namespace llumnix
