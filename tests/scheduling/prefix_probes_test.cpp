#include "runtime/scheduling/prefix_probes.hpp"

#include <doctest/doctest.h>

#include <optional>

namespace llumnix {

namespace {

std::uint64_t count_of(const loop_histogram& observed) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i <= observed.bounds().size(); ++i)
    count += observed.count(i);
  return count;
}

} // namespace

TEST_CASE("of a choice it is told how much is cached there, and at best, in whole percent") {
  struct row {
    const char* what;
    prefix_hits hits;
    std::uint32_t chosen_has;
    double percent;
    std::optional<double> best;
  };
  for (const auto& [what, hits, chosen_has, percent, best] :
       {row{"the best was chosen", {true, 300, {{"a", 100}, {"b", 299}}}, 299, 99, 99},
        row{"another", {true, 300, {{"a", 100}, {"b", 300}}}, 100, 33, 100},
        row{"one without", {true, 300, {{"a", 2}}}, 0, 0, 0},
        row{"nobody has any", {true, 300, {}}, 0, 0, 0},
        row{"nobody was asked", {}, 0, 0, {}},
        row{"an empty prompt", {true, 0, {}}, 0, 0, 0},
        row{"more than there is", {true, 10, {{"a", 20}}}, 20, 100, 100},
        row{"a long one", {true, 100'000'000, {{"a", 50'000'000}}}, 50'000'000, 50, 50}}) {
    CAPTURE(what);
    prefix_probes probes;
    probes.saw_choice(hits, chosen_has);
    CHECK(count_of(probes.hit_percent) == 1);
    CHECK(probes.hit_percent.sum() == percent);
    CHECK(count_of(probes.best_percent) == (best ? 1 : 0));
    CHECK(probes.best_percent.sum() == best.value_or(0));
  }
}

TEST_CASE("what look-ups take is told in milliseconds and parts of them") {
  prefix_probes probes;
  probes.saw_query(std::chrono::microseconds{1'500});
  probes.saw_match(std::chrono::microseconds{50});
  CHECK(probes.query_ms.sum() == 1.5);
  CHECK(probes.query_ms.count(4) == 1); // up to 2
  CHECK(probes.match_ms.sum() == 0.05);
  CHECK(probes.match_ms.count(0) == 1);
}

} // namespace llumnix
