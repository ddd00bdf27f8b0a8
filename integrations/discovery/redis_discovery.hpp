#pragma once

#include "config/cluster_config.hpp"
#include "integrations/discovery/pod_ledger.hpp"
#include "integrations/discovery/redis_records.hpp"
#include "integrations/redis/redis_client.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/discovery.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// Engines by the records that the reference's sidecars keep in a Redis (spec/discovery.md C). All
/// of them are read every `redis_interval`; nothing is ever written or deleted. Which are believed
/// says `pod_ledger`: a server that lost all its keys takes nobody along before `record_expiry`,
/// within which the living have written again.
class redis_discovery final : public discovery {
public:
  /// `invalid_argument` for an address that is no HOST:PORT.
  static result<std::unique_ptr<redis_discovery>>
  make(const discovery_config& config, record_rules rules, executor& loop);
  /// Waits for the end of the client's thread, which is a matter of milliseconds.
  ~redis_discovery() override;

  void start(listener told) override;
  void tick() override;
  discovery_health health() const override;

private:
  redis_discovery(const discovery_config& config, record_rules rules, executor& loop);
  /// Runs work on the loop, unless we are gone by then; from the client's thread.
  void post(std::function<void()> work);
  void on_link(bool up);
  void begin_reading();
  void on_records(time_point asked_at, result<stored_records> found);
  void note_failure(const error& why);

  std::string address_;
  milliseconds interval_;
  milliseconds timeout_;
  executor& loop_;
  listener told_;

  pod_ledger ledger_;
  bool link_up_ = false;
  bool reading_ = false;
  time_point due_{};
  milliseconds pause_;
  bool failure_told_ = false;
  std::uint64_t errors_ = 0;
  std::optional<time_point> asked_at_;    ///< the last good reading
  std::optional<time_point> answered_at_; ///< likewise
  std::vector<discovered_engine> engines_;

  redis_metrics metrics_;
  std::shared_ptr<char> alive_ = std::make_shared<char>(); // ends with us
  std::unique_ptr<redis_client> client_;                   // last: its thread calls us
};

} // namespace llumnix
