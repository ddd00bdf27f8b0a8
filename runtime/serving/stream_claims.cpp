#include "runtime/serving/stream_claims.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();
/// More claims than hand-overs of one epoch can make.
constexpr std::size_t barred_max = 16;
constexpr std::size_t won_max = 64;

/// The batch rule: tokens at `limit` and above are not the sender's to say, nor is an end there.
batch_verdict judge_below(const token_delta& batch, std::uint64_t limit, std::uint32_t delivered) {
  std::uint64_t begin = batch.start;
  auto end = begin + batch.tokens.size();
  bool ends = batch.finish != finish_reason::none;
  batch_verdict verdict{.abort = end > limit || (ends && end >= limit)};
  auto good_end = std::max(begin, std::min(end, limit));
  bool finish = ends && end < limit && end >= delivered;
  if (begin > delivered && (good_end > begin || finish))
    return {.hold = true}; // judged anew, and answered, when its turn comes
  auto skip_end = std::clamp<std::uint64_t>(delivered, begin, good_end);
  verdict.skip = static_cast<std::uint32_t>(skip_end - begin);
  verdict.take = static_cast<std::uint32_t>(good_end - skip_end);
  verdict.finish = finish;
  return verdict;
}

} // namespace

handover::claim_answer answer_when_gone(const handover::claim& claim) {
  return {
    .of = claim.of, .reclaimed = false, .verdict = handover::claim_verdict::aborted, .credit = 0};
}

handover::claim_answer answer_when_gone(const handover::reclaim& claim) {
  return {
    .of = claim.of, .reclaimed = true, .verdict = handover::claim_verdict::superseded, .credit = 0};
}

batch_verdict judge(const token_delta& batch, std::uint32_t epoch, std::uint32_t delivered) {
  if (batch.epoch == epoch)
    return judge_below(batch, no_limit, delivered);
  return {.abort = batch.epoch < epoch};
}

bool no_counts(
  const stream_owner& from, std::uint32_t asked, const std::optional<stream_owner>& owner,
  std::uint32_t epoch) {
  return asked == epoch && owner && *owner == from;
}

// --- claims -------------------------------------------------------------------------------------

bool stream_claims::owns(const handover_id& id, const stream_owner& who) const {
  return winner_ && winner_->id == id && winner_->who == who;
}

void stream_claims::bar(const handover_id& id, const stream_owner& claimant) {
  if (is_barred(id, claimant))
    return;
  if (barred_.size() == barred_max)
    barred_.erase(barred_.begin());
  barred_.push_back({id, claimant});
}

bool stream_claims::is_barred(const handover_id& id, const stream_owner& claimant) const {
  return std::find(barred_.begin(), barred_.end(), barred{id, claimant}) != barred_.end();
}

void stream_claims::grant(
  const handover_id& id, const stream_owner& who, bool by_reclaim, std::uint32_t epoch,
  std::uint32_t start) {
  winner_ = winner{.id = id, .who = who, .by_reclaim = by_reclaim};
  note(epoch, start);
  replay_at_.reset();
}

/// Remembers where an epoch begins. Earlier ones that begin no lower say nothing beyond it.
void stream_claims::note(std::uint32_t epoch, std::uint32_t claim_index) {
  while (!won_.empty() && (won_.back().epoch == epoch || won_.back().claim_index >= claim_index))
    won_.pop_back();
  won_.push_back({epoch, claim_index});
  if (won_.size() > won_max) { // those before are over: their tokens are old beyond belief
    first_epoch_ = won_.front().epoch;
    won_.erase(won_.begin());
  }
}

claim_result
stream_claims::on_claim(const handover::claim& claim, std::uint32_t epoch, bool claimant_lost) {
  claim_result result{answer_when_gone(claim), false};
  auto& verdict = result.answer.verdict;
  verdict = handover::claim_verdict::superseded;
  const auto& of = claim.of;
  if (claimant_lost)
    return result;
  if (owns(of.id, claim.claimant) && of.epoch + 1 == epoch) {
    if (!winner_->gave_up && !winner_->by_reclaim)
      verdict = handover::claim_verdict::granted;
  } else if (of.epoch == epoch && !is_barred(of.id, claim.claimant)) {
    verdict = handover::claim_verdict::granted;
    result.took_over = true;
    grant(of.id, claim.claimant, false, epoch + 1, claim.start);
  } else if (of.epoch > epoch) {
    bar(of.id, claim.claimant); // an answer is final, even to nonsense
  }
  return result;
}

claim_result
stream_claims::on_reclaim(const handover::reclaim& claim, std::uint32_t epoch, bool claimant_lost) {
  claim_result result{answer_when_gone(claim), false};
  auto& verdict = result.answer.verdict;
  const auto& of = claim.of;
  if (claimant_lost)
    return result;
  if (owns(of.id, claim.claimant) && of.epoch + 1 == epoch && winner_->by_reclaim) {
    verdict = handover::claim_verdict::granted;
  } else if (of.epoch == epoch && !is_barred(of.id, claim.claimant)) {
    verdict = handover::claim_verdict::granted;
    result.took_over = true;
    grant(of.id, claim.claimant, true, epoch + 1, claim.start);
  } else if (winner_ && winner_->id == of.id && of.epoch + 1 == epoch && !winner_->by_reclaim) {
    if (winner_->gave_up && !winner_->reclaim_answered) {
      verdict = handover::claim_verdict::granted;
      result.took_over = true;
      grant(of.id, claim.claimant, true, epoch, claim.start);
    } else {
      winner_->reclaim_answered = true;
      if (!winner_->gave_up)
        result.answer.owner = winner_->who;
    }
  } else if (of.epoch > epoch) {
    bar(of.id, claim.claimant);
  }
  return result;
}

bool stream_claims::on_abandon(const handover::abandon& what, std::uint32_t epoch, time_point now) {
  const auto& of = what.of;
  if (of.epoch == epoch)
    bar(of.id, what.claimant);
  if (
    !owns(of.id, what.claimant) || of.epoch + 1 != epoch || winner_->by_reclaim
    || std::exchange(winner_->gave_up, true))
    return false;
  if (winner_->reclaim_answered)
    return true;
  replay_at_ = now + settings_.reclaim_wait;
  return false;
}

void stream_claims::raised(std::uint32_t epoch, std::uint32_t delivered) {
  winner_.reset();
  note(epoch, delivered);
  held_.clear();
  replay_at_.reset();
}

// --- batches ------------------------------------------------------------------------------------

batch_verdict
stream_claims::judge(const token_delta& batch, std::uint32_t epoch, std::uint32_t delivered) const {
  if (batch.epoch > epoch)
    return {};
  if (batch.epoch < first_epoch_)
    return {.abort = true};
  auto limit = no_limit;
  for (const auto& won : won_)
    if (won.epoch > batch.epoch)
      limit = std::min<std::uint64_t>(limit, won.claim_index);
  return judge_below(batch, limit, delivered);
}

bool stream_claims::hold(const stream_owner& sender, const token_delta& batch, time_point now) {
  auto after = std::upper_bound(
    held_.begin(), held_.end(), batch.start,
    [](std::uint32_t start, const held_batch& x) { return start < x.batch.start; });
  for (auto same = after; same != held_.begin() && std::prev(same)->batch.start == batch.start;)
    if ((--same)->batch == batch)
      return true; // came twice
  if (held_.size() >= settings_.held_batches_max)
    return false;
  held_.insert(after, {sender, batch, now});
  return true;
}

std::optional<held_batch> stream_claims::next_held(std::uint32_t delivered) {
  if (held_.empty() || held_.front().batch.start > delivered)
    return std::nullopt;
  auto first = std::move(held_.front());
  held_.erase(held_.begin());
  return first;
}

std::optional<time_point> stream_claims::deadline() const {
  auto soonest = replay_at_;
  for (const auto& held : held_) {
    auto limit = held.since + settings_.hold_limit;
    soonest = soonest ? std::min(*soonest, limit) : limit;
  }
  return soonest;
}

bool stream_claims::replay_due(time_point now) const {
  auto at = deadline();
  return at && now >= *at;
}

} // namespace llumnix
