#include "runtime/cluster/restart_budget.hpp"

#include <algorithm>

namespace llumnix {

std::optional<std::chrono::milliseconds> restart_budget::spend(time_point now) {
  while (!spent_.empty() && now - spent_.front() >= limits_.window)
    spent_.pop_front();
  if (spent_.size() >= limits_.restarts)
    return std::nullopt;
  auto pause = limits_.first_pause;
  for (std::size_t i = 0; i < spent_.size() && pause < limits_.longest_pause; ++i)
    pause *= 2;
  spent_.push_back(now);
  return std::min(pause, limits_.longest_pause);
}

} // namespace llumnix
