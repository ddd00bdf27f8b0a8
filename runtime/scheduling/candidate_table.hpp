#pragma once

#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/load_metrics.hpp"
#include "runtime/scheduling/prefix_hits.hpp"
#include "runtime/scheduling/step_model.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// What a decision is about, for the metrics that depend on it.
struct decision_inputs {
  std::uint32_t prompt_tokens = 0; ///< 0 without a request
  unix_ms now = 0;
  const prefix_hits* hits = nullptr; ///< null: nobody was asked
  /// How long a prefill step takes; null: no progress is predicted.
  const step_coefficients* step = nullptr;
  std::uint32_t max_num_batched_tokens = 0; ///< of a step, for the progress
  std::int32_t priority = 0;                ///< of the request
  const std::string* adapter = nullptr;     ///< that it names; null: none that counts
};

/// A column of values: a metric, and when it is computed.
struct metric_column {
  const load_metric* metric = nullptr;
  bool of_decision = false; ///< anew for each decision; else with each status and booking
  friend bool operator==(const metric_column&, const metric_column&) = default;
};

/// The instances of one role as dense columns, ascending by id: what a decision sweeps over, kept
/// up to date by every status and booking so that the decision itself looks up and allocates
/// nothing, and computes nothing but what depends on its request. A row is an index into every
/// column; it changes when instances come and go.
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

  /// `metrics` are the columns of values kept, by slot. The profile, if any, outlives the table.
  explicit candidate_table(
    std::vector<metric_column> metrics, const latency_profile* profile = nullptr);

  /// Adds an instance or refreshes its row. The view must stay where it is until `erase`.
  void put(const instance_view& instance, const inflight_load& inflight);
  void erase(const instance_id& id);
  /// The role an instance is reserved for, if any (adaptive PD).
  void reserve(const instance_id& id, std::optional<infer_type> role);
  /// Lays down values of metrics for an instance.
  void give(const instance_id& id, given_metrics values);
  /// Fills the columns that depend on the decision. Before each one.
  void prepare(const decision_inputs& about);

  std::size_t size() const { return ids_.size(); }
  std::optional<row> find(const instance_id& id) const;
  /// The first row whose id is above `id`; `size()` if none is.
  row first_above(const instance_id& id) const;

  const std::vector<instance_id>& ids() const { return ids_; }
  const std::vector<instance_state>& states() const { return states_; }
  /// By which ways the instance can be reached: a bit for each `reach`, `bit_of`.
  const std::vector<std::uint8_t>& reachable() const { return reachable_; }
  static constexpr std::uint8_t bit_of(reach by) {
    return static_cast<std::uint8_t>(1u << static_cast<unsigned>(by));
  }
  /// 1 where work is welcome. An instance that has not reported, or ended in order, has no health
  /// to judge: it counts as schedulable and fresh.
  const std::vector<std::uint8_t>& schedulable() const { return schedulable_; }
  /// When the last status was written.
  const std::vector<unix_ms>& written() const { return written_; }
  const std::vector<infer_type>& roles() const { return roles_; }
  const std::vector<std::optional<infer_type>>& reserved() const { return reserved_; }
  const std::vector<float>& values(std::size_t slot) const { return values_[slot]; }
  const std::vector<location>& locations() const { return locations_; }
  const std::vector<metric_column>& metrics() const { return metrics_; }
  /// Any metric of one row for a decision, whether or not it has a column.
  float value(const load_metric& metric, row at, const decision_inputs& about) const;
  /// A metric of one row, were this known of its instance; what is laid down for it stays.
  float value_if(const load_metric& metric, row at, const instance_view& instead) const;
  const instance_view& view(row at) const { return *views_[at]; }
  /// Of the last `prepare`.
  decision_share share(row at) const;
  /// Grows when rows or locations change.
  std::uint64_t layout() const { return layout_; }

private:
  row at_or_above(const instance_id& id) const;
  row find_from(row from, const instance_id& id) const;
  void insert(row at, const instance_id& id);
  metric_input input(row at, const decision_share& share) const;
  std::int32_t progress(row at, const decision_inputs& about, const decision_share& without) const;
  void compute(std::size_t slot, row at);

  std::vector<metric_column> metrics_;
  bool any_of_decision_ = false;
  const latency_profile* profile_ = nullptr;
  std::unordered_map<instance_id, given_metrics> given_;

  std::vector<instance_id> ids_;
  std::vector<std::uint64_t> tails_; // of the ids
  std::vector<const instance_view*> views_;
  std::vector<inflight_load> inflight_;
  std::vector<instance_state> states_;
  std::vector<std::uint8_t> reachable_;
  std::vector<std::uint8_t> schedulable_;
  std::vector<unix_ms> written_;
  std::vector<infer_type> roles_;
  std::vector<std::optional<infer_type>> reserved_;
  std::vector<std::vector<float>> values_;
  std::vector<location> locations_;
  // What differs by row in the share of the last decision, and what does not.
  std::vector<std::int32_t> hit_tokens_;
  std::vector<std::int32_t> progress_; // predicted; empty if it is not
  decision_share common_;
  bool asked_ = false; // about prefixes
  // Where those named with the last hits stand; found anew only when others are, or rows move.
  static constexpr row nowhere = std::numeric_limits<row>::max();
  struct {
    instance_hits::names of;
    std::uint64_t layout = 0;
    std::vector<row> rows;
  } seats_;
  std::uint64_t layout_ = 1;

  /// A column of the decision that follows from what is kept here, where no progress is predicted
  /// and nothing laid down: filled without a look at any status, as those lie far apart.
  struct quick_column {
    std::size_t slot = 0;
    const load_metric* base = nullptr; ///< kept with each status and booking; null: 0
    enum class added : std::uint8_t { nothing, hit_tokens, miss_tokens };
    added tokens = added::nothing;
    std::vector<float> bases{};
  };
  void take_shares(const decision_inputs& about);
  void find_seats(const instance_hits::names& who);
  void note_quick_column(std::size_t slot);
  void fill(const quick_column& column);
  std::vector<quick_column> quick_;
};

} // namespace llumnix
