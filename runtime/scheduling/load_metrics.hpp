#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace llumnix {

class latency_profile;

/// Which of two values of a metric is better.
enum class better : std::uint8_t { lower, higher };

constexpr bool is_better(better direction, float x, float y) {
  return direction == better::lower ? x < y : x > y;
}

/// Where load is known from. Full: statuses, and the account of what they do not show yet. Lite:
/// the account alone, of what was sent and has not ended (spec/cms.md 7).
enum class scheduling_mode : std::uint8_t { full, lite };

/// A number as decisions compare it: what no float holds becomes infinite, as the reference reads
/// it.
float to_float(double value);

/// Values of metrics that are laid down instead of computed, by name: what-if questions.
using given_metrics = std::map<std::string, float, std::less<>>;

/// What an instance carries into one decision, beside what is known of it at any time
/// (spec/scheduling.md 3).
struct decision_share {
  std::int32_t prompt_tokens = 0; ///< of the request; 0 without one
  unix_ms now = 0;
  std::int32_t hit_tokens = 0;  ///< of the prompt, whose KV the instance has
  std::int32_t miss_tokens = 0; ///< the rest; 0 everywhere where nobody was asked about prefixes
  std::int32_t predicted_progress = 0;  ///< prefill tokens done since the last status
  std::int32_t priority = 0;            ///< of the request
  const std::string* adapter = nullptr; ///< that it names; null: none that counts
};

/// All that a metric looks at.
struct metric_input {
  const instance_view& instance;
  const inflight_load& inflight;
  const decision_share& share;
  const latency_profile* profile = nullptr; ///< null: nothing is predicted
  const given_metrics* given = nullptr;     ///< null: everything is computed
};

/// A measure of load by name (spec/scheduling.md 5, spec/rescheduling.md 7).
///
/// Its value is a function of the last status, of the account and of the decision. Sums are 32-bit
/// integers, converted to float once; ratios are float by float. An instance that has not reported
/// yet counts as idle: only what was sent there counts, and as its KV capacity is unknown its usage
/// is 0.
struct load_metric {
  std::string_view name;
  better direction = better::lower;
  /// As the formula says; what is given in its place is `value_of`'s to see.
  float (*compute)(const metric_input&) = nullptr;
  scheduling_mode mode = scheduling_mode::full;
  bool of_decision = false; ///< changes with the request or with time: computed for each decision
  std::string_view given_first{}; ///< what is given for this goes before what is given for `name`
};

/// The value of a metric: what is given for its name, else what it computes.
float value_of(const load_metric& metric, const metric_input& of);

/// All of them.
std::span<const load_metric> load_metrics();
/// The metric of that name in that mode, or null.
const load_metric*
find_load_metric(std::string_view name, scheduling_mode mode = scheduling_mode::full);
/// `predicted_ttft` as if there were no request: how long the prefills that are there will take.
/// What is given for `predicted_ttft` counts for it, too, unless its own name is given.
const load_metric& backlog_ttft();
inline constexpr std::string_view backlog_ttft_name = "predicted_ttft_backlog";
/// The names of all metrics of a mode, for messages: "a, b, c".
std::string known_load_metrics(scheduling_mode mode = scheduling_mode::full);

} // namespace llumnix
