#include "runtime/migration/autoscaling_policy.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

using enum scaling_action;
using cluster = std::vector<scalable_instance>;

constexpr float infinite = std::numeric_limits<float>::infinity();

cluster of(std::initializer_list<float> freeness) {
  cluster all;
  for (auto x : freeness)
    all.push_back({.id = "i" + std::to_string(all.size()), .freeness = x});
  return all;
}

} // namespace

TEST_CASE("the average freeness is kept within the band") {
  struct row {
    const char* what;
    cluster instances;
    double average;
    scaling_action action;
  };
  for (auto& [what, instances, average, action] : std::vector<row>{
         {"below", of({4, 14}), 9, scale_out},
         {"at the lower edge", of({5, 15}), 10, none},
         {"at the upper edge", of({50, 70}), 60, none},
         {"above", of({50, 71}), 60.5, scale_in},
         {"below, and at most already", of({1, 1, 1, 1}), 1, none},
         {"above, and at least already", of({90}), 90, none},
         {"one idle among busy", of({1, infinite}), infinite, scale_in},
         {"all idle, at least already", of({infinite}), infinite, none},
         {"one without any among idle", of({infinite, -infinite}), -infinite, scale_out},
         {"nobody", {}, infinite, scale_out},
         {"more than at most, within the band", of({20, 20, 20, 20, 20}), 20, none}}) {
    CAPTURE(what);
    auto decision = scale(instances, {.low = 10, .high = 60, .least = 1, .most = 4});
    REQUIRE(decision);
    CHECK(decision->average == average);
    CHECK(decision->action == action);
    CHECK(decision->leaves.empty() == (action != scale_in));
    CHECK_FALSE(decision->reason.empty());
  }
}

TEST_CASE("a cluster that may be empty stays empty") {
  auto decision = scale({}, {.least = 0});
  REQUIRE(decision);
  CHECK(decision->action == none);
}

TEST_CASE("the instance with the fewest running requests leaves, ties by id") {
  cluster all = of({90, 90, 90, 90});
  std::int32_t running[] = {3, 1, 2, 1};
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i].running_requests = running[i];
  CHECK(scale(all, {})->leaves == "i1");
  all[1].state = instance_state::lost;
  CHECK(scale(all, {})->leaves == "i3");
}

TEST_CASE("only ready instances count") {
  auto all = of({20, -infinite, 1, 1});
  all[1].state = instance_state::draining;
  all[2].state = instance_state::lost;
  all[3].state = instance_state::stopped;
  auto decision = scale(all, {});
  CHECK(decision->average == 20);
  CHECK(decision->action == none);
}

TEST_CASE("nothing is decided while an instance has yet to report") {
  auto all = of({90, infinite});
  all[1].reported = false;
  auto decision = scale(all, {});
  CHECK(decision->action == none);
  CHECK(decision->reason == "i1 has not reported yet");
  all[1].state = instance_state::stopped;
  CHECK(scale(all, {.least = 0})->action == scale_in);
}

TEST_CASE("every problem of a band is told") {
  auto wrong = scale({}, {.low = 5, .high = 4, .least = -1, .most = -2});
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == errc::invalid_argument);
  CHECK(wrong.error().context == "low is above high; min is below 0; min is above max");
  CHECK_FALSE(scale({}, {.low = std::numeric_limits<double>::quiet_NaN()}));
}
