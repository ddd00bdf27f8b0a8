#pragma once

#include "runtime/scheduling/candidate_table.hpp"

#include <optional>
#include <span>
#include <vector>

/// Who moves requests to whom (spec/rescheduling.md 2.1): plain functions over rows of one
/// candidate table. Sources and destinations come in ascending order, which is by id; that settles
/// ties. No pair is of an instance with itself.
namespace llumnix {

struct row_pair {
  candidate_table::row from = 0;
  candidate_table::row to = 0;
  friend bool operator==(const row_pair&, const row_pair&) = default;
};

using row_span = std::span<const candidate_table::row>;

/// The load pairs are made by: values by row, and which of them are the light ones.
struct load_column {
  std::span<const float> values;
  better light = better::lower;

  bool lighter(candidate_table::row x, candidate_table::row y) const {
    return is_better(light, values[x], values[y]);
  }
};

/// Metric balance: heaviest with lightest, second with second, until a destination is not strictly
/// lighter than its source.
std::vector<row_pair>
balance_pairs(row_span sources, row_span destinations, const load_column& load);

/// The same inside each unit, in ascending order of their ids. `locations` are by row; instances
/// without a unit id are left out.
std::vector<row_pair> balance_pairs_in_units(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const candidate_table::location> locations);

/// Round robin: source i goes to destination i modulo their number. A source that would go to
/// itself stays.
std::vector<row_pair> round_robin_pairs(row_span sources, row_span destinations);

/// Mitigation: the heaviest source to the heaviest destination, the one closest below its limit.
std::optional<row_pair>
mitigation_pair(row_span sources, row_span destinations, const load_column& load);

/// Consolidation: the lightest source to the destination reserved for decode or, if it is none, to
/// the heaviest. `reserved` is by row.
std::optional<row_pair> consolidation_pair(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const std::optional<infer_type>> reserved);

/// Aggregation: from the lightest source on, each to the heaviest destination there is; an instance
/// takes part once. No policy of the reference uses it.
std::vector<row_pair>
aggregation_pairs(row_span sources, row_span destinations, const load_column& load);

} // namespace llumnix
