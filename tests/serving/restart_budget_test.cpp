#include "runtime/cluster/restart_budget.hpp"

#include <doctest/doctest.h>

namespace llumnix {

using namespace std::chrono_literals;

TEST_CASE("a restart budget pauses longer each time and ends") {
  restart_budget budget{
    {.restarts = 4, .window = 60s, .first_pause = 100ms, .longest_pause = 350ms}};
  time_point begin{};
  CHECK(budget.spend(begin) == 100ms);
  CHECK(budget.spend(begin + 1s) == 200ms);
  CHECK(budget.spend(begin + 2s) == 350ms);
  CHECK(budget.spend(begin + 3s) == 350ms);
  CHECK_FALSE(budget.spend(begin + 4s).has_value());
}

TEST_CASE("a restart leaves the budget when its window has passed") {
  restart_budget budget{{.restarts = 2, .window = 10s, .first_pause = 100ms, .longest_pause = 5s}};
  time_point begin{};
  CHECK(budget.spend(begin) == 100ms);
  CHECK(budget.spend(begin + 4s) == 200ms);
  CHECK_FALSE(budget.spend(begin + 9999ms).has_value());
  CHECK(budget.spend(begin + 10s) == 200ms);
  CHECK_FALSE(budget.spend(begin + 13s).has_value());
  CHECK(budget.spend(begin + 60s) == 100ms);
}

TEST_CASE("a budget of nothing allows nothing") {
  restart_budget budget{{.restarts = 0}};
  CHECK_FALSE(budget.spend(time_point{}).has_value());
}

} // namespace llumnix
