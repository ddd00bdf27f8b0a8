#include "runtime/cluster/instance.hpp"
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

TEST_CASE("a status takes the place of one nobody was told, and keeps who waited") {
  instance_status older, newer;
  older.update_id = 1;
  older.recent_waiting_requests = {"a", "b"};
  older.waiting_requests = {"b"};
  newer.update_id = 2;
  newer.recent_waiting_requests = {"c"};
  follow(older, newer);
  CHECK(older.update_id == 2);
  CHECK(older.waiting_requests.empty());
  CHECK(older.recent_waiting_requests == std::vector<std::string>{"a", "b", "c"});
}
