#include "apps/prefix_lookup.hpp"

#include "apps/node_metrics.hpp"
#include "config/load_config.hpp"
#include "net/upstream_pool.hpp"

#include <utility>

namespace llumnix {

namespace {

/// What is wrong with a pattern of endpoints, before there is any engine.
result<void> check(const char* knob, const std::string& pattern) {
  if (pattern.empty())
    return {};
  auto tried = engine_endpoint(pattern, {"127.0.0.1:8000", 0});
  if (!tried)
    return error{tried.error().code, std::string{knob} + ": " + tried.error().context};
  return {};
}

} // namespace

result<std::unique_ptr<prefix_lookup>> prefix_lookup::make(
  net::http_server& server, const scheduler_config& scheduler, std::uint64_t seed) {
  std::unique_ptr<prefix_lookup> made{new prefix_lookup};
  if (!is_cache_aware(scheduler))
    return std::unique_ptr<prefix_lookup>{};
  if (scheduler.kv_index == "mooncake") {
    auto options = mooncake::make_client_options(scheduler);
    if (!options)
      return std::move(options).error().while_doing("scheduler.kv_index");
    made->pool_ = server.make_upstream(0, {});
    made->store_ = std::make_unique<mooncake::metadata_client>(
      std::move(*options), *made->pool_, server.loop(0));
    return made;
  }
  if (scheduler.kv_events.empty())
    return std::unique_ptr<prefix_lookup>{};
  if (auto good = check("scheduler.kv_events", scheduler.kv_events); !good)
    return std::move(good).error();
  if (auto good = check("scheduler.kv_events_replay", scheduler.kv_events_replay); !good)
    return std::move(good).error();
  made->events_ = std::make_unique<event_index>(event_index_options{
    .events = scheduler.kv_events, .replay = scheduler.kv_events_replay, .index = {.seed = seed}});
  return made;
}

prefix_lookup::~prefix_lookup() = default;

kv_index& prefix_lookup::index() {
  if (store_)
    return *store_;
  return *events_;
}

void prefix_lookup::add(const discovered_engine& engine) {
  if (events_)
    events_->add(engine.id, {engine.address, engine.dp_rank});
}

void prefix_lookup::remove(const instance_id& id) {
  if (events_)
    events_->remove(id);
}

void prefix_lookup::tick() {
  if (store_)
    store_->tick();
}

std::string prefix_lookup::metrics_text() const {
  return store_ ? kv_store_metrics_text(store_->counters())
                : kv_events_metrics_text(events_->counters());
}

} // namespace llumnix
