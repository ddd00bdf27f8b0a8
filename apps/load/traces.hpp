#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>
#include <vector>

namespace llumnix::load {

/// One recorded request.
struct trace_row {
  nanoseconds at{0}; ///< after the first
  std::uint32_t prompt_tokens = 1;
  std::uint32_t output_tokens = 1;
  /// Names of the prompt's leading blocks of `trace_block_tokens` tokens: equal names, equal
  /// tokens.
  std::vector<std::uint64_t> blocks{};
};

inline constexpr std::size_t trace_block_tokens = 512;

enum class trace_format : std::uint8_t {
  azure_csv,      ///< TIMESTAMP,ContextTokens,GeneratedTokens
  mooncake_jsonl, ///< {"timestamp" (ms), "input_length", "output_length", "hash_ids"}
  jsonl,          ///< {"at_ms", "prompt_tokens", "output_tokens"}
};

/// Reads at most `limit` rows. Pauses are divided by `scale`: 2 replays twice as fast as recorded.
///
/// Rows must be in order of time, which real traces are; `invalid_argument` names the first line
/// that is not a row. Tokens of 0 count as 1: an endpoint can neither read nor write nothing.
result<std::vector<trace_row>>
read_trace(std::istream& in, trace_format format, double scale, std::size_t limit);

} // namespace llumnix::load
