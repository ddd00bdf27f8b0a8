#pragma once

#include "config/cluster_config.hpp"
#include "gateway/gateway_metrics.hpp"
#include "gateway/relay/engine_directory.hpp"
#include "gateway/relay/relay_session.hpp"
#include "net/body_budget.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/serving/relay_desk.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llumnix::relay {

/// What the relays of one I/O loop work with. References outlive the table.
struct relay_services {
  const gateway_config& config;
  stream_ref self; ///< node, incarnation and hub of every relay
  stream_port& port;
  net::upstream_pool& pool;
  executor& loop;
  request_probes& probes;
  engine_directory& engines;
  bool tells_prompts = false; ///< whoever places them wants prompts, where they are token ids
  wall_clock wall{};
  /// What replies that are not streamed may hold at a time, in memory, until they are passed on;
  /// of a process one.
  std::shared_ptr<net::body_budget> replies
    = std::make_shared<net::body_budget>(256 * 1024 * 1024);
  /// An engine's list of models is found to be old: they are asked for theirs, and then `answered`
  /// is called on the loop.
  std::function<void(std::function<void()> answered)> ask_models = [](auto) {};
};

/// The relays of one I/O loop: requests whose engines are behind HTTP. Confined to the loop, and
/// told of placements like the loop's `stream_table`.
class relay_table final : public relay_desk {
public:
  explicit relay_table(relay_services services);
  /// Gives up what is open.
  ~relay_table() override;

  /// Passes a request on. Its answer goes to `client`.
  void open(std::shared_ptr<net::exchange> client, passed_request request);
  /// An engine answers nobody any more: its requests go elsewhere.
  void on_engine_lost(const instance_id& engine);
  /// The same of an engine whose name another may have now: those of its requests that are named.
  void on_engine_lost(const instance_id& engine, const std::vector<std::uint64_t>& numbers);
  /// The requests that an engine has now; looks at all there are.
  std::vector<std::uint64_t> served_by(const instance_id& engine) const;
  bool is_served_by(const instance_id& engine, std::uint64_t number) const;
  /// Ends all relays with an error; those opened from here on are not concerned.
  void give_up_all(const error& why);
  std::size_t size() const { return sessions_.size(); }
  /// Whether a request with token ids in and out is in vain.
  bool nobody_takes_tokens(std::string_view model) const {
    return services_.engines.nobody_takes_tokens(model);
  }

  void on_placed(
    std::uint64_t number, std::uint32_t epoch, const stream_owner& owner, time_point now) override;
  void on_unplaceable(
    std::uint64_t number, std::uint32_t epoch, const error& why, time_point now) override;
  void place_again(time_point now) override;
  void sweep(time_point now) override;
  std::vector<stream_info> list(time_point now) const override;
  void move(const relay_move& wanted, std::function<void(relay_moved)> done) override;
  void drain(const instance_id& instance, bool on) override;

  // For the sessions.
  relay_services& services() { return services_; }
  chunk_reader& chunks() { return chunks_; }
  time_point now() const { return services_.loop.now(); }
  /// An engine failed a request before its first token. Whether asking another fits the retry
  /// budget; if so it is spent. (Not asked for those that were under way when the engine's trouble
  /// began, nor where there was no connection: that is no storm.)
  bool may_retry();
  void free_later(relay_session& session);
  /// Has engines asked for their models; the session hears of it if it still is one then.
  void ask_models_for(relay_session& session);

private:
  std::vector<relay_session*> all() const;
  void free_ended();
  void age_budget();

  relay_services services_;
  chunk_reader chunks_;
  std::unordered_map<std::uint64_t, std::unique_ptr<relay_session>> sessions_;
  std::vector<std::uint64_t> ended_;
  std::uint64_t next_ = 0;
  double earned_retries_ = 0; ///< a share of the requests of the last seconds
  double floor_retries_;      ///< those that come back with time alone
  time_point aged_;
  std::shared_ptr<relay_table*> self_; ///< what posted work checks: empty once the table is gone
};

} // namespace llumnix::relay
