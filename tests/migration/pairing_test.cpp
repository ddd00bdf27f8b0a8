#include "runtime/migration/pairing.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

using rows = std::vector<candidate_table::row>;
using pairs = std::vector<row_pair>;

constexpr float infinite = std::numeric_limits<float>::infinity();

pairs as_list(std::optional<row_pair> pair) {
  return pair ? pairs{*pair} : pairs{};
}

/// A case of a pairing by load. Rows are indices into the loads.
struct loaded {
  const char* what;
  std::vector<float> loads;
  rows sources, destinations;
  pairs expected;
  better light = better::lower;
};

} // namespace

TEST_CASE("metric balance pairs heaviest with lightest until there is nothing to gain") {
  rows all{0, 1, 2, 3};
  for (auto& [what, loads, sources, destinations, expected, light] : std::vector<loaded>{
         {"nobody", {}, {}, {}, {}},
         {"no destination", {1, 2}, {0, 1}, {}, {}},
         {"two lists", {9, 1, 8, 2}, {0, 2}, {1, 3}, {{0, 1}, {2, 3}}},
         {"the same list stops in the middle", {5, 1, 9, 3}, all, all, {{2, 1}, {0, 3}}},
         {"an odd one meets itself", {1, 5, 9}, {0, 1, 2}, {0, 1, 2}, {{2, 0}}},
         {"equal loads", {4, 4, 4, 4}, all, all, {}},
         {"it stops at the first and looks no further", {1, 2, 3, 9}, {0, 3}, {1, 2}, {{3, 1}}},
         {"a longer list of sources", {9, 8, 7, 1}, {0, 1, 2}, {3}, {{0, 3}}},
         {"ties by id", {7, 7, 2, 2}, {0, 1}, {2, 3}, {{0, 2}, {1, 3}}},
         {"infinite loads are equal", {infinite, infinite}, {0, 1}, {0, 1}, {}},
         {"higher is lighter", {5, 1, 9, 3}, all, all, {{1, 2}, {3, 0}}, better::higher}}) {
    CAPTURE(what);
    CHECK(balance_pairs(sources, destinations, {loads, light}) == expected);
  }
}

TEST_CASE("metric balance within units leaves out who has none, and goes by unit id") {
  std::vector<float> loads{9, 1, 8, 2, 7, 0, 6};
  std::vector<candidate_table::location> places{
    {"", "u2", false}, {"", "u2", false}, {"", "u1", false}, {"", "u1", false},
    {"", "", false},   {"", "", false},   {"", "u3", false}};
  rows all{0, 1, 2, 3, 4, 5, 6};
  CHECK(balance_pairs_in_units(all, all, {loads}, places) == pairs{{2, 3}, {0, 1}});
  CHECK(balance_pairs_in_units(rows{0, 6}, rows{3}, {loads}, places) == pairs{});
}

TEST_CASE("round robin goes by order, and a pair with itself is not replaced") {
  struct row {
    rows sources, destinations;
    pairs expected;
  };
  for (auto& [sources, destinations, expected] : std::vector<row>{
         {{0, 1}, {}, {}},
         {{}, {0, 1}, {}},
         {{0, 1, 2}, {3, 4}, {{0, 3}, {1, 4}, {2, 3}}},
         {{0, 1, 2}, {0, 2}, {{1, 2}, {2, 0}}},
         {{5}, {5}, {}}})
    CHECK(round_robin_pairs(sources, destinations) == expected);
}

TEST_CASE("mitigation takes from the most loaded and gives to the most loaded") {
  for (auto& [what, loads, sources, destinations, expected, light] : std::vector<loaded>{
         {"no source", {1, 2}, {}, {0, 1}, {}},
         {"no destination", {50, 60}, {0, 1}, {}, {}},
         {"one of each", {50, 60, 20, 30, 10}, {0, 1}, {2, 3, 4}, {{1, 3}}},
         {"infinite counts as most, ties by id",
          {infinite, infinite, 3, 3},
          {0, 1},
          {2, 3},
          {{0, 2}}},
         {"not to itself", {50, 10}, {0}, {0, 1}, {}}}) {
    CAPTURE(what);
    CHECK(as_list(mitigation_pair(sources, destinations, {loads, light})) == expected);
  }
}

// Mends weakness 8 of spec/rescheduling.md.
TEST_CASE("consolidation empties the least loaded into the reserved, else the most loaded") {
  struct row {
    const char* what;
    std::vector<float> loads;
    rows sources, destinations;
    std::optional<candidate_table::row> reserved;
    pairs expected;
  };
  for (auto& [what, loads, sources, destinations, reserved, expected] : std::vector<row>{
         {"no destination", {1, 2}, {0, 1}, {}, {}, {}},
         {"no source", {1, 2}, {}, {0, 1}, {}, {}},
         {"least to most", {5, 20, 3}, {0, 2}, {0, 1, 2}, {}, {{2, 1}}},
         {"the reserved one", {5, 20, 3, 9}, {0, 2}, {0, 1, 2, 3}, 3, {{2, 3}}},
         {"the reserved one is no candidate", {5, 20, 3, 9}, {0, 2}, {0, 1, 2}, 3, {{2, 1}}},
         {"alone", {5}, {0}, {0}, {}, {}},
         {"the next but the destination", {3, 3}, {0, 1}, {0, 1}, {}, {{1, 0}}},
         {"ties by id", {9, 4, 4, 9}, {1, 2}, {0, 3}, {}, {{1, 0}}}}) {
    CAPTURE(what);
    std::vector<std::optional<infer_type>> marks(loads.size());
    if (reserved)
      marks[*reserved] = infer_type::decode;
    CHECK(as_list(consolidation_pair(sources, destinations, {loads}, marks)) == expected);
  }
}

TEST_CASE("consolidation is not drawn to an instance reserved for prefill") {
  std::vector<float> loads{5, 20, 3};
  std::vector<std::optional<infer_type>> marks{infer_type::prefill, {}, {}};
  CHECK(as_list(consolidation_pair(rows{2}, rows{0, 1}, {loads}, marks)) == pairs{{2, 1}});
}

TEST_CASE("aggregation uses everybody once") {
  rows all{0, 1, 2, 3};
  for (auto& [what, loads, sources, destinations, expected, light] : std::vector<loaded>{
         {"nobody", {}, {}, {}, {}},
         {"light into heavy", {1, 2, 3, 4}, all, all, {{0, 3}, {1, 2}}},
         {"itself is passed over", {1, 2}, {0}, {0}, {}},
         {"passed over, then another", {5, 1}, {0}, {0, 1}, {{0, 1}}},
         {"who was given something gives nothing", {1, 2, 3}, {0, 1, 2}, {1, 2}, {{0, 2}}},
         {"ties by id", {2, 2, 2, 2}, {0, 1}, {2, 3}, {{0, 2}, {1, 3}}}}) {
    CAPTURE(what);
    CHECK(aggregation_pairs(sources, destinations, {loads, light}) == expected);
  }
}

TEST_CASE("defragmentation pairs heaviest with lightest as far as both sides go") {
  rows all{0, 1, 2, 3};
  for (auto& [what, loads, sources, destinations, expected, light] : std::vector<loaded>{
         {"nobody", {}, {}, {}, {}},
         {"no destination", {1, 2}, {0, 1}, {}, {}},
         {"the same list goes through", {5, 1, 9, 3}, all, all, {{2, 1}, {0, 3}, {3, 0}, {1, 2}}},
         {"nobody goes to itself", {1, 5, 9}, {0, 1, 2}, {0, 1, 2}, {{2, 0}, {0, 2}}},
         {"a longer list of sources", {7, 9, 8, 1}, {0, 1, 2}, {3}, {{1, 3}}},
         {"ties by id", {7, 7, 2, 2}, {0, 1}, {2, 3}, {{0, 2}, {1, 3}}},
         {"higher is lighter", {5, 1, 40, 30}, {0, 1}, {2, 3}, {{1, 2}, {0, 3}}, better::higher}}) {
    CAPTURE(what);
    CHECK(defrag_pairs(sources, destinations, {loads, light}) == expected);
  }
  std::vector<float> loads{9, 1, 8, 2, 7, 0};
  std::vector<candidate_table::location> places{{"", "u2", false}, {"", "u2", false},
                                                {"", "u1", false}, {"", "u1", false},
                                                {"", "", false},   {"", "", false}};
  CHECK(
    defrag_pairs_in_units(rows{0, 2, 4}, rows{1, 3, 5}, {loads}, places) == pairs{{2, 3}, {0, 1}});
}

TEST_CASE("a balanced pair is kept if one request brings it closer and the destination bears it") {
  struct row {
    const char* what;
    better light;
    pair_loads before, after;
    std::optional<float> limit;
    move_gain expected;
  };
  using enum move_gain;
  for (auto& [what, light, before, after, limit, expected] : {
         row{"closer", better::lower, {9, 1}, {8, 2}, {}, worth},
         row{"equal", better::lower, {6, 4}, {5, 5}, {}, none},
         row{"turned round", better::lower, {5, 4}, {4, 5}, {}, none},
         row{"as far as before", better::lower, {5, 3}, {4, 2}, {}, none},
         row{"farther", better::lower, {5, 3}, {5, 1}, {}, none},
         row{"below the limit", better::lower, {9, 1}, {8, 2}, 2.5f, worth},
         row{"at the limit", better::lower, {9, 1}, {8, 2}, 2.0f, fills_destination},
         row{"steps, closer", better::higher, {2, 20}, {3, 15}, 3.0f, worth},
         row{"steps, at the limit", better::higher, {2, 4}, {2.5f, 3}, 3.0f, fills_destination},
         row{"steps, turned round", better::higher, {2, 20}, {12, 10}, 3.0f, none},
         row{"an empty one takes", better::higher, {2, infinite}, {3, 50}, 3.0f, worth},
         row{"the last one changes places", better::higher, {9, infinite}, {infinite, 9}, {}, none},
         row{"two empty ones", better::higher, {infinite, infinite}, {infinite, 9}, {}, none}}) {
    CAPTURE(what);
    CHECK(gain_of_move(light, before, after, limit) == expected);
  }
}

TEST_CASE("halving sends the first half of the sources to the last destinations") {
  struct row {
    rows sources, destinations;
    pairs expected;
  };
  for (auto& [sources, destinations, expected] : std::vector<row>{
         {{}, {}, {}},
         {{0}, {0, 1}, {}}, // more than one on each side
         {{0, 1}, {1}, {}},
         {{0, 1}, {0, 1}, {{0, 1}}},
         {{0, 1, 2}, {0, 1, 2}, {{0, 2}}},
         {{0, 1, 2, 3}, {0, 1, 2, 3}, {{0, 3}, {1, 2}}},
         {{0, 1, 2, 3, 4}, {5, 6}, {{0, 6}}},
         {{1, 2}, {0, 1}, {}}}) // it would meet itself
    CHECK(halving_pairs(sources, destinations) == expected);
}
