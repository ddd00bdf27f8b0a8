#include "runtime/migration/ended_handovers.hpp"

namespace llumnix {

void ended_handovers::remember(const ended_handover& what, time_point now) {
  forget_old(now);
  auto [at, fresh] = known_.emplace(what.of.id, what);
  if (!fresh) {
    at->second.ran_here = at->second.ran_here || what.ran_here;
    return;
  }
  order_.emplace_back(now, what.of.id);
  while (known_.size() > most_) {
    known_.erase(order_.front().second);
    order_.pop_front();
  }
}

const ended_handover* ended_handovers::find(const handover_id& id, time_point now) {
  forget_old(now);
  auto found = known_.find(id);
  return found == known_.end() ? nullptr : &found->second;
}

void ended_handovers::forget_old(time_point now) {
  while (!order_.empty() && now - order_.front().first >= keep_) {
    known_.erase(order_.front().second);
    order_.pop_front();
  }
}

namespace {

struct stray_reader {
  ended_handovers& ended;
  const stream_owner& self;
  time_point now;

  stray_answer operator()(const handover::offer& message) const {
    if (ended.find(message.of.id, now) == nullptr)
      return {};
    return handover::reject{message.of, {errc::stale, "that hand-over has ended here"}};
  }

  stray_answer operator()(const handover::cancel& message) const {
    if (ended.find(message.of.id, now) == nullptr)
      ended.remember({message.of, false}, now); // its OFFER may still be on its way
    return handover::cancelled{message.of};
  }

  stray_answer operator()(const handover::claim_answer& message) const {
    const auto* known = ended.find(message.of.id, now);
    bool granted = message.verdict == handover::claim_verdict::granted && !message.reclaimed;
    if (known == nullptr || known->ran_here || !granted)
      return {};
    return handover::abandon{message.of, self};
  }

  template <class Other>
  stray_answer operator()(const Other&) const {
    return {};
  }
};

} // namespace

stray_answer answer_stray(
  ended_handovers& ended, const stray_message& message, const stream_owner& self, time_point now) {
  return std::visit(stray_reader{ended, self, now}, message);
}

} // namespace llumnix
