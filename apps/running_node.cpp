#include "apps/running_node.hpp"

#include "actors/role_specs.hpp"
#include "apps/caf_guards.hpp"
#include "apps/exit_codes.hpp"
#include "apps/node_metrics.hpp"
#include "apps/preflight.hpp"
#include "config/load_config.hpp"
#include "gateway/scheduler_api/api_handler.hpp"
#include "integrations/redis/redis_cms_store.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <thread>
#include <unistd.h>

/// A node's life: from its first thread to the last of what it holds.
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

} // namespace

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
      .prefixes = scheduler_probes_->prefixes,
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
    text += scheduler_metrics_text(
      *scheduler_probes_, [this](const instance_id& instance) { return model_of(instance); });
  if (is_cache_aware(config_.scheduler) && (has("scheduler") || has("gateway")))
    text += prefix_metrics_text(*prefix_probes_, scheduler_probes_->prefixes);
  return text;
}

/// What it serves; of engines behind HTTP, as far as they or their records told.
std::string running_node::model_of(const instance_id& instance) const {
  if (relays_)
    return relays_->model_of(instance);
  return agents_ ? agents_->model_of(instance) : config_.gateway.model;
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
    while (!over() && !node_ended_ && steady::now() < until)
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

/// Requests on our engines go on elsewhere; where there is no elsewhere they end here. What is left
/// in the end is replayed by the owners of the streams.
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

int run_node(const cluster_config& config, const node_run_options& options) {
  const auto& roles = config.node.roles;
  if (std::ranges::any_of(roles, [](auto& x) { return x == "gateway" || x == "scheduler"; }))
    for (const auto& [path, what] : idle_knobs(config.scheduler))
      log::scheduler.warn("idle-knob", "{} {}", path, what);
  return running_node{config, options}.run();
}

} // namespace llumnix
