#pragma once

#include "runtime/base/result.hpp"
#include "runtime/scheduling/latency_profile.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The two profiling files: times to the first token, and per output token.
enum class profile_kind : std::uint8_t { ttft, tpot };

/// The names of an entry's numbers in a profiling file.
struct profile_fields {
  const char* row;
  const char* column; ///< null: there is none, and all points stand in column 0
  const char* ms = "p50";
};
profile_fields fields_of(profile_kind kind);

/// What a profiling file says.
struct profile_table {
  interpolation_table table;
  /// What in it will surprise, as sentences that name the file: points missing from the grid, sizes
  /// it does not reach.
  std::vector<std::string> warnings;
};

/// Reads a file of measured times: a JSON object whose `results` are points, `tokens_num` and `p50`
/// (TTFT) or `batch_size`, `tokens_per_request` and `p50` (TPOT), in tokens and milliseconds; all
/// else is skipped (spec/scheduling.md 9.2).
///
/// Fails on what cannot be read, is above 64 MiB, is no such object or has no points, and on fields
/// that are absent or not a number of at least 0. The error names the file and the line, and for
/// an entry its index and field; the first few problems at once.
result<profile_table> read_ttft_profile(const std::string& path);
result<profile_table> read_tpot_profile(const std::string& path);
/// The same from a text; `name` stands for the file in messages.
result<profile_table>
parse_profile(profile_kind kind, std::string_view text, std::string_view name);
/// The same from `results` that are parsed already, as in a scene.
result<profile_table>
profile_from_results(profile_kind kind, const nlohmann::json& results, std::string_view name);

/// Writes a profiling file so that a reader sees the old one or the new one, never half of it.
result<void> write_profile(const std::string& path, std::string_view text);

} // namespace llumnix
