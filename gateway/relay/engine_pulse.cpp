#include "gateway/relay/engine_pulse.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {

namespace {

constexpr std::uint32_t overtakers_min = 3;
constexpr std::int64_t patience_most = 10; // times
constexpr std::uint32_t doublings_max = 6;
constexpr std::chrono::milliseconds per_prompt_token{1};
constexpr std::chrono::milliseconds per_reply_token{100};
constexpr std::chrono::milliseconds longest_silence = std::chrono::hours{24 * 30};

} // namespace

std::chrono::nanoseconds
first_token_patience(const first_wait& wait, std::chrono::milliseconds silence) {
  auto once = std::chrono::nanoseconds{std::min(silence, longest_silence)}
              + per_prompt_token * std::int64_t{wait.prompt_tokens}
              + per_reply_token * std::int64_t{wait.reply_tokens};
  return once * (std::int64_t{1} << std::min(wait.moves, doublings_max));
}

wait_verdict judge(const first_wait& wait, std::chrono::milliseconds silence) {
  auto patience = first_token_patience(wait, silence);
  if (silence.count() <= 0 || wait.waited <= patience)
    return wait_verdict::wait;
  if (wait.engine_hung)
    return wait_verdict::hung;
  if (std::min(wait.waited, wait.engine_silent) / patience_most > patience)
    return wait_verdict::mute;
  if (!wait.others_silent || *wait.others_silent > patience / 2)
    return wait_verdict::wait;
  if (wait.engine_silent > patience)
    return wait_verdict::hung;
  return wait.overtaken >= overtakers_min ? wait_verdict::overtaken : wait_verdict::wait;
}

/// Written rarely, for many loops read it.
void engine_signs::on_tokens(time_point now) {
  constexpr std::chrono::milliseconds fine_enough{1};
  if (now - said_at_.load(std::memory_order_relaxed) >= fine_enough)
    said_at_.store(now, std::memory_order_relaxed);
  if (hung_.load(std::memory_order_relaxed))
    hung_ = false;
}

void engine_signs::on_first(time_point asked_at, time_point now) {
  answered_at_ = now;
  auto newest = newest_answered_.load();
  while (newest < asked_at && !newest_answered_.compare_exchange_weak(newest, asked_at))
    continue;
}

engine_pulse::expected::expected(
  std::shared_ptr<engine_pulse> pulse, std::uint32_t prompt_tokens, time_point now)
  : pulse_{std::move(pulse)}, asked_at_{now}, prompt_tokens_{prompt_tokens} {
  place_ = pulse_->waiting_.emplace(now, this);
}

engine_pulse::expected::~expected() {
  if (waits_)
    pulse_->waiting_.erase(place_);
}

void engine_pulse::expected::on_tokens(time_point now) {
  pulse_->signs_->on_tokens(now);
  if (waits_)
    pulse_->on_first(*this, now);
}

first_wait engine_pulse::expected::wait(time_point now) const {
  first_wait wait;
  wait.waited = now - asked_at_;
  wait.engine_silent = now - pulse_->signs_->said_at();
  wait.overtaken = overtaken_;
  wait.prompt_tokens = prompt_tokens_;
  wait.engine_hung = pulse_->signs_->hung();
  return wait;
}

/// Looks at those it overtakes alone: an engine that answers in turn has none.
void engine_pulse::on_first(expected& answer, time_point now) {
  waiting_.erase(answer.place_);
  answer.waits_ = false;
  signs_->on_first(answer.asked_at_, now);
  auto overtaken = waiting_.upper_bound(answer.asked_at_ - overtaking_gap);
  for (auto each = waiting_.begin(); each != overtaken; ++each)
    each->second->overtaken_ += each->second->prompt_tokens_ <= answer.prompt_tokens_;
}

} // namespace llumnix::relay
