#include "apps/engine_agents.hpp"

#include "actors/protocol/cluster_messages.hpp"
#include "config/load_config.hpp"
#include "integrations/discovery/engine_sources.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/base/log.hpp"

#include <utility>

namespace llumnix {

namespace {

/// What an engine is, with all that its record says.
instance_metadata describe(const discovered_engine& engine, double utc) {
  auto x = describe_http_engine(engine, "OpenAI-compatible", utc);
  x.instance_type = engine.role;
  std::uint16_t port = 0;
  if (!engine.kv_address.empty() && split_address(engine.kv_address, x.ip_kvt, port))
    x.kvt_port = port;
  return x;
}

} // namespace

result<std::unique_ptr<engine_agents>> engine_agents::make(
  net::http_server& http, const cluster_config& config, const node_life& life, wall_clock wall,
  prefix_lookup* lookup) {
  std::unique_ptr<engine_agents> made{new engine_agents{http, config, life, wall, lookup}};
  auto sources = make_sources(config, *made->pool_, http.loop(0));
  if (!sources)
    return std::move(sources).error();
  made->discovery_ = std::move(*sources);
  made->sources_ = made->discovery_->parts();
  return made;
}

engine_agents::engine_agents(
  net::http_server& http, const cluster_config& config, const node_life& life, wall_clock wall,
  prefix_lookup* lookup)
  : http_{http},
    llumlet_knobs_{config.llumlet},
    life_{life},
    wall_{wall},
    lookup_{lookup},
    pool_{http.make_upstream(0, {})} {
  watch_ = std::make_unique<engine_watch>(
    *pool_, http.loop(0),
    engine_watch_options{
      .interval = config.gateway.engine_check_interval,
      .hung_after = config.gateway.engine_silence,
      .key = config.gateway.engine_key},
    [this](const engine_report& report) { on_report(report); });
}

engine_agents::~engine_agents() {
  discovery_.reset();
  watch_.reset();
}

void engine_agents::begin(node_actor node) {
  node_ = std::move(node);
  http_.loop(0).post([this] {
    discovery_->start([this](std::vector<discovered_engine> list) { on_list(list); });
    discovery_->tick();
  });
}

void engine_agents::tick() {
  discovery_->tick();
  watch_->tick();
  auto now = http_.loop(0).now();
  if (now - noted_ < std::chrono::seconds{1})
    return;
  noted_ = now;
  auto sources = discovery_->parts();
  std::lock_guard guard{mutex_};
  sources_ = std::move(sources);
}

const discovered_engine* engine_agents::find(const instance_id& id) const {
  auto known = records_.find(id);
  return known == records_.end() ? nullptr : &known->second;
}

std::string engine_agents::model_of(const instance_id& id) const {
  std::lock_guard guard{mutex_};
  auto known = engines_.find(id);
  return known == engines_.end() ? std::string{} : known->second.model;
}

std::vector<discovery_health> engine_agents::sources() const {
  std::lock_guard guard{mutex_};
  return sources_;
}

void engine_agents::on_list(const std::vector<discovered_engine>& list) {
  auto changes = roster_.take(list);
  role_changes_msg roles;
  for (const auto& id : changes.gone) {
    log::scheduler.info("engine-gone", "{} is not in the list any more", id);
    records_.erase(id);
    watch_->remove(id);
    if (lookup_)
      lookup_->remove(id);
    roles.stop.push_back(llumlet_role_name(id));
    std::lock_guard guard{mutex_};
    engines_.erase(id);
  }
  for (const auto& engine : changes.came) {
    log::scheduler.info("engine-found", "{} ({}) at {}", engine.id, engine.role, engine.address);
    records_[engine.id] = engine;
    watch_->add(engine.id, engine.address);
    if (lookup_)
      lookup_->add(engine);
    roles.start.push_back(role_of(engine));
    std::lock_guard guard{mutex_};
    engines_[engine.id] = {};
    engines_[engine.id].model = engine.model;
  }
  if (changes.left_out > 0)
    log::scheduler.warn(
      "too-many-engines", "{} of the engines that were found are not used: there are {} already",
      changes.left_out, roster_.size());
  if (!roles.stop.empty() || !roles.start.empty())
    caf::anon_send(node_, std::move(roles));
}

role_spec engine_agents::role_of(const discovered_engine& engine) {
  auto utc = static_cast<double>(wall_.at(http_.loop(0).now())) / 1000;
  llumlet_actor_config config{llumlet_knobs_, life_, describe(engine, utc), wall_, {}};
  return llumlet_role(
    std::move(config), "at http://" + engine.address,
    [this, id = engine.id](llumlet_actor llumlet) { set_llumlet(id, std::move(llumlet)); });
}

/// It was started, perhaps again: it hears of its engine from now on. On an actor's thread.
void engine_agents::set_llumlet(const instance_id& id, llumlet_actor llumlet) {
  std::lock_guard guard{mutex_};
  auto found = engines_.find(id);
  if (found == engines_.end())
    return; // the engine has gone meanwhile
  auto& engine = found->second;
  engine.llumlet = std::move(llumlet);
  if (engine.status.update_id > 0)
    caf::anon_send(engine.llumlet, engine_news_msg{engine.status, engine.kind});
}

void engine_agents::on_report(const engine_report& report) {
  std::lock_guard guard{mutex_};
  auto found = engines_.find(report.id);
  if (found == engines_.end())
    return;
  auto& engine = found->second;
  bool first = engine.status.update_id == 0;
  if (first && !report.ready)
    log::scheduler.info(
      "engine", "{} takes no work yet: it {}; it is asked again and again", report.id,
      report.trouble);
  else if (!first && engine.status.schedulable != report.ready)
    log::scheduler.warn(
      "engine", "{} {}", report.id,
      report.ready ? "takes work again" : "takes no work any more: it " + report.trouble);
  if (engine.model.empty() && !report.model_ids.empty())
    engine.model = report.model_ids.front();
  engine.status = report.status;
  engine.kind = describe_engine(report);
  if (engine.llumlet)
    caf::anon_send(engine.llumlet, engine_news_msg{engine.status, engine.kind});
}

} // namespace llumnix
