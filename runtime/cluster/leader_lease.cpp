#include "runtime/cluster/leader_lease.hpp"

#include <algorithm>

namespace llumnix {

namespace {

/// What a peer may ask for.
constexpr nanoseconds length_min = std::chrono::milliseconds{10};
constexpr nanoseconds length_max = std::chrono::minutes{10};

std::uint64_t sane(std::uint64_t number) {
  return number > leader_term::number_max ? 0 : number;
}

} // namespace

std::string to_string(const leader_term& term) {
  if (!term)
    return "nobody";
  return term.leader.node + "/" + std::to_string(term.leader.incarnation) + " under term "
         + std::to_string(term.number);
}

lease_answer leader_lease::claim(const lease_claim& claim, time_point now, unix_ms wall) {
  auto length = std::clamp(claim.length, length_min, length_max);
  length_ = std::max(length_, length);
  if (!heard_ || now - *heard_ > length_)
    unknown_until_ = now + length_;
  heard_ = now;
  seen_ = std::max({seen_, sane(claim.seen), sane(claim.holds)});
  leader_term shown{sane(claim.holds), claim.by};
  if (shown && shown >= last_)
    return grant(std::move(shown), length, now);
  if (now < until_ && last_.leader != claim.by)
    return {last_, until_ - now};
  if (now < unknown_until_)
    return {{}, unknown_until_ - now};
  auto number = std::max(seen_ + 1, static_cast<std::uint64_t>(std::max<unix_ms>(1, wall)));
  return grant({number, claim.by}, length, now);
}

lease_answer leader_lease::grant(leader_term term, nanoseconds length, time_point now) {
  last_ = std::move(term);
  seen_ = std::max(seen_, last_.number);
  until_ = now + length;
  return {last_, {}};
}

void leader_lease::release(const leader_term& term) {
  if (term == last_)
    until_ = {};
}

leader_term leader_lease::leader(time_point now) const {
  return now < until_ ? last_ : leader_term{};
}

nanoseconds leader_lease::left(time_point now) const {
  return std::max(nanoseconds{0}, nanoseconds{until_ - now});
}

lease_holder::lease_holder(node_life self, nanoseconds length)
  : self_{std::move(self)}, length_{length} {}

std::optional<lease_claim> lease_holder::due(time_point now) {
  if (now < next_)
    return std::nullopt;
  next_ = now + length_ / 3;
  return lease_claim{self_, leads(now) ? term_.number : 0, seen_, length_};
}

void lease_holder::answered(const lease_answer& answer, time_point sent, time_point now) {
  if (answer.leader && answer.leader.number < seen_)
    return; // overtaken meanwhile
  seen_ = std::max(seen_, answer.leader.number);
  if (answer.leader && answer.leader.leader == self_) {
    if (answer.leader != term_)
      until_ = {};
    term_ = answer.leader;
    until_ = std::max(until_, sent + length_ - length_ / 10);
    return;
  }
  term_ = {};
  next_ = std::min(next_, now + std::max(answer.wait, length_ / 100));
}

void lease_holder::keeper_changed(time_point now) {
  next_ = now;
}

void lease_holder::overtaken(const leader_term& by, time_point now) {
  seen_ = std::max(seen_, by.number);
  if (term_ && by > term_) {
    term_ = {};
    next_ = now + length_;
  }
}

leader_term lease_holder::stop(time_point now) {
  auto held = leads(now) ? term_ : leader_term{};
  term_ = {};
  next_ = time_point::max();
  return held;
}

bool leader_fence::admit(const leader_term& of) {
  heard(of);
  return !of || of == latest_;
}

void leader_fence::heard(const leader_term& leader) {
  if (leader.number <= leader_term::number_max && leader > latest_)
    latest_ = leader;
}

} // namespace llumnix
