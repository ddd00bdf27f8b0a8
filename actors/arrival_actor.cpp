#include "actors/arrival_actor.hpp"

#include "runtime/base/overloaded.hpp"

namespace llumnix {

static_assert(actor_state<arrival_state>);

namespace {

/// Of one pull. The machine ends it sooner, with the lease or a CANCEL; this is for a transport
/// that hangs.
constexpr std::chrono::seconds pull_limit{60};

} // namespace

arrival_actor::behavior_type
arrival_state::make_behavior(pointer actor, arrival_actor_config settings) {
  self = actor;
  config = std::move(settings);
  machine = std::make_unique<destination_machine>(config.limits, config.offer.destination);
  order(arrival_order_msg::reserve{config.offer, config.headroom_tokens});
  config.offer.request = {}; // the machine has it from now on
  return {
    [this](arrival_event_msg& msg) { hear(msg.event); },
    [this](handover::claim_answer& msg) { hear(std::move(msg)); },
    [this](handover::abandoned& msg) { hear(std::move(msg)); },
    [this](handover::cancelled& msg) { hear(msg); },
    [this](const holds_msg& msg) { return on_holds(msg); },
    [this](tick_atom) { on_tick(); },
  };
}

void arrival_state::hear(const destination_event& event) {
  if (auto* offered = std::get_if<destination_side::offered>(&event); offered && offered->room)
    room = offered->room->blocks;
  carry_out(machine->on(event, self->clock().now()));
}

/// What the machine does not hold, ENGINE may.
caf::result<holds_answer_msg> arrival_state::on_holds(const holds_msg& msg) {
  if (machine->holds(msg.epoch))
    return holds_answer_msg{msg.owner, msg.stream, msg.epoch, true};
  return self->delegate(config.engine, msg);
}

void arrival_state::on_tick() {
  ticks.rang(self->clock().now());
  hear(destination_side::tick{});
}

void arrival_state::carry_out(std::vector<destination_effect> effects) {
  for (auto& effect : effects)
    std::visit(
      overloaded{
        [this](handover::claim& word) { self->send(config.hub, std::move(word)); },
        [this](handover::abandon& word) { self->send(config.hub, std::move(word)); },
        [this](destination_side::pull& what) { pull(what); },
        [this](destination_side::cancel_pull&) { config.kv->transport().cancel(job); },
        [this](destination_side::verify& what) { order(std::move(what)); },
        [this](destination_side::compute_ahead& what) { order(std::move(what)); },
        [this](destination_side::adopt& what) { order(std::move(what)); },
        [this](destination_side::end_request& what) { order(what); },
        [this](destination_side::give_up& what) { order(what); },
        [this](destination_side::ended& end) {
          self->send(config.llumlet, arrived_msg{config.offer.of, end.outcome, false});
        },
        [this](auto& word) { self->send(config.source, std::move(word)); },
      },
      effect);
  if (machine->at() != destination_machine::state::done) {
    ticks.set(self, machine->deadline());
    return;
  }
  self->send(config.llumlet, arrived_msg{config.offer.of, destination_outcome::cancelled, true});
  self->quit();
}

void arrival_state::order(arrival_order_msg::order what) {
  self->send(
    config.engine, arrival_order_msg{arrival_actor{self}, config.offer.of, std::move(what)});
}

void arrival_state::pull(const destination_side::pull& what) {
  auto spans = spans_of_positions(what.from, what.to, what.source_blocks, room, config.geometry);
  job = config.kv->transport().pull(
    config.offer.kv_address, config.offer.of.id, config.kv->id(), std::move(spans), pull_limit,
    [me = arrival_actor{self}](kv_transport::outcome ended) {
      caf::anon_send(
        me, arrival_event_msg{destination_side::pulled{std::move(ended.why), ended.bytes}});
    });
}

arrival_actor::behavior_type
make_arrival(arrival_state::pointer self, arrival_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
