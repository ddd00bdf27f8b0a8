#pragma once

#include "runtime/base/time.hpp"

#include <cstdint>
#include <optional>

namespace llumnix {

/// When things happened to a stream, since its request came.
struct stream_times {
  std::optional<nanoseconds> placed; ///< it was last sent to an instance before its first token
  std::optional<nanoseconds> first_token;
  std::optional<nanoseconds> last_token; ///< as far as each is a token of one output

  static double to_ms(nanoseconds span) {
    return std::chrono::duration<double, std::milli>(span).count();
  }
  /// To the first token.
  std::optional<double> ttft_ms() const {
    return first_token ? std::optional{to_ms(*first_token)} : std::nullopt;
  }
  /// To the first token, from the placement that it was computed under.
  std::optional<double> ttft_of_placement_ms() const {
    return first_token && placed ? std::optional{to_ms(*first_token - *placed)} : std::nullopt;
  }
  /// For each token after the first; none for fewer than two.
  std::optional<double> tpot_ms(std::uint32_t output_tokens) const {
    if (!first_token || !last_token || output_tokens < 2)
      return std::nullopt;
    return to_ms(*last_token - *first_token) / (output_tokens - 1);
  }
};

} // namespace llumnix
