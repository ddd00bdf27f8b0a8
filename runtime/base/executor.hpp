#pragma once

#include <chrono>
#include <functional>

namespace llumnix {

/// A single thread of control that runs what is posted to it, in order. In production an I/O loop
/// of `net/`; in the virtual cluster the posting actor's own thread.
class executor {
public:
  using clock = std::chrono::steady_clock;

  virtual ~executor() = default;
  /// Runs `work` later on this executor. May be called from any thread.
  virtual void post(std::function<void()> work) = 0;
  /// The time on this executor, virtual where the cluster is.
  virtual clock::time_point now() const = 0;
};

} // namespace llumnix
