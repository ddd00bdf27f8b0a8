#include "runtime/migration/pairing.hpp"

#include <algorithm>
#include <map>
#include <string_view>

namespace llumnix {

namespace {

using row = candidate_table::row;
using rows = std::vector<row>;

rows lightest_first(row_span of, const load_column& load) {
  rows sorted{of.begin(), of.end()};
  std::ranges::stable_sort(sorted, [&](row x, row y) { return load.lighter(x, y); });
  return sorted;
}

rows heaviest_first(row_span of, const load_column& load) {
  rows sorted{of.begin(), of.end()};
  std::ranges::stable_sort(sorted, [&](row x, row y) { return load.lighter(y, x); });
  return sorted;
}

row heaviest(row_span of, const load_column& load) {
  return *std::ranges::max_element(of, [&](row x, row y) { return load.lighter(x, y); });
}

using pairing_by_load = std::vector<row_pair> (*)(row_span, row_span, const load_column&);

/// A pairing inside each unit, in ascending order of their ids.
std::vector<row_pair> pairs_in_units(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const candidate_table::location> locations, pairing_by_load pairing) {
  struct members {
    rows sources, destinations;
  };
  std::map<std::string_view, members> units;
  for (auto at : sources)
    units[locations[at].unit].sources.push_back(at);
  for (auto at : destinations)
    units[locations[at].unit].destinations.push_back(at);
  std::vector<row_pair> pairs;
  for (auto& [unit, of] : units) {
    if (unit.empty())
      continue;
    auto inside = pairing(of.sources, of.destinations, load);
    pairs.insert(pairs.end(), inside.begin(), inside.end());
  }
  return pairs;
}

} // namespace

std::vector<row_pair>
defrag_pairs(row_span sources, row_span destinations, const load_column& load) {
  auto from = heaviest_first(sources, load);
  auto to = lightest_first(destinations, load);
  std::vector<row_pair> pairs;
  for (std::size_t i = 0; i < std::min(from.size(), to.size()); ++i)
    if (from[i] != to[i])
      pairs.push_back({from[i], to[i]});
  return pairs;
}

/// In this order no pair is behind one whose destination is not lighter.
std::vector<row_pair>
balance_pairs(row_span sources, row_span destinations, const load_column& load) {
  auto pairs = defrag_pairs(sources, destinations, load);
  std::erase_if(pairs, [&](const row_pair& x) { return !load.lighter(x.to, x.from); });
  return pairs;
}

std::vector<row_pair> balance_pairs_in_units(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const candidate_table::location> locations) {
  return pairs_in_units(sources, destinations, load, locations, balance_pairs);
}

std::vector<row_pair> defrag_pairs_in_units(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const candidate_table::location> locations) {
  return pairs_in_units(sources, destinations, load, locations, defrag_pairs);
}

move_gain gain_of_move(
  better light, const pair_loads& before, const pair_loads& after, std::optional<float> limit) {
  if (limit && !is_better(light, after.to, *limit))
    return move_gain::fills_destination;
  auto heavier_by = [&](const pair_loads& x) {
    return light == better::lower ? x.from - x.to : x.to - x.from;
  };
  auto left = heavier_by(after);
  return left > 0 && left < heavier_by(before) ? move_gain::worth : move_gain::none;
}

std::vector<row_pair> halving_pairs(row_span sources, row_span destinations) {
  std::vector<row_pair> pairs;
  if (sources.size() < 2 || destinations.size() < 2)
    return pairs;
  auto half = std::min(sources.size(), destinations.size()) / 2;
  for (std::size_t i = 0; i < half; ++i)
    if (auto to = destinations[destinations.size() - 1 - i]; to != sources[i])
      pairs.push_back({sources[i], to});
  return pairs;
}

std::vector<row_pair> round_robin_pairs(row_span sources, row_span destinations) {
  std::vector<row_pair> pairs;
  if (destinations.empty())
    return pairs;
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (auto to = destinations[i % destinations.size()]; to != sources[i])
      pairs.push_back({sources[i], to});
  return pairs;
}

std::optional<row_pair>
mitigation_pair(row_span sources, row_span destinations, const load_column& load) {
  if (sources.empty() || destinations.empty())
    return std::nullopt;
  row_pair pair{heaviest(sources, load), heaviest(destinations, load)};
  if (pair.from == pair.to)
    return std::nullopt;
  return pair;
}

std::optional<row_pair> consolidation_pair(
  row_span sources, row_span destinations, const load_column& load,
  std::span<const std::optional<infer_type>> reserved) {
  if (destinations.empty())
    return std::nullopt;
  auto named = std::ranges::find_if(
    destinations, [&](row at) { return reserved[at] == infer_type::decode; });
  auto to = named != destinations.end() ? *named : heaviest(destinations, load);
  for (auto from : lightest_first(sources, load))
    if (from != to)
      return row_pair{from, to};
  return std::nullopt;
}

std::vector<row_pair>
aggregation_pairs(row_span sources, row_span destinations, const load_column& load) {
  auto to = heaviest_first(destinations, load);
  std::vector<std::uint8_t> used(load.values.size(), 0);
  auto next = to.begin();
  std::vector<row_pair> pairs;
  for (auto from : lightest_first(sources, load)) {
    if (used[from])
      continue;
    next = std::find_if(next, to.end(), [&](row at) { return !used[at]; });
    auto found = std::find_if(next, to.end(), [&](row at) { return at != from && !used[at]; });
    if (found == to.end())
      continue;
    pairs.push_back({from, *found});
    used[from] = used[*found] = 1;
  }
  return pairs;
}

} // namespace llumnix
