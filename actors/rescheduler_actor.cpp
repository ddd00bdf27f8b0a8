#include "actors/rescheduler_actor.hpp"

#include "actors/protocol/console_messages.hpp"
#include "actors/view_feed.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>

namespace llumnix {

static_assert(actor_state<rescheduler_state>);

rescheduler_actor::behavior_type
rescheduler_state::make_behavior(pointer actor, rescheduler_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto made = make_move_policies(config.knobs, config.scheduling);
  LLUMNIX_ASSERT(made.has_value()); // checked when the node started
  policies = std::move(*made);
  forget_view();
  if (!config.counters)
    config.counters = std::make_shared<node_counters>();
  lease = {config.life, config.knobs.lease};
  self->set_exit_handler([this](const caf::exit_msg& msg) { stop(msg); });
  self->delayed_send(self, config.knobs.interval, tick_atom::value);
  return {
    [this](const view_change_msg& msg) {
      if (self->current_sender() == viewed) // else of one that we have left
        apply(*known, msg, now());
    },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
    [this](lease_atom) { on_lease_time(); },
  };
}

// -- who leads

rescheduler_state::~rescheduler_state() {
  if (led)
    config.counters->leads = config.counters->leader_term = 0;
}

void rescheduler_state::on_lease_time() {
  look_who_leads();
  auto now = self->clock().now();
  if (now >= woken) // not one that another has come before
    claim();
}

/// If one is due. Wakes us for the next, or when our lease is over.
void rescheduler_state::claim() {
  auto now = self->clock().now();
  if (!keeper)
    return;
  if (auto due = lease.due(now))
    self->request(keeper, config.knobs.lease / 3, claim_lease_msg{std::move(*due)})
      .then(
        [this, number = ++claims, sent = now](const lease_msg& said) {
          if (number != claims)
            return;
          lease.answered(said.answer, sent, self->clock().now());
          look_who_leads();
          claim();
        },
        [](const caf::error&) {}); // claimed again when it is time
  auto next = std::max(lease.next(), now);
  if (woken > now && woken <= next)
    return;
  woken = next;
  self->delayed_send(self, next - now, lease_atom::value);
}

/// Tells whom it concerns when we begin or cease to lead.
void rescheduler_state::look_who_leads() {
  auto now = self->clock().now();
  auto ours = lease.leads(now) ? lease.term() : leader_term{};
  if (ours == led)
    return;
  if (led)
    tell_people("leader_stopped", led);
  led = ours;
  config.counters->leads = led ? 1 : 0;
  config.counters->leader_term = led.number;
  if (!led)
    return;
  tell_people("leader", led);
  for (const auto& [node, card] : peers)
    tell_llumlets(card);
}

void rescheduler_state::tell_llumlets(const node_card& card) {
  for (const auto& instance : card.instances)
    if (instance.llumlet)
      self->send(instance.llumlet, leader_msg{led});
}

/// Every node's events have it: people may follow any.
void rescheduler_state::tell_people(const char* kind, const leader_term& term) {
  log::node.info(kind, "rescheduler of {}", to_string(term));
  event_msg event{
    now(),
    kind,
    {{"role", "rescheduler"},
     {"node", term.leader.node},
     {"incarnation", std::to_string(term.leader.incarnation)},
     {"term", std::to_string(term.number)}}};
  for (const auto& [node, card] : peers)
    if (!card.console.empty())
      self->send(card.console.front(), event);
}

void rescheduler_state::forget_view() {
  auto empty = dispatcher::make(config.scheduling, config.profile);
  LLUMNIX_ASSERT(empty.has_value()); // checked when the node started
  known = std::make_unique<dispatcher>(std::move(*empty));
}

/// The view is that of our own node's CMS, or else of any, while it is there; the lease is kept by
/// the first for all. Whoever is new is asked anew.
void rescheduler_state::find_cms() {
  cms_actor first, own, present;
  for (const auto& [node, card] : peers) {
    if (card.cms.empty())
      continue;
    const auto& cms = card.cms.front();
    if (!first)
      first = cms;
    if (node == config.life.node)
      own = cms;
    if (cms == viewed)
      present = cms;
  }
  auto nearest = own ? own : present ? present : first;
  if (nearest != viewed) {
    viewed = nearest;
    forget_view();
    if (viewed)
      self->send(viewed, subscribe_view_msg{view_listener{rescheduler_actor{self}}, true});
  }
  if (first != keeper) {
    keeper = first;
    ++claims; // an answer of the former counts no more
    lease.keeper_changed(self->clock().now());
    claim();
  }
}

/// In order: another may lead at once.
void rescheduler_state::stop(const caf::exit_msg& msg) {
  if (auto term = lease.stop(self->clock().now()); term && keeper)
    self->send(keeper, release_lease_msg{term});
  look_who_leads();
  self->quit(msg.reason);
}

// -- moves

void rescheduler_state::on_tick() {
  self->delayed_send(self, config.knobs.interval, tick_atom::value);
  look_who_leads();
  if (!led)
    return;
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
  msg.term = led;
  msg.by_load = !move.metric.empty();
  under_way.insert({move.from, move.to});
  ++orders;
  config.counters->move_orders.fetch_add(1, std::memory_order_relaxed);
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
  if (done.overtaken_by) {
    lease.overtaken(done.overtaken_by, self->clock().now());
    look_who_leads();
  }
  if (done.moves.empty())
    return on_nothing(move);
  auto count = std::count_if(done.moves.begin(), done.moves.end(), [](const move_result& x) {
    return x.outcome == "moved";
  });
  moved += static_cast<std::uint64_t>(count);
  failed += done.moves.size() - static_cast<std::size_t>(count);
  log::node.debug(
    "rescheduled", "{}: {} of {} requests from {} ({} {:.2f}) to {} ({:.2f})", move.policy, count,
    done.moves.size(), move.from, move.metric, move.from_load, move.to, move.to_load);
}

/// Whoever wonders why a cluster stays uneven sees it here: everything that runs there is too large
/// for what would be equal, has no output yet, or has moved lately.
void rescheduler_state::on_nothing(const planned_move& move) {
  ++empty;
  config.counters->move_orders_empty.fetch_add(1, std::memory_order_relaxed);
  log::node.debug(
    "nothing-to-move", "{}: no request of {} ({} {:.2f}) fits {} {:g} in order {} for {} ({:.2f})",
    move.policy, move.from, move.metric, move.from_load, to_string(move.selection.rule),
    move.selection.value, to_string(move.selection.order), move.to, move.to_load);
}

void rescheduler_state::on_peer_up(const peer_up_msg& msg) {
  peers[msg.card.self.life.node] = msg.card;
  find_cms();
  if (led)
    tell_llumlets(msg.card);
}

void rescheduler_state::on_peer_down(const peer_down_msg& msg) {
  auto known = peers.find(msg.life.node);
  if (known == peers.end() || known->second.self.life != msg.life)
    return;
  peers.erase(known);
  find_cms();
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
    {"empty_orders", static_cast<std::int64_t>(empty)},
    {"moved", static_cast<std::int64_t>(moved)},
    {"not_moved", static_cast<std::int64_t>(failed)},
    {"under_way", static_cast<std::int64_t>(under_way.size())},
    {"term", static_cast<std::int64_t>(led.number)}};
  return {{std::move(line)}};
}

rescheduler_actor::behavior_type
make_rescheduler(rescheduler_state::pointer self, rescheduler_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
