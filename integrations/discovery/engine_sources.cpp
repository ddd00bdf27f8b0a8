#include "integrations/discovery/engine_sources.hpp"

#include "config/load_config.hpp"
#include "integrations/discovery/discovery_log.hpp"
#include "integrations/discovery/etcd_discovery.hpp"
#include "integrations/discovery/file_discovery.hpp"
#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/merge_lists.hpp"
#include "integrations/discovery/network_filter.hpp"
#include "integrations/discovery/pod_record.hpp"
#include "integrations/discovery/redis_discovery.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

using std::chrono::milliseconds;

error wrong(std::string what) {
  return {errc::invalid_argument, std::move(what)};
}

bool is_address(const std::string& text) {
  std::string host;
  std::uint16_t port = 0;
  return split_address(text, host, port) && port != 0;
}

result<std::vector<discovered_engine>> read_fixed(const std::vector<std::string>& urls) {
  std::vector<discovered_engine> fixed;
  for (const auto& url : urls) {
    discovered_engine engine;
    engine.id = engine.address = engine_address(url);
    if (engine.address.empty())
      return wrong("gateway.engines: " + url + " is no URL of an engine; write http://HOST:PORT");
    engine.kv_address = usual_kv_address(engine.address);
    fixed.push_back(std::move(engine));
  }
  return fixed;
}

result<void> check(const discovery_config& config) {
  const std::pair<const char*, milliseconds> times[] = {
    {"files_interval", config.files_interval}, {"redis_interval", config.redis_interval},
    {"etcd_interval", config.etcd_interval},   {"timeout", config.timeout},
    {"record_expiry", config.record_expiry},
  };
  for (auto [name, time] : times)
    if (time <= milliseconds{0})
      return wrong("discovery." + std::string{name} + " must be above 0");
  if (!config.redis.empty() && !is_address(config.redis))
    return wrong("discovery.redis: " + config.redis + " is no address; write HOST:PORT");
  for (const auto& member : config.etcd)
    if (!is_address(member))
      return wrong("discovery.etcd: " + member + " is no address; write HOST:PORT");
  if (config.instance_type != "all" && !is_role(config.instance_type))
    return wrong("discovery.instance_type is none of neutral, prefill, decode and all");
  return {};
}

} // namespace

engine_sources::engine_sources(
  std::vector<discovered_engine> fixed, std::vector<std::unique_ptr<discovery>> sources)
  : lists_(sources.size() + 1),
    answered_{!fixed.empty() || sources.empty()},
    sources_{std::move(sources)} {
  lists_.front() = std::move(fixed);
}

engine_sources::~engine_sources() = default;

void engine_sources::start(listener told) {
  told_ = std::move(told);
  for (std::size_t i = 0; i < sources_.size(); ++i)
    sources_[i]->start([this, i](std::vector<discovered_engine> list) {
      lists_[i + 1] = std::move(list);
      answered_ = changed_ = true;
      if (!ticking_)
        tell();
    });
}

void engine_sources::tick() {
  ticking_ = true;
  for (auto& source : sources_)
    source->tick();
  ticking_ = false;
  tell();
}

/// Only once for all that came in one tick.
void engine_sources::tell() {
  if (!answered_ || !std::exchange(changed_, false))
    return;
  auto merged = merge_lists(lists_);
  for (const auto& id : merged.clashes)
    if (clashes_.first(id))
      log::discovery.warn(
        "id-twice", "{} has one address in one source and another in the next: the first is used",
        id);
  if (std::exchange(told_once_, true) && merged.engines == engines_)
    return;
  engines_ = std::move(merged.engines);
  told_(engines_);
}

discovery_health engine_sources::health() const {
  discovery_health all{"all", engines_.size(), 0, answered_ ? 0.0 : -1.0};
  for (const auto& source : sources_) {
    auto part = source->health();
    all.errors += part.errors;
    all.answered_s_ago = part.answered_s_ago < 0
                           ? all.answered_s_ago
                           : std::max(all.answered_s_ago, part.answered_s_ago);
  }
  return all;
}

std::vector<discovery_health> engine_sources::parts() const {
  std::vector<discovery_health> parts;
  if (!lists_.front().empty())
    parts.push_back({"fixed", lists_.front().size(), 0, 0});
  for (const auto& source : sources_)
    parts.push_back(source->health());
  return parts;
}

result<std::unique_ptr<discovery>>
make_sources(const cluster_config& config, net::upstream_pool& pool, executor& loop) {
  const auto& from = config.discovery;
  auto fixed = read_fixed(config.gateway.engines);
  if (!fixed)
    return std::move(fixed).error();
  if (auto checked = check(from); !checked)
    return std::move(checked).error();
  auto networks = parse_networks(from.networks);
  if (!networks.problems.empty())
    return wrong("discovery.networks: " + networks.problems.front());
  const record_rules rules{from.record_expiry, from.instance_type, std::move(networks.filter)};

  std::vector<std::unique_ptr<discovery>> sources;
  if (!from.files.empty())
    sources.push_back(std::make_unique<file_discovery>(from.files, from.files_interval, loop));
  if (!from.redis.empty()) {
    auto redis = redis_discovery::make(from, rules, loop);
    if (!redis)
      return std::move(redis).error();
    sources.push_back(std::move(*redis));
  }
  if (!from.etcd.empty())
    sources.push_back(std::make_unique<etcd_discovery>(from, rules, pool, loop));
  return std::unique_ptr<discovery>{
    std::make_unique<engine_sources>(std::move(*fixed), std::move(sources))};
}

} // namespace llumnix
