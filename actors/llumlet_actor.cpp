#include "actors/llumlet_actor.hpp"

#include "actors/engine_actor.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "runtime/base/log.hpp"
#include "runtime/migration/move_ladder.hpp"

namespace llumnix {

static_assert(actor_state<llumlet_state>);

llumlet_actor::behavior_type
llumlet_state::make_behavior(pointer actor, llumlet_actor_config settings) {
  self = actor;
  config = std::move(settings);
  if (config.make_engine) {
    auto made = config.make_engine();
    if (auto* moving = made->moving())
      geometry = moving->geometry();
    kv = kv_region::make(config.transport, made);
    engine = self->spawn<caf::linked>(
      make_engine,
      engine_actor_config{
        config.life, config.metadata.instance_id, config.knobs.status_min_interval},
      std::move(made), llumlet_actor{self});
  }
  if (!config.counters)
    config.counters = std::make_shared<node_counters>();
  slots = {config.migration.out_slots, config.migration.per_link};
  history = {config.migration.cool_down, config.migration.moves_max};
  auto name = std::hash<std::string>{}(config.life.node + "/" + config.metadata.instance_id);
  chance.seed(config.handover_seed ^ name ^ config.life.incarnation);
  if (engine)
    self->delayed_send(self, config.knobs.status_max_interval, tick_atom::value);
  return {
    [this](submit_msg& msg) { on_submit(msg); },
    [this](abort_msg& msg) { on_abort(msg); },
    [this](grant_msg& msg) { pass_on(msg); },
    [this](holds_msg& msg) { return on_holds(msg); },
    [this](watch_kv_msg& msg) {
      if (engine)
        self->send(engine, std::move(msg));
    },
    [this](migrate_msg& msg) { return on_migrate(msg); },
    [this](const leader_msg& msg) { fence.heard(msg.term); },
    [this](begin_moves_msg& msg) { return on_begin_moves(msg); },
    [this](tick_atom, std::uint64_t order) { on_due(order); },
    [this](const drain_msg& msg) { return on_drain(msg); },
    [this](handover::accept& msg) { to_departure(msg); },
    [this](handover::reject& msg) { to_departure(msg); },
    [this](handover::prepared& msg) { to_departure(msg); },
    [this](handover::committed& msg) { to_departure(msg); },
    [this](handover::commit_failed& msg) { to_departure(msg); },
    [this](handover::release& msg) { to_departure(msg); },
    [this](handover::offer& msg) { on_offer(msg); },
    [this](handover::copy_progress& msg) { to_arrival(msg); },
    [this](handover::freeze_commit& msg) { to_arrival(msg); },
    [this](handover::cancel& msg) { to_either(msg); },
    [this](handover::cancelled& msg) { to_either(msg); },
    [this](const prefilled_msg& msg) { on_prefilled(msg); },
    [this](departed_msg& msg) { on_departed(msg); },
    [this](const arrived_msg& msg) { on_arrived(msg); },
    [this](kv_heard_msg& msg) {
      if (engine)
        self->send(engine, std::move(msg));
    },
    [this](inspect_msg& msg) -> caf::result<inspected_msg> {
      if (!engine)
        return inspected_msg{};
      return self->delegate(engine, std::move(msg));
    },
    [this](engine_news_msg& msg) { on_news(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
  };
}

/// What our hand-overs were is not under way any more.
llumlet_state::~llumlet_state() {
  if (!config.counters)
    return;
  config.counters->departing.fetch_sub(counted_out, std::memory_order_relaxed);
  config.counters->arriving.fetch_sub(counted_in, std::memory_order_relaxed);
}

/// A message for an earlier incarnation of the instance is not for us.
bool llumlet_state::meant(const stream_owner& owner) const {
  return owner.life == config.life && owner.instance == config.metadata.instance_id;
}

template <class Message>
void llumlet_state::pass_on(Message& msg) {
  if (engine && meant(msg.owner))
    self->send(engine, std::move(msg));
}

/// A hand-over may hold what ENGINE does not, frozen or claimed.
caf::result<holds_answer_msg> llumlet_state::on_holds(holds_msg& msg) {
  if (!engine || !meant(msg.owner))
    return holds_answer_msg{msg.owner, msg.stream, msg.epoch, false};
  for (const auto& [id, coming] : arrivals) // the later owner, should it leave and come at once
    if (coming.stream == msg.stream)
      return self->delegate(coming.actor, std::move(msg));
  for (const auto& [id, leaving] : departures)
    if (leaving.stream == msg.stream)
      return self->delegate(leaving.actor, std::move(msg));
  return self->delegate(engine, std::move(msg));
}

void llumlet_state::on_abort(abort_msg& msg) {
  if (!engine || !meant(msg.owner))
    return;
  for (const auto& [id, leaving] : departures)
    if (leaving.stream == msg.stream)
      self->send(leaving.actor, departure_event_msg{source_side::aborted{msg.epoch}});
  for (const auto& [id, coming] : arrivals)
    if (coming.stream == msg.stream)
      self->send(coming.actor, arrival_event_msg{destination_side::aborted{msg.epoch}});
  self->send(engine, std::move(msg));
}

/// What runs here goes on; whoever drains us moves it.
draining_msg llumlet_state::on_drain(const drain_msg& msg) {
  if (std::exchange(draining, msg.on) != msg.on) {
    tell_relays();
    slots_changed();
  }
  auto here = std::max(0, status.num_running_requests) + std::max(0, status.num_waiting_requests);
  return {
    static_cast<std::uint32_t>(here), static_cast<std::uint32_t>(departures.size() + queued.size()),
    static_cast<std::uint32_t>(arrivals.size())};
}

void llumlet_state::on_submit(submit_msg& msg) {
  if (draining) {
    if (auto hub = hub_of(msg.request.stream))
      self->send(
        hub, refused_msg{
               msg.request.stream,
               msg.request.epoch,
               config.metadata.instance_id,
               {errc::draining, config.metadata.instance_id + " is being drained"}});
    return;
  }
  if (engine) {
    msg.to_decode = msg.to_decode && outlives_prefill(msg.request);
    decode_wanted_msg wanted;
    if (msg.to_decode)
      wanted = decode_wanted(msg.request, own());
    auto decode = msg.to_decode ? msg.decode : stream_owner{};
    self->send(engine, std::move(msg));
    if (!decode.instance.empty())
      hand_over(
        std::move(wanted), decode, kv ? move_path::kv : move_path::recompute, why_none_copied());
  } else
    log::llumlet.error(
      "no-engine", "{} was sent to {}, whose engine is behind HTTP: dropped", msg.request.text_id,
      config.metadata.instance_id);
}

void llumlet_state::on_news(engine_news_msg& msg) {
  recent.add(msg.status.recent_waiting_requests, self->clock().now());
  status = std::move(msg.status);
  kind = std::move(msg.engine);
  has_status = true;
  publish();
}

/// Sends the status, stamped, to every CMS. Time stamps strictly increase (spec/cms.md 10).
void llumlet_state::publish() {
  if (!has_status)
    return;
  last_publish = self->clock().now();
  status.instance_id = config.metadata.instance_id;
  status.timestamp_ms = std::max(config.wall.at(last_publish), stamped + 1);
  stamped = status.timestamp_ms;
  if (!listeners.empty()) {
    const status_msg told{config.life, told_status(), kind, draining};
    for (const auto& [node, cms] : listeners)
      self->send(cms, told);
  }
  status.recent_waiting_requests.clear();
}

void llumlet_state::on_peer_up(const peer_up_msg& msg) {
  if (engine)
    self->send(engine, msg);
  peers[msg.card.self.life.node] = msg.card;
  if (msg.card.self.life == config.life)
    tell_relays();
  const auto& node = msg.card.self.life.node;
  if (msg.card.cms.empty()) {
    listeners.erase(node);
    return;
  }
  listeners[node] = msg.card.cms.front();
  if (!has_status)
    return;
  status_msg whole{config.life, told_status(), kind, draining};
  whole.status.recent_waiting_requests = recent.ids(self->clock().now());
  self->send(listeners[node], std::move(whole));
}

void llumlet_state::on_peer_down(const peer_down_msg& msg) {
  if (engine)
    self->send(engine, msg);
  listeners.erase(msg.life.node);
  peers.erase(msg.life.node);
  tell_lost(msg.life);
}

/// Repeats the status of an ENGINE, which is our child: while we live it does. Next when the last
/// one is as old as it may be.
void llumlet_state::on_tick() {
  const nanoseconds oldest = config.knobs.status_max_interval;
  nanoseconds age = self->clock().now() - last_publish;
  if (age >= oldest) {
    publish();
    age = {};
  }
  self->delayed_send(self, oldest - age, tick_atom::value);
}

caf::result<actor_stats_msg> llumlet_state::on_stat() {
  auto mine = self->stat("llumlet " + config.metadata.instance_id, "llumlet");
  mine.state = {
    {"listeners", static_cast<std::int64_t>(listeners.size())},
    {"departing", static_cast<std::int64_t>(departures.size())},
    {"arriving", static_cast<std::int64_t>(arrivals.size())},
    {"handovers_kept", static_cast<std::int64_t>(settled.size())},
    {"leader_term", static_cast<std::int64_t>(fence.latest().number)}};
  if (!engine)
    return actor_stats_msg{{std::move(mine)}};
  auto promise = self->make_response_promise<actor_stats_msg>();
  self->request(engine, std::chrono::seconds{1}, stat_msg{})
    .then(
      [promise, mine](actor_stats_msg& engines) mutable {
        engines.actors.insert(engines.actors.begin(), std::move(mine));
        promise.deliver(std::move(engines));
      },
      [promise, mine](const caf::error&) mutable {
        promise.deliver(actor_stats_msg{{std::move(mine)}});
      });
  return promise;
}

llumlet_actor::behavior_type
make_llumlet(llumlet_state::pointer self, llumlet_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
