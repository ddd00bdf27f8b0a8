#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <compare>
#include <cstdint>
#include <optional>

namespace llumnix {

/// Who leads, under which term. A later one is greater; of two with the same number, which only
/// two halves of a divided cluster can give, the names settle it.
struct leader_term {
  /// Above it no number is a wall time of this era: whoever tells one is broken, and nobody should
  /// be led to the end of all numbers.
  static constexpr std::uint64_t number_max = std::uint64_t{1} << 53;

  std::uint64_t number = 0; ///< grows with each new leader; 0: nobody leads
  node_life leader;
  explicit operator bool() const { return number != 0; }
  friend auto operator<=>(const leader_term&, const leader_term&) = default;
};

/// "head/2 under term 1764200000123", or "nobody".
std::string to_string(const leader_term& term);

/// Somebody would lead, or go on leading.
struct lease_claim {
  node_life by;
  std::uint64_t holds = 0; ///< number it leads under, by its own clock; 0: it does not
  std::uint64_t seen = 0;  ///< the highest number it has heard of
  nanoseconds length{0};   ///< for which it would lead; the same for all who claim
};

/// Who leads now: the claimant, for the length it asked for; or somebody else; or nobody yet.
struct lease_answer {
  leader_term leader;
  nanoseconds wait{0}; ///< before another claim can help, unless the claimant leads
};

/// The lease of a leader as the one keeps it whom all ask (DESIGN.md 3.7): claims in, answers out.
///
/// One leads at a time, until its lease is over or released. A lease that nobody knows of here may
/// still be held: whoever keeps it may have been started again, or somebody else kept it until
/// now. So after a lease's length without any claim the first claim waits for another length, in
/// which a leader that is there renews, under its term.
///
/// Terms never go back: the number of a new one is above all that were granted, claimed or heard of
/// by claimants, and no less than the wall time in milliseconds. That carries over a restart of the
/// keeper, which grants far less than one in a millisecond, with no store that has to be there.
/// Where the wall clock was set back meanwhile, LLUMLETs refuse the new leader, and it claims again
/// with the number it was refused for.
class leader_lease {
public:
  lease_answer claim(const lease_claim& claim, time_point now, unix_ms wall);
  /// Its leader leads no more: the next claim may be granted at once. A former one is ignored.
  void release(const leader_term& term);
  /// Nobody: number 0.
  leader_term leader(time_point now) const;
  /// What is left of its lease; 0 when nobody leads.
  nanoseconds left(time_point now) const;

private:
  lease_answer grant(leader_term term, nanoseconds length, time_point now);

  leader_term last_;   ///< the latest granted or shown
  time_point until_{}; ///< its end
  std::uint64_t seen_ = 0;
  std::optional<time_point> heard_; ///< the last claim, of anybody
  nanoseconds length_{0};           ///< the longest claimed
  time_point unknown_until_{};      ///< before that an unknown leader may lead
};

/// The lease of a leader as those see it who would lead. Its own clock counts from before a claim
/// was sent, and stops it a tenth of the length before the lease is over: it never leads when
/// somebody else can by the same keeper, whatever is delayed, as long as clocks do not differ by a
/// tenth in speed. Where the cluster is divided, two keepers may know of two leaders; instances
/// follow the later term alone.
class lease_holder {
public:
  lease_holder() = default;
  lease_holder(node_life self, nanoseconds length);

  /// The claim to send now: at the start, every third of the length, and when an answer said so.
  std::optional<lease_claim> due(time_point now);
  /// `next` claim, unless something happens before.
  time_point next() const { return next_; }
  /// The answer to the claim sent at `sent`.
  void answered(const lease_answer& answer, time_point sent, time_point now);
  /// Somebody else keeps the lease from now on: it is asked at once.
  void keeper_changed(time_point now);
  /// An order of ours was refused for a later term. Leads no more, and leaves the field to that
  /// leader for a length.
  void overtaken(const leader_term& by, time_point now);
  /// Leads no more; the term to release, if there is one.
  leader_term stop(time_point now);

  bool leads(time_point now) const { return term_ && now < until_; }
  /// Our own, while `leads`.
  const leader_term& term() const { return term_; }

private:
  node_life self_;
  nanoseconds length_{0};
  leader_term term_;   ///< ours
  time_point until_{}; ///< by our own clock
  std::uint64_t seen_ = 0;
  time_point next_{};
};

/// The latest leader that an instance has heard of. Orders of an earlier one are stale.
class leader_fence {
public:
  /// Whether an order is to be carried out. Those under no term are, of whoever they come; one of a
  /// leader not heard of before makes it the latest.
  bool admit(const leader_term& of);
  void heard(const leader_term& leader);
  const leader_term& latest() const { return latest_; }

private:
  leader_term latest_;
};

} // namespace llumnix
