#pragma once

#include "apps/load/traces.hpp"
#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::load {

/// Tokens drawn evenly from `least` to `most`, both included.
struct token_range {
  std::uint32_t least = 64;
  std::uint32_t most = 64;
  friend bool operator==(const token_range&, const token_range&) = default;
};

/// "64" or "16-256"; at least 1 token. `invalid_argument` for anything else.
result<token_range> parse_token_range(std::string_view text);

/// How requests follow each other when a rate is asked for.
enum class arrival_process : std::uint8_t {
  poisson, ///< exponential pauses
  uniform, ///< equal pauses
  gamma, ///< gamma-distributed pauses with the coefficient of variation asked for: above 1 comes in
         ///< bursts
};

/// What to send, and when.
struct pattern_options {
  std::uint64_t requests = 0; ///< 0: as many as fit the duration, or as the trace has
  double rate = 0;            ///< requests per second; 0: the next one starts when one has ended
  arrival_process arrival = arrival_process::poisson;
  double cv = 1; ///< coefficient of variation of gamma pauses
  token_range prompt_tokens{};
  token_range max_tokens{};
  bool chat = true;
  bool stream = true;
  std::uint32_t choices = 1; ///< `n`
  bool ignore_eos = false;
  double temperature = 0; ///< above 0 each request carries a seed of its own
  std::uint64_t seed = 1; ///< of everything drawn here: the same seed, the same requests
  std::string model{};
};

/// One request as it will be sent.
struct planned_request {
  std::uint64_t index = 0;
  nanoseconds due{0};   ///< after the start; 0 without a rate or a trace
  std::string prompt{}; ///< ASCII; the whole prompt, or the content of the one user message
  std::uint32_t max_tokens = 1;
  std::optional<std::uint64_t> seed{}; ///< absent: greedy
};

/// Makes the requests of a run one after the other, so that a run of any length takes the same
/// memory.
class request_source {
public:
  request_source(pattern_options options, std::vector<trace_row> trace);

  /// The next request, or nothing when the number asked for has been made.
  std::optional<planned_request> next();

  const pattern_options& options() const { return options_; }
  /// Whether requests come at times of their own rather than when another has ended.
  bool timed() const { return options_.rate > 0 || !trace_.empty(); }

private:
  nanoseconds next_due();

  pattern_options options_;
  std::vector<trace_row> trace_;
  std::uint64_t made_ = 0;
  nanoseconds clock_{0};
  std::uint64_t arrivals_; ///< state of the generator of pauses
};

/// The JSON body of a request.
std::string request_body(const planned_request& request, const pattern_options& options);

/// Tokens around the content of a single user message: begin, role, end, and the assistant's role.
inline constexpr std::uint32_t chat_frame_tokens = 4;

} // namespace llumnix::load
