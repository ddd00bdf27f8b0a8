#include "actors/rescheduler_actor.hpp"

#include "actors/view_feed.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>

namespace llumnix {

static_assert(actor_state<rescheduler_state>);

rescheduler_actor::behavior_type
rescheduler_state::make_behavior(pointer actor, rescheduler_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto view = dispatcher::make(config.scheduling, config.profile);
  auto made = make_move_policies(config.knobs, config.scheduling);
  LLUMNIX_ASSERT(view.has_value() && made.has_value()); // checked when the node started
  known = std::make_unique<dispatcher>(std::move(*view));
  policies = std::move(*made);
  self->delayed_send(self, config.knobs.interval, tick_atom::value);
  return {
    [this](const view_change_msg& msg) { apply(*known, msg, now()); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
  };
}

void rescheduler_state::on_tick() {
  self->delayed_send(self, config.knobs.interval, tick_atom::value);
  candidate_table table{policies.metrics, &config.profile};
  for (const auto& [id, instance] : known->view().instances())
    table.put(instance, {});
  auto plan = plan_moves(policies, table, now());
  for (const auto& move : moves_to_order(std::move(plan.moves), known->view(), under_way))
    order(move);
}

void rescheduler_state::order(const planned_move& move) {
  const auto* from = known->view().find(move.from);
  const auto* to = known->view().find(move.to);
  auto source = llumlet_of(*from);
  if (!source)
    return;
  migrate_msg msg;
  msg.to = {to->life, move.to};
  msg.selection = move.selection;
  msg.policy = move.policy;
  msg.rescheduled = true;
  under_way.insert({move.from, move.to});
  ++orders;
  constexpr std::chrono::seconds patience{60}; // each hand-over is bounded by less
  self->request(source, patience, std::move(msg))
    .then(
      [this, move](const moves_msg& done) { on_moves(move, done); },
      [this, move](const caf::error&) {
        under_way.erase({move.from, move.to});
        ++failed;
      });
}

void rescheduler_state::on_moves(const planned_move& move, const moves_msg& done) {
  under_way.erase({move.from, move.to});
  auto count = std::count_if(done.moves.begin(), done.moves.end(), [](const move_result& x) {
    return x.outcome == "moved";
  });
  moved += static_cast<std::uint64_t>(count);
  failed += done.moves.size() - static_cast<std::size_t>(count);
  log::node.debug(
    "rescheduled", "{}: {} of {} requests from {} ({} {:.2f}) to {} ({:.2f})", move.policy, count,
    done.moves.size(), move.from, move.metric, move.from_load, move.to, move.to_load);
}

/// Our own node's CMS tells us the view; a new one is asked anew.
void rescheduler_state::on_peer_up(const peer_up_msg& msg) {
  peers[msg.card.self.life.node] = msg.card;
  if (msg.card.self.life == config.life && !msg.card.cms.empty())
    self->send(
      msg.card.cms.front(), subscribe_view_msg{view_listener{rescheduler_actor{self}}, true});
}

void rescheduler_state::on_peer_down(const peer_down_msg& msg) {
  peers.erase(msg.life.node);
}

llumlet_actor rescheduler_state::llumlet_of(const instance_view& instance) const {
  auto found = peers.find(instance.life.node);
  if (found == peers.end() || found->second.self.life != instance.life)
    return {};
  for (const auto& card : found->second.instances)
    if (card.metadata.instance_id == instance.metadata.instance_id)
      return card.llumlet;
  return {};
}

actor_stats_msg rescheduler_state::on_stat() {
  auto line = self->stat("rescheduler", "rescheduler");
  line.state = {
    {"orders", static_cast<std::int64_t>(orders)},
    {"moved", static_cast<std::int64_t>(moved)},
    {"not_moved", static_cast<std::int64_t>(failed)},
    {"under_way", static_cast<std::int64_t>(under_way.size())}};
  return {{std::move(line)}};
}

rescheduler_actor::behavior_type
make_rescheduler(rescheduler_state::pointer self, rescheduler_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
