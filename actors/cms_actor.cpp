#include "actors/cms_actor.hpp"

#include "runtime/base/log.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <utility>

namespace llumnix {

static_assert(actor_state<cms_state>);

namespace {

/// How long new loads are held back from paced listeners.
constexpr std::chrono::milliseconds pace{20};

bool is_only_load(const view_change_msg& change) {
  return change.put.empty() && change.lost.empty() && change.removed.empty()
         && change.store == store_news::none;
}

view_entry entry_of(const instance_view& x) {
  return {x.metadata, x.life, x.engine, x.state};
}

} // namespace

cms_actor::behavior_type cms_state::make_behavior(pointer actor, cms_actor_config settings) {
  self = actor;
  config = std::move(settings);
  self->set_down_handler([this](const caf::down_msg& msg) { listeners.erase(msg.source); });
  self->delayed_send(self, std::chrono::seconds{1}, tick_atom::value);
  if (reads_store()) {
    store = store_news::unreachable;
    self->send(self, metadata_atom::value);
  }
  return {
    [this](status_msg& msg) { on_status(msg); },
    [this](const subscribe_view_msg& msg) { on_subscribe(msg); },
    [this](flush_atom) { flush(); },
    [this](metadata_atom) { read_metadata(); },
    [this](statuses_atom) { read_statuses(); },
    [this](store_metadata_msg& msg) { on_metadata(msg); },
    [this](store_statuses_msg& msg) { on_statuses(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const claim_lease_msg& msg) { return on_claim_lease(msg); },
    [this](const release_lease_msg& msg) { lease.release(msg.term); },
    [this](const inspect_msg& msg) { return on_inspect(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
  };
}

void cms_state::on_status(status_msg& msg) {
  auto* known = view.find(msg.status.instance_id);
  if (!known || known->life != msg.from)
    return; // of a life we do not know (yet): its llumlet repeats itself
  if (!msg.engine.empty())
    known->engine = std::move(msg.engine);
  note_draining(msg);
  msg.status.timestamp_ms = view.written_at(msg.status, now_ms());
  if (view.update(msg.status) == status_effect::ignored)
    return;
  config.counters->statuses.fetch_add(1, std::memory_order_relaxed);
  if (mirrors(msg.status.instance_id))
    config.store->put_status(msg.status);
  view_change_msg change;
  if (note_state(*known, msg.draining))
    change.put.push_back(entry_of(*known));
  change.statuses.push_back(std::move(msg.status));
  tell(std::move(change));
}

/// Whether its llumlet's word on draining changed what is known. One whose node is gone stays so:
/// the word is older than that.
bool cms_state::note_state(const instance_view& known, bool draining) {
  auto told = draining ? instance_state::draining : instance_state::ready;
  if (known.state == told || is_gone(known.state))
    return false;
  view.set_state(known.metadata.instance_id, told);
  return true;
}

/// Tells the whole view, then every change.
void cms_state::on_subscribe(const subscribe_view_msg& msg) {
  if (listeners.insert_or_assign(msg.listener.address(), msg).second)
    self->monitor(msg.listener);
  view_change_msg all;
  for (const auto& [id, instance] : view.instances()) {
    all.put.push_back(entry_of(instance));
    if (instance.has_status)
      all.statuses.push_back(instance.status);
  }
  all.store = store;
  self->send(msg.listener, std::move(all));
}

void cms_state::on_peer_up(const peer_up_msg& msg) {
  const auto& life = msg.card.self.life;
  if (msg.card.scheduler.empty())
    schedulers.erase(life.node);
  else
    schedulers.insert(life.node);
  view_change_msg change;
  auto missing = missing_on(msg.card);
  take_claims(msg.card);
  for (const auto& id : missing)
    if (!pass_on(id, change)) {
      forget(id);
      change.removed.push_back(id);
    }
  for (const auto& instance : msg.card.instances)
    if (!spoken_for(instance, life) && put(instance.metadata, life, instance.engine))
      change.put.push_back(entry_of(*view.find(instance.metadata.instance_id)));
  if (!change.put.empty() || !change.removed.empty())
    tell(change);
}

bool cms_state::put(
  const instance_metadata& metadata, const node_life& life, const std::string& engine) {
  if (!view.put(metadata, life, engine))
    return false;
  gone_since.erase(metadata.instance_id);
  if (mirrors(metadata.instance_id))
    config.store->put_metadata(metadata);
  return true;
}

// -- engines behind HTTP: several nodes may speak for one

/// What the node claims now replaces what it claimed before, but for what is being started again.
void cms_state::take_claims(const node_card& card) {
  const auto& node = card.self.life.node;
  std::set<instance_id> kept{card.starting.begin(), card.starting.end()};
  for (const auto& instance : card.instances)
    if (instance.shared) {
      auto& own = claims[instance.metadata.instance_id][node];
      bool drains = own.life == card.self.life && own.draining; // a status says so, no card
      own = {card.self.life, instance.metadata, instance.engine, drains};
      kept.insert(instance.metadata.instance_id);
    }
  for (auto& [id, by_node] : claims)
    if (!kept.contains(id))
      by_node.erase(node);
  std::erase_if(claims, [](const auto& entry) { return entry.second.empty(); });
}

void cms_state::note_draining(const status_msg& msg) {
  if (auto claimed = claims.find(msg.status.instance_id); claimed != claims.end())
    if (auto own = claimed->second.find(msg.from.node); own != claimed->second.end())
      own->second.draining = msg.draining;
}

/// Whether another node that lives speaks for it already.
bool cms_state::spoken_for(const instance_card& instance, const node_life& by) const {
  const auto* known = view.find(instance.metadata.instance_id);
  if (!instance.shared || !known || known->life.node == by.node)
    return false;
  auto claimed = claims.find(instance.metadata.instance_id);
  auto first = claimed->second.find(known->life.node);
  return first != claimed->second.end() && first->second.life == known->life;
}

/// Whoever spoke for it has gone: another may. False if there is none.
bool cms_state::pass_on(const instance_id& id, view_change_msg& change) {
  auto claimed = claims.find(id);
  if (claimed == claims.end())
    return false;
  const auto& next = claimed->second.begin()->second;
  if (!put(next.metadata, next.life, next.engine))
    return false;
  log::cms.info("passed-on", "{} is spoken for by {} now", id, next.life.node);
  change.put.push_back(entry_of(*view.find(id)));
  return true;
}

/// Whether our store has its record: that of a shared engine is written next to SCHEDULER alone.
bool cms_state::mirrors(const instance_id& id) const {
  return config.store
         && (!claims.contains(id) || schedulers.empty() || schedulers.contains(config.life.node));
}

/// What we know of a node that lives, and that it has no more.
std::vector<instance_id> cms_state::missing_on(const node_card& card) const {
  std::set<instance_id> there{card.starting.begin(), card.starting.end()};
  for (const auto& instance : card.instances)
    there.insert(instance.metadata.instance_id);
  std::vector<instance_id> missing;
  for (const auto& [id, known] : view.instances())
    if (known.life == card.self.life && !there.contains(id))
      missing.push_back(id);
  return missing;
}

/// Of an instance of ours.
void cms_state::forget(const instance_id& id) {
  gone_since.erase(id);
  if (reads_store())
    foreign.disown(view.find(id)->metadata);
  view.remove(id);
  if (config.store)
    config.store->remove(id);
}

/// Its instances stay known as lost or stopped, and the mirror says that nothing should be sent
/// there, unless another node speaks for them.
void cms_state::on_peer_down(const peer_down_msg& msg) {
  auto is_over = [&](const node_life& life) {
    return life.node == msg.life.node && life.incarnation <= msg.life.incarnation;
  };
  schedulers.erase(msg.life.node);
  for (auto& [id, by_node] : claims)
    std::erase_if(by_node, [&](const auto& entry) { return is_over(entry.second.life); });
  std::erase_if(claims, [](const auto& entry) { return entry.second.empty(); });
  view_change_msg change;
  change.lost.push_back(msg.life);
  std::vector<instance_id> gone;
  for (const auto& [id, instance] : view.instances())
    if (is_over(instance.life) && !is_gone(instance.state))
      gone.push_back(id);
  view.lose(msg.life);
  for (const auto& id : gone) {
    if (pass_on(id, change))
      continue;
    if (msg.stopped)
      note_stopped(id, change);
    note_gone(id);
  }
  tell(change);
}

/// It takes no failover domain with it, as one that is lost does.
void cms_state::note_stopped(const instance_id& id, view_change_msg& change) {
  view.set_state(id, instance_state::stopped);
  change.put.push_back(entry_of(*view.find(id)));
}

void cms_state::note_gone(const instance_id& id) {
  gone_since[id] = self->clock().now();
  if (!mirrors(id))
    return;
  auto last = view.find(id)->status;
  last.instance_id = id;
  last.schedulable = false;
  last.timestamp_ms = std::max(now_ms(), last.timestamp_ms + 1);
  config.store->put_status(last);
}

/// Forgets what has been gone for as long as a record lives.
void cms_state::on_tick() {
  self->delayed_send(self, std::chrono::seconds{1}, tick_atom::value);
  auto now = self->clock().now();
  view_change_msg change;
  for (const auto& [id, since] : gone_since)
    if (now - since >= std::chrono::seconds{config.knobs.expiry_s})
      change.removed.push_back(id);
  for (const auto& id : change.removed)
    forget(id);
  if (!change.removed.empty())
    tell(change);
}

/// Tells the listeners; the paced ones only what cannot wait.
void cms_state::tell(view_change_msg change) {
  note_longest(change);
  bool can_wait = is_only_load(change);
  if (can_wait)
    hold_back(change);
  else
    flush();                                          // so that they hear everything in order
  auto shared = caf::make_message(std::move(change)); // one copy, however many listen
  for (const auto& [address, each] : listeners)
    if (!each.paced || !can_wait)
      pass(each.listener, shared);
}

void cms_state::hold_back(const view_change_msg& change) {
  bool anyone_paced = std::any_of(
    listeners.begin(), listeners.end(), [](const auto& each) { return each.second.paced; });
  if (!anyone_paced)
    return;
  for (const auto& status : change.statuses) {
    auto [older, fresh] = held_back.try_emplace(status.instance_id, status);
    if (!fresh)
      follow(older->second, status);
  }
  if (!std::exchange(flush_pending, true))
    self->delayed_send(self, pace, flush_atom::value);
}

void cms_state::flush() {
  flush_pending = false;
  if (held_back.empty())
    return;
  view_change_msg change;
  for (auto& [id, status] : std::exchange(held_back, {}))
    change.statuses.push_back(std::move(status));
  auto shared = caf::make_message(std::move(change));
  for (const auto& [address, each] : listeners)
    if (each.paced)
      pass(each.listener, shared);
}

void cms_state::pass(const view_listener& listener, const caf::message& shared) {
  caf::actor_cast<caf::strong_actor_ptr>(listener)->enqueue(
    caf::actor_cast<caf::strong_actor_ptr>(self), caf::make_message_id(), shared, self->context());
}

/// Notes how long a request may be.
void cms_state::note_longest(const view_change_msg& change) {
  bool only_statuses = is_only_load(change);
  auto longest
    = only_statuses ? config.counters->longest_request.load(std::memory_order_relaxed) : 0u;
  auto consider = [&](const instance_status& status) {
    longest
      = std::max(longest, static_cast<std::uint32_t>(std::max(0, status.num_total_gpu_tokens)));
  };
  auto is_ours = [](const instance_view& x) {
    return !x.foreign() || x.state == instance_state::lost; // lost: it may well be ours of earlier
  };
  for (const auto& status : change.statuses)
    if (const auto* known = view.find(status.instance_id); known && is_ours(*known))
      consider(status);
  if (!only_statuses)
    for (const auto& [id, instance] : view.instances())
      if (is_ours(instance))
        consider(instance.status); // those gone too: what only they can hold waits for them
  if (longest > 0)
    config.counters->longest_request.store(longest, std::memory_order_relaxed);
}

/// An engine behind HTTP has a llumlet that lives, whatever has become of the engine itself.
instance_state cms_state::shown_state(const instance_view& x) const {
  bool works = x.has_status && x.status.schedulable;
  if (works || x.state != instance_state::ready)
    return x.state;
  if (auto claimed = claims.find(x.metadata.instance_id); claimed != claims.end())
    return std::ranges::any_of(claimed->second, [](const auto& by) { return by.second.draining; })
             ? instance_state::draining
             : instance_state::lost;
  return x.has_status && !x.foreign() ? instance_state::draining : x.state;
}

lease_msg cms_state::on_claim_lease(const claim_lease_msg& msg) {
  auto now = self->clock().now();
  auto before = lease.leader(now);
  lease_msg told{lease.claim(msg.claim, now, now_ms())};
  if (auto after = lease.leader(now); after && after != before)
    log::cms.info("leader", "{} leads the reschedulers", to_string(after));
  return told;
}

inspected_msg cms_state::leaders() {
  using nlohmann::json;
  auto now = self->clock().now();
  auto leader = lease.leader(now);
  json found = json::object();
  if (leader)
    found["rescheduler"] = {
      {"node", leader.leader.node},
      {"incarnation", leader.leader.incarnation},
      {"term", leader.number},
      {"lease_left_ms",
       std::chrono::duration_cast<std::chrono::milliseconds>(lease.left(now)).count()}};
  return {found.dump(-1, ' ', false, json::error_handler_t::replace)};
}

inspected_msg cms_state::on_inspect(const inspect_msg& msg) {
  using nlohmann::json;
  if (msg.subject == "leaders")
    return leaders();
  json instances = json::array();
  for (const auto& [id, x] : view.instances()) {
    const auto& status = x.status;
    auto block = std::max(1, x.metadata.block_size);
    json age
      = x.has_status ? json(std::max<std::int64_t>(0, now_ms() - status.timestamp_ms)) : json();
    instances.push_back(
      {{"id", id},
       {"node", x.life.node},
       {"incarnation", x.life.incarnation},
       {"role", x.metadata.instance_type},
       {"state", to_string(shown_state(x))},
       {"engine", x.engine},
       {"schedulable", x.has_status && status.schedulable},
       {"scheduling",
        {{"waiting", status.num_waiting_requests}, {"running", status.num_running_requests}}},
       {"kv_blocks",
        {{"total", status.num_total_gpu_tokens / block},
         {"used", status.num_used_gpu_tokens / block},
         {"free", (std::int64_t{status.num_total_gpu_tokens} - status.num_used_gpu_tokens) / block},
         {"reserved", 0},
         {"block_tokens", block}}},
       {"migrations",
        {{"in", status.num_migrate_in_reqs},
         {"out", status.num_migrate_out_reqs},
         {"slots", std::max(0, status.num_available_migrate_in_slots + status.num_migrate_in_reqs)},
         {"out_slots",
          std::max(0, status.num_available_migrate_out_slots + status.num_migrate_out_reqs)},
         {"free_in", std::max(0, status.num_available_migrate_in_slots)},
         {"free_out", std::max(0, status.num_available_migrate_out_slots)}}},
       {"status_age_ms", age}});
  }
  return {instances.dump(-1, ' ', false, json::error_handler_t::replace)};
}

actor_stats_msg cms_state::on_stat() {
  auto line = self->stat("cms", "cms");
  line.state = {
    {"instances", static_cast<std::int64_t>(view.instances().size())},
    {"listeners", static_cast<std::int64_t>(listeners.size())},
    {"view_version", static_cast<std::int64_t>(view.version())},
    {"foreign",
     std::ranges::count_if(view.instances(), [](const auto& x) { return x.second.foreign(); })},
    {"store_reachable", store == store_news::reachable},
    {"leader_term", static_cast<std::int64_t>(lease.leader(self->clock().now()).number)}};
  return {{std::move(line)}};
}

cms_actor::behavior_type make_cms(cms_state::pointer self, cms_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
