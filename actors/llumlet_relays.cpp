#include "actors/llumlet_actor.hpp"

/// LLUMLET's part in moves between engines behind HTTP, the last rung of the ladder: no KV can be
/// had of them, so the loop that relays a request closes it here and has it go on there, from
/// prompt and delivered tokens.
namespace llumnix {

namespace {

/// A loop waits for a placement and for the first token; each has limits of its own below this.
constexpr std::chrono::seconds replay_limit{60};

} // namespace

/// Each costs a prefill of all it has: what a plan by load gains is not worth that.
error llumlet_state::why_not_replayed(const migrate_msg& order) const {
  if (order.rescheduled() || order.requests.empty())
    return {
      errc::unsupported, "its engine is behind HTTP: a move computes a request anew, so it takes "
                         "an order by hand, or a drain"};
  if (order.to.instance == config.metadata.instance_id)
    return {errc::invalid_argument, "it is there already"};
  if (config.migration.out_slots == 0)
    return {errc::queue_full, "migration.out_slots is 0: nothing leaves this instance"};
  return {errc::ok, {}};
}

void llumlet_state::start_replay(departure next) {
  auto hub = hub_of(next.stream);
  bool ours = next.stream.node == config.life.node;
  if (!hub || !ours)
    return refuse(
      next, ours ? "its loop cannot be reached" : "another gateway has its client and moves it");
  handover_id id{chance(), chance()};
  move_result told;
  told.stream = next.stream;
  told.from = own();
  told.to = {config.life, next.to.instance};
  told.policy = next.policy;
  told.path = "replay";
  next.to.life = config.life;
  slots.take(next.to.life.node);
  move_relay_msg order{next.stream, own().instance, next.to.instance, next.policy};
  departures.emplace(id, std::move(next));
  slots_changed();
  self->request(hub, replay_limit, std::move(order))
    .then(
      [this, id, told](relay_moved_msg& answer) mutable {
        auto& what = answer.what;
        told.request = std::move(what.request);
        told.outcome = std::move(what.outcome);
        told.reason = std::move(what.reason);
        if (told.outcome == "moved")
          told.to.instance = std::move(what.at);
        told.lasting = what.lasting;
        told.downtime = what.gap;
        told.tail_tokens = what.tokens;
        told.epoch = what.epoch;
        departed_msg done{id, std::move(told), {errc::ok, {}}};
        on_departed(done);
      },
      [this, id, told](const caf::error&) mutable {
        told.outcome = "failed";
        told.reason = "its loop does not answer";
        departed_msg done{id, std::move(told), {errc::timeout, told.reason}};
        on_departed(done);
      });
}

/// A request that was placed here before all know of the drain goes elsewhere.
void llumlet_state::tell_relays() const {
  const auto* card = engine ? nullptr : peer(config.life);
  if (card)
    for (const auto& hub : card->hubs)
      self->send(hub, drain_relays_msg{config.metadata.instance_id, draining});
}

} // namespace llumnix
