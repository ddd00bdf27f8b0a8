#include "runtime/migration/source_machine.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>

namespace llumnix {

namespace {

/// Seconds as a duration, an hour at most: rates come from a configuration.
nanoseconds lasting(double amount, double per_second) {
  double seconds = per_second > 0 ? amount / per_second : 3600;
  return nanoseconds{static_cast<std::int64_t>(std::min(seconds, 3600.0) * 1e9)};
}

std::uint32_t tokens_of(const leaving_request& request) {
  return static_cast<std::uint32_t>(request.request.prompt.size() + request.request.output.size());
}

std::uint32_t beyond(std::uint32_t written, std::uint32_t prepared) {
  return written - std::min(written, prepared);
}

} // namespace

std::string_view to_string(tail_choice choice) {
  return choice == tail_choice::copy ? "copy" : "recompute";
}

std::string_view to_string(source_outcome outcome) {
  switch (outcome) {
    case source_outcome::moved: return "moved";
    case source_outcome::kept: return "kept";
    case source_outcome::gone: return "gone";
    case source_outcome::let_go: return "let_go";
  }
  return "unknown";
}

std::string_view outcome_word(const source_side::ended& end) {
  switch (end.outcome) {
    case source_outcome::moved: return "moved";
    case source_outcome::gone: return "finished";
    case source_outcome::kept: return end.rounds == 0 ? "refused" : "failed";
    case source_outcome::let_go: break;
  }
  return "failed";
}

tail_choice
choose_tail(const source_settings& settings, std::uint32_t tokens, std::uint32_t bytes_per_token) {
  if (tokens == 0)
    return tail_choice::recompute;
  auto copying
    = lasting(double(tokens) * bytes_per_token, settings.bytes_per_second) + settings.round_trip;
  auto computing = lasting(tokens, settings.prefill_per_second);
  return copying < computing ? tail_choice::copy : tail_choice::recompute;
}

source_machine::source_machine(const source_settings& settings, source_plan plan)
  : settings_{settings}, plan_{std::move(plan)} {}

std::vector<source_effect> source_machine::begin(const leaving_request& request, time_point now) {
  LLUMNIX_ASSERT(state_ == state::idle);
  state_ = state::offered;
  plan_.of.stream = request.request.stream;
  plan_.of.epoch = request.request.epoch;
  preemptions_ = request.preemptions;
  written_ = request.written;
  first_output_ = static_cast<std::uint32_t>(request.request.output.size());
  digest_.add(request.request.prompt);
  pinned_ = true;
  window_open_ = plan_.path == move_path::kv;
  end_.path = plan_.path;
  limit_ = now + settings_.offer_limit;
  out_.clear();
  make(handover::offer{
    .of = plan_.of,
    .source = plan_.source,
    .destination = plan_.destination,
    .request = request.request,
    .path = plan_.path,
    .geometry = plan_.geometry,
    .kv_address = plan_.kv_address,
    .lease = settings_.lease,
    .moves = plan_.moves,
    .to_decode = plan_.to_decode});
  if (plan_.to_decode) {
    freeze_asked_ = true;
    make(source_side::freeze{});
  }
  return std::exchange(out_, {});
}

std::vector<source_effect> source_machine::on(const source_event& event, time_point now) {
  out_.clear();
  now_ = now;
  std::visit(
    [this](const auto& what) {
      const auto* id = id_of(what);
      if ((id == nullptr || *id == plan_.of.id) && state_ != state::idle && state_ != state::done)
        hear(what);
    },
    event);
  return std::exchange(out_, {});
}

std::optional<time_point> source_machine::deadline() const {
  switch (state_) {
    case state::idle:
    case state::done: return std::nullopt;
    case state::offered: return limit_;
    case state::copying: return std::min(limit_, renew_at_);
    case state::freezing: return tail_under_way_ ? std::min(limit_, renew_at_) : renew_at_;
    case state::deciding:
      return first_reclaim_ ? std::min(limit_, *first_reclaim_ + settings_.owner_limit) : limit_;
    case state::cancelling:
      return window_closing_ || !pinned_ || !awaiting_cancelled_
               ? std::nullopt
               : std::optional{std::min(limit_, cancel_at_)};
    case state::releasing: return window_closing_ ? std::nullopt : std::optional{limit_};
  }
  return std::nullopt;
}

bool source_machine::holds(std::uint32_t epoch) const {
  if (!frozen_)
    return false;
  return epoch == plan_.of.epoch || (first_reclaim_ && epoch - 1 == plan_.of.epoch);
}

// --- copying ------------------------------------------------------------------------------------

void source_machine::hear(const handover::accept& message) {
  if (state_ != state::offered)
    return;
  state_ = state::copying;
  prepared_ = plan_.to_decode ? message.present_tokens : std::min(message.present_tokens, written_);
  reserved_ = message.reserved_tokens;
  renew_at_ = now_ + settings_.renew_every;
  if (frozen_)
    return begin_tail();
  if (plan_.to_decode)
    limit_ = time_point::max(); // of the prefill there is none
  else
    limit_round(written_, settings_.copy_limit_min);
  ask_look();
}

/// How long it may take to bring so many positions there.
void source_machine::limit_round(std::uint32_t tokens, nanoseconds least) {
  auto expected = plan_.path == move_path::kv ? lasting(
                    double(tokens) * plan_.geometry.bytes_per_token, settings_.bytes_per_second)
                                              : lasting(tokens, settings_.prefill_per_second);
  limit_ = now_ + std::max(least, 4 * expected);
}

void source_machine::hear(const handover::reject& message) {
  if (state_ == state::offered)
    stop(source_outcome::kept, message.why, false);
}

void source_machine::ask_look() {
  if (!std::exchange(look_asked_, true))
    make(source_side::look{.beyond = std::max(prepared_, offered_to_)});
}

void source_machine::hear(const source_side::looked& event) {
  look_asked_ = false;
  if (state_ != state::copying)
    return;
  if (!event.now)
    return stop(source_outcome::gone, event.now.error(), true);
  const auto& request = *event.now;
  if (preempted(request))
    return stop(source_outcome::kept, {errc::stale, "preempted while it was copied"}, true);
  if (!fits(request))
    return stop(source_outcome::kept, {errc::out_of_blocks, "outgrew its room"}, true);
  if (prepared_ < offered_to_ || frozen_)
    return; // the round is not done; or `frozen` said more
  if (plan_.to_decode) {
    if (request.written <= prepared_)
      return request.prefilling ? ask_look() : void(); // else `frozen` is on its way
    limit_round(request.written - prepared_, settings_.copy_limit_min);
    return offer_round(request);
  }
  auto small = std::max(plan_.geometry.block_tokens, 2 * settings_.step_tokens);
  if (beyond(request.written, prepared_) <= small) {
    state_ = state::freezing;
    freeze_asked_ = true;
    make(source_side::freeze{});
  } else if (round_ < settings_.rounds_max) {
    offer_round(request);
  } else {
    stop(source_outcome::kept, {errc::timeout, "made tokens faster than they were copied"}, true);
  }
}

/// What D has of a prompt stays true, though S must compute it again.
bool source_machine::preempted(const leaving_request& request) const {
  if (plan_.to_decode)
    return false;
  return request.preemptions != preemptions_ || request.written < offered_to_;
}

bool source_machine::fits(const leaving_request& request) const {
  return tokens_of(request) <= reserved_;
}

void source_machine::offer_round(const leaving_request& request) {
  offered_to_ = request.written;
  const auto& output = request.request.output;
  auto since = output.begin() + std::min<std::ptrdiff_t>(first_output_, std::ssize(output));
  make(handover::copy_progress{
    .of = plan_.of,
    .round = ++round_,
    .watermark = request.written,
    .blocks = plan_.path == move_path::kv ? request.blocks : std::vector<block_index>{},
    .ids = {since, output.end()},
    .first_output = first_output_});
  renew_at_ = now_ + settings_.renew_every;
  digest_.add(std::span{output}.subspan(digested_)); // what is done now is not done in the pause
  digested_ = output.size();
}

void source_machine::renew() {
  make(handover::copy_progress{.of = plan_.of, .blocks = {}, .ids = {}});
  renew_at_ = now_ + settings_.renew_every;
}

void source_machine::hear(const handover::prepared& message) {
  if (state_ != state::copying && state_ != state::freezing)
    return;
  end_.bytes = std::max(end_.bytes, message.bytes);
  prepared_ = std::max(prepared_, std::min(message.watermark, offered_to_));
  if (prepared_ < offered_to_)
    return;
  if (state_ == state::copying) {
    if (plan_.to_decode)
      limit_ = time_point::max();
    ask_look();
  } else if (tail_under_way_) {
    commit();
  }
}

// --- frozen -------------------------------------------------------------------------------------

void source_machine::hear(const source_side::frozen& event) {
  if (!std::exchange(freeze_asked_, false))
    return;
  if (event.now) {
    frozen_ = *event.now;
    frozen_at_ = now_;
    told_ = event.told;
  }
  bool prefilled = state_ == state::offered || state_ == state::copying; // with `to_decode`
  if (!prefilled && state_ != state::freezing) {                         // given up before it froze
    if (frozen_ && end_.outcome == source_outcome::kept)
      put_back(plan_.of.epoch, std::nullopt);
    else
      forget();
    return finish_if_over();
  }
  if (!event.now)
    stop(source_outcome::gone, event.now.error(), true);
  else if (preempted(*frozen_))
    stop(source_outcome::kept, {errc::stale, "preempted while it was copied"}, true);
  else if (state_ != state::offered)
    begin_tail();
}

void source_machine::begin_tail() {
  state_ = state::freezing;
  if (!fits(*frozen_))
    return stop(source_outcome::kept, {errc::out_of_blocks, "outgrew its room"}, true);
  end_.tail_tokens = beyond(frozen_->written, prepared_);
  if (plan_.path == move_path::kv)
    end_.tail = !plan_.to_decode
                  ? choose_tail(settings_, end_.tail_tokens, plan_.geometry.bytes_per_token)
                : end_.tail_tokens > 0 ? tail_choice::copy // prompts are computed at S alone
                                       : tail_choice::recompute;
  if (end_.tail == tail_choice::recompute)
    return commit();
  tail_under_way_ = true;
  if (plan_.to_decode) // all of a short prompt
    limit_round(end_.tail_tokens, settings_.tail_limit);
  else
    limit_ = now_ + settings_.tail_limit;
  offer_round(*frozen_);
}

void source_machine::commit() {
  const auto& request = frozen_->request;
  digest_.add(std::span{request.output}.subspan(digested_));
  state_ = state::deciding;
  tail_under_way_ = false;
  limit_ = now_ + settings_.decide_limit;
  make(handover::freeze_commit{
    .of = plan_.of,
    .watermark = std::min(prepared_, frozen_->written),
    .sent = told_,
    .output = request.output,
    .digest = digest_.value(),
    .credit = request.credit});
}

// --- deciding -----------------------------------------------------------------------------------

void source_machine::hear(const handover::committed&) {
  if (state_ != state::deciding)
    return;
  end_.outcome = source_outcome::moved;
  end_.why = {errc::ok, {}};
  forget();
  state_ = state::releasing;
  limit_ = now_ + settings_.release_limit;
}

void source_machine::hear(const handover::release& message) {
  hear(handover::committed{message.of}); // the news itself may have been lost
  if (state_ == state::releasing)
    shut();
}

void source_machine::hear(const handover::commit_failed& message) {
  if (state_ != state::deciding)
    return;
  switch (message.why) {
    case handover::commit_failure::refused:
      if (!first_reclaim_) // else A decides
        stop(source_outcome::kept, message.detail, false);
      break;
    case handover::commit_failure::aborted: stop(source_outcome::gone, message.detail, true); break;
    case handover::commit_failure::unknown: send_reclaim(); break;
  }
}

void source_machine::send_reclaim() {
  if (!first_reclaim_)
    first_reclaim_ = now_;
  limit_ = now_ + settings_.decide_limit;
  make(handover::reclaim{.of = plan_.of, .claimant = plan_.source, .start = told_});
}

void source_machine::hear(const handover::claim_answer& message) {
  if (state_ != state::deciding || !message.reclaimed || !first_reclaim_)
    return;
  if (message.verdict != handover::claim_verdict::granted && message.owner == plan_.destination) {
    hear(handover::committed{message.of}); // the news itself was lost, or is slow
    return shut();
  }
  // One CANCEL, beyond the spec: a destination that never saw the FREEZE-COMMIT lets go at once
  // instead of when its lease ends; every other one ignores it.
  if (message.verdict == handover::claim_verdict::granted) {
    put_back(plan_.of.epoch + 1, message.credit);
    end_.outcome = source_outcome::kept;
    end_.why = {errc::timeout, "the destination did not commit"};
  } else {
    forget();
    end_.outcome = source_outcome::let_go;
    end_.why = {errc::stale, "the stream has another owner, or has ended"};
  }
  make(handover::cancel{plan_.of, end_.why});
  state_ = state::cancelling;
  shut();
}

} // namespace llumnix
