#pragma once

#include <chrono>
#include <cstdint>

namespace llumnix {

/// Monotonic time, as actors' clocks give it; virtual in the simulation.
using time_point = std::chrono::steady_clock::time_point;
using nanoseconds = std::chrono::nanoseconds;

/// Wall time in milliseconds of the Unix epoch.
using unix_ms = std::int64_t;

/// Wall time as monotonic time plus an offset taken once (DESIGN.md 3.9).
struct wall_clock {
  std::chrono::nanoseconds offset{0};

  unix_ms at(time_point now) const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch() + offset)
      .count();
  }
};

} // namespace llumnix
