#include "tests/migration/handover_fingerprint.hpp"

namespace llumnix {

void handover_fingerprint::add(const source_machine& x, time_point clock) {
  using state = source_machine::state;
  add(static_cast<std::uint64_t>(x.state_));
  if (x.state_ == state::done)
    return;
  add(x.plan_.of.epoch);
  for (auto number :
       {x.preemptions_, x.first_output_, x.written_, x.prepared_, x.round_, x.offered_to_, x.told_})
    add(number);
  add_flags(
    {x.look_asked_, x.freeze_asked_, x.tail_under_way_, x.frozen_.has_value(), x.pinned_,
     x.window_open_, x.window_closing_, x.awaiting_cancelled_, x.answer_cancel_});
  if (x.frozen_)
    add(x.frozen_->request.output.size());
  add(static_cast<std::uint64_t>(x.end_.outcome));
  bool copying = x.state_ == state::copying || x.state_ == state::freezing;
  add_time(x.limit_, clock);
  if (copying)
    add_time(x.renew_at_, clock);
  if (x.awaiting_cancelled_)
    add_time(x.cancel_at_, clock);
  if (x.first_reclaim_)
    add_time(*x.first_reclaim_, clock);
}

void handover_fingerprint::add(const destination_machine& x, time_point clock) {
  using state = destination_machine::state;
  add(static_cast<std::uint64_t>(x.state_));
  if (x.state_ == state::done || x.state_ == state::idle)
    return;
  add(x.of_.epoch);
  for (std::uint64_t number :
       {std::uint64_t{x.ready_}, std::uint64_t{x.target_}, std::uint64_t{x.round_},
        std::uint64_t{x.pulled_to_}, std::uint64_t{x.sent_},
        std::uint64_t{x.request_.output.size()}})
    add(number);
  add_flags(
    {x.pulling_, x.verifying_, x.answer_cancel_, x.source_told_, x.abort_wanted_, x.ran_here_});
  if (x.state_ != state::freeing)
    add_time(x.limit_, clock);
  if (x.state_ == state::claiming || x.state_ == state::abandoning)
    add_time(x.again_at_, clock);
}

void handover_fingerprint::add(const stream_claims& x, time_point clock) {
  add(x.first_epoch_);
  if (x.winner_) {
    add(x.winner_->id);
    add(x.winner_->who);
    add_flags({x.winner_->by_reclaim, x.winner_->gave_up, x.winner_->reclaim_answered});
  }
  for (const auto& won : x.won_) {
    add(won.epoch);
    add(won.claim_index);
  }
  for (const auto& barred : x.barred_) {
    add(barred.id);
    add(barred.claimant);
  }
  for (const auto& held : x.held_) {
    add(held.sender);
    add(held.batch.epoch);
    add(held.batch.start);
    add(held.batch.tokens.size());
    add_time(held.since, clock);
  }
  if (x.replay_at_)
    add_time(*x.replay_at_, clock);
}

namespace {

struct letter_reader {
  handover_fingerprint& into;

  void operator()(const handover::offer& x) const {
    head(x.of);
    into.add(x.source);
    into.add(x.destination);
    into.add(x.request.output.size());
  }
  void operator()(const handover::accept& x) const { head(x.of); }
  void operator()(const handover::reject& x) const { head(x.of); }
  void operator()(const handover::copy_progress& x) const {
    head(x.of);
    into.add(x.round);
    into.add(x.watermark);
    into.add(x.ids.size());
  }
  void operator()(const handover::prepared& x) const {
    head(x.of);
    into.add(x.round);
    into.add(x.watermark);
  }
  void operator()(const handover::freeze_commit& x) const {
    head(x.of);
    into.add(x.watermark);
    into.add(x.sent);
    into.add(x.output.size());
  }
  void operator()(const handover::commit_failed& x) const {
    head(x.of);
    into.add(static_cast<std::uint64_t>(x.why));
  }
  void operator()(const handover::claim& x) const {
    head(x.of);
    into.add(x.claimant);
    into.add(x.start);
  }
  void operator()(const handover::reclaim& x) const {
    head(x.of);
    into.add(x.claimant);
    into.add(x.start);
  }
  void operator()(const handover::claim_answer& x) const {
    head(x.of);
    into.add_flags({x.reclaimed});
    into.add(static_cast<std::uint64_t>(x.verdict));
    into.add(x.owner);
  }
  void operator()(const handover::abandon& x) const {
    head(x.of);
    into.add(x.claimant);
  }
  void operator()(const model::tokens_told& x) const {
    into.add(x.sender);
    into.add(x.batch.epoch);
    into.add(x.batch.start);
    into.add(x.batch.tokens.size());
    into.add_flags({x.batch.finish != finish_reason::none});
  }
  void operator()(const model::abort_epoch& x) const { into.add(x.epoch); }
  void operator()(const model::ask_holds& x) const { into.add(x.epoch); }
  void operator()(const model::holds_answer& x) const {
    into.add(x.from);
    into.add(x.epoch);
    into.add_flags({x.holds});
  }
  void operator()(const model::place& x) const {
    into.add(x.epoch);
    into.add(x.output);
  }
  void operator()(const model::lost& x) const { into.add(x.who); }
  template <class Plain>
  void operator()(const Plain& x) const {
    head(x.of);
  }

private:
  void head(const handover::head& of) const {
    into.add(of.id);
    into.add(of.epoch);
  }
};

} // namespace

void handover_fingerprint::add(const model::payload& what) {
  add(what.index());
  std::visit(letter_reader{*this}, what);
}

} // namespace llumnix
