#include "apps/relay_setup.hpp"

#include "actors/protocol/cluster_messages.hpp"
#include "config/load_config.hpp"
#include "integrations/discovery/engine_sources.hpp"
#include "runtime/base/log.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llumnix {

namespace {

constexpr std::size_t departed_max = 1024; // of more we hear no more than their streams tell

/// What an engine may be asked for, in order: what it says it serves, and by which name its record
/// calls it.
std::vector<std::string> models_of(const std::string& record, std::vector<std::string> told) {
  if (!record.empty() && std::find(told.begin(), told.end(), record) == told.end())
    told.push_back(record);
  std::sort(told.begin(), told.end()); // here, and not on each loop
  return told;
}

/// An entry of /v1/models for a model that only a record names.
std::string entry_of(const std::string& model, std::int64_t created_s) {
  return nlohmann::ordered_json{
    {"id", model}, {"object", "model"}, {"created", created_s}, {"owned_by", "llumnix"}}
    .dump();
}

} // namespace

result<std::unique_ptr<relay_setup>> relay_setup::make(
  net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
  const node_life& life, wall_clock wall, const std::vector<std::shared_ptr<hub_loop>>& loops,
  std::shared_ptr<node_counters> counters, prefix_lookup* lookup) {
  std::unique_ptr<relay_setup> made{
    new relay_setup{http, config, metrics, life, wall, loops, std::move(counters), lookup}};
  auto sources = make_sources(config, *made->loops_[0]->pool, http.loop(0));
  if (!sources)
    return std::move(sources).error();
  made->discovery_ = std::move(*sources);
  made->sources_ = made->discovery_->parts();
  return made;
}

relay_setup::relay_setup(
  net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
  const node_life& life, wall_clock wall, const std::vector<std::shared_ptr<hub_loop>>& loops,
  std::shared_ptr<node_counters> counters, prefix_lookup* lookup)
  : http_{http},
    llumlet_knobs_{config.llumlet},
    migration_knobs_{config.migration},
    counters_{std::move(counters)},
    life_{life},
    wall_{wall},
    began_s_{wall.at(http.loop(0).now()) / 1000},
    lookup_{lookup} {
  if (lookup_)
    log::gateway.warn(
      "texts-by-load",
      "cached prefixes are looked up for prompts sent as token ids; chats and texts, whose tokens only "
      "their engine knows, are placed by load");
  auto replies = std::make_shared<net::body_budget>(config.http.max_bodies_bytes / 4);
  for (std::uint32_t i = 0; i < http.loops(); ++i) {
    auto part = std::make_unique<loop_part>();
    part->pool = http.make_upstream(i, {});
    part->table = std::make_unique<relay::relay_table>(relay::relay_services{
      config.gateway,
      {life.node, life.incarnation, i, 0},
      loops[i]->port,
      *part->pool,
      http.loop(i),
      metrics.attach(),
      part->engines,
      is_cache_aware(config.scheduler)
        || (!config.gateway.scheduler.empty() && config.gateway.scheduler_tokens),
      wall,
      replies,
      [this, i](std::function<void()> answered) { ask_models(i, std::move(answered)); }});
    loops[i]->relays = part->table.get();
    loops_.push_back(std::move(part));
  }
  watch_ = std::make_unique<engine_watch>(
    *loops_[0]->pool, http.loop(0),
    engine_watch_options{
      .interval = config.gateway.engine_check_interval,
      .hung_after = config.gateway.engine_silence,
      .key = config.gateway.engine_key},
    [this](const engine_report& report) { on_report(report); });
}

relay_setup::~relay_setup() {
  discovery_.reset();
  watch_.reset();
}

void relay_setup::begin(node_actor node) {
  node_ = std::move(node);
  http_.loop(0).post([this] {
    discovery_->start([this](std::vector<discovered_engine> list) { on_list(list); });
    discovery_->tick();
  });
}

std::shared_ptr<const served_models> relay_setup::models() const {
  std::lock_guard guard{mutex_};
  return models_;
}

std::string relay_setup::model_of(const instance_id& id) const {
  std::lock_guard guard{mutex_};
  auto known = engines_.find(id);
  if (known == engines_.end())
    return {};
  const auto& engine = known->second;
  if (!engine.record_model.empty() || engine.models.empty())
    return engine.record_model;
  return engine.models.front().first;
}

std::vector<discovery_health> relay_setup::sources() const {
  std::lock_guard guard{mutex_};
  return sources_;
}

void relay_setup::tick() {
  discovery_->tick();
  watch_->tick();
  follow_models();
  auto now = http_.loop(0).now();
  if (now - followed_ < std::chrono::seconds{1})
    return;
  followed_ = now;
  follow_departed();
  auto sources = discovery_->parts();
  std::lock_guard guard{mutex_};
  sources_ = std::move(sources);
}

void relay_setup::ask_models(std::uint32_t loop, std::function<void()> answered) {
  http_.loop(0).post([this, loop, answered = std::move(answered)]() mutable {
    to_be_asked_.emplace_back(loop, std::move(answered));
    follow_models();
  });
}

/// Those who came while engines were being asked wait for the next time: what they want may have
/// been loaded since.
void relay_setup::follow_models() {
  constexpr std::chrono::seconds apart{1};
  constexpr std::chrono::seconds enough{3};
  auto now = http_.loop(0).now();
  if (!being_asked_.empty() && (!watch_->asks_models() || now - models_asked_at_ >= enough))
    for (auto& [loop, answered] : std::exchange(being_asked_, {}))
      http_.loop(loop).post(std::move(answered));
  if (!being_asked_.empty() || to_be_asked_.empty() || now - models_asked_at_ < apart)
    return;
  being_asked_ = std::exchange(to_be_asked_, {});
  models_asked_at_ = now;
  watch_->ask_models();
}

// --- which engines there are

void relay_setup::on_list(const std::vector<discovered_engine>& list) {
  auto changes = roster_.take(list);
  role_changes_msg roles;
  for (const auto& id : changes.gone) {
    remove(id);
    roles.stop.push_back(llumlet_role_name(id));
  }
  for (const auto& engine : changes.came) {
    add(engine);
    roles.start.push_back(role_of(engine));
  }
  if (!roles.stop.empty() || !roles.start.empty())
    caf::anon_send(node_, std::move(roles));
  {
    std::lock_guard guard{mutex_};
    gather_models();
  }
  bool too_many = changes.left_out > 0;
  if (too_many && !told_of_too_many_)
    log::gateway.warn(
      "too-many-engines", "{} of the engines that were found are not used: there are {} already",
      changes.left_out, roster_.size());
  told_of_too_many_ = too_many;
}

void relay_setup::add(const discovered_engine& engine) {
  log::gateway.info(
    "engine-found", "{}", engine.id + (engine.id == engine.address ? "" : " at " + engine.address));
  auto common = std::make_shared<relay::engine_common>();
  for (std::uint32_t i = 0; i < loops_.size(); ++i)
    http_.loop(i).post([part = loops_[i].get(), id = engine.id, address = engine.address,
                        models = models_of(engine.model, {}), common] {
      part->engines.put(id, {.address = address, .models = models, .common = common});
    });
  watch_->add(engine.id, engine.address);
  if (lookup_)
    lookup_->add(engine);
  std::lock_guard guard{mutex_};
  engines_[engine.id] = {};
  engines_[engine.id].record_model = engine.model;
}

/// It gets nothing new from here on.
void relay_setup::remove(const instance_id& id) {
  log::gateway.info("engine-gone", "{} is not in the list any more", id);
  let_go(id);
  if (lookup_)
    lookup_->remove(id);
  std::lock_guard guard{mutex_};
  engines_.erase(id);
}

/// What it began goes on as long as it answers, so it is watched until that has ended.
void relay_setup::let_go(const instance_id& id) {
  auto gone = std::make_shared<departed>();
  gone->id = id;
  gone->requests.resize(loops_.size());
  gone->loops_in_use = static_cast<std::uint32_t>(loops_.size());
  for (std::uint32_t i = 0; i < loops_.size(); ++i)
    http_.loop(i).post([part = loops_[i].get(), gone, i] {
      part->engines.remove(gone->id);
      gone->requests[i] = part->table->served_by(gone->id);
      if (gone->requests[i].empty())
        --gone->loops_in_use;
    });
  if (departed_.size() >= departed_max)
    return watch_->remove(id);
  auto name = id + " (departure " + std::to_string(++departures_) + ")";
  watch_->rename(id, name);
  departed_.emplace(std::move(name), std::move(gone));
}

void relay_setup::follow_departed() {
  std::erase_if(departed_, [this](const auto& entry) {
    const auto& [name, gone] = entry;
    if (gone->loops_in_use > 0)
      return false;
    watch_->remove(name);
    return true;
  });
  for (const auto& [name, gone] : departed_)
    for (std::uint32_t i = 0; i < loops_.size(); ++i)
      http_.loop(i).post([part = loops_[i].get(), gone = gone, i] {
        auto& requests = gone->requests[i];
        if (requests.empty())
          return;
        std::erase_if(
          requests, [&](auto number) { return !part->table->is_served_by(gone->id, number); });
        if (requests.empty())
          --gone->loops_in_use;
      });
}

role_spec relay_setup::role_of(const discovered_engine& engine) {
  auto utc = static_cast<double>(wall_.at(http_.loop(0).now())) / 1000;
  llumlet_actor_config config{
    llumlet_knobs_, life_, describe_http_engine(engine, "OpenAI-compatible", utc), wall_, {}};
  config.migration = migration_knobs_;
  config.counters = counters_;
  return llumlet_role(
    std::move(config), "at http://" + engine.address,
    [this, id = engine.id](llumlet_actor llumlet) { set_llumlet(id, std::move(llumlet)); });
}

/// It was started, perhaps again: it hears of its engine from now on. On an actor's thread.
void relay_setup::set_llumlet(const instance_id& id, llumlet_actor llumlet) {
  std::lock_guard guard{mutex_};
  auto found = engines_.find(id);
  if (found == engines_.end())
    return; // the engine has gone meanwhile
  auto& engine = found->second;
  engine.llumlet = std::move(llumlet);
  if (engine.status.update_id > 0)
    caf::anon_send(engine.llumlet, engine_news_msg{engine.status, engine.kind});
}

// --- how they are

void relay_setup::on_report(const engine_report& report) {
  if (auto found = departed_.find(report.id); found != departed_.end()) {
    for (std::uint32_t i = 0; report.lost && i < loops_.size(); ++i)
      http_.loop(i).post([part = loops_[i].get(), gone = found->second, i] {
        part->table->on_engine_lost(gone->id, gone->requests[i]);
      });
    return;
  }
  std::lock_guard guard{mutex_};
  auto& engine = engines_[report.id];
  tell_loops(report, models_of(engine.record_model, report.model_ids));
  bool first = engine.status.update_id == 0;
  if (first && report.ready)
    log::gateway.info("engine", "{} is ready: {}", report.id, report.kind);
  else if (first)
    log::gateway.info(
      "engine", "{} takes no work yet: it {}; it is asked again and again", report.id,
      report.trouble);
  else if (engine.status.schedulable != report.ready)
    log::gateway.warn(
      "engine", "{} {}", report.id,
      report.ready ? "takes work again: " + report.kind
                   : "takes no work any more: it " + report.trouble);
  engine.status = report.status;
  engine.kind = describe_engine(report);
  if (engine.llumlet)
    caf::anon_send(engine.llumlet, engine_news_msg{engine.status, engine.kind});
  std::vector<std::pair<std::string, std::string>> models;
  for (std::size_t i = 0; i < report.model_ids.size(); ++i)
    models.emplace_back(report.model_ids[i], report.models[i]);
  if (models == engine.models)
    return;
  engine.models = std::move(models);
  gather_models();
}

void relay_setup::tell_loops(const engine_report& report, const std::vector<std::string>& models) {
  for (std::uint32_t i = 0; i < loops_.size(); ++i)
    http_.loop(i).post([part = loops_[i].get(), id = report.id, ids = report.token_ids,
                        text = report.continues_text, context = report.max_model_len,
                        tokens = report.tokens, models, adapters = report.adapters,
                        ready = report.ready, lost = report.lost] {
      if (const auto* known = part->engines.find(id))
        part->engines.put(
          id, {.address = known->address,
               .token_ids = ids,
               .continues_text = text,
               .context_tokens = context,
               .tokens = tokens,
               .models = models,
               .adapters = adapters,
               .ready = ready});
      if (lost)
        part->table->on_engine_lost(id);
    });
}

/// With the lock. A model that is only in a record is listed as soon as any engine has told its
/// own: until then nothing is refused, for nobody knows what there is.
void relay_setup::gather_models() {
  auto all = std::make_shared<served_models>();
  for (const auto& [id, engine] : engines_)
    for (const auto& [model, entry] : engine.models)
      all->entries.emplace(model, entry);
  for (const auto& [id, engine] : engines_)
    if (!all->entries.empty() && !engine.record_model.empty())
      all->entries.emplace(engine.record_model, entry_of(engine.record_model, began_s_));
  models_ = std::move(all);
}

} // namespace llumnix
