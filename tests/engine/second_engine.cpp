#include "tests/engine/second_engine.hpp"

#include <algorithm>

namespace llumnix::testing {

namespace {

using u64 = std::uint64_t;

u64 scramble(u64 z) {
  z += 0x9E3779B97F4A7C15u;
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9u;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBu;
  z ^= z >> 31;
  return z;
}

token_id next_token(const std::vector<token_id>& ids, const sampling_params& s, std::size_t index) {
  u64 digest = 0;
  for (auto id : ids)
    digest = scramble(digest ^ scramble(id));
  u64 key = s.choice ? scramble(s.choice) : 0;
  if (s.temperature > 0)
    key = scramble(s.seed ^ scramble(s.choice));
  auto v = scramble(digest ^ scramble(key + ids.size()));
  bool end = v % 256 == 0 || s.eos == eos_rule::force;
  if (s.ignore_eos || s.eos == eos_rule::forbid || index < s.min_tokens)
    end = false;
  return end ? 257 : 512 + v / 256 % 512;
}

finish_reason ending(
  token_id token, const sampling_params& s, std::size_t outputs, std::size_t tokens,
  std::size_t model_length) {
  bool stops = std::count(s.stop_token_ids.begin(), s.stop_token_ids.end(), token) > 0;
  if ((stops || (token == 257 && !s.ignore_eos)) && outputs > s.min_tokens)
    return finish_reason::stop;
  if (outputs >= s.max_tokens || tokens >= model_length)
    return finish_reason::length;
  return finish_reason::none;
}

} // namespace

expected_output
expect(const inference_request& request, std::uint32_t model_length, std::size_t limit) {
  auto ids = request.prompt;
  ids.insert(ids.end(), request.output.begin(), request.output.end());
  expected_output expected;
  auto outputs = request.output.size();
  while (expected.finish == finish_reason::none && expected.tokens.size() < limit) {
    auto token = next_token(ids, request.sampling, outputs);
    ids.push_back(token);
    expected.tokens.push_back(token);
    expected.finish = ending(token, request.sampling, ++outputs, ids.size(), model_length);
  }
  return expected;
}

void second_engine::submit(const inference_request& what) {
  request x;
  x.what = what;
  x.ids = what.prompt;
  x.ids.insert(x.ids.end(), what.output.begin(), what.output.end());
  requests_.emplace(order{what.priority, submitted_++}, std::move(x));
}

void second_engine::abort(u64 stream) {
  for (auto it = requests_.begin(); it != requests_.end(); ++it)
    if (it->second.what.stream.stream == stream) {
      release(it->second);
      requests_.erase(it);
      return;
    }
}

void second_engine::grant(u64 stream, std::uint32_t credit) {
  for (auto& [_, x] : requests_)
    if (x.what.stream.stream == stream && credit > x.what.credit)
      x.what.credit = credit;
}

bool second_engine::eligible(const request& x) const {
  return x.ids.size() - x.what.prompt.size() < x.what.credit;
}

bool second_engine::has_work() const {
  return std::any_of(
    requests_.begin(), requests_.end(), [this](const auto& x) { return eligible(x.second); });
}

std::uint32_t second_engine::free_blocks() const {
  return static_cast<std::uint32_t>(std::count_if(
    blocks_.begin(), blocks_.end(), [](const block& x) { return x.references == 0; }));
}

std::size_t second_engine::running() const {
  return static_cast<std::size_t>(std::count_if(
    requests_.begin(), requests_.end(), [](const auto& x) { return x.second.running; }));
}

int second_engine::find_cached(const std::vector<token_id>& prefix) const {
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (blocks_[i].prefix == prefix)
      return static_cast<int>(i);
  return -1;
}

bool second_engine::take(request& x, std::size_t fresh, const std::vector<std::size_t>& reused) {
  std::size_t free = free_blocks();
  for (auto i : reused)
    free -= blocks_[i].references == 0;
  if (fresh > free)
    return false;
  for (auto i : reused) {
    ++blocks_[i].references;
    x.table.push_back(i);
  }
  for (; fresh > 0; --fresh) {
    block* best = nullptr; // one without a prefix, else the longest free
    for (auto& b : blocks_)
      if (
        b.references == 0
        && (!best || (!best->prefix.empty() && (b.prefix.empty() || b.freed < best->freed))))
        best = &b;
    *best = block{1, {}, 0};
    x.table.push_back(static_cast<std::size_t>(best - blocks_.data()));
  }
  return true;
}

void second_engine::release(request& x) {
  for (; !x.table.empty(); x.table.pop_back())
    if (auto& b = blocks_[x.table.back()]; --b.references == 0)
      b.freed = ++frees_;
}

void second_engine::run(request& x, std::uint32_t tokens, step_account& account) {
  budget_ -= tokens;
  (x.computed >= x.prefill ? account.decode : account.prefill) += tokens;
  for (auto i = x.computed / how_.block_tokens; i < (x.computed + tokens) / how_.block_tokens;
       ++i) {
    std::vector<token_id> prefix(x.ids.begin(), x.ids.begin() + (i + 1) * how_.block_tokens);
    if (how_.cache && find_cached(prefix) < 0 && blocks_[x.table[i]].prefix.empty())
      blocks_[x.table[i]].prefix = prefix;
  }
  x.computed += tokens;
}

void second_engine::preempt_last(step_account& account) {
  for (auto it = requests_.rbegin(); it != requests_.rend(); ++it)
    if (auto& x = it->second; x.running) {
      release(x);
      x.running = false;
      x.computed = 0;
      ++account.preemptions;
      return;
    }
}

void second_engine::admit(step_account& account) {
  for (auto& [when, x] : requests_) {
    if (x.running || !eligible(x))
      continue;
    if (budget_ == 0 || running() >= how_.seqs)
      return;
    std::vector<std::size_t> reused;
    for (std::size_t n = how_.block_tokens; how_.cache && n < x.ids.size();
         n += how_.block_tokens) {
      auto found = find_cached({x.ids.begin(), x.ids.begin() + static_cast<std::ptrdiff_t>(n)});
      if (found < 0)
        break;
      reused.push_back(static_cast<std::size_t>(found));
    }
    auto cached = static_cast<std::uint32_t>(reused.size()) * how_.block_tokens;
    auto tokens
      = std::min<std::uint32_t>(static_cast<std::uint32_t>(x.ids.size()) - cached, budget_);
    auto needed = (cached + tokens + how_.block_tokens - 1) / how_.block_tokens - reused.size();
    if (!take(x, needed, reused))
      return;
    x.running = true;
    x.computed = cached;
    x.prefill = static_cast<std::uint32_t>(x.ids.size());
    if (!x.ran_before)
      x.cached = std::min<std::uint32_t>(cached, static_cast<std::uint32_t>(x.what.prompt.size()));
    x.ran_before = true;
    scheduled_.push_back({when, tokens});
    run(x, tokens, account);
  }
}

second_engine::step_account second_engine::step() {
  step_account account;
  budget_ = how_.batched_tokens;
  scheduled_.clear();
  for (auto& [when, x] : requests_) {
    if (!x.running || !eligible(x) || budget_ == 0)
      continue;
    auto tokens
      = std::min<std::uint32_t>(static_cast<std::uint32_t>(x.ids.size()) - x.computed, budget_);
    std::size_t needed = (x.computed + tokens + how_.block_tokens - 1) / how_.block_tokens;
    while (x.running && needed > x.table.size() && !take(x, needed - x.table.size(), {}))
      preempt_last(account);
    if (!x.running)
      break;
    scheduled_.push_back({when, tokens});
    run(x, tokens, account);
  }
  if (account.preemptions == 0)
    admit(account);
  while (scheduled_.empty() && has_work()) {
    preempt_last(account);
    admit(account);
  }
  std::vector<order> ended;
  for (auto [when, _] : scheduled_) {
    auto& x = requests_.at(when);
    if (x.computed < x.ids.size())
      continue;
    auto index = x.ids.size() - x.what.prompt.size();
    auto token = next_token(x.ids, x.what.sampling, index);
    x.ids.push_back(token);
    auto finish = ending(token, x.what.sampling, index + 1, x.ids.size(), how_.model_length);
    account.outputs.push_back(
      {x.what.stream.stream,
       static_cast<std::uint32_t>(index),
       {token},
       finish,
       x.told_cached ? 0 : x.cached});
    x.told_cached = true;
    if (finish != finish_reason::none)
      ended.push_back(when);
  }
  for (auto when : ended) {
    release(requests_.at(when));
    requests_.erase(when);
  }
  return account;
}

} // namespace llumnix::testing
