#include "actors/role_specs.hpp"
#include "apps/caf_guards.hpp"
#include "apps/decide/scene_of.hpp"
#include "apps/decide/scene_writer.hpp"
#include "apps/preflight.hpp"
#include "apps/running_node.hpp"
#include "config/load_config.hpp"
#include "runtime/base/log.hpp"
#include "runtime/cluster/told_address.hpp"
#include "runtime/engine/modeled_engine.hpp"
#include "transport/spoiling_transport.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <nlohmann/json.hpp>

#include <random>

/// What a node is made of: its listeners, engines and roles, by its configuration.
namespace llumnix {

namespace {

using steady = std::chrono::steady_clock;

/// How a decision is shown to those who ask for all of it.
std::string scene_text(const decision_snapshot& decision) {
  return write_scene(scene_of(decision))
    .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// A listener with the limits of the public one: prompts come to all that are made so.
net::http_server_options options_of(const http_config& limits, const std::string& listen) {
  net::http_server_options options;
  options.listen = listen;
  options.max_header_bytes = limits.max_header_bytes;
  options.max_body_bytes = limits.max_body_bytes;
  options.max_bodies_bytes = limits.max_bodies_bytes;
  options.header_timeout = limits.header_timeout;
  options.body_timeout = limits.body_timeout;
  options.idle_timeout = limits.idle_timeout;
  options.max_connections = limits.max_connections;
  return options;
}

} // namespace

std::uint64_t drawn_by_chance() {
  std::random_device random;
  return (static_cast<std::uint64_t>(random()) << 32) | random();
}

result<void> running_node::prepare() {
  if (auto policy = dispatcher::make(config_.scheduler); !policy)
    return std::move(policy).error();
  if (has("rescheduler"))
    if (auto moves = make_move_policies(config_.rescheduler, config_.scheduler); !moves)
      return std::move(moves).error();
  auto profile = read_profiles(config_.scheduler);
  if (!profile)
    return std::move(profile).error();
  profile_ = std::move(*profile);
  if (auto tls = check_tls_files(config_.node); !tls)
    return tls;
  if (auto engines = prepare_engines(); !engines)
    return engines;
  if (auto http = open_http(); !http)
    return http;
  if (auto scheduler = open_scheduler(); !scheduler)
    return scheduler;
  if (auto lookup = open_lookup(); !lookup)
    return lookup;
  if (auto agents = open_agents(); !agents)
    return agents;
  if (auto calls = open_calls(); !calls)
    return calls;
  open_remote();
  return open_admin();
}

/// Makes each engine once before anything listens, so that what is wrong with it is told at the
/// start.
result<void> running_node::prepare_engines() {
  if (!has("llumlet"))
    return {};
  for (std::uint32_t i = 0; i < config_.llumlet.instances; ++i) {
    const auto& name = config_.node.name;
    auto id = config_.llumlet.instances == 1 ? name : name + "." + std::to_string(i);
    auto made = modeled_engine::make(config_.engine);
    if (!made)
      return std::move(made).error();
    (*engines_)[id] = std::move(*made);
    addresses_.instances.push_back(id);
  }
  return open_transport();
}

/// Where KV of our engines is pulled from, and by what they pull. Without UCX in the build it is
/// computed anew.
result<void> running_node::open_transport() {
  const auto& knobs = config_.transport;
  if (knobs.kind == "off")
    return {};
  if (!ucx_built_in()) {
    log::node.warn("no-ucx", "built without UCX: the KV of requests that move is computed anew");
    return {};
  }
  ucx_settings settings;
  split_address(knobs.listen, settings.listen, settings.port);
  settings.cluster_key = knobs.key;
  settings.insecure = knobs.insecure;
  settings.checksums = knobs.checksums;
  settings.same_host = knobs.same_host;
  auto made = make_ucx_transport(settings);
  if (!made)
    return error{made.error().code, "transport.listen: " + made.error().context};
  transport_ = std::move(*made);
  if (auto every = config_.transport.spoil_every; every > 0)
    transport_ = std::make_shared<spoiling_transport>(std::move(transport_), every);
  return {};
}

result<void> running_node::open_http() {
  if (!has("gateway"))
    return {};
  auto options = options_of(config_.http, config_.http.listen);
  options.loops = config_.gateway.io_threads;
  auto made = net::http_server::make(options);
  if (!made)
    return error{
      made.error().code,
      "http.listen: " + made.error().context + "; choose another with --http HOST:PORT"};
  http_ = std::move(*made);
  addresses_.http = http_->address();
  return {};
}

result<void> running_node::open_scheduler() {
  if (!has("scheduler") || config_.scheduler.http.empty())
    return {};
  auto made = net::http_server::make(options_of(config_.http, config_.scheduler.http));
  if (!made)
    return error{made.error().code, "scheduler.http: " + made.error().context};
  scheduler_ = std::move(*made);
  addresses_.scheduler = scheduler_->address();
  return {};
}

/// Engines behind HTTP that are placed for gateways of other makes only.
result<void> running_node::open_agents() {
  if (!scheduler_ || has("gateway") || !has_http_engines(config_))
    return {};
  auto agents = engine_agents::make(*scheduler_, config_, life_, wall_, lookup_.get());
  if (!agents)
    return std::move(agents).error();
  agents_ = std::move(*agents);
  return {};
}

/// The RPC service of our instances.
result<void> running_node::open_calls() {
  if (!has("llumlet") || config_.llumlet.grpc.empty())
    return {};
  llumlet_server_options options;
  options.listen = config_.llumlet.grpc;
  options.key = config_.llumlet.grpc_key;
  auto made = llumlet_server::make(
    options, [desk = call_desk_](incoming_call call, llumlet_server::answer answer) {
      if (auto actor = desk->get())
        caf::anon_send(actor, llumlet_call{std::move(call), std::move(answer)});
      else
        answer({call_code::unavailable, false, "the node is being started, or stops"});
    });
  if (!made)
    return error{made.error().code, "llumlet.grpc: " + made.error().context};
  calls_ = std::move(*made);
  addresses_.grpc = calls_->address();
  return {};
}

result<void> running_node::open_lookup() {
  auto* server = http_ ? http_.get() : scheduler_.get();
  if (!server)
    return {};
  auto made = prefix_lookup::make(*server, config_.scheduler, drawn_by_chance());
  if (!made)
    return std::move(made).error();
  lookup_ = std::move(*made);
  return {};
}

/// A scheduler outside of the cluster, on the first loop.
void running_node::open_remote() {
  const auto& knobs = config_.gateway;
  if (!http_ || knobs.scheduler.empty())
    return;
  remote_pool_ = http_->make_upstream(0, {});
  remote_ = std::make_unique<scheduler_api::scheduler_client>(
    scheduler_api::client_options{
      .address = knobs.scheduler,
      .token = knobs.scheduler_token,
      .tell_tokens = knobs.scheduler_tokens},
    *remote_pool_, http_->loop(0));
  reported_.resize(http_->loops());
}

result<void> running_node::open_admin() {
  if (config_.admin.listen.empty())
    return {};
  net::http_server_options options;
  options.listen = config_.admin.listen;
  options.max_body_bytes
    = 64 * 1024; // its requests are small, and it reads them before it knows whose they are
  options.max_connections = 256;
  auto made = net::http_server::make(options);
  if (!made)
    return error{
      made.error().code,
      "admin.listen: " + made.error().context + "; choose another with --admin HOST:PORT"};
  admin_ = std::move(*made);
  addresses_.admin = admin_->address();
  return {};
}

result<void> running_node::add_roles(node_actor_config& node) {
  node.roles.push_back(console_role(life_, wall_));
  if (admin_)
    node.roles.push_back(admin_desk_role(
      life_, [desk = desk_](admin_desk_actor actor) { desk->set(std::move(actor)); }));
  if (calls_)
    node.roles.push_back(llumlet_desk_role(
      life_, [desk = call_desk_](llumlet_desk_actor actor) { desk->set(std::move(actor)); }));
  if (has("cms"))
    node.roles.push_back(cms_role({life_, config_.cms, wall_, counters_, store_}));
  if (has("scheduler"))
    node.roles.push_back(scheduler_role(
      {life_, config_.scheduler, wall_, scheduler_ != nullptr, profile_, scene_text,
       scheduler_probes_, scheduler_ ? config_.gateway.recorder_requests : 0},
      [this](deciding_actor actor) { scheduler_desk_.attach(std::move(actor)); }));
  if (has("rescheduler"))
    node.roles.push_back(rescheduler_role(
      {life_, config_.rescheduler, config_.scheduler, wall_, profile_, counters_}));
  if (has("gateway")) {
    for (std::uint32_t i = 0; i < http_->loops(); ++i) {
      stream_ref self{life_.node, life_.incarnation, i, 0};
      loops_.push_back(std::make_shared<hub_loop>(http_->loop(i), config_.gateway, self, words_));
    }
    gateway_actor_config gateway{life_,     config_.gateway, config_.scheduler, wall_,
                                 counters_, profile_,        scene_text};
    gateway.loops = loops_;
    gateway.prefix_seed = drawn_by_chance();
    gateway.index = lookup_ ? &lookup_->index() : nullptr;
    gateway.remote = remote_.get();
    gateway.prefixes = prefix_probes_;
    node.roles.push_back(gateway_role(std::move(gateway)));
    for (std::uint32_t i = 0; i < loops_.size(); ++i)
      node.roles.push_back(stream_hub_role({life_, i, loops_[i]}));
    metrics_ = std::make_unique<gateway_metrics>(
      has_http_engines(config_) ? std::string{} : config_.gateway.model, began_);
    if (has_http_engines(config_)) {
      auto relays
        = relay_setup::make(
          *http_, config_, *metrics_, life_, wall_, loops_, counters_, lookup_.get());
      if (!relays)
        return std::move(relays).error();
      relays_ = std::move(*relays);
      for (const auto& url : config_.gateway.engines)
        addresses_.instances.push_back(engine_address(url));
    }
  }
  add_engines(node);
  return {};
}

void running_node::add_engines(node_actor_config& node) {
  auto told = address_to_tell(
    config_.node.advertise.empty() ? config_.node.listen : config_.node.advertise,
    calls_ ? calls_->address() : std::string{});
  for (const auto& [id, engine] : *engines_) {
    auto utc = static_cast<double>(wall_.at(steady::now())) / 1000;
    llumlet_actor_config llumlet{
      config_.llumlet,
      life_,
      describe_instance(id, life_.node, told.ip, config_, utc, told.rpc_port),
      wall_,
      [engines = engines_, id = id, knobs = config_.engine] {
        if (auto fresh = std::exchange((*engines)[id], nullptr))
          return fresh;
        auto made = modeled_engine::make(knobs); // the actor was started again
        LLUMNIX_ASSERT(made.has_value());
        return std::shared_ptr<stepped_engine>{std::move(*made)};
      },
      config_.migration,
      transport_};
    llumlet.handover_seed = drawn_by_chance();
    llumlet.counters = counters_;
    node.roles.push_back(llumlet_role(std::move(llumlet), "modeled " + config_.engine.latency));
  }
}

} // namespace llumnix
