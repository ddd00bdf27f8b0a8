#include "scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// A cluster whose nodes stop in order while requests run.
struct leaving_scene : scene {
  explicit leaving_scene(std::uint64_t seed, std::uint32_t engines = 3) : scene{seed, engines} {
    REQUIRE(settle());
    run_for(1s); // until the engine nodes have dialled each other
  }
  void send(const std::string& id, std::uint32_t tokens) {
    auto& client = request("head", greedy(id, tokens, prompt_of(id)));
    clients.push_back({id, tokens, &client});
  }
  static std::vector<token_id> prompt_of(const std::string& id) {
    std::vector<token_id> ids(30 + id.size());
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<token_id>(97 + (i * 5 + id.back()) % 26);
    return ids;
  }
  void begin(int count, std::uint32_t tokens) {
    for (int i = 0; i < count; ++i)
      send("r" + std::to_string(i), tokens);
    REQUIRE(all_run());
  }
  /// Some at each of two engines, which cannot move: offers are never answered. How many are at the
  /// first.
  std::size_t begin_where_none_moves() {
    begin(4, 1500);
    auto here = at("engine-0");
    REQUIRE(here > 0);
    cut("engine-0", "engine-1", true);
    return here;
  }
  std::size_t at(const instance_id& id) {
    std::size_t count = 0;
    for (const auto& request : list_of("requests", "requests"))
      count += request.at("instance") == id;
    return count;
  }
  bool all_run() {
    return run_until(
      [&] {
        return std::ranges::all_of(
          clients, [](const auto& each) { return each.client->tokens.size() >= 3; });
      },
      20s);
  }
  /// Every stream is whole, and nobody had to replay one.
  void expect_all_exact(std::uint64_t replays = 0) {
    REQUIRE(run_until(
      [&] {
        return std::ranges::all_of(clients, [](const auto& each) { return each.client->ended(); });
      },
      120s));
    for (const auto& [id, tokens, client] : clients) {
      CAPTURE(id);
      CHECK(client->failure.code == errc::ok);
      CHECK(client->tokens == expected_tokens(prompt_of(id), tokens));
    }
    CHECK(replays_of_all() == replays);
  }
  std::uint64_t replays_of_all() {
    std::uint64_t count = 0;
    for (const auto& each : clients)
      for (const auto& event : list_of("events", "why", each.id))
        count += event.at("kind") == "replayed";
    return count;
  }

  struct sent {
    std::string id;
    std::uint32_t tokens;
    virtual_client* client;
  };
  std::vector<sent> clients;
};

} // namespace

TEST_CASE("a node that stops lets its requests go on elsewhere first") {
  leaving_scene there{1};
  there.begin(9, 400);
  REQUIRE(there.at("engine-1") > 0);
  auto before = there.now();
  there.stop("engine-1", 10s);
  CHECK(there.now() - before < nanoseconds{1s});
  CHECK(there.at("engine-1") == 0);
  there.expect_all_exact();
}

TEST_CASE("a node that stopped is told from one that is lost, until it is back") {
  leaving_scene there{8, 2};
  auto state = [&] {
    std::string all;
    for (const auto& each : there.list_of("instances", "cluster"))
      all += (all.empty() ? "" : ", ") + each.at("state").get<std::string>();
    return all;
  };
  auto downs = [&] {
    std::string all;
    for (const auto& each : there.list_of("events", "events", "0"))
      if (each.at("kind") == "node_down")
        all += each.at("node").get<std::string>() + " " + each.at("reason").get<std::string>() + " ";
    return all;
  };
  there.stop("engine-0", 10s);
  CHECK(there.run_until([&] { return state() == "stopped, ready"; }, 5s));
  there.kill("engine-1");
  CHECK(there.run_until([&] { return state() == "stopped, lost"; }, 5s));
  CHECK(downs() == "engine-0 stopped engine-1 lost ");
  for (auto engine : {"engine-0", "engine-1"})
    there.start(engine, scene::engine());
  REQUIRE(there.settle());
  CHECK(state() == "ready, ready");
}

TEST_CASE("all engine nodes stop and come back, one after the other, and no stream notices") {
  leaving_scene there{2};
  std::uint32_t sent = 0;
  auto keep_some_running = [&] {
    for (int i = 0; i < 6; ++i)
      there.send("r" + std::to_string(sent++), 300);
    REQUIRE(there.all_run());
  };
  for (std::uint32_t i = 0; i < 3; ++i) {
    keep_some_running();
    there.stop(scene::engine_name(i), 10s);
    there.start(scene::engine_name(i), scene::engine());
    REQUIRE(there.settle());
    there.run_for(1s);
  }
  there.expect_all_exact();
}

TEST_CASE("a node that has nobody to go to lets its requests end first") {
  leaving_scene there{3, 1};
  there.begin(3, 200);
  auto before = there.now();
  there.stop("engine-0", 10s);
  CHECK(there.now() - before < nanoseconds{5s}); // as soon as they have
  there.expect_all_exact();
}

TEST_CASE("what does not end in time on the only node is replayed once the node is back") {
  leaving_scene there{5, 1};
  there.send("r1", 1500);
  REQUIRE(there.all_run());
  auto before = there.now();
  there.stop("engine-0", 200ms);
  CHECK(there.now() - before < nanoseconds{400ms});
  there.start("engine-0", scene::engine());
  there.expect_all_exact(1);
}

TEST_CASE("a node whose requests nobody waits for any more stops at once") {
  leaving_scene there{6, 1};
  there.send("r1", 1500);
  REQUIRE(there.all_run());
  there.kill("head");
  there.run_for(100ms);
  auto before = there.now();
  there.stop("engine-0", 10s);
  CHECK(there.now() - before < nanoseconds{100ms});
}

TEST_CASE("what does not move in time is replayed by its owner") {
  leaving_scene there{4, 2};
  auto here = there.begin_where_none_moves();
  there.stop("engine-0", 500ms);
  there.expect_all_exact(here);
}

TEST_CASE("a drain goes on once the broken link is back") {
  leaving_scene there{7, 2};
  auto here = there.begin_where_none_moves();
  caf::anon_send(
    there.card("head").console.front(), order_msg{order_msg::drain{"engine-0", 60s}});
  there.run_for(100ms);
  there.reset("head", "engine-0");
  auto drained = [&] {
    return std::ranges::any_of(there.list_of("events", "events", "0"), [](const auto& event) {
      return event.at("kind") == "drained";
    });
  };
  for (int i = 0; i < 300 && !drained(); ++i)
    there.run_for(100ms);
  CHECK(drained());
  there.expect_all_exact(here);
}
