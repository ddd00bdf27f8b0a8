#pragma once

#include "config/cluster_config.hpp"
#include "integrations/discovery/discovery_log.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/discovery.hpp"

#include <cstddef>
#include <memory>
#include <vector>

namespace llumnix {

/// Several sources as one, before them a fixed list; an address or id that several tell of is the
/// earlier one's. Tells as soon as one of them has answered; a fixed list that is not empty answers
/// with the first tick, as does a lack of sources.
class engine_sources final : public discovery {
public:
  engine_sources(
    std::vector<discovered_engine> fixed, std::vector<std::unique_ptr<discovery>> sources);
  ~engine_sources() override;

  void start(listener told) override;
  void tick() override;
  /// The oldest answer counts, of those that answered.
  discovery_health health() const override;
  std::vector<discovery_health> parts() const override;

private:
  void tell();

  std::vector<std::vector<discovered_engine>> lists_; // the fixed one first
  std::vector<discovered_engine> engines_;            // as told
  bool answered_;                                     // any
  bool changed_ = true;                               // since last told
  bool told_once_ = false;
  bool ticking_ = false;
  once_only clashes_;
  listener told_;
  std::vector<std::unique_ptr<discovery>> sources_; // last: they call back
};

/// All sources that the configuration names: `gateway.engines`, then `discovery.files`,
/// `discovery.redis` and `discovery.etcd`. Asks etcd through `pool`; `loop` is the pool's executor,
/// whose thread owns what is returned. Both outlive it: it is destroyed on that thread, at the
/// latest in `net::http_handler::on_loop_end`. `invalid_argument` with the setting's path for what
/// cannot work. `discovery.instance_type` and `discovery.networks` concern records only: who writes
/// a list knows what is in it.
result<std::unique_ptr<discovery>>
make_sources(const cluster_config& config, net::upstream_pool& pool, executor& loop);

} // namespace llumnix
