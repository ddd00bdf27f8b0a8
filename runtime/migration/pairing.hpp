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

/// Defragmentation of the first Llumnix (spec/rescheduling.md 9): heaviest with lightest, second
/// with second, as far as both go.
std::vector<row_pair>
defrag_pairs(row_span sources, row_span destinations, const load_column& load);

/// The same inside each unit, as `balance_pairs_in_units` has it.
std::vector<row_pair> defrag_pairs_in_units(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const candidate_table::location> locations);

/// The loads of a pair.
struct pair_loads {
  float from = 0;
  float to = 0;
};

/// What moving one request is good for.
enum class move_gain : std::uint8_t {
  worth,             ///< the source stays the heavier one, by less than before
  none,              ///< the difference grows, stays, or is over or turned round
  fills_destination, ///< which does not stay on the light side of its limit
};

/// Balanced pairing of the first Llumnix: a pair of `defrag_pairs` is kept only if it is `worth` it
/// (spec/rescheduling.md 9). `limit`: what the destination stays lighter than; none: it has none.
move_gain gain_of_move(
  better light, const pair_loads& before, const pair_loads& after, std::optional<float> limit);

/// Aggregation of the first Llumnix: with more than one on each side, sources in ascending order go
/// to destinations in descending order, the first half of them. Beyond it, nobody to itself.
std::vector<row_pair> halving_pairs(row_span sources, row_span destinations);

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
