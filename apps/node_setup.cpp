#include "apps/node_setup.hpp"

#include "actors/role_specs.hpp"
#include "actors/scheduler_desk.hpp"
#include "apps/admin_routes.hpp"
#include "apps/caf_guards.hpp"
#include "apps/decide/scene_of.hpp"
#include "apps/decide/scene_writer.hpp"
#include "apps/engine_agents.hpp"
#include "apps/exit_codes.hpp"
#include "apps/node_metrics.hpp"
#include "apps/node_system.hpp"
#include "apps/prefix_lookup.hpp"
#include "apps/preflight.hpp"
#include "apps/relay_setup.hpp"
#include "config/load_config.hpp"
#include "gateway/routes.hpp"
#include "gateway/scheduler_api/api_handler.hpp"
#include "gateway/scheduler_api/scheduler_client.hpp"
#include "integrations/llumlet_grpc/llumlet_server.hpp"
#include "integrations/redis/redis_cms_store.hpp"
#include "net/http_server.hpp"
#include "runtime/base/log.hpp"
#include "runtime/engine/modeled_engine.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "transport/spoiling_transport.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <random>
#include <thread>
#include <unistd.h>

namespace llumnix {

namespace {

using steady = std::chrono::steady_clock;

/// What clients get to read why their requests were given up.
constexpr std::chrono::milliseconds last_words{500};

/// The last word of a process that cannot shut down: an actor that ignores its exit would block it
/// for ever.
class watchdog {
public:
  explicit watchdog(std::chrono::seconds patience) {
    std::thread([patience, done = done_] {
      auto until = steady::now() + patience;
      while (!*done && steady::now() < until)
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
      if (!*done) {
        std::fprintf(stderr, "llumnix: the node did not end in time\n");
        ::_exit(exit_code::failed);
      }
    }).detach();
  }
  ~watchdog() { *done_ = true; }

private:
  std::shared_ptr<std::atomic<bool>> done_ = std::make_shared<std::atomic<bool>>(false);
};

/// A number that nobody can guess.
std::uint64_t drawn_by_chance() {
  std::random_device random;
  return (static_cast<std::uint64_t>(random()) << 32) | random();
}

/// The desk that calls of the RPC service are taken to; replaced when the actor is started again.
/// Safe from any thread.
class call_desk {
public:
  void set(llumlet_desk_actor desk) {
    std::lock_guard guard{mutex_};
    desk_ = std::move(desk);
  }
  void take(incoming_call call, llumlet_server::answer answer) const {
    std::lock_guard guard{mutex_};
    if (desk_)
      caf::anon_send(desk_, llumlet_call{std::move(call), std::move(answer)});
    else
      answer({call_code::unavailable, false, "the node is being started, or stops"});
  }

private:
  mutable std::mutex mutex_;
  llumlet_desk_actor desk_;
};

/// A node being put together, run, and taken apart again.
class running_node {
public:
  running_node(const cluster_config& config, const node_run_options& options)
    : config_{config}, options_{options} {}

  int run();

private:
  bool has(const char* role) const {
    const auto& roles = config_.node.roles;
    return std::find(roles.begin(), roles.end(), role) != roles.end();
  }
  result<void> prepare();
  result<void> prepare_engines();
  result<void> open_transport();
  result<void> open_http();
  result<void> open_admin();
  result<void> open_scheduler();
  result<void> open_lookup();
  result<void> open_agents();
  result<void> open_calls();
  result<void> add_roles(node_actor_config& node);
  void add_engines(node_actor_config& node);
  void open_remote();
  void report_to_remote(std::uint32_t loop);
  void start_http();
  void start_admin();
  void start_scheduler();
  int wait_for_end();
  void leave();
  bool give_up_requests();
  void take_apart();
  std::string metrics_text() const;

  cluster_config config_;
  node_run_options options_;
  node_life life_;
  wall_clock wall_;
  steady::time_point began_ = steady::now();
  std::shared_ptr<node_counters> counters_ = std::make_shared<node_counters>();
  std::atomic<bool> ready_{false};
  std::atomic<bool> node_ended_{false};
  std::shared_ptr<std::atomic<bool>> left_ = std::make_shared<std::atomic<bool>>(false);
  byte_tokenizer words_;
  request_ids ids_;
  std::unique_ptr<gateway_metrics> metrics_;
  std::unique_ptr<relay_setup> relays_;   ///< with engines behind HTTP
  std::unique_ptr<prefix_lookup> lookup_; ///< on `http_`, or else on `scheduler_`
  std::unique_ptr<net::upstream_pool> remote_pool_;
  std::unique_ptr<scheduler_api::scheduler_client> remote_; ///< where there is `gateway.scheduler`
  std::vector<time_point> reported_; ///< by loop: when it last told of its requests
  std::shared_ptr<desk_slot> desk_ = std::make_shared<desk_slot>();
  std::shared_ptr<cms_store> store_;
  const redis_metrics* mirror_ = nullptr;   ///< of the store, where there is one
  std::shared_ptr<kv_transport> transport_; ///< null: KV is computed anew
  std::shared_ptr<std::map<instance_id, std::shared_ptr<stepped_engine>>> engines_
    = std::make_shared<std::map<instance_id, std::shared_ptr<stepped_engine>>>();
  std::unique_ptr<parse_pool> pool_; ///< outlives the handlers
  std::unique_ptr<net::http_server> http_;
  std::vector<openai_handler*> handlers_; ///< of its loops, which own them
  std::unique_ptr<net::http_server> admin_;
  latency_profile profile_; ///< measured times, for policies that predict
  scheduler_desk scheduler_desk_;
  std::shared_ptr<scheduler_probes> scheduler_probes_ = std::make_shared<scheduler_probes>();
  scheduler_api::scheduler_metrics scheduler_metrics_{began_};
  std::unique_ptr<net::http_server> scheduler_; ///< for gateways of other makes
  std::unique_ptr<engine_agents> agents_;       ///< with engines behind HTTP for those gateways
  std::shared_ptr<call_desk> call_desk_ = std::make_shared<call_desk>();
  std::unique_ptr<llumlet_server> calls_; ///< for schedulers of other makes and scripts
  std::unique_ptr<node_system> system_;
  std::vector<std::shared_ptr<hub_loop>> loops_;
  node_actor node_;
  node_ready addresses_;
};

/// How a decision is shown to those who ask for all of it.
std::string scene_text(const decision_snapshot& decision) {
  return write_scene(scene_of(decision))
    .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
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
      desk->take(std::move(call), std::move(answer));
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

/// How the loop's requests came along. On that loop.
void running_node::report_to_remote(std::uint32_t loop) {
  auto now = http_->loop(loop).now();
  auto every = config_.gateway.scheduler_reports;
  if (every == milliseconds{0} || now - reported_[loop] < every)
    return;
  reported_[loop] = now;
  std::vector<scheduler_api::remote_progress> news;
  for (auto& each : relays_->table(loop).list(now))
    if (!each.instance.empty())
      news.push_back(
        {std::move(each.text_id), std::uint64_t{each.prompt_tokens} + each.output_tokens,
         each.output_tokens > 0});
  if (!news.empty())
    remote_->report(std::move(news));
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
       scheduler_probes_},
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
    node.roles.push_back(gateway_role(std::move(gateway)));
    for (std::uint32_t i = 0; i < loops_.size(); ++i)
      node.roles.push_back(stream_hub_role({life_, i, loops_[i]}));
    metrics_ = std::make_unique<gateway_metrics>(
      has_http_engines(config_) ? std::string{} : config_.gateway.model, began_);
    if (has_http_engines(config_)) {
      auto relays
        = relay_setup::make(*http_, config_, *metrics_, life_, wall_, loops_, lookup_.get());
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
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  split_address(
    config_.node.advertise.empty() ? config_.node.listen : config_.node.advertise, host, port);
  std::uint16_t rpc_port = 0;
  if (std::string rpc_host; calls_ && split_address(calls_->address(), rpc_host, rpc_port))
    if (rpc_host != "0.0.0.0" && rpc_host != "::")
      host = rpc_host; // where callers find it
  for (const auto& [id, engine] : *engines_) {
    auto utc = static_cast<double>(wall_.at(steady::now())) / 1000;
    llumlet_actor_config llumlet{
      config_.llumlet,
      life_,
      describe_instance(id, life_.node, host, config_, utc, rpc_port),
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

void running_node::start_http() {
  auto seed = drawn_by_chance();
  pool_ = std::make_unique<parse_pool>(config_.gateway, words_, parse_pool::options{});
  http_->start([this, seed](std::uint32_t loop) {
    auto handler = std::make_unique<openai_handler>(gateway_services{
      .config = config_.gateway,
      .words = words_,
      .streams = loops_[loop]->table,
      .loop = http_->loop(loop),
      .ids = ids_,
      .metrics = *metrics_,
      .seed = seed + loop,
      .key = config_.http.key,
      .ready = [this] { return ready_.load(); },
      .max_model_len =
        [counters = counters_, cap = config_.engine.max_model_len] {
          auto longest = counters->longest_request.load(std::memory_order_relaxed);
          if (cap != 0)
            longest = std::min(cap, longest);
          return std::min<std::uint32_t>(longest, link_request_tokens_max);
        },
      .metrics_text = [this] { return metrics_text(); },
      .unix_seconds = [this] { return wall_.at(steady::now()) / 1000; },
      .relays = relays_ ? &relays_->table(loop) : nullptr,
      .models = [this] { return relays_->models(); },
      .ask_models
      = [this,
         loop](std::function<void()> answered) { relays_->ask_models(loop, std::move(answered)); },
      .on_tick =
        [this, loop] {
          if (relays_ && loop == 0)
            relays_->tick();
          if (lookup_ && loop == 0)
            lookup_->tick();
          if (remote_ && loop == 0)
            remote_->tick();
          if (remote_ && relays_)
            report_to_remote(loop);
        },
      .pool = pool_.get()});
    handlers_.push_back(handler.get());
    return handler;
  });
}

void running_node::start_admin() {
  admin_->start([this](std::uint32_t loop) {
    return std::make_unique<admin_handler>(admin_services{
      .loop = admin_->loop(loop),
      .desk = desk_,
      .key = config_.admin.key,
      .address = admin_->address(),
      .cluster_wide = has("console"),
      .ready = [this] { return ready_.load(); },
      .metrics_text = [this] { return metrics_text(); }});
  });
}

void running_node::start_scheduler() {
  scheduler_->start([this](std::uint32_t loop) {
    return std::make_unique<scheduler_api::api_handler>(scheduler_api::api_services{
      .loop = scheduler_->loop(loop),
      .desk = scheduler_desk_,
      .metrics = scheduler_metrics_,
      .key = config_.scheduler.http_key,
      .find_engine
      = [this](const instance_id& id) { return agents_ ? agents_->find(id) : nullptr; },
      .metrics_text = [this] { return metrics_text(); },
      .on_tick =
        [this] {
          if (agents_)
            agents_->tick();
          if (lookup_ && !http_)
            lookup_->tick();
        },
      .index = lookup_ ? &lookup_->index() : nullptr,
      .index_min_tokens = config_.scheduler.cache_aware_min_tokens});
  });
}

std::string running_node::metrics_text() const {
  auto text = node_metrics_text(
    *counters_, mirror_, std::chrono::duration<double>(steady::now() - began_).count());
  auto unix_s = static_cast<double>(wall_.at(steady::now())) / 1000;
  if (relays_)
    text += discovery_metrics_text(relays_->sources(), unix_s);
  if (agents_)
    text += discovery_metrics_text(agents_->sources(), unix_s);
  if (lookup_)
    text += lookup_->metrics_text();
  if (remote_)
    text += remote_metrics_text(remote_->counters());
  if (transport_)
    text += kv_transport_metrics_text(transport_->counters());
  if (calls_)
    text += llumlet_calls_metrics_text(calls_->counters());
  if (has("scheduler"))
    text += scheduler_metrics_text(*scheduler_probes_);
  return text;
}

int running_node::run() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr); // before any thread exists; all inherit it
  std::signal(SIGPIPE, SIG_IGN);

  wall_.offset = std::chrono::duration_cast<std::chrono::nanoseconds>(
    std::chrono::system_clock::now().time_since_epoch() - steady::now().time_since_epoch());
  life_ = {config_.node.name, config_.node.incarnation};
  if (life_.incarnation == 0)
    life_.incarnation = static_cast<std::uint64_t>(wall_.at(steady::now()));

  if (auto prepared = prepare(); !prepared) {
    std::fprintf(stderr, "llumnix: %s\n", prepared.error().context.c_str());
    return exit_code::usage;
  }
  if (has("cms") && !config_.redis.address.empty()) {
    auto store = redis_cms_store::make(config_.redis, config_.cms);
    if (!store) {
      std::fprintf(stderr, "llumnix: %s\n", store.error().context.c_str());
      return exit_code::usage;
    }
    mirror_ = &(*store)->metrics();
    store_ = std::move(*store);
  }

  node_actor_config node;
  node.knobs = config_.node;
  node.life = life_;
  node.pid = ::getpid();
  node.counters = counters_;
  if (auto added = add_roles(node); !added) {
    std::fprintf(stderr, "llumnix: %s\n", added.error().context.c_str());
    return exit_code::usage;
  }
  system_ = std::make_unique<node_system>(config_.node);
  node.connector = system_->connector();
  node_ = system_->actors().spawn(make_node, std::move(node));
  caf::actor_cast<caf::abstract_actor*>(node_)->attach_functor(
    [this](const caf::error&) { node_ended_ = true; });

  auto bound = system_->publish(node_, config_.node.listen);
  int code = exit_code::usage;
  if (bound) {
    addresses_.listen = *bound;
    addresses_.roles = config_.node.roles;
    caf::anon_send(
      node_, listening_msg{config_.node.advertise.empty() ? *bound : config_.node.advertise});
    if (relays_)
      relays_->begin(node_);
    if (agents_)
      agents_->begin(node_);
    if (http_)
      start_http();
    if (scheduler_)
      start_scheduler();
    if (admin_)
      start_admin();
    ready_ = true;
    log::node.info(
      "started", "{} (incarnation {}) listens on {}", life_.node, life_.incarnation, *bound);
    if (options_.on_ready)
      options_.on_ready(addresses_);
    code = wait_for_end();
  } else {
    std::fprintf(stderr, "llumnix: %s\n", bound.error().context.c_str());
  }
  take_apart();
  return code;
}

/// Until a signal: then no new requests, and those that run get `drain` to end or, on our engines,
/// to move. What is left is told that it is given up.
int running_node::wait_for_end() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  auto signalled = [&](long nanoseconds) {
    timespec patience{0, nanoseconds};
    return ::sigtimedwait(&signals, nullptr, &patience) > 0;
  };
  while (!signalled(100'000'000))
    if (node_ended_) {
      log::node.error("ended", "the node's supervisor gave up");
      return exit_code::failed;
    }
  ready_ = false;
  log::node.info(
    "draining", "{} stops: no new requests, running ones get {} ms", life_.node,
    options_.drain.count());
  if (http_)
    http_->drain();
  if (calls_)
    calls_->refuse();
  auto wait_for = [&](auto over, std::chrono::milliseconds longest) {
    auto until = steady::now() + longest;
    while (!over() && steady::now() < until)
      if (signalled(10'000'000)) {
        std::fprintf(stderr, "llumnix: a second signal: stopped at once\n");
        ::_exit(exit_code::interrupted);
      }
  };
  auto answered = [this] { return !http_ || http_->open_exchanges() == 0; };
  leave();
  wait_for([&] { return answered() && *left_; }, options_.drain);
  if (give_up_requests())
    wait_for(answered, last_words);
  return exit_code::done;
}

/// Requests on our engines go on elsewhere, if there is an elsewhere. What is left in the end is
/// replayed by the owners of the streams.
void running_node::leave() {
  if (!has("llumlet") || options_.drain.count() == 0) {
    *left_ = true;
    return;
  }
  leave_actor_config leaving{life_, options_.drain, wall_, [left = left_] { *left = true; }};
  role_changes_msg change;
  change.start.push_back(leave_role(std::move(leaving)));
  caf::anon_send(node_, std::move(change));
}

/// Whether there was anything to give up.
bool running_node::give_up_requests() {
  auto open = http_ ? http_->open_exchanges() : 0;
  if (open == 0)
    return false;
  log::node.warn("given-up", "{} requests did not end in time", open);
  for (std::uint32_t i = 0; i < handlers_.size(); ++i)
    http_->loop(i).post([handler = handlers_[i]] {
      handler->give_up_all({errc::draining, "the gateway stops before the request has ended"});
    });
  return true;
}

/// Actors first, while the loops they post to still run; then the loops; last what both hold.
void running_node::take_apart() {
  watchdog guard{std::chrono::seconds{5}};
  ready_ = false;
  if (calls_)
    calls_->stop(std::chrono::seconds{1});
  caf::anon_send(node_, stop_node_msg{});
  node_ = nullptr;
  system_->actors().await_all_actors_done();
  if (http_)
    http_->stop();
  if (scheduler_)
    scheduler_->stop();
  if (admin_)
    admin_->stop();
  relays_.reset();
  agents_.reset();
  lookup_.reset();
  remote_.reset();
  remote_pool_.reset();
  handlers_.clear();
  http_.reset();
  pool_.reset();
  admin_.reset();
  scheduler_.reset();
  desk_->set({});
  call_desk_->set({});
  scheduler_desk_.attach({});
  loops_.clear();
  store_.reset();
  system_.reset();
  log::node.info("stopped", "{} ended", life_.node);
}

} // namespace

int run_node(const cluster_config& config, const node_run_options& options) {
  return running_node{config, options}.run();
}

} // namespace llumnix
