#include "sim/virtual_cluster.hpp"

#include "actors/node_connector.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/type_ids.hpp"
#include "actors/role_specs.hpp"
#include "runtime/engine/modeled_engine.hpp"

#include <algorithm>
#include <stdexcept>

namespace llumnix {

namespace {

constexpr std::uint16_t node_port = 4000;

/// An I/O loop without I/O: what is posted happens at once, in the poster's turn.
class inline_loop final : public executor {
public:
  explicit inline_loop(caf::actor_system& system) : system_{system} {}
  void post(std::function<void()> work) override { work(); }
  clock::time_point now() const override { return system_.clock().now(); }

private:
  caf::actor_system& system_;
};

/// A loop and its streams, which actors hold until they end.
struct loop_and_streams {
  loop_and_streams(
    caf::actor_system& system, const gateway_config& config, const stream_ref& self,
    const tokenizer& words)
    : loop{system}, streams{loop, config, self, words} {}
  inline_loop loop;
  hub_loop streams;
};

/// The role as it is, but others get to know a stand-in.
role_spec
behind_faults(role_spec role, std::shared_ptr<message_faults> faults, caf::actor_system& system) {
  struct pair {
    caf::strong_actor_ptr real, stand_in;
  };
  auto known = std::make_shared<pair>();
  role.announce = [announce = role.announce, faults = std::move(faults), known, &system](
                    node_card& card, const caf::strong_actor_ptr& actor) {
    if (known->real != actor)
      *known = {actor, faults->stand_in(system, actor)};
    announce(card, known->stand_in);
  };
  return role;
}

} // namespace

/// One life of a node.
struct virtual_cluster::life {
  std::size_t process = 0;
  node_life id;
  std::shared_ptr<hub_loop> streams;
  std::shared_ptr<node_counters> counters = std::make_shared<node_counters>();
  node_actor node;
  /// Of engines behind HTTP. Shared with the roles, which may outlive us.
  std::shared_ptr<std::map<instance_id, llumlet_actor>> llumlets
    = std::make_shared<std::map<instance_id, llumlet_actor>>();
};

virtual_cluster::virtual_cluster(std::uint64_t seed, cluster_config config, latency_profile profile)
  : config_{std::move(config)}, profile_{std::move(profile)}, network_{seed} {}

/// Streams first, so that nothing is told to clients that are gone; then the actors' handles, then
/// the actors.
virtual_cluster::~virtual_cluster() {
  for (auto& client : clients_)
    client->leave();
  for (auto& [name, x] : nodes_)
    graveyard_.push_back(std::move(x));
  for (auto& x : graveyard_) {
    x->node = nullptr;
    x->llumlets->clear();
    if (x->streams)
      x->streams->port.connect({});
  }
}

virtual_cluster::life& virtual_cluster::at(const std::string& name) {
  auto found = nodes_.find(name);
  if (found == nodes_.end())
    throw std::out_of_range("no virtual node " + name);
  return *found->second;
}

const virtual_cluster::life& virtual_cluster::at(const std::string& name) const {
  return const_cast<virtual_cluster*>(this)->at(name);
}

void virtual_cluster::start(const std::string& name, const virtual_node_options& options) {
  auto made = std::make_unique<life>();
  auto& x = *made;
  x.id = {name, ++incarnations_[name]};
  x.process = network_.add([&](caf::actor_system_config& settings) {
    register_types(settings);
    settings.set("middleman.heartbeat-interval", caf::timespan{config_.node.heartbeat});
    settings.set("middleman.connection-timeout", caf::timespan{config_.node.connection_timeout});
  });
  auto& process = network_.process(x.process);
  auto& system = *process.system;
  auto has = [&](const char* role) {
    return std::find(options.roles.begin(), options.roles.end(), role) != options.roles.end();
  };

  node_actor_config node;
  node.knobs = config_.node;
  node.knobs.name = name;
  node.knobs.roles = options.roles;
  node.knobs.seeds.clear();
  for (const auto& seed : options.seeds)
    node.knobs.seeds.push_back(seed + ":" + std::to_string(node_port));
  node.life = x.id;
  node.counters = x.counters;
  node.roles.push_back(console_role(x.id, {}));
  if (has("cms"))
    node.roles.push_back(cms_role({x.id, config_.cms, {}, x.counters, options.store}));
  if (has("scheduler"))
    node.roles.push_back(scheduler_role({x.id, config_.scheduler, {}, false, profile_}));
  if (has("rescheduler"))
    node.roles.push_back(
      rescheduler_role({x.id, config_.rescheduler, config_.scheduler, {}, profile_, x.counters}));
  if (has("gateway")) {
    stream_ref self{name, x.id.incarnation, 0, 0};
    auto both = std::make_shared<loop_and_streams>(system, config_.gateway, self, words_);
    x.streams = {both, &both->streams};
    gateway_actor_config gateway{x.id, config_.gateway, config_.scheduler,
                                 {},   x.counters,      profile_};
    gateway.loops = {x.streams};
    gateway.index = options.prefix_index;
    gateway.remote = options.remote;
    node.roles.push_back(gateway_role(std::move(gateway)));
    node.roles.push_back(behind_faults(stream_hub_role({x.id, 0, x.streams}), faults_, system));
  }
  for (const auto& engine : options.engines) {
    auto utc = static_cast<double>(network_.now().count()) / 1e9;
    llumlet_actor_config llumlet{
      config_.llumlet, x.id, describe_http_engine(engine_at(engine), "scripted", utc), {}, {}};
    llumlet.migration = config_.migration;
    llumlet.counters = x.counters;
    node.roles.push_back(llumlet_role(
      std::move(llumlet), "scripted",
      [all = x.llumlets, engine](llumlet_actor actor) { (*all)[engine] = std::move(actor); }));
  }
  if (has("llumlet"))
    for (std::uint32_t i = 0; i < options.instances; ++i) {
      auto id = options.instances == 1 ? name : name + "." + std::to_string(i);
      auto engine = config_.engine;
      auto described = config_;
      described.llumlet.instance_type = options.instance_type;
      llumlet_actor_config llumlet{
        config_.llumlet,
        x.id,
        describe_instance(
          id, name, "127.0.0.1", described, static_cast<double>(network_.now().count()) / 1e9),
        {},
        [engine] {
          auto value = modeled_engine::make(engine);
          if (!value)
            throw std::runtime_error(to_string(value.error()));
          return std::shared_ptr<stepped_engine>{std::move(*value)};
        },
        config_.migration,
        options.kv_transport ? std::shared_ptr<kv_transport>{kv_network_.make_transport()}
                             : nullptr};
      llumlet.counters = x.counters;
      node.roles.push_back(
        behind_faults(llumlet_role(std::move(llumlet), "modeled"), faults_, system));
    }
  node.connector = system.spawn(
    make_middleman_connector, caf::actor_cast<caf::actor>(system.middleman().actor_handle()));
  process.roots.push_back(caf::actor_cast<caf::actor>(node.connector));
  x.node = system.spawn(make_node, node);
  process.roots.push_back(caf::actor_cast<caf::actor>(x.node));
  network_.publish(x.process, name, node_port, x.node);
  caf::anon_send(x.node, listening_msg{name + ":" + std::to_string(node_port)});
  if (auto former = nodes_.find(name); former != nodes_.end())
    graveyard_.push_back(std::move(former->second));
  nodes_[name] = std::move(made);
}

void virtual_cluster::kill(const std::string& name) {
  network_.crash(at(name).process);
}

void virtual_cluster::stop(const std::string& name, std::chrono::milliseconds patience) {
  auto& x = at(name);
  auto left = std::make_shared<bool>(false);
  role_changes_msg change;
  change.start.push_back(leave_role({x.id, patience, {}, [left] { *left = true; }}));
  caf::anon_send(x.node, std::move(change));
  run_until([&] { return *left; }, patience);
  auto ended = std::make_shared<bool>(false);
  caf::actor_cast<caf::abstract_actor*>(x.node)->attach_functor(
    [ended](const caf::error&) { *ended = true; });
  caf::anon_send(x.node, stop_node_msg{});
  constexpr std::chrono::seconds to_say_goodbye{1};
  run_until([&] { return *ended; }, to_say_goodbye);
  run_for(std::chrono::milliseconds{1}); // what was said last gets out, as a socket's last bytes do
  kill(name);
}

void virtual_cluster::pause(const std::string& name) {
  network_.process(at(name).process).paused = true;
}

void virtual_cluster::resume(const std::string& name) {
  network_.resume(at(name).process);
}

void virtual_cluster::cut(const std::string& a, const std::string& b, bool is_cut) {
  network_.cut(at(a).process, at(b).process, is_cut);
}

void virtual_cluster::delay(const std::string& a, const std::string& b, nanoseconds by) {
  network_.delay(at(a).process, at(b).process, by);
}

void virtual_cluster::reset(const std::string& a, const std::string& b) {
  network_.reset(at(a).process, at(b).process);
}

void virtual_cluster::kill_actor(const std::string& node, const std::string& role) {
  const auto& state
    = static_cast<node_state::pointer>(caf::actor_cast<caf::abstract_actor*>(at(node).node))->state;
  for (const auto& x : state.children)
    if (x.role.name == role && x.actor) {
      caf::anon_send_exit(
        caf::actor_cast<caf::actor>(x.actor), caf::exit_reason::unhandled_exception);
      return;
    }
  throw std::out_of_range("no actor " + role + " on " + node);
}

virtual_client& virtual_cluster::request(
  const std::string& gateway, inference_request request, stream_options options) {
  auto& node = at(gateway);
  auto client = std::make_unique<virtual_client>();
  auto streams = node.streams;
  client->time = [this] { return network_.now(); };
  client->take = [streams, raw = client.get()](std::uint32_t tokens) {
    streams->table.consumed(raw->stream, tokens, streams->loop.now());
  };
  client->leave
    = [streams, raw = client.get()] { streams->table.cancel(raw->stream, streams->loop.now()); };
  client->stream
    = streams->table.open(std::move(request), std::move(options), *client, streams->loop.now());
  clients_.push_back(std::move(client));
  return *clients_.back();
}

void virtual_cluster::disconnect(virtual_client& client) {
  client.leave();
}

hub_loop& virtual_cluster::streams(const std::string& gateway) {
  return *at(gateway).streams;
}

void virtual_cluster::tell_news(
  const std::string& gateway, const instance_id& engine, instance_status news) {
  caf::anon_send(at(gateway).llumlets->at(engine), engine_news_msg{std::move(news)});
}

bool virtual_cluster::run_until(const std::function<bool()>& holds, nanoseconds limit) {
  return network_.run_until(holds, network_.now() + limit);
}

void virtual_cluster::run_for(nanoseconds time) {
  run_until([] { return false; }, time);
}

stream_owner virtual_cluster::owner(const instance_id& instance) const {
  for (const auto& [name, x] : nodes_)
    for (const auto& known : card(name).instances)
      if (known.metadata.instance_id == instance)
        return {x->id, instance};
  return {{}, instance};
}

std::shared_ptr<std::vector<moves_msg>>
virtual_cluster::order(const instance_id& from, const migrate_msg& what) {
  auto answers = std::make_shared<std::vector<moves_msg>>();
  auto at_node = owner(from).life.node;
  auto& system = *network_.process(at(at_node).process).system;
  for (const auto& known : card(at_node).instances)
    if (known.metadata.instance_id == from)
      system.spawn([what, llumlet = known.llumlet, answers](caf::event_based_actor* self) {
        self->request(llumlet, caf::infinite, what)
          .then(
            [answers](moves_msg& answer) { answers->push_back(std::move(answer)); },
            [](const caf::error&) {});
      });
  return answers;
}

std::optional<moves_msg>
virtual_cluster::migrate(const instance_id& from, const migrate_msg& what, nanoseconds limit) {
  auto answers = order(from, what);
  run_until([&] { return !answers->empty(); }, limit);
  if (answers->empty())
    return std::nullopt;
  return std::move(answers->front());
}

nanoseconds virtual_cluster::now() const {
  return network_.now();
}

std::uint64_t virtual_cluster::trace() const {
  return network_.trace();
}

const node_counters& virtual_cluster::counters(const std::string& node) const {
  return *at(node).counters;
}

const node_card& virtual_cluster::card(const std::string& node) const {
  return static_cast<node_state::pointer>(caf::actor_cast<caf::abstract_actor*>(at(node).node))
    ->state.card;
}

std::string virtual_cluster::inspect(
  const std::string& node, const std::string& subject, const std::string& argument) {
  auto& x = at(node);
  const auto& consoles = card(node).console;
  if (consoles.empty())
    return {};
  auto answered = std::make_shared<bool>(false);
  auto answer = std::make_shared<std::string>();
  auto& system = *network_.process(x.process).system;
  system.spawn([=, console = consoles.front()](caf::event_based_actor* self) {
    self->request(console, std::chrono::seconds{5}, inspect_msg{subject, argument})
      .then(
        [=](const inspected_msg& msg) {
          *answer = msg.json;
          *answered = true;
        },
        [=](const caf::error&) { *answered = true; });
  });
  run_until([&] { return *answered; }, std::chrono::seconds{10});
  return *answer;
}

} // namespace llumnix
