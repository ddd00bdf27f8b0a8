#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Which of two values of a metric is better.
enum class better : std::uint8_t { lower, higher };

constexpr bool is_better(better direction, float x, float y) {
  return direction == better::lower ? x < y : x > y;
}

/// Where load is known from. Full: statuses, and the account of what they do not show yet. Lite:
/// the account alone, of what was sent and has not ended (spec/cms.md 7).
enum class scheduling_mode : std::uint8_t { full, lite };

/// A measure of load by name (spec/scheduling.md 5).
///
/// Its value is a function of the last status and of the account. Sums are 32-bit integers,
/// converted to float once; ratios are float by float. An instance that has not reported yet counts
/// as idle: only what was sent there counts, and as its KV capacity is unknown its usage is 0.
struct load_metric {
  std::string_view name;
  better direction = better::lower;
  float (*value)(const instance_view& instance, const inflight_load& inflight) = nullptr;
  scheduling_mode mode = scheduling_mode::full;
};

/// The metric of that name in that mode, or null.
const load_metric*
find_load_metric(std::string_view name, scheduling_mode mode = scheduling_mode::full);
/// The names of all metrics of a mode, for messages: "a, b, c".
std::string known_load_metrics(scheduling_mode mode = scheduling_mode::full);

/// The instances of one role as dense columns, ascending by id: what a decision sweeps over, kept
/// up to date by every status and booking so that the decision itself computes, looks up and
/// allocates nothing. A row is an index into every column; it changes when instances come and go.
class candidate_table {
public:
  using row = std::uint32_t;
  /// What failover domains are about. Compared only when an instance fails.
  struct location {
    std::string node;
    std::string unit;
    bool data_parallel = false; ///< more than one rank
    friend bool operator==(const location&, const location&) = default;
  };

  /// `metrics` are the columns of values kept, by slot.
  explicit candidate_table(std::vector<const load_metric*> metrics);

  /// Adds an instance or refreshes its row.
  void put(const instance_view& instance, const inflight_load& inflight);
  void erase(const instance_id& id);

  std::size_t size() const { return ids_.size(); }
  std::optional<row> find(const instance_id& id) const;
  /// The first row whose id is above `id`; `size()` if none is.
  row first_above(const instance_id& id) const;

  const std::vector<instance_id>& ids() const { return ids_; }
  const std::vector<instance_state>& states() const { return states_; }
  /// 1 where work is welcome. An instance that has not reported, or ended in order, has no health
  /// to judge: it counts as schedulable and fresh.
  const std::vector<std::uint8_t>& schedulable() const { return schedulable_; }
  /// When the last status was written.
  const std::vector<unix_ms>& written() const { return written_; }
  const std::vector<float>& values(std::size_t slot) const { return values_[slot]; }
  const std::vector<location>& locations() const { return locations_; }
  const std::vector<const load_metric*>& metrics() const { return metrics_; }
  /// Grows when rows or locations change.
  std::uint64_t layout() const { return layout_; }

private:
  row at_or_above(const instance_id& id) const;
  void insert(row at, const instance_id& id);

  std::vector<const load_metric*> metrics_;
  std::vector<instance_id> ids_;
  std::vector<instance_state> states_;
  std::vector<std::uint8_t> schedulable_;
  std::vector<unix_ms> written_;
  std::vector<std::vector<float>> values_;
  std::vector<location> locations_;
  std::uint64_t layout_ = 1;
};

} // namespace llumnix
