#include "apps/relay_setup.hpp"

#include "actors/protocol/cluster_messages.hpp"
#include "config/load_config.hpp"
#include "runtime/base/log.hpp"

namespace llumnix {

relay_setup::relay_setup(
  net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
  const node_life& life, const std::vector<std::shared_ptr<hub_loop>>& loops)
  : http_{http} {
  std::map<instance_id, std::string> engines;
  for (const auto& url : config.gateway.engines)
    engines.emplace(engine_address(url), engine_address(url));
  for (std::uint32_t i = 0; i < http.loops(); ++i) {
    auto part = std::make_unique<loop_part>();
    for (const auto& [id, address] : engines)
      part->engines.put(id, {.address = address});
    part->pool = http.make_upstream(i, {});
    part->table = std::make_unique<relay::relay_table>(relay::relay_services{
      config.gateway,
      {life.node, life.incarnation, i, 0},
      loops[i]->port,
      *part->pool,
      http.loop(i),
      metrics.attach(),
      part->engines});
    loops[i]->relays = part->table.get();
    loops_.push_back(std::move(part));
  }
  watch_ = std::make_unique<engine_watch>(
    *loops_[0]->pool, http.loop(0),
    engine_watch_options{
      .interval = config.gateway.engine_check_interval,
      .hung_after = config.gateway.engine_silence},
    std::move(engines), [this](const engine_report& report) { on_report(report); });
}

relay_setup::~relay_setup() {
  watch_.reset();
}

std::shared_ptr<const served_models> relay_setup::models() const {
  std::lock_guard guard{mutex_};
  return models_;
}

void relay_setup::set_llumlet(const instance_id& id, llumlet_actor llumlet) {
  std::lock_guard guard{mutex_};
  auto& [known, last] = llumlets_[id];
  known = std::move(llumlet);
  if (known && last.update_id > 0)
    caf::anon_send(known, engine_news_msg{last});
}

/// On the first loop.
void relay_setup::on_report(const engine_report& report) {
  for (std::uint32_t i = 0; i < loops_.size(); ++i)
    http_.loop(i).post([part = loops_[i].get(), id = report.id, ids = report.token_ids,
                        context = report.max_model_len, lost = report.lost] {
      if (const auto* known = part->engines.find(id))
        part->engines.put(
          id, {.address = known->address, .token_ids = ids, .context_tokens = context});
      if (lost)
        part->table->on_engine_lost(id);
    });
  std::lock_guard guard{mutex_};
  auto& [llumlet, last] = llumlets_[report.id];
  if (last.update_id == 0 || last.schedulable != report.ready)
    log::gateway.info(
      "engine", "{} {}", report.id,
      report.ready ? "is ready: " + report.kind : std::string{"takes no work now"});
  last = report.status;
  if (llumlet)
    caf::anon_send(llumlet, engine_news_msg{last});
  auto& told = models_of_[report.id];
  std::vector<std::pair<std::string, std::string>> now;
  for (std::size_t i = 0; i < report.model_ids.size(); ++i)
    now.emplace_back(report.model_ids[i], report.models[i]);
  if (now == told)
    return;
  told = std::move(now);
  auto all = std::make_shared<served_models>();
  for (const auto& [id, models] : models_of_)
    for (const auto& [model, entry] : models)
      all->entries.emplace(model, entry);
  models_ = std::move(all);
}

} // namespace llumnix
