#pragma once

#include "actors/protocol/interfaces.hpp"
#include "actors/protocol/desk_messages.hpp"
#include "actors/scheduler_desk.hpp"
#include "apps/actor_slot.hpp"
#include "apps/admin_routes.hpp"
#include "apps/engine_agents.hpp"
#include "apps/node_setup.hpp"
#include "apps/node_system.hpp"
#include "apps/prefix_lookup.hpp"
#include "apps/relay_setup.hpp"
#include "gateway/routes.hpp"
#include "gateway/scheduler_api/scheduler_client.hpp"
#include "gateway/scheduler_api/scheduler_metrics.hpp"
#include "integrations/llumlet_grpc/llumlet_server.hpp"
#include "integrations/redis/redis_metrics.hpp"
#include "net/http_server.hpp"
#include "runtime/engine/engine.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "transport/kv_transport.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>

namespace llumnix {

/// A number that nobody can guess.
std::uint64_t drawn_by_chance();

/// A node being put together, run, and taken apart again.
class running_node {
public:
  running_node(const cluster_config& config, const node_run_options& options)
    : config_{config}, options_{options} {}

  int run();

private:
  bool has(const char* role) const {
    const auto& roles = config_.node.roles;
    return std::find(roles.begin(), roles.end(), role) != roles.end();
  }
  result<void> prepare();
  result<void> prepare_engines();
  result<void> open_transport();
  result<void> open_http();
  result<void> open_admin();
  result<void> open_scheduler();
  result<void> open_lookup();
  result<void> open_agents();
  result<void> open_calls();
  result<void> add_roles(node_actor_config& node);
  void add_engines(node_actor_config& node);
  void open_remote();
  void report_to_remote(std::uint32_t loop);
  void start_http();
  void start_admin();
  void start_scheduler();
  int wait_for_end();
  void leave();
  bool give_up_requests();
  void take_apart();
  std::string metrics_text() const;
  std::string model_of(const instance_id& instance) const;

  cluster_config config_;
  node_run_options options_;
  node_life life_;
  wall_clock wall_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::shared_ptr<node_counters> counters_ = std::make_shared<node_counters>();
  std::atomic<bool> ready_{false};
  std::atomic<bool> node_ended_{false};
  std::shared_ptr<std::atomic<bool>> left_ = std::make_shared<std::atomic<bool>>(false);
  byte_tokenizer words_;
  request_ids ids_;
  std::unique_ptr<gateway_metrics> metrics_;
  std::unique_ptr<relay_setup> relays_;   ///< with engines behind HTTP
  std::unique_ptr<prefix_lookup> lookup_; ///< on `http_`, or else on `scheduler_`
  std::unique_ptr<net::upstream_pool> remote_pool_;
  std::unique_ptr<scheduler_api::scheduler_client> remote_; ///< where there is `gateway.scheduler`
  std::vector<time_point> reported_; ///< by loop: when it last told of its requests
  std::shared_ptr<actor_slot<admin_desk_actor>> desk_
    = std::make_shared<actor_slot<admin_desk_actor>>();
  std::shared_ptr<cms_store> store_;
  const redis_metrics* mirror_ = nullptr;   ///< of the store, where there is one
  std::shared_ptr<kv_transport> transport_; ///< null: KV is computed anew
  std::shared_ptr<std::map<instance_id, std::shared_ptr<stepped_engine>>> engines_
    = std::make_shared<std::map<instance_id, std::shared_ptr<stepped_engine>>>();
  std::unique_ptr<parse_pool> pool_; ///< outlives the handlers
  std::unique_ptr<net::http_server> http_;
  std::vector<openai_handler*> handlers_; ///< of its loops, which own them
  std::unique_ptr<net::http_server> admin_;
  latency_profile profile_; ///< measured times, for policies that predict
  scheduler_desk scheduler_desk_;
  std::shared_ptr<scheduler_probes> scheduler_probes_ = std::make_shared<scheduler_probes>();
  std::shared_ptr<prefix_probes> prefix_probes_ = std::make_shared<prefix_probes>(); ///< of GATEWAY
  scheduler_api::scheduler_metrics scheduler_metrics_{began_};
  std::unique_ptr<net::http_server> scheduler_; ///< for gateways of other makes
  std::unique_ptr<engine_agents> agents_;       ///< with engines behind HTTP for those gateways
  /// Calls of the RPC service are taken to it.
  std::shared_ptr<actor_slot<llumlet_desk_actor>> call_desk_
    = std::make_shared<actor_slot<llumlet_desk_actor>>();
  std::unique_ptr<llumlet_server> calls_; ///< for schedulers of other makes and scripts
  std::unique_ptr<node_system> system_;
  std::vector<std::shared_ptr<hub_loop>> loops_;
  node_actor node_;
  node_ready addresses_;
};

} // namespace llumnix
