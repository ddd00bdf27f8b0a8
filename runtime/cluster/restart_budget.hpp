#pragma once

#include "runtime/base/time.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace llumnix {

/// How often something may be started again: `allowed` times within any `window`.
class restart_budget {
public:
  restart_budget(std::uint32_t allowed, nanoseconds window) : allowed_{allowed}, window_{window} {}

  /// Takes one restart out of the budget; false when there is none left.
  bool spend(time_point now) {
    std::erase_if(spent_, [&](time_point at) { return at + window_ <= now; });
    if (spent_.size() >= allowed_)
      return false;
    spent_.push_back(now);
    return true;
  }
  /// Restarts within the window that ends now.
  std::size_t spent() const { return spent_.size(); }

private:
  std::uint32_t allowed_;
  nanoseconds window_;
  std::vector<time_point> spent_;
};

} // namespace llumnix
