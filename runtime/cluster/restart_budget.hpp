#pragma once

#include "runtime/base/time.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>

namespace llumnix {

/// How often a process may be started again: so many restarts within a window, each after a longer
/// pause.
struct restart_limits {
  std::uint32_t restarts = 5;
  std::chrono::milliseconds window{60000};
  std::chrono::milliseconds first_pause{
    100}; ///< doubles with each restart that the window still holds
  std::chrono::milliseconds longest_pause{5000};
};

/// What is left of them, as a value: spend one per ended process.
class restart_budget {
public:
  explicit restart_budget(restart_limits limits = {}) : limits_{limits} {}

  /// The pause before the restart that is due at `now`; nothing when the budget is used up.
  std::optional<std::chrono::milliseconds> spend(time_point now);

private:
  restart_limits limits_;
  std::deque<time_point> spent_; ///< oldest first, all within the window
};

} // namespace llumnix
