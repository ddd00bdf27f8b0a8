#include "actors/leave_actor.hpp"

#include "actors/drain_actor.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {

static_assert(actor_state<leave_state>);

namespace {

constexpr std::chrono::seconds last_answer{1}; ///< DRAIN's, beyond its own limit

/// Whether requests may go to, or come from, an instance of this node. Engines behind HTTP let none
/// go, and do not end with the node.
bool has_engines(const node_card& card) {
  return std::ranges::any_of(card.instances, [](const auto& each) { return !each.shared; });
}

/// Whether a node may take what runs here, or waits for it.
bool is_concerned(const node_card& card) {
  return has_engines(card) || !card.hubs.empty();
}

} // namespace

leave_actor::behavior_type leave_state::make_behavior(pointer actor, leave_actor_config settings) {
  self = actor;
  config = std::move(settings);
  return {
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
  };
}

/// A fresh role hears of every node, its own last.
void leave_state::on_peer_up(const peer_up_msg& msg) {
  nodes[msg.card.self.life.node] = msg.card;
  for (const auto& [instance, drain] : drains)
    self->send(drain, msg);
  if (msg.card.self.life == config.life && !std::exchange(begun, true))
    empty_all();
}

void leave_state::on_peer_down(const peer_down_msg& msg) {
  auto known = nodes.find(msg.life.node);
  if (known == nodes.end() || known->second.self.life != msg.life)
    return;
  nodes.erase(known);
  for (const auto& [instance, drain] : drains)
    self->send(drain, msg);
  if (begun && !anybody_concerned())
    finish();
}

/// Requests of our own gateway are waited for by whoever ends the node.
bool leave_state::anybody_concerned() const {
  return std::ranges::any_of(nodes, [this](const auto& entry) {
    return entry.first != config.life.node && is_concerned(entry.second);
  });
}

void leave_state::empty_all() {
  if (anybody_concerned())
    for (const auto& instance : nodes.at(config.life.node).instances)
      if (!instance.shared)
        drain(instance.metadata.instance_id);
  if (under_way == 0)
    finish();
}

void leave_state::drain(const instance_id& instance) {
  console_actor console;
  for (const auto& [name, card] : nodes)
    if (!card.console.empty() && (!console || name != config.life.node))
      console = card.console.front();
  auto drain = self->spawn<caf::linked>(
    make_drain, drain_actor_config{config.life, instance, console, config.wall});
  drains.emplace(instance, drain);
  ++under_way;
  for (const auto& [name, card] : nodes)
    self->send(drain, peer_up_msg{card});
  self
    ->request(
      drain, config.patience + last_answer, order_msg{order_msg::drain{instance, config.patience}})
    .then(
      [this, instance](const ordered_msg& answer) {
        log::llumlet.info("left", "{}: {}", instance, answer.json);
        on_drained();
      },
      [this, instance](const caf::error& failure) {
        log::llumlet.warn("left", "{} was not drained: {}", instance, caf::to_string(failure));
        on_drained();
      });
}

void leave_state::on_drained() {
  if (--under_way == 0)
    finish();
}

void leave_state::finish() {
  if (!std::exchange(finished, true))
    config.done();
}

actor_stats_msg leave_state::on_stat() {
  auto line = self->stat("leave " + config.life.node, "leave");
  line.state = {{"drains", static_cast<std::int64_t>(under_way)}};
  return {{std::move(line)}};
}

leave_actor::behavior_type make_leave(leave_state::pointer self, leave_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
