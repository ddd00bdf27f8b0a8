#include "runtime/cluster/recent_waiting.hpp"

namespace llumnix {

namespace {

constexpr std::chrono::seconds recent_for{10};

} // namespace

void recent_waiting::add(const std::vector<std::string>& ids, time_point now) {
  while (!seen_.empty() && now - seen_.front().since > recent_for)
    seen_.pop_front();
  for (const auto& id : ids)
    seen_.push_back({now, id});
}

std::vector<std::string> recent_waiting::ids(time_point now) const {
  std::vector<std::string> ids;
  ids.reserve(seen_.size());
  for (const auto& entry : seen_)
    if (now - entry.since <= recent_for)
      ids.push_back(entry.id);
  return ids;
}

} // namespace llumnix
