#pragma once

#include "actors/role_specs.hpp"
#include "apps/prefix_lookup.hpp"
#include "config/cluster_config.hpp"
#include "integrations/vllm/engine_watch.hpp"
#include "net/http_server.hpp"
#include "runtime/cluster/discovery.hpp"
#include "runtime/cluster/engine_roster.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace llumnix {

/// Engines behind HTTP in a process that places requests and serves none: in lite mode, a scheduler
/// of gateways of other makes. On the first loop of `http` the discovery that says which engines
/// there are, and a watch that looks after them and tells their llumlets, which come and go with
/// them.
class engine_agents {
public:
  /// `lookup`, where there is one, is told of engines; it lives on the same server's first loop.
  /// Before the server is started. `invalid_argument`, naming the setting, where engines cannot be
  /// looked for.
  static result<std::unique_ptr<engine_agents>> make(
    net::http_server& http, const cluster_config& config, const node_life& life, wall_clock wall,
    prefix_lookup* lookup);
  /// After the server's threads have ended, before the server is destroyed.
  ~engine_agents();

  /// Looks for engines as soon as the server runs; their llumlets are roles of `node`. Before the
  /// server is started.
  void begin(node_actor node);
  /// Looks for engines and after them; about ten times a second, on the first loop.
  void tick();
  /// The record of an engine, or null; on the first loop.
  const discovered_engine* find(const instance_id& id) const;
  /// What an engine serves first of all, by its record or else by its own word; empty: neither
  /// told. From any thread.
  std::string model_of(const instance_id& id) const;
  /// How the sources of engines fare. From any thread.
  std::vector<discovery_health> sources() const;

private:
  /// What is told of an engine, and to whom.
  struct told {
    llumlet_actor llumlet; ///< null while it is started
    instance_status status;
    std::string kind;  ///< for people
    std::string model; ///< empty: not told yet
  };

  engine_agents(
    net::http_server& http, const cluster_config& config, const node_life& life, wall_clock wall,
    prefix_lookup* lookup);
  void on_list(const std::vector<discovered_engine>& list);
  void on_report(const engine_report& report);
  role_spec role_of(const discovered_engine& engine);
  void set_llumlet(const instance_id& id, llumlet_actor llumlet);

  net::http_server& http_;
  llumlet_config llumlet_knobs_;
  node_life life_;
  wall_clock wall_;
  node_actor node_;
  prefix_lookup* lookup_; ///< hears of engines; null: nobody does

  // Of the first loop.
  std::unique_ptr<net::upstream_pool> pool_;
  engine_roster roster_;
  std::map<instance_id, discovered_engine> records_;
  std::unique_ptr<engine_watch> watch_;
  std::unique_ptr<discovery> discovery_;
  time_point noted_{};

  mutable std::mutex mutex_; ///< guards the next two
  std::map<instance_id, told> engines_;
  std::vector<discovery_health> sources_;
};

} // namespace llumnix
