#include "actors/scheduler_desk.hpp"

#include "actors/protocol/console_messages.hpp"

namespace llumnix {

void scheduler_desk::attach(deciding_actor scheduler) {
  std::lock_guard guard{mutex_};
  scheduler_ = std::move(scheduler);
  gateways_msg all;
  for (const auto& [gateway, count] : connections_)
    all.up.push_back(gateway);
  if (scheduler_ && !all.up.empty())
    caf::anon_send(scheduler_, std::move(all));
}

deciding_actor scheduler_desk::scheduler() const {
  std::lock_guard guard{mutex_};
  return scheduler_;
}

/// Without an actor the answer is let go of, which is an answer, too.
void scheduler_desk::schedule(
  placement_query query, std::optional<prefix_holders> holders, std::string gateway,
  schedule_answer answer) {
  auto once = std::make_shared<answer_once>(std::move(answer));
  if (auto actor = scheduler())
    caf::anon_send(
      actor,
      schedule_msg{std::move(query), std::move(holders), std::move(gateway), std::move(once)});
}

bool scheduler_desk::release(
  std::string request, std::string gateway, std::vector<request_place> at) {
  auto actor = scheduler();
  if (!actor)
    return true; // which has forgotten it
  auto share = news_in_waiting::enter(waiting_, at.size() + 1);
  if (!share)
    return false;
  caf::anon_send(
    actor,
    end_request_msg{std::move(request), std::move(gateway), std::move(at), std::move(share)});
  return true;
}

bool scheduler_desk::report(std::vector<request_progress> news) {
  auto actor = scheduler();
  if (!actor)
    return true;
  auto share = news_in_waiting::enter(waiting_, news.size());
  if (!share)
    return false;
  caf::anon_send(actor, progress_msg{std::move(news), std::move(share)});
  return true;
}

// Told with the lock, so that two threads cannot tell in another order than they count.

void scheduler_desk::gateway_up(const std::string& gateway) {
  std::lock_guard guard{mutex_};
  if (++connections_[gateway] == 1 && scheduler_)
    caf::anon_send(scheduler_, gateways_msg{{gateway}, {}});
}

void scheduler_desk::gateway_down(const std::string& gateway) {
  std::lock_guard guard{mutex_};
  auto known = connections_.find(gateway);
  if (known == connections_.end() || --known->second > 0)
    return;
  connections_.erase(known);
  if (scheduler_)
    caf::anon_send(scheduler_, gateways_msg{{}, {gateway}});
}

} // namespace llumnix
