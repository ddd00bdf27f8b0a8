#include "actors/departure_actor.hpp"

#include "runtime/base/overloaded.hpp"

namespace llumnix {

static_assert(actor_state<departure_state>);

departure_actor::behavior_type
departure_state::make_behavior(pointer actor, departure_actor_config settings) {
  self = actor;
  config = std::move(settings);
  result.stream = config.plan.of.stream;
  result.from = config.plan.source;
  result.to = config.plan.destination;
  result.policy = config.policy;
  order(departure_order_msg::pin{config.plan.to_decode});
  return {
    [this](departure_event_msg& msg) { hear(msg.event); },
    [this](pinned_msg& msg) { on_pinned(msg); },
    [this](handover::claim_answer& msg) { hear(std::move(msg)); },
    [this](handover::reject& msg) { hear(std::move(msg)); },
    [this](handover::cancelled& msg) { hear(msg); },
    [this](const holds_msg& msg) { return on_holds(msg); },
    [this](tick_atom) { on_tick(); },
  };
}

void departure_state::on_pinned(pinned_msg& msg) {
  if (!msg.request) {
    auto why = std::move(msg.request).error();
    finish(why.code == errc::not_found ? "finished" : "refused", why);
    return;
  }
  result.request = msg.request->request.text_id;
  result.epoch = msg.request->request.epoch;
  if (config.plan.path == move_path::kv)
    config.kv->transport().open_window(config.kv->id(), config.plan.of.id);
  machine = std::make_unique<source_machine>(config.limits, config.plan);
  carry_out(machine->begin(*msg.request, self->clock().now()));
  if (destination_lost)
    hear(source_side::destination_lost{});
}

void departure_state::hear(const source_event& event) {
  if (machine)
    carry_out(machine->on(event, self->clock().now()));
  else if (std::holds_alternative<source_side::destination_lost>(event))
    destination_lost = true;
}

/// What the machine does not hold, ENGINE may.
caf::result<holds_answer_msg> departure_state::on_holds(const holds_msg& msg) {
  if (machine && machine->holds(msg.epoch))
    return holds_answer_msg{msg.owner, msg.stream, msg.epoch, true};
  return self->delegate(config.engine, msg);
}

void departure_state::on_tick() {
  ticks.rang(self->clock().now());
  hear(source_side::tick{});
}

void departure_state::carry_out(std::vector<source_effect> effects) {
  for (auto& effect : effects)
    std::visit(
      overloaded{
        [this](handover::reclaim& word) { self->send(config.hub, std::move(word)); },
        [this](source_side::look& what) { order(what); },
        [this](source_side::freeze& what) { order(what); },
        [this](source_side::thaw& what) { order(what); },
        [this](source_side::drop& what) { order(what); },
        [this](source_side::unpin& what) { order(what); },
        [this](source_side::close_window&) { close_window(); },
        [this](source_side::ended& end) { report(end); },
        [this](auto& word) { self->send(config.destination, std::move(word)); },
      },
      effect);
  ticks.set(self, machine->deadline());
}

void departure_state::order(departure_order_msg::order what) {
  self->send(
    config.engine, departure_order_msg{departure_actor{self}, config.plan.of, std::move(what)});
}

void departure_state::close_window() {
  config.kv->transport().close_window(config.plan.of.id, [me = departure_actor{self}] {
    caf::anon_send(me, departure_event_msg{source_side::window_closed{}});
  });
}

void departure_state::report(const source_side::ended& end) {
  result.path = to_string(end.path);
  result.rounds = end.rounds;
  result.bytes = end.bytes;
  result.downtime = end.paused;
  result.tail_tokens = end.tail_tokens;
  if (end.outcome == source_outcome::moved)
    ++result.epoch;
  else if (end.outcome == source_outcome::kept)
    result.epoch = end.epoch;
  finish(outcome_word(end), end.why);
}

void departure_state::finish(std::string_view outcome, error why) {
  result.outcome = outcome;
  if (result.outcome != "moved")
    result.reason = why.context.empty() ? std::string{to_string(why.code)} : why.context;
  self->send(config.llumlet, departed_msg{config.plan.of.id, std::move(result), std::move(why)});
  self->quit();
}

departure_actor::behavior_type
make_departure(departure_state::pointer self, departure_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
