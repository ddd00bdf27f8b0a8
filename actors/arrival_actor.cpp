#include "actors/arrival_actor.hpp"

#include "runtime/base/overloaded.hpp"

#include <algorithm>

namespace llumnix {

static_assert(actor_state<arrival_state>);

std::vector<kv_span> spans_of_positions(
  std::uint32_t from, std::uint32_t to, const std::vector<block_index>& source,
  const std::vector<block_index>& own, const kv_geometry& geometry) {
  std::vector<kv_span> spans;
  auto byte = [&](const std::vector<block_index>& table, std::uint32_t position) {
    auto slot = std::uint64_t{table[position / geometry.block_tokens]} * geometry.block_tokens
                + position % geometry.block_tokens;
    return slot * geometry.bytes_per_token;
  };
  while (from < to) {
    auto end = std::min(to, (from / geometry.block_tokens + 1) * geometry.block_tokens);
    kv_span next{
      byte(source, from), byte(own, from), std::uint64_t{end - from} * geometry.bytes_per_token};
    if (
      !spans.empty() && spans.back().from + spans.back().bytes == next.from
      && spans.back().to + spans.back().bytes == next.to)
      spans.back().bytes += next.bytes;
    else
      spans.push_back(next);
    from = end;
  }
  return spans;
}

arrival_actor::behavior_type
arrival_state::make_behavior(pointer actor, arrival_actor_config settings) {
  self = actor;
  config = std::move(settings);
  machine = std::make_unique<destination_machine>(config.limits, config.offer.destination);
  order(arrival_order_msg::reserve{config.offer, config.headroom_tokens});
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
    return holds_answer_msg{msg.stream, msg.epoch, true};
  return self->delegate(config.engine, msg);
}

void arrival_state::on_tick() {
  alarm.reset();
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
    wake();
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
    config.offer.kv_address, config.offer.of.id, config.kv->id(), std::move(spans),
    config.limits.lease, [me = arrival_actor{self}](kv_transport::outcome ended) {
      caf::anon_send(
        me, arrival_event_msg{destination_side::pulled{std::move(ended.why), ended.bytes}});
    });
}

/// Has the machine told when it wants to be.
void arrival_state::wake() {
  auto due = machine->deadline();
  if (!due || (alarm && *alarm <= *due))
    return;
  alarm = due;
  auto now = self->clock().now();
  self->delayed_send(self, *due > now ? *due - now : nanoseconds{0}, tick_atom::value);
}

arrival_actor::behavior_type
make_arrival(arrival_state::pointer self, arrival_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
