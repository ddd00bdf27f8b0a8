#pragma once

#include "runtime/base/probes.hpp"
#include "runtime/base/time.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// How a request that was understood ended.
struct request_outcome {
  int status
    = 200; ///< as the client saw it; 499: it went away; an error inside a stream: the error's own
  std::uint64_t input_tokens = 0;
  std::uint64_t output_tokens = 0;
  nanoseconds duration{0};                ///< arrival to the end of the answer
  std::optional<nanoseconds> first_token; ///< arrival to the first token, where that was seen
};

/// The probes of one I/O loop (spec/observability.md 3): written on the loop, without locks, once
/// per token.
class request_probes {
public:
  request_probes();
  void on_started(nanoseconds preprocess);
  void on_token_gap(nanoseconds gap) { itl_ms.observe(to_ms(gap)); }
  void on_ended(const request_outcome& outcome);

  /// Statuses counted by themselves; others count as 500.
  static constexpr std::array<int, 10> statuses{200, 400, 404, 429, 499, 500, 501, 502, 503, 504};
  static double to_ms(nanoseconds t) {
    return std::chrono::duration<double, std::milli>(t).count();
  }

  std::array<single_writer<std::uint64_t>, statuses.size()> total;
  single_writer<std::int64_t> current;
  single_writer<std::uint64_t> input_total, output_total;
  loop_histogram e2e_s, ttft_ms, itl_ms, tpot_ms, preprocess_ms, input_tokens, output_tokens;
};

/// The gateway's metrics over all loops, and their text form.
class gateway_metrics {
public:
  /// `model`: the label of every series. `started`: start of the process, on the clock `text` is
  /// called with.
  gateway_metrics(std::string model, time_point started)
    : model_{std::move(model)}, started_{started} {}

  /// Probes for one more loop; they stay as long as this. From any thread.
  request_probes& attach();
  /// Prometheus text 0.0.4; a series appears when something was first recorded. From any thread.
  std::string text(time_point now) const;

private:
  std::string model_;
  time_point started_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<request_probes>> loops_;
};

} // namespace llumnix
