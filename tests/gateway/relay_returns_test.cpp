#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

TEST_CASE_FIXTURE(table_rig, "a request that kills engines does not meet all of them") {
  config.engine_retries_floor = 1000;
  for (bool stream : {true, false})
    for (int engines_there : {8, 1}) {
      CAPTURE(stream);
      CAPTURE(engines_there);
      for (int i = 1; i < 9; ++i)
        engines.remove("e:" + std::to_string(i));
      for (int i = 1; i <= engines_there; ++i)
        engines.put("e:" + std::to_string(i), {.address = "e"});
      auto client = open(stream);
      auto asked = pool.asked.size();
      for (int i = 1; i < 9 && client->status == 0; ++i) {
        place(("e:" + std::to_string(std::min(i, engines_there))).c_str());
        engine().on_end({errc::disconnected, "cut"});
        loop.time += std::chrono::milliseconds{101};
        table.sweep(loop.now());
      }
      CHECK(pool.asked.size() == asked + 3);
      CHECK(client->status == 502);
      std::string tried = engines_there == 1 ? "1 engine" : "3 engines";
      CHECK(
        client->json()["error"]["message"]
        == "gave up after 3 attempts at " + tried
             + ": cut, 3 times before a first token: the request itself may be the reason");
      CHECK(port.ended.back().failure.context == client->json()["error"]["message"]);
      loop.run();
    }
}

TEST_CASE_FIXTURE(
  table_rig, "an engine that is started again is waited for, whoever else is listed") {
  using std::chrono::milliseconds;
  struct row {
    const char* what;
    bool listed, ready, draining; ///< another engine
  };
  config.wait_for_instance = milliseconds{5000};
  config.engine_retries_floor = 0;
  for (auto [what, listed, ready, draining] :
       {row{"nobody", false, false, false}, row{"a dead one", true, false, false},
        row{"one that died just now", true, true, false},
        row{"a drained one", true, true, true}})
    for (bool returns : {true, false}) {
      CAPTURE(what);
      CAPTURE(returns);
      loop.time += milliseconds{100'000};
      for (const auto* each : {"e:1", "e:2"})
        engines.remove(each);
      engines.put("e:1", {.address = "e:1", .token_ids = true});
      if (listed)
        engines.put("e:2", {.address = "e:2", .token_ids = true, .ready = ready});
      table.drain("e:2", draining);
      auto client = open(true);
      place();
      loop.time += milliseconds{60'000}; // it is old
      auto asked = pool.asked.size();
      auto placed = port.placed.size();
      engine().on_end({errc::disconnected, "cut"});
      int waited = 0;
      for (; waited < 100 && !client->ended && !(returns && waited == 10); ++waited) {
        if (port.placed.size() > std::exchange(placed, port.placed.size())) {
          place(); // nobody else takes work
          if (pool.asked.size() > std::exchange(asked, pool.asked.size()))
            engine().on_end({errc::unreachable, "refused"});
          if (port.placed.size() > std::exchange(placed, port.placed.size()))
            place();
          CHECK(pool.asked.size() == asked); // not twice in a row
        }
        loop.time += milliseconds{101};
        table.sweep(loop.now());
      }
      if (!returns) {
        CHECK(client->ended);
        CHECK(waited >= 48);
        CHECK(waited <= 52);
        CHECK(client->json()["error"]["message"] == "refused");
        loop.run();
        continue;
      }
      REQUIRE_FALSE(client->ended);
      place();
      CHECK(pool.asked.size() == asked + 1);
      CHECK(pool.asked.back().address == "e:1");
      table.give_up_all(testing::draining);
      loop.run();
    }
}

TEST_CASE_FIXTURE(table_rig, "an engine that takes no work is none that others could rest for") {
  engines.put("e:2", {.address = "e:2", .ready = false});
  engines.trouble("e:1")->on_failure(loop.now(), loop.now());
  open(true);
  CHECK(port.excluded.back().empty()); // e:1 is all there is
  engines.put("e:2", {.address = "e:2"});
  open(true);
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
}

} // namespace llumnix::testing
