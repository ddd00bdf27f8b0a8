#pragma once

#include "actors/stream_hub_actor.hpp"
#include "config/cluster_config.hpp"
#include "gateway/gateway_metrics.hpp"
#include "gateway/relay/relay_table.hpp"
#include "gateway/routes.hpp"
#include "integrations/vllm/engine_watch.hpp"
#include "net/http_server.hpp"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace llumnix {

/// What a process needs to serve from engines behind HTTP: for each I/O loop connections, a
/// directory of engines and the relays; on the first loop a watch that looks after the engines and
/// tells their llumlets and all loops what it finds.
class relay_setup {
public:
  /// `loops`: the stream hubs of the server's loops, which are told of their relays. Before the
  /// server is started. `self(i)`: where relays of loop i have their address.
  relay_setup(
    net::http_server& http, const cluster_config& config, gateway_metrics& metrics,
    const node_life& life, const std::vector<std::shared_ptr<hub_loop>>& loops);
  /// After the server's threads have ended, before the server is destroyed.
  ~relay_setup();

  relay::relay_table& table(std::uint32_t loop) { return *loops_[loop]->table; }
  /// The models of the engines that answered. From any thread.
  std::shared_ptr<const served_models> models() const;
  /// A llumlet was started (again): it hears of its engine from now on. From any thread.
  void set_llumlet(const instance_id& id, llumlet_actor llumlet);
  /// Looks after the engines; about ten times a second, on the first loop.
  void tick() { watch_->tick(); }

private:
  struct loop_part {
    relay::engine_directory engines;
    std::unique_ptr<net::upstream_pool> pool;
    std::unique_ptr<relay::relay_table> table;
  };
  void on_report(const engine_report& report);

  net::http_server& http_;
  std::vector<std::unique_ptr<loop_part>> loops_;
  std::unique_ptr<engine_watch> watch_;
  mutable std::mutex mutex_; ///< guards the next three
  std::shared_ptr<const served_models> models_ = std::make_shared<served_models>();
  std::map<instance_id, std::vector<std::pair<std::string, std::string>>> models_of_;
  std::map<instance_id, std::pair<llumlet_actor, instance_status>> llumlets_;
};

} // namespace llumnix
