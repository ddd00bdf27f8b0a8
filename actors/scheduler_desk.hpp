#pragma once

#include "actors/scheduler_actor.hpp"
#include "runtime/scheduling/scheduling_desk.hpp"

#include <map>
#include <mutex>
#include <string>

namespace llumnix {

/// Takes what foreign gateways ask to this process's SCHEDULER. One that is started again is told
/// who is connected.
class scheduler_desk final : public scheduling_desk {
public:
  /// SCHEDULER was started, perhaps again; null: it has gone for good.
  void attach(deciding_actor scheduler);

  void schedule(
    placement_query query, std::optional<prefix_holders> holders, std::string gateway,
    schedule_answer answer) override;
  bool release(std::string request, std::string gateway, std::vector<request_place> at) override;
  bool report(std::vector<request_progress> news) override;
  void gateway_up(const std::string& gateway) override;
  void gateway_down(const std::string& gateway) override;

private:
  deciding_actor scheduler() const;

  /// A few seconds of a SCHEDULER's time, and some ten megabytes.
  static constexpr std::size_t news_waiting_max = 200'000;
  std::shared_ptr<news_in_waiting> waiting_ = std::make_shared<news_in_waiting>(news_waiting_max);
  mutable std::mutex mutex_; ///< guards the next two
  deciding_actor scheduler_;
  std::map<std::string, int> connections_; ///< by gateway
};

} // namespace llumnix
