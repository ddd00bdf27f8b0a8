#pragma once

#include "runtime/base/time.hpp"

namespace llumnix::scheduler_api {

/// Whether a gateway still answers on its keepalive connection, as a value: a ping every three
/// seconds, and the end when two have gone unanswered as the next is due, nine seconds after the
/// last pong (spec/cms.md 9).
class pong_watch {
public:
  static constexpr std::chrono::seconds every{3};
  static constexpr int misses_max = 2;

  enum class action { wait, ping, close };

  /// The connection begins now.
  explicit pong_watch(time_point now) : due_{now + every} {}
  action on_tick(time_point now);
  void on_pong() { misses_ = 0; }

private:
  time_point due_;
  int misses_ = 0;
};

} // namespace llumnix::scheduler_api
