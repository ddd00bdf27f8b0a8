#include "runtime/migration/source_machine.hpp"

/// How a hand-over ends at its source, by whatever ends it: what becomes of the request, and when
/// its blocks are free.
namespace llumnix {

void source_machine::put_back(std::uint32_t epoch, std::optional<std::uint32_t> credit) {
  end_.epoch = epoch;
  if (!frozen_ && !no_freeze_any_more())
    return;
  if (frozen_)
    end_.paused = now_ - frozen_at_;
  frozen_.reset();
  make(source_side::thaw{epoch, credit});
}

void source_machine::forget() {
  if (!frozen_ && !no_freeze_any_more())
    return;
  if (frozen_)
    end_.paused = now_ - frozen_at_;
  frozen_.reset();
  make(source_side::drop{});
}

/// A prefill may last; nobody waits for its end when the hand-over is over. True: the engine must
/// be told.
bool source_machine::no_freeze_any_more() {
  return plan_.to_decode && std::exchange(freeze_asked_, false);
}

/// Ends the hand-over with the request as `outcome` says, still under the old epoch.
void source_machine::stop(source_outcome outcome, error why, bool tell_destination) {
  end_.outcome = outcome;
  end_.why = std::move(why);
  if (outcome == source_outcome::kept)
    put_back(plan_.of.epoch, std::nullopt);
  else
    forget();
  state_ = state::cancelling;
  tail_under_way_ = false;
  if (!tell_destination)
    return shut();
  awaiting_cancelled_ = true;
  make(handover::cancel{plan_.of, end_.why});
  cancel_at_ = now_ + settings_.cancel_every;
  limit_ = now_ + settings_.cancel_limit;
}

/// Nothing more is expected of the destination: the blocks go as soon as nobody can read them.
void source_machine::shut() {
  awaiting_cancelled_ = false;
  if (window_open_ && !std::exchange(window_closing_, true))
    make(source_side::close_window{});
  finish_if_over();
}

void source_machine::hear(const source_side::window_closed&) {
  if (!std::exchange(window_closing_, false))
    return;
  window_open_ = false;
  finish_if_over();
}

void source_machine::finish_if_over() {
  if (window_open_ || freeze_asked_ || awaiting_cancelled_)
    return;
  if (answer_cancel_)
    make(handover::cancelled{plan_.of});
  if (std::exchange(pinned_, false))
    make(source_side::unpin{});
  end_.rounds = round_;
  state_ = state::done;
  make(end_);
}

void source_machine::hear(const handover::cancel& message) {
  switch (state_) {
    case state::offered:
    case state::copying:
    case state::freezing: // it sends this once nothing can land there any more
      answer_cancel_ = true;
      stop(source_outcome::kept, message.why, false);
      break;
    case state::cancelling: shut(); break;
    default: // A decides
      break;
  }
}

void source_machine::hear(const handover::cancelled&) {
  if (state_ == state::cancelling)
    shut();
}

void source_machine::hear(const source_side::request_ended&) {
  if (state_ == state::freezing && freeze_asked_)
    return; // `frozen` will say how: its last tokens may be on their way
  hear(source_side::aborted{plan_.of.epoch});
}

void source_machine::hear(const source_side::aborted& event) {
  if (event.epoch < plan_.of.epoch)
    return;
  switch (state_) {
    case state::offered:
    case state::copying:
    case state::freezing:
    case state::deciding:
      stop(source_outcome::gone, {errc::cancelled, "ended, or wanted no longer"}, true);
      break;
    default: break;
  }
}

void source_machine::hear(const source_side::destination_lost&) {
  switch (state_) {
    case state::offered:
    case state::copying:
    case state::freezing:
      stop(source_outcome::kept, {errc::unreachable, "the destination is gone"}, false);
      break;
    case state::deciding: // it may own the stream
      send_reclaim();
      break;
    case state::cancelling:
    case state::releasing: shut(); break;
    default: break;
  }
}

void source_machine::hear(const source_side::owner_lost&) {
  switch (state_) {
    case state::offered:
    case state::copying:
    case state::freezing:
    case state::deciding:
      stop(source_outcome::let_go, {errc::unreachable, "the stream's owner is gone"}, true);
      break;
    default: break;
  }
}

void source_machine::hear(const source_side::tick&) {
  bool over = now_ >= limit_;
  switch (state_) {
    case state::offered:
      if (over)
        stop(source_outcome::kept, {errc::timeout, "no answer to the offer"}, true);
      break;
    case state::copying:
      if (over)
        stop(source_outcome::kept, {errc::timeout, "copying took too long"}, true);
      else if (now_ >= renew_at_)
        renew();
      break;
    case state::freezing:
      if (tail_under_way_ && over)
        stop(source_outcome::kept, {errc::timeout, "copying the tail took too long"}, true);
      else if (now_ >= renew_at_)
        renew();
      break;
    case state::deciding:
      if (first_reclaim_ && now_ >= *first_reclaim_ + settings_.owner_limit) {
        // Its destination may have been granted the stream meanwhile, and ignores this then.
        stop(
          source_outcome::let_go, {errc::unreachable, "the stream's owner does not answer"}, true);
      } else if (over) {
        send_reclaim();
      }
      break;
    case state::cancelling:
      if (!awaiting_cancelled_)
        break;
      if (over) {
        shut();
      } else if (now_ >= cancel_at_) {
        cancel_at_ = now_ + settings_.cancel_every;
        make(handover::cancel{plan_.of, end_.why});
      }
      break;
    case state::releasing:
      if (over)
        shut();
      break;
    default: break;
  }
}

} // namespace llumnix
