#pragma once

#include "runtime/base/time.hpp"

#include <chrono>
#include <cstdint>

namespace llumnix::relay {

/// How long an engine is left alone that fails requests before their first token: a plain value.
/// The first failure costs it `shortest`, each further one in a row twice as much, up to `longest`;
/// a success ends the row. When a rest is over one request is let through to try.
class failure_backoff {
public:
  static constexpr std::chrono::milliseconds shortest{100};
  static constexpr std::chrono::milliseconds longest{10'000};

  bool resting(time_point now) const { return now < until_; }
  time_point resting_until() const { return until_; }
  /// Failed last, and may be tried again.
  bool on_trial(time_point now) const { return failures_ > 0 && !resting(now); }
  std::uint32_t failures() const { return failures_; }

  /// It failed a request that was asked then. What was under way already when another failed says
  /// nothing new, so that many at once are one failure.
  void on_failure(time_point asked_at, time_point now);
  /// It is left alone for a reason of its own, after which one request is let through to try.
  void on_rest(time_point now);
  /// It gave the first token of a request that was asked then, or a whole reply.
  void on_success(time_point asked_at);
  /// A request may be placed at it: where it is on trial nobody else for a moment, in which it is
  /// seen whether it is.
  void on_offered(time_point now);
  /// A request was asked of it: where it is on trial the next is let through when this one is
  /// answered, or after as long a rest again.
  void on_asked(time_point now);

private:
  std::chrono::milliseconds rest() const;

  std::uint32_t failures_ = 0; ///< in a row
  time_point failed_at_{};     ///< the last of them
  time_point until_{};
  bool offered_ = false;
};

} // namespace llumnix::relay
