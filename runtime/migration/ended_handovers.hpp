#pragma once

#include "runtime/base/time.hpp"
#include "runtime/migration/handover.hpp"

#include <cstddef>
#include <deque>
#include <optional>
#include <unordered_map>
#include <variant>

namespace llumnix {

/// What an instance keeps of a hand-over that ended.
struct ended_handover {
  handover::head of;
  bool ran_here = false; ///< the request was adopted under it
};

/// The hand-overs that ended at an instance in the last minute, as source or destination: none of
/// them is ever opened again (spec/migration.md 12.1). The oldest is forgotten sooner where there
/// are more than `most`.
class ended_handovers {
public:
  ended_handovers() = default;
  ended_handovers(nanoseconds keep, std::size_t most) : keep_{keep}, most_{most} {}

  /// The first word on an id counts, but that it ran here is learnt later too.
  void remember(const ended_handover& what, time_point now);
  const ended_handover* find(const handover_id& id, time_point now);
  std::size_t size() const { return known_.size(); }

private:
  void forget_old(time_point now);

  nanoseconds keep_ = std::chrono::seconds{60};
  std::size_t most_ = 4096;
  std::unordered_map<handover_id, ended_handover, handover_id_hash> known_;
  std::deque<std::pair<time_point, handover_id>> order_; ///< oldest first
};

/// Messages that may come for a hand-over of which no machine is here.
using stray_message = std::variant<
  handover::offer, handover::cancel, handover::claim_answer, handover::copy_progress,
  handover::freeze_commit, handover::accept, handover::reject, handover::prepared,
  handover::committed, handover::commit_failed, handover::cancelled, handover::release,
  handover::abandoned>;
/// What is said to them: to the sender, `abandon` to the stream's owner.
using stray_answer
  = std::variant<std::monostate, handover::reject, handover::cancelled, handover::abandon>;

/// Answers a message of an ended or unknown hand-over (12.1). An OFFER of an unknown one is not
/// stray and gets nothing here. A CANCEL of an unknown one ends it: it is remembered.
stray_answer answer_stray(
  ended_handovers& ended, const stray_message& message, const stream_owner& self, time_point now);

} // namespace llumnix
