#pragma once

#include "actors/role_specs.hpp"
#include "apps/prefix_lookup.hpp"
#include "config/cluster_config.hpp"
#include "gateway/gateway_metrics.hpp"
#include "gateway/relay/relay_table.hpp"
#include "gateway/routes.hpp"
#include "integrations/vllm/engine_watch.hpp"
#include "net/http_server.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/engine_roster.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// What a process needs to serve from engines behind HTTP: for each I/O loop connections, a
/// directory of engines and the relays; on the first loop the discovery that says which engines
/// there are, and a watch that looks after them and tells their llumlets and all loops what it
/// finds. Llumlets come and go with their engines.
class relay_setup {
public:
  /// `loops`: the stream hubs of the server's loops, which are told of their relays. `lookup`,
  /// where there is one, is told of engines; it lives on the same server's first loop. Before the
  /// server is started. `invalid_argument`, naming the setting, where engines cannot be looked for.
  static result<std::unique_ptr<relay_setup>> make(
    net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
    const node_life& life, wall_clock wall, const std::vector<std::shared_ptr<hub_loop>>& loops,
    std::shared_ptr<node_counters> counters, prefix_lookup* lookup);
  /// After the server's threads have ended, before the server is destroyed.
  ~relay_setup();

  /// Looks for engines as soon as the server runs; their llumlets are roles of `node`. Before the
  /// server is started.
  void begin(node_actor node);
  relay::relay_table& table(std::uint32_t loop) { return *loops_[loop]->table; }
  /// The models of the engines that answered. From any thread.
  std::shared_ptr<const served_models> models() const;
  /// Asks all engines for their models, at most once a second, and posts `answered` to the loop
  /// when they have answered or had time enough. From any thread.
  void ask_models(std::uint32_t loop, std::function<void()> answered);
  /// What an engine serves first of all, by its record or else by its own word; empty: neither
  /// told. From any thread.
  std::string model_of(const instance_id& id) const;
  /// How the sources of engines fare. From any thread.
  std::vector<discovery_health> sources() const;
  /// Looks for engines and after them; about ten times a second, on the first loop.
  void tick();

private:
  struct loop_part {
    relay::engine_directory engines;
    std::unique_ptr<net::upstream_pool> pool;
    std::unique_ptr<relay::relay_table> table;
  };
  /// What is told of an engine, and to whom.
  struct told {
    llumlet_actor llumlet; ///< null while it is started
    instance_status status;
    std::string kind;                                        ///< for people
    std::string record_model;                                ///< by its record; empty: not told
    std::vector<std::pair<std::string, std::string>> models; ///< id and entry
  };
  /// An engine that is not in the list any more, while it ends what it began. It is watched under a
  /// name of its own.
  struct departed {
    instance_id id; ///< as its requests know it; another engine may have it now
    std::vector<std::vector<std::uint64_t>> requests; ///< by loop, which alone uses its own
    std::atomic<std::uint32_t> loops_in_use;
  };

  relay_setup(
    net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
    const node_life& life, wall_clock wall, const std::vector<std::shared_ptr<hub_loop>>& loops,
    std::shared_ptr<node_counters> counters, prefix_lookup* lookup);
  void on_list(const std::vector<discovered_engine>& list);
  void add(const discovered_engine& engine);
  void remove(const instance_id& id);
  void let_go(const instance_id& id);
  void follow_departed();
  role_spec role_of(const discovered_engine& engine);
  void set_llumlet(const instance_id& id, llumlet_actor llumlet);
  void on_report(const engine_report& report);
  void tell_loops(const engine_report& report, const std::vector<std::string>& models);
  void gather_models();
  void follow_models();

  net::http_server& http_;
  llumlet_config llumlet_knobs_;
  migration_config migration_knobs_;
  std::shared_ptr<node_counters> counters_;
  node_life life_;
  wall_clock wall_;
  std::int64_t began_s_; ///< Unix time
  std::vector<std::unique_ptr<loop_part>> loops_;
  node_actor node_;
  prefix_lookup* lookup_; ///< hears of engines; null: nobody does

  // Of the first loop, with what the sources tell.
  engine_roster roster_;
  std::unique_ptr<engine_watch> watch_;
  std::unique_ptr<discovery> discovery_;
  std::map<instance_id, std::shared_ptr<departed>> departed_; ///< by the name they are watched by
  std::uint64_t departures_ = 0;
  bool told_of_too_many_ = false;
  using waiting_loops = std::vector<std::pair<std::uint32_t, std::function<void()>>>;
  waiting_loops to_be_asked_; ///< for models, in a moment
  waiting_loops being_asked_;
  time_point models_asked_at_{};
  time_point followed_{};

  mutable std::mutex mutex_; ///< guards the next three
  std::shared_ptr<const served_models> models_ = std::make_shared<served_models>();
  std::map<instance_id, told> engines_;
  std::vector<discovery_health> sources_;
};

} // namespace llumnix
