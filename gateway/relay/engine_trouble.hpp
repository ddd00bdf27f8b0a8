#pragma once

#include "gateway/relay/failure_backoff.hpp"
#include "runtime/base/time.hpp"

#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>

namespace llumnix::relay {

/// Why an engine is left alone, as all I/O loops of a gateway know it: what one finds out, all know
/// at once. From any thread; nothing is locked while there is no trouble.
class engine_trouble {
public:
  /// Between two outages of which the requests under way are forgiven (`surprised`).
  static constexpr std::chrono::seconds outages_apart{10};

  time_point rest_end() const;
  /// Whether a request may go there now; where it is on trial, nobody else for a moment.
  bool offer(time_point now);

  /// It is left alone until then, for it asked for it (`Retry-After`), or hangs. One request tries
  /// it afterwards.
  void rest(time_point until, time_point now);
  /// As of `failure_backoff`.
  void on_failure(time_point asked_at, time_point now);
  void on_success(time_point asked_at);
  void on_asked(time_point now);

  /// Whether a request that was sent there then could not know better: an outage began since. Those
  /// that were under way move once, which is no storm, however many there are. Outages that follow
  /// within `outages_apart` are not counted: an engine that comes and goes gives nobody a licence.
  bool surprised(time_point placed_at) const;

private:
  void begin(time_point now);

  std::atomic<bool> any_{false}; ///< there may be something behind the lock
  mutable std::mutex mutex_;     ///< guards the rest
  failure_backoff backoff_;
  time_point resting_until_{};
  std::optional<time_point> outage_at_; ///< the last that counted began
};

} // namespace llumnix::relay
