#pragma once

#include "runtime/base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// One sample of Prometheus' text format.
struct metric_sample {
  std::string_view name;                                        ///< points into the line
  std::vector<std::pair<std::string_view, std::string>> labels; ///< in order, escapes resolved
  double value = 0;                                             ///< may be infinite or no number

  /// The first label of that name; null if there is none.
  const std::string* label(std::string_view label_name) const;
};

/// Reads `name{label="value",...} value [timestamp] [# exemplar]`, without its line end. Nothing
/// for blank lines, comments and whatever else is no sample, or has more than 256 labels.
std::optional<metric_sample> read_sample(std::string_view line);

/// How loaded an engine says it is. What its page does not tell is absent; counts beyond 31 bits
/// read as the largest.
struct engine_load {
  std::optional<std::int32_t> running;   ///< requests, all of its ranks together
  std::optional<std::int32_t> waiting;   ///< requests, likewise
  std::optional<double> kv_usage;        ///< share of the KV cache in use, 0 to 1: its ranks' mean
  std::optional<std::int32_t> kv_tokens; ///< KV capacity in tokens, all ranks together
  /// LoRAs that running or waiting requests use, ordered by name, names once; a few hundred at
  /// most.
  std::vector<std::string> adapters{};
  friend bool operator==(const engine_load&, const engine_load&) = default;
};

/// Reads the /metrics page of a vLLM or an SGLang. Malformed lines are skipped, as are values that
/// are negative or no number; a page that has text but not one sample is a `bad_message`. Takes
/// time linear in the page, and memory for one line.
result<engine_load> read_engine_load(std::string_view page);

} // namespace llumnix
