#include "runtime/cluster/recent_waiting.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace std::chrono_literals;

TEST_CASE("ids are shown for ten seconds after they were told, oldest first") {
  using ids = std::vector<std::string>;
  constexpr time_point start{1h};
  recent_waiting recent;
  CHECK(recent.ids(start).empty());
  recent.add({"a", "b"}, start);
  recent.add({"c"}, start + 4s);
  CHECK(recent.ids(start + 4s) == ids{"a", "b", "c"});
  CHECK(recent.ids(start + 10s) == ids{"a", "b", "c"});
  CHECK(recent.ids(start + 10s + 1ms) == ids{"c"});
  recent.add({}, start + 10s + 1ms); // makes room, and changes nothing for who asks
  CHECK(recent.ids(start + 10s + 1ms) == ids{"c"});
  recent.add({"d"}, start + 14s);
  CHECK(recent.ids(start + 14s) == ids{"c", "d"});
  CHECK(recent.ids(start + 15s) == ids{"d"});
  CHECK(recent.ids(start + 25s).empty());
}
