#include "actors/console_actor.hpp"

#include "actors/ask_all.hpp"
#include "actors/protocol/caf_error.hpp"
#include "runtime/base/log.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/scheduling/latency_observer.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/chrono.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <set>

namespace llumnix {

static_assert(actor_state<console_state>);

namespace {

using nlohmann::json;

inspected_msg text(const json& document) {
  return {document.dump(-1, ' ', false, json::error_handler_t::replace)};
}

/// A document another actor of ours made; null should it ever be broken.
json parsed(const std::string& document) {
  auto made = json::parse(document, nullptr, false);
  return made.is_discarded() ? json() : made;
}

/// The profiling files that follow from samples of engines; null for a kind nobody saw.
json profile_of(
  const std::vector<inspected_msg>& answers, const std::string& role, std::string model,
  unix_ms now) {
  latency_observer all;
  for (const auto& answer : answers)
    if (!answer.json.empty())
      if (auto taken = all.add_samples(answer.json); !taken)
        log::node.warn("odd-samples", "left out of a profile: {}", taken.error().context);
  auto made = fmt::gmtime(static_cast<std::time_t>(now / 1000));
  profile_metadata about{
    std::move(model), fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", made), "seen while serving, " + role};
  json document{{"role", role}};
  for (auto [name, kind] : {std::pair{"ttft", profile_kind::ttft}, {"tpot", profile_kind::tpot}}) {
    document[name] = parsed(all.text(kind, about));
    document["samples"][name] = all.seen(kind);
  }
  return document;
}

} // namespace

console_actor::behavior_type
console_state::make_behavior(pointer actor, console_actor_config settings) {
  self = actor;
  config = std::move(settings);
  self->set_down_handler([this](const caf::down_msg& msg) {
    std::erase_if(drains, [&](const auto& each) { return each.second.address() == msg.source; });
  });
  return {
    [this](const inspect_msg& msg) { return on_inspect(msg); },
    [this](const order_msg& msg) { return on_order(msg); },
    [this](event_msg& msg) { on_event(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
  };
}

caf::result<inspected_msg> console_state::on_inspect(const inspect_msg& msg) {
  if (msg.subject == "cluster")
    return cluster();
  if (msg.subject == "requests")
    return requests(msg.argument);
  if (msg.subject == "why")
    return why(msg.argument);
  if (msg.subject == "scene")
    return scene(msg.argument);
  if (msg.subject == "profile")
    return profile(msg.argument);
  if (msg.subject == "actors")
    return actors();
  if (msg.subject == "local_actors")
    return local_actors();
  if (msg.subject == "events")
    return events(msg.argument);
  return to_caf({errc::not_found, "nothing is known of '" + msg.subject + "'"});
}

caf::result<inspected_msg> console_state::cluster() {
  json listed = json::array();
  json leaders = json::object();
  std::vector<cms_actor> views, keepers; // of the lease: the first, as RESCHEDULERs take it
  bool reschedules = false;
  for (const auto& [name, card] : nodes) {
    json instances = json::array();
    for (const auto& instance : card.instances)
      instances.push_back(instance.metadata.instance_id);
    listed.push_back(
      {{"node", name},
       {"incarnation", card.self.life.incarnation},
       {"pid", card.pid},
       {"address", card.self.address},
       {"roles", card.self.roles},
       {"instances", std::move(instances)}});
    if (!card.scheduler.empty() && !leaders.contains("scheduler"))
      leaders["scheduler"] = name;
    if (!card.cms.empty() && (views.empty() || name == config.life.node))
      views.assign(1, card.cms.front());
    if (!card.cms.empty() && keepers.empty())
      keepers.assign(1, card.cms.front());
    reschedules = reschedules || std::ranges::count(card.self.roles, "rescheduler") > 0;
  }
  if (!reschedules)
    keepers.clear();
  auto promise = self->make_response_promise<inspected_msg>();
  ask_all<inspected_msg>(
    self, views, inspect_msg{"cluster", {}}, answer_time,
    [this, promise, listed, leaders, keepers](std::vector<inspected_msg> answers) mutable {
      json instances = answers.empty() ? json::array() : parsed(answers.front().json);
      ask_all<inspected_msg>(
        self, keepers, inspect_msg{"leaders", {}}, answer_time,
        [promise, listed, leaders, instances](std::vector<inspected_msg> more) mutable {
          json terms = json::object();
          for (const auto& answer : more) {
            auto found = parsed(answer.json);
            for (const auto& [role, leader] : found.items()) {
              leaders[role] = leader.at("node");
              terms[role] = leader;
            }
          }
          promise.deliver(text(
            {{"nodes", listed}, {"instances", instances}, {"leaders", leaders}, {"terms", terms}}));
        });
    });
  return promise;
}

caf::result<inspected_msg> console_state::requests(const std::string& instance) {
  std::vector<stream_hub_actor> hubs;
  for (const auto& [name, card] : nodes)
    hubs.insert(hubs.end(), card.hubs.begin(), card.hubs.end());
  auto promise = self->make_response_promise<inspected_msg>();
  ask_all<streams_msg>(
    self, hubs, inspect_msg{"requests", {}}, answer_time,
    [promise, instance](std::vector<streams_msg> answers) mutable {
      json listed = json::array();
      for (const auto& answer : answers)
        for (const auto& x : answer.streams)
          if (instance.empty() || x.instance == instance)
            listed.push_back(
              {{"id", x.text_id},
               {"instance", x.instance.empty() ? json() : json(x.instance)},
               {"state", x.state},
               {"epoch", x.epoch},
               {"prompt_tokens", x.prompt_tokens},
               {"output_tokens", x.output_tokens},
               {"age_ms", x.age_ms},
               {"client", x.client},
               {"gateway", x.stream.node}});
      promise.deliver(text({{"requests", std::move(listed)}}));
    });
  return promise;
}

std::vector<console_state::source> console_state::gateways() const {
  std::vector<source> all;
  for (const auto& [name, card] : nodes)
    for (const auto& gateway : card.gateway)
      all.push_back(caf::actor_cast<source>(gateway));
  return all;
}

std::vector<console_state::source> console_state::schedulers() const {
  std::vector<source> all;
  for (const auto& [name, card] : nodes)
    for (const auto& scheduler : card.scheduler)
      all.push_back(caf::actor_cast<source>(scheduler));
  return all;
}

caf::result<inspected_msg> console_state::first_of(
  std::vector<source> sources, const inspect_msg& question, std::string unknown) {
  auto promise = self->make_response_promise<inspected_msg>();
  ask_all<inspected_msg>(
    self, sources, question, answer_time,
    [promise, unknown](std::vector<inspected_msg> answers) mutable {
      auto kept = std::ranges::find_if(answers, [](auto& x) { return !x.json.empty(); });
      if (kept != answers.end())
        promise.deliver(std::move(*kept));
      else
        promise.deliver(to_caf({errc::not_found, std::move(unknown)}));
    });
  return promise;
}

/// Gateways keep the records of their own requests, SCHEDULER those of gateways of other makes.
caf::result<inspected_msg> console_state::why(const std::string& id) {
  auto sources = gateways();
  std::ranges::move(schedulers(), std::back_inserter(sources));
  return first_of(
    std::move(sources), {"why", id}, "no request '" + id + "' is running or was kept");
}

/// SCHEDULER decided, or a gateway by its own view.
caf::result<inspected_msg> console_state::scene(const std::string& id) {
  auto sources = schedulers();
  std::ranges::move(gateways(), std::back_inserter(sources));
  return first_of(
    std::move(sources), {"scene", id},
    "no decision on '" + id + "' is kept; scheduler.recorded_scenes says how many of the last are");
}

/// What the engines of a role take for prefills and decode steps, as profiling files: ENGINEs tell
/// of their steps, gateways of what they relayed, SCHEDULER of foreign instances.
caf::result<inspected_msg> console_state::profile(const std::string& role) {
  auto wanted = parse_infer_type(role);
  if (!wanted)
    return to_caf({errc::invalid_argument, "there is no role '" + role + "'"});
  std::vector<source> sources;
  std::set<std::string> kinds;
  for (const auto& [name, card] : nodes) {
    for (const auto& instance : card.instances)
      if (instance.metadata.instance_type == to_string(*wanted)) {
        kinds.insert(instance.engine);
        sources.push_back(caf::actor_cast<source>(instance.llumlet));
      }
  }
  std::ranges::move(gateways(), std::back_inserter(sources));
  std::ranges::move(schedulers(), std::back_inserter(sources));
  auto promise = self->make_response_promise<inspected_msg>();
  auto model = fmt::format("{}", fmt::join(kinds, ", "));
  ask_all<inspected_msg>(
    self, sources, inspect_msg{"profile", role}, answer_time,
    [this, promise, role, model](std::vector<inspected_msg> answers) mutable {
      auto now = config.wall.at(self->clock().now());
      promise.deliver(text(profile_of(answers, role, std::move(model), now)));
    });
  return promise;
}

caf::result<inspected_msg> console_state::actors() {
  std::vector<console_actor> consoles;
  for (const auto& [name, card] : nodes)
    consoles.insert(consoles.end(), card.console.begin(), card.console.end());
  auto promise = self->make_response_promise<inspected_msg>();
  ask_all<inspected_msg>(
    self, consoles, inspect_msg{"local_actors", {}}, 2 * answer_time,
    [promise](std::vector<inspected_msg> answers) mutable {
      json listed = json::array();
      for (const auto& answer : answers)
        for (auto& line : parsed(answer.json))
          listed.push_back(std::move(line));
      promise.deliver(text({{"actors", std::move(listed)}}));
    });
  return promise;
}

caf::result<inspected_msg> console_state::local_actors() {
  auto promise = self->make_response_promise<inspected_msg>();
  ask_all<actor_stats_msg>(
    self, std::vector<node_actor>{config.node}, stat_msg{}, 2 * answer_time,
    [promise, node = config.life.node](std::vector<actor_stats_msg> answers) mutable {
      json listed = json::array();
      for (const auto& answer : answers)
        for (const auto& x : answer.actors) {
          json state = json::object();
          for (const auto& [key, value] : x.state)
            state[key] = value;
          listed.push_back(
            {{"id", node + "/" + std::to_string(x.id)},
             {"name", x.name},
             {"role", x.role},
             {"node", node},
             {"mailbox", x.mailbox},
             {"messages", x.messages},
             {"busy_ms", static_cast<double>(x.busy_us) / 1000},
             {"restarts", x.restarts},
             {"up_ms", x.up_ms},
             {"state", std::move(state)}});
        }
      promise.deliver(text(listed));
    });
  return promise;
}

void console_state::on_event(event_msg& msg) {
  ++events_seen;
  recent.push_back(std::move(msg));
  if (recent.size() > config.events_kept)
    recent.pop_front();
}

void console_state::on_peer_up(const peer_up_msg& msg) {
  const auto& life = msg.card.self.life;
  auto [known, fresh] = nodes.try_emplace(life.node);
  if (fresh || known->second.self.life != life) {
    event_msg event{
      config.wall.at(self->clock().now()),
      "node_up",
      {{"node", life.node}, {"incarnation", std::to_string(life.incarnation)}}};
    on_event(event);
  }
  known->second = msg.card;
  for (const auto& [instance, drain] : drains)
    self->send(drain, msg);
}

void console_state::on_peer_down(const peer_down_msg& msg) {
  nodes.erase(msg.life.node);
  event_msg event{
    config.wall.at(self->clock().now()),
    "node_down",
    {{"node", msg.life.node},
     {"incarnation", std::to_string(msg.life.incarnation)},
     {"reason", msg.stopped ? "stopped" : "lost"}}};
  on_event(event);
  for (const auto& [instance, drain] : drains)
    self->send(drain, msg);
  std::vector<std::uint64_t> over;
  for (const auto& [number, each] : moves)
    if (each.source == msg.life)
      over.push_back(number);
  std::string how = msg.stopped ? "stopped" : "was lost";
  for (auto number : over)
    settle(
      number, error{errc::unreachable, "its instance " + how + "; it is replayed elsewhere"});
}

/// Our own GATEWAY tells what happens only while somebody wants to know.
void console_state::say_watched() {
  constexpr std::chrono::seconds repeat_after{1};
  auto own = nodes.find(config.life.node);
  if (own == nodes.end() || self->clock().now() < said_watched + repeat_after)
    return;
  said_watched = self->clock().now();
  for (const auto& gateway : own->second.gateway)
    self->send(gateway, watch_msg{});
}

/// What came after event number `after` (empty: what comes from now on), and how many of those are
/// gone already.
caf::result<inspected_msg> console_state::events(const std::string& after) {
  say_watched();
  auto first_kept = events_seen - recent.size(); // number of the event before the oldest kept
  auto from = after.empty()
                ? events_seen
                : std::min<std::uint64_t>(std::strtoull(after.c_str(), nullptr, 10), events_seen);
  json listed = json::array();
  for (auto number = std::max<std::uint64_t>(from, first_kept); number < events_seen; ++number) {
    const auto& event = recent[number - first_kept];
    json line{{"at_ms", event.at}, {"kind", event.kind}};
    for (const auto& [key, value] : event.facts)
      line[key] = value;
    listed.push_back(std::move(line));
  }
  return text(
    {{"last", events_seen},
     {"missed", first_kept > from ? first_kept - from : 0},
     {"events", std::move(listed)}});
}

actor_stats_msg console_state::on_stat() {
  auto line = self->stat("console", "console");
  line.state = {
    {"moves", static_cast<std::int64_t>(moves.size())},
    {"drains", static_cast<std::int64_t>(drains.size())}};
  return {{std::move(line)}};
}

console_actor::behavior_type
make_console(console_state::pointer self, console_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
