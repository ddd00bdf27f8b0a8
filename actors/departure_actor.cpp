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
  order(departure_order_msg::pin{config.epoch});
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
    bool over = msg.request.error().code == errc::not_found;
    finish(over ? "finished" : "refused", msg.request.error().context);
    return;
  }
  result.request = msg.request->request.text_id;
  result.epoch = msg.request->request.epoch;
  if (config.plan.path == move_path::kv)
    config.kv->transport().open_window(config.kv->id(), config.plan.of.id);
  machine = std::make_unique<source_machine>(config.limits, config.plan);
  carry_out(machine->begin(*msg.request, self->clock().now()));
}

void departure_state::hear(const source_event& event) {
  if (machine)
    carry_out(machine->on(event, self->clock().now()));
}

/// What the machine does not hold, ENGINE may.
caf::result<holds_answer_msg> departure_state::on_holds(const holds_msg& msg) {
  if (machine && machine->holds(msg.epoch))
    return holds_answer_msg{msg.stream, msg.epoch, true};
  return self->delegate(config.engine, msg);
}

void departure_state::on_tick() {
  alarm.reset();
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
  wake();
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
  switch (end.outcome) {
    case source_outcome::moved:
      ++result.epoch;
      finish("moved", {});
      break;
    case source_outcome::gone: finish("finished", end.why.context); break;
    case source_outcome::kept:
      result.epoch = end.epoch;
      finish(end.rounds == 0 ? "refused" : "failed", to_string(end.why));
      break;
    case source_outcome::let_go: finish("failed", to_string(end.why)); break;
  }
}

void departure_state::finish(std::string outcome, std::string reason) {
  result.outcome = std::move(outcome);
  result.reason = std::move(reason);
  self->send(config.llumlet, departed_msg{config.plan.of.id, std::move(result)});
  self->quit();
}

/// Has the machine told when it wants to be.
void departure_state::wake() {
  auto due = machine->deadline();
  if (!due || (alarm && *alarm <= *due))
    return;
  alarm = due;
  auto now = self->clock().now();
  self->delayed_send(self, *due > now ? *due - now : nanoseconds{0}, tick_atom::value);
}

departure_actor::behavior_type
make_departure(departure_state::pointer self, departure_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
