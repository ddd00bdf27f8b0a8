#include "actors/node_actor.hpp"

#include "actors/ask_all.hpp"
#include "actors/protocol/caf_error.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>

namespace llumnix {

static_assert(actor_state<node_state>);

node_actor::behavior_type node_state::make_behavior(pointer actor, node_actor_config settings) {
  self = actor;
  config = std::move(settings);
  card.self = {config.life, {}, config.knobs.roles};
  card.pid = config.pid;
  self->set_down_handler([this](const caf::down_msg& msg) { on_down(msg); });
  // Children are linked so that none outlives the node; how they end is told by DOWN.
  self->set_exit_handler([](const caf::exit_msg&) {});
  // A role that does not know a message answers with an error: worth a line, not the node.
  self->set_error_handler([](const caf::error& failure) {
    log::node.error("unexpected-error", "{}", caf::to_string(failure));
  });
  for (auto& role : std::exchange(config.roles, {}))
    add(std::move(role));
  refresh_card();
  return {
    [this](const hello_msg& msg) { return on_hello(msg); },
    [this](const goodbye_msg& msg) { on_goodbye(msg); },
    [this](const name_taken_msg& msg) { on_name_taken(msg); },
    [this](const listening_msg& msg) { on_listening(msg); },
    [this](role_changes_msg& msg) { on_roles(msg); },
    [this](start_atom, std::uint64_t number) { on_restart(number); },
    [this](dial_atom) { on_dial(); },
    [this](const stop_node_msg&) { return on_stop(); },
    [this](const stat_msg&) { return on_stat(); },
  };
}

// -- children ---------------------------------------------------------------

void node_state::add(role_spec role) {
  restart_limits limits{
    .restarts = config.knobs.restart_budget,
    .window = config.knobs.restart_window,
    .first_pause = config.knobs.restart_pause};
  children.push_back({std::move(role), nullptr, restart_budget{limits}, ++children_ever});
  start(children.back());
}

void node_state::start(child& x) {
  x.actor = x.role.start(*self, node_actor{self});
  self->monitor(caf::actor_cast<caf::actor>(x.actor));
  self->link_to(caf::actor_cast<caf::actor>(x.actor));
}

/// A fresh actor knows nobody: it hears of every node, its own last, with the next card.
void node_state::introduce_peers(const child& x) {
  for (const auto& [name, known] : peers)
    x.actor->enqueue(
      nullptr, caf::make_message_id(), caf::make_message(peer_up_msg{known.hello.card}),
      self->context());
}

/// Nobody watches over it any more.
void node_state::stop(const std::string& role) {
  auto x = std::find_if(
    children.begin(), children.end(), [&](const child& each) { return each.role.name == role; });
  if (x == children.end())
    return;
  if (auto actor = caf::actor_cast<caf::actor>(x->actor)) {
    self->demonitor(actor.address());
    self->send_exit(actor, caf::exit_reason::user_shutdown);
  }
  children.erase(x);
}

void node_state::on_roles(role_changes_msg& msg) {
  if (stopping)
    return;
  for (const auto& role : msg.stop)
    stop(role);
  for (auto& role : msg.start) {
    add(std::move(role));
    introduce_peers(children.back());
  }
  refresh_card();
}

/// Makes the card anew and tells everybody: our own actors, then the nodes we know.
void node_state::refresh_card() {
  node_card fresh;
  fresh.self = card.self;
  fresh.pid = card.pid;
  for (const auto& x : children)
    if (x.actor)
      x.role.announce(fresh, x.actor);
    else if (!x.role.instance.empty())
      fresh.starting.push_back(x.role.instance);
  if (std::any_of(fresh.hubs.begin(), fresh.hubs.end(), [](const auto& hub) { return !hub; }))
    fresh.hubs.clear(); // one is being started again: until then nothing can be told to any
  card = std::move(fresh);
  tell_children(caf::make_message(peer_up_msg{card}));
  for (const auto& [name, known] : peers)
    caf::anon_send(
      known.hello.node, introduction()); // without a sender: an answer would be another hello
}

/// All our roles are peer listeners.
void node_state::tell_children(const caf::message& news) {
  for (const auto& x : children)
    if (x.actor)
      x.actor->enqueue(
        caf::actor_cast<caf::strong_actor_ptr>(self), caf::make_message_id(), news,
        self->context());
}

void node_state::on_restart(std::uint64_t number) {
  auto x = std::find_if(
    children.begin(), children.end(), [&](const child& each) { return each.number == number; });
  if (stopping || x == children.end() || x->actor)
    return; // its role has ended meanwhile
  ++x->restarts;
  config.counters->restarts.fetch_add(1, std::memory_order_relaxed);
  start(*x);
  introduce_peers(*x);
  refresh_card();
}

void node_state::on_down(const caf::down_msg& msg) {
  for (auto& [name, known] : peers)
    if (known.hello.node.address() == msg.source) {
      lose(std::string{name}, parting::missing);
      return;
    }
  for (auto& x : children) {
    if (!x.actor || caf::actor_cast<caf::actor_addr>(x.actor) != msg.source)
      continue;
    x.actor = nullptr;
    if (stopping)
      return;
    log::node.warn("child-down", "{} ended: {}", x.role.name, caf::to_string(msg.reason));
    auto pause = x.budget.spend(self->clock().now());
    if (!pause) {
      log::node.error(
        "gave-up", "{} ended {} times within {} s: the node stops", x.role.name,
        config.knobs.restart_budget + 1, config.knobs.restart_window.count() / 1000);
      self->quit(msg.reason ? msg.reason : caf::error{caf::exit_reason::unhandled_exception});
      return;
    }
    self->delayed_send(self, *pause, start_atom::value, x.number);
    refresh_card(); // nobody should ask for it meanwhile
    return;
  }
}

caf::result<caf::unit_t> node_state::on_stop() {
  stopping = true;
  for (const auto& [name, known] : peers)
    caf::anon_send(known.hello.node, goodbye_msg{config.life});
  for (auto x = children.rbegin(); x != children.rend(); ++x)
    if (x->actor)
      self->send_exit(caf::actor_cast<caf::actor>(x->actor), caf::exit_reason::user_shutdown);
  self->send_exit(config.connector, caf::exit_reason::user_shutdown);
  self->quit(caf::exit_reason::user_shutdown);
  return caf::unit;
}

caf::result<actor_stats_msg> node_state::on_stat() {
  auto promise = self->make_response_promise<actor_stats_msg>();
  auto mine = self->stat("node " + config.life.node, "node");
  mine.state = {
    {"peers", static_cast<std::int64_t>(peers.size())},
    {"children", static_cast<std::int64_t>(children.size())}};
  std::vector<stat_source> sources;
  std::map<std::uint64_t, std::uint32_t> restarts;
  for (const auto& x : children)
    if (x.actor) {
      sources.push_back(caf::actor_cast<stat_source>(x.actor));
      restarts[x.actor->id()] = x.restarts;
    }
  ask_all<actor_stats_msg>(
    self, sources, stat_msg{}, std::chrono::milliseconds{1000},
    [promise, mine, restarts](std::vector<actor_stats_msg> answers) mutable {
      actor_stats_msg all{{std::move(mine)}};
      for (auto& answer : answers)
        for (auto& line : answer.actors) {
          if (auto found = restarts.find(line.id); found != restarts.end())
            line.restarts = found->second;
          all.actors.push_back(std::move(line));
        }
      promise.deliver(std::move(all));
    });
  return promise;
}

// -- peers ------------------------------------------------------------------

hello_msg node_state::introduction() {
  hello_msg hello{card, node_actor{self}, {}};
  for (const auto& [name, known] : peers)
    hello.members.push_back(known.hello.card.self);
  return hello;
}

caf::result<hello_msg> node_state::on_hello(const hello_msg& msg) {
  if (msg.node == node_actor{self})
    return introduction(); // ourselves, by another address
  if (auto met = meet(msg); !met) {
    if (met.error().code == errc::stale)
      turn_away(msg.card.self);
    return to_caf(std::move(met).error());
  }
  return introduction();
}

/// Whether a node's introduction can be taken.
result<void> node_state::check(const hello_msg& hello) const {
  const auto& life = hello.card.self.life;
  if (stopping)
    return {errc::draining, config.life.node + " stops"};
  if (life.node == config.life.node)
    return {
      errc::stale,
      "this is " + life.node + " too, incarnation " + std::to_string(config.life.incarnation)};
  auto known = peers.find(life.node);
  if (known == peers.end())
    return {};
  const auto& held = known->second.hello.card.self;
  if (
    held.life.incarnation > life.incarnation
    || (held.life == life && known->second.hello.node != hello.node))
    return {
      errc::stale, life.node + " is incarnation " + std::to_string(held.life.incarnation) + " at "
                     + held.address + " here"};
  return {};
}

/// Takes a node's word on itself. `dialled`: where we found it.
result<void> node_state::meet(const hello_msg& hello, const std::string& dialled) {
  if (auto fine = check(hello); !fine)
    return fine;
  const auto& node = hello.card.self;
  auto known = peers.find(node.life.node);
  if (known != peers.end() && known->second.hello.card.self.life != node.life) {
    overtake(node);
    known = peers.end();
  }
  bool is_new = known == peers.end();
  if (is_new)
    self->monitor(hello.node);
  peers[node.life.node].hello = hello;
  bool was_told = reached(node.address, node.life.node);
  was_told = reached(dialled, node.life.node) || was_told;
  if (is_new || was_told)
    tell_up(node, was_told);
  for (const auto& member : hello.members)
    learn(member);
  tell_children(caf::make_message(peer_up_msg{hello.card}));
  return {};
}

/// What was told as a warning is put right as one.
void node_state::tell_up(const node_member& node, bool was_told) {
  const auto& life = node.life;
  if (auto since = missing.extract(life.node)) {
    std::chrono::duration<double> away = self->clock().now() - since.mapped();
    log::node.warn(
      "peer-back", "{} (incarnation {}) is connected again after {:.1f} s", life.node,
      life.incarnation, away.count());
  } else if (was_told) {
    log::node.warn(
      "peer-up", "{} (incarnation {}) at {}", life.node, life.incarnation, node.address);
  } else {
    log::node.info(
      "peer-up", "{} (incarnation {}) at {}", life.node, life.incarnation, node.address);
  }
}

/// A peer's name has a newer node now. The peer is told, for it may well be alive.
void node_state::overtake(const node_member& by) {
  const auto& name = by.life.node;
  log::node.warn(
    "name-taken", "{} is taken over by incarnation {} from {}", name, by.life.incarnation,
    by.address);
  auto& known = peers.at(name);
  auto former = known.hello.card.self.life.incarnation;
  caf::anon_send(known.hello.node, name_taken_msg{config.life, by});
  lose(name, parting::overtaken);
  peers[name].turned_away = {former};
}

/// A node was refused for its name: said once for each, though it will try again.
void node_state::turn_away(const node_member& node) {
  auto known = peers.find(node.life.node);
  auto& told = known == peers.end() ? namesakes : known->second.turned_away;
  constexpr std::size_t told_max = 64;
  if (told.size() >= told_max)
    told.clear();
  if (!told.insert(node.life.incarnation).second)
    return;
  const auto& holder = known == peers.end() ? card.self : known->second.hello.card.self;
  log::node.warn(
    "name-taken", "{} (incarnation {}) at {} is turned away: incarnation {} at {} has its name",
    node.life.node, node.life.incarnation, node.address, holder.life.incarnation, holder.address);
}

void node_state::tell_name_taken(const std::string& by_whom, const std::string& why) {
  if (!std::exchange(name_taken, true))
    log::node.warn(
      "name-taken",
      "{} has another node of our name: {}; give one of the two another --name (trying again for "
      "ever)",
      by_whom, why);
}

void node_state::on_goodbye(const goodbye_msg& msg) {
  auto known = peers.find(msg.from.node);
  if (known != peers.end() && known->second.hello.card.self.life == msg.from)
    lose(msg.from.node, parting::goodbye);
}

void node_state::on_name_taken(const name_taken_msg& msg) {
  auto known = peers.find(msg.from.node);
  if (known == peers.end() || known->second.hello.card.self.life != msg.from)
    return;
  if (msg.by.life.node != config.life.node || msg.by.life == config.life)
    return;
  tell_name_taken(
    msg.from.node, msg.by.life.node + " is incarnation " + std::to_string(msg.by.life.incarnation)
                     + " at " + msg.by.address + " there");
  lose(msg.from.node, parting::disowned);
}

/// Remembers that a warning told of a loss. Of very many the oldest is forgotten.
void node_state::miss(const std::string& name, time_point now) {
  constexpr std::size_t missing_max = 1024;
  if (missing.size() >= missing_max)
    missing.erase(std::min_element(
      missing.begin(), missing.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; }));
  missing.try_emplace(name, now);
}

void node_state::lose(const std::string& name, parting how) {
  auto known = peers.find(name);
  if (known == peers.end())
    return;
  auto life = known->second.hello.card.self.life;
  if (how == parting::missing)
    log::node.warn(
      "peer-down", "{} (incarnation {}) is not connected any more", name, life.incarnation);
  if (how == parting::goodbye)
    log::node.info("peer-left", "{} (incarnation {}) has stopped", name, life.incarnation);
  auto now = self->clock().now();
  if (how == parting::missing || how == parting::disowned)
    miss(name, now);
  config.counters->peers_lost.fetch_add(1, std::memory_order_relaxed);
  self->demonitor(known->second.hello.node.address());
  peers.erase(known);
  for (auto& [address, x] : targets)
    if (x.connected == name) {
      x.connected.clear();
      x.failures = 0;
      x.left = how == parting::goodbye || how == parting::overtaken;
      x.missed_since = x.next = now;
    }
  tell_children(caf::make_message(peer_down_msg{life, how == parting::goodbye}));
}

/// Nodes that serve the cluster are linked to every node, and so are those with engines: requests
/// move between them.
bool node_state::linked_to_all(const std::vector<std::string>& roles) const {
  return std::any_of(roles.begin(), roles.end(), [](const auto& role) {
    return role == "gateway" || role == "scheduler" || role == "cms" || role == "llumlet";
  });
}

void node_state::learn(const node_member& member) {
  if (
    member.address.empty() || member.life.node == config.life.node
    || peers.contains(member.life.node))
    return;
  if (linked_to_all(config.knobs.roles) || linked_to_all(member.roles))
    targets.try_emplace(member.address).first->second.missed_since = self->clock().now();
}

// -- dialling ---------------------------------------------------------------

void node_state::on_listening(const listening_msg& msg) {
  card.self.address = msg.address;
  listening = true;
  refresh_card();
  for (const auto& seed : config.knobs.seeds)
    if (seed != msg.address)
      targets[seed].seed = true;
  on_dial();
}

void node_state::on_dial() {
  if (stopping)
    return;
  self->delayed_send(self, config.knobs.redial_min, dial_atom::value);
  auto now = self->clock().now();
  constexpr std::chrono::minutes forget_after{1};
  std::erase_if(targets, [&](const auto& entry) {
    const auto& x = entry.second;
    return !x.seed && !x.dialling && x.connected.empty() && now - x.missed_since > forget_after;
  });
  for (auto& [address, x] : targets)
    if (!x.dialling && x.connected.empty() && now >= x.next)
      dial(address, x);
}

void node_state::dial(const std::string& address, target& x) {
  x.dialling = true;
  auto failed = [this, address](const caf::error& failure) {
    bool interrupted = failure == caf::sec::connection_timeout;
    dial_failed(
      address, interrupted ? error{errc::timeout, "no handshake between two heartbeats"}
                           : from_caf(failure));
  };
  self->request(config.connector, std::chrono::seconds{5}, dial_msg{address})
    .then(
      [this, address, failed](dialled_msg& found) {
        self->request(found.node, std::chrono::seconds{2}, introduction())
          .then([this, address](const hello_msg& hello) { on_answer(address, hello); }, failed);
      },
      failed);
}

/// A node we dialled has taken us and says who it is.
void node_state::on_answer(const std::string& address, const hello_msg& hello) {
  auto at = targets.find(address);
  if (at == targets.end())
    return;
  at->second.dialling = false;
  if (hello.node == node_actor{self})
    targets.erase(at); // ourselves, by another name
  else if (auto met = meet(hello, address); !met)
    dial_failed(address, met.error());
  else
    name_taken = false;
}

/// Notes that a node answers there. Whether a warning said it does not.
bool node_state::reached(const std::string& address, const std::string& name) {
  auto at = targets.find(address);
  if (at == targets.end())
    return false;
  auto& x = at->second;
  x.connected = name;
  x.failures = 0;
  x.left = false;
  return std::exchange(x.told, false);
}

void node_state::dial_failed(const std::string& address, const error& why) {
  auto at = targets.find(address);
  if (at == targets.end())
    return;
  auto& x = at->second;
  x.dialling = false;
  x.next = self->clock().now() + pause_after(address, x.failures++);
  if (why.code == errc::draining)
    x.left = true; // that is its goodbye
  // CAF ends a handshake that is under way when a heartbeat is due, however well it goes.
  bool bad_luck = why.code == errc::timeout && x.failures <= 2;
  if (why.code == errc::stale)
    tell_name_taken(address, why.context);
  else if (!x.left && !bad_luck && !std::exchange(x.told, true))
    log::node.warn("dial-failed", "{}: {}; trying again for ever", address, to_string(why));
}

/// Doubles from redial_min to redial_max; the upper half is spread by address and attempt, so that
/// nodes that lost the same peer do not come back in step.
nanoseconds node_state::pause_after(const std::string& address, std::uint32_t failures) const {
  nanoseconds least = config.knobs.redial_min;
  nanoseconds most = config.knobs.redial_max;
  auto pause = std::min(most, least * (1u << std::min(failures, 16u)));
  auto spread = std::hash<std::string>{}(config.life.node + address + std::to_string(failures));
  return pause / 2
         + nanoseconds{
           static_cast<std::int64_t>(spread % static_cast<std::uint64_t>(pause.count() / 2 + 1))};
}

node_actor::behavior_type make_node(node_state::pointer self, node_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
