#pragma once

#include <chrono>
#include <cstddef>

namespace llumnix::net {

/// How long a thread has wanted a processor so far: the time it ran, and the time it had to wait
/// for one. Of the calling thread, as Linux counts it (/proc/thread-self/schedstat); only the time
/// it ran where that cannot be read.
class thread_demand {
public:
  thread_demand() = default;
  ~thread_demand();
  thread_demand(const thread_demand&) = delete;
  thread_demand& operator=(const thread_demand&) = delete;
  std::chrono::nanoseconds operator()();

private:
  int file_ = -2; ///< -1: cannot be opened; -2: nobody has tried
};

/// How long streams are left alone after each read, so that a loop that is behind reads and writes
/// several tokens at a time instead of each by itself: nothing while it keeps up. A plain value.
class read_pace {
public:
  explicit read_pace(std::chrono::milliseconds longest) : longest_{longest} {}

  /// Called about ten times a second. `demand`: how much processor time the loop has wanted so far.
  void update(std::chrono::nanoseconds now, std::chrono::nanoseconds demand);
  /// Zero: streams are read as they come.
  std::chrono::milliseconds pause() const { return pause_; }

private:
  std::chrono::milliseconds longest_;
  std::chrono::milliseconds pause_{0};
  std::chrono::nanoseconds last_{-1};
  std::chrono::nanoseconds last_demand_{0};
};

} // namespace llumnix::net
