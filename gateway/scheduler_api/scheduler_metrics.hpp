#pragma once

#include "gateway/gateway_metrics.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::scheduler_api {

/// Why a request was not placed, in the reference's words (`error_type`).
enum class failure : std::uint8_t {
  no_available_endpoint,
  cms_not_available,
  scheduler_not_ready,
  unknown,
};
std::string_view to_string(failure why);

/// What `/schedule` came to (spec/scheduling.md 10). Written on one loop, read on any thread.
class scheduler_metrics {
public:
  /// `started`: start of the process, on the clock `text` is called with.
  explicit scheduler_metrics(time_point started);
  void on_scheduled(nanoseconds duration);
  void on_failed(failure why, nanoseconds duration);
  /// Prometheus text 0.0.4; a series appears when something was first recorded.
  std::string text(time_point now) const;

private:
  time_point started_;
  single_writer<std::uint64_t> scheduled_;
  std::array<single_writer<std::uint64_t>, 4> failed_;
  loop_histogram duration_ms_;
};

} // namespace llumnix::scheduler_api
