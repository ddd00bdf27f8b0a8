#include "tests/virtual/scene.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

/// Streams of about 400 ms on every engine, begun.
std::vector<virtual_client*> begin_streams(scene& cluster, int count, std::uint32_t tokens = 200) {
  std::vector<virtual_client*> clients;
  for (int i = 0; i < count; ++i)
    clients.push_back(&cluster.request(
      "head", greedy("r" + std::to_string(i), tokens, {70, static_cast<token_id>(i)})));
  cluster.run_until(
    [&] {
      return std::all_of(
        clients.begin(), clients.end(), [](auto* x) { return x->tokens.size() > 3; });
    },
    5s);
  return clients;
}

void check_whole(
  scene& cluster, const std::vector<virtual_client*>& clients, std::uint32_t tokens = 200) {
  CHECK(cluster.run_until(
    [&] { return std::all_of(clients.begin(), clients.end(), [](auto* x) { return x->ended(); }); },
    60s));
  for (std::size_t i = 0; i < clients.size(); ++i) {
    CAPTURE(i);
    CHECK(clients[i]->failure == error{errc::ok, {}});
    CHECK(clients[i]->tokens == expected_tokens({70, static_cast<token_id>(i)}, tokens));
  }
}

} // namespace

TEST_CASE("a killed engine node costs no stream a token") {
  for (std::uint64_t seed : {1, 2, 3, 4, 5}) {
    CAPTURE(seed);
    scene cluster{seed, 4};
    REQUIRE(cluster.settle());
    auto clients = begin_streams(cluster, 40);
    cluster.kill("engine-2");
    check_whole(cluster, clients);
    CHECK(cluster.counters("head").replays > 0);
    CHECK(cluster.counters("head").peers_lost == 1);
  }
}

TEST_CASE("streams of a killed node are placed anew within 100 ms") {
  scene cluster{11, 4};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 40);
  cluster.kill("engine-0");
  REQUIRE(cluster.run_until([&] { return cluster.counters("head").peers_lost == 1; }, 600ms));
  auto seen = cluster.now();
  auto to_replay = [&] { return cluster.counters("head").replays.load(); };
  REQUIRE(cluster.run_until([&] { return to_replay() > 0; }, 100ms));
  cluster.run_for(100ms - (cluster.now() - seen));
  CHECK(cluster.counters("head").placements == 40 + to_replay());
  check_whole(cluster, clients);
}

TEST_CASE("a frozen node counts as dead after the timeout, and its late tokens are refused") {
  for (std::uint64_t seed : {1, 2, 3}) {
    CAPTURE(seed);
    scene cluster{seed, 3};
    REQUIRE(cluster.settle());
    auto clients = begin_streams(cluster, 30, 1000);
    cluster.pause("engine-1");
    auto frozen = cluster.now();
    REQUIRE(cluster.run_until([&] { return cluster.counters("head").peers_lost == 1; }, 2s));
    CHECK(cluster.now() - frozen <= 610ms);
    cluster.run_for(200ms);
    cluster.resume("engine-1");
    check_whole(cluster, clients, 1000);
    CHECK(cluster.settle(3)); // it is linked again and serves
  }
}

TEST_CASE("a link that is cut and healed costs nothing") {
  scene cluster{21, 3};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 30, 1500);
  cluster.cut("head", "engine-0", true);
  cluster.run_for(1s);
  cluster.cut("head", "engine-0", false);
  cluster.reset("head", "engine-2");
  check_whole(cluster, clients, 1500);
  CHECK(cluster.settle(3));
}

TEST_CASE("a link that delays for less than the timeout is no loss") {
  scene cluster{22, 2};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 10);
  cluster.delay("head", "engine-0", 300ms);
  check_whole(cluster, clients);
  CHECK(cluster.counters("head").peers_lost == 0);
  CHECK(cluster.counters("head").replays == 0);
}

TEST_CASE(
  "with all instances gone requests wait, then fail clearly; one that returns in time saves them") {
  auto config = small_engines();
  config.gateway.wait_for_instance = 2s;
  scene cluster{31, 2, config};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 6, 1000);
  cluster.kill("engine-0");
  cluster.kill("engine-1");
  SUBCASE("nobody returns") {
    auto& late = cluster.request("head", greedy("late", 4));
    auto asked = cluster.now();
    REQUIRE(cluster.run_until([&] { return late.ended(); }, 10s));
    CHECK(late.failure.code == errc::no_instance);
    CHECK(late.updates == 0);
    CHECK(cluster.now() - asked >= 2s);
    cluster.run_for(200ms);
    for (auto* client : clients) {
      CHECK(client->failure.code == errc::no_instance);
      CHECK(client->finish == finish_reason::none);
    }
  }
  SUBCASE("one returns after a second") {
    cluster.run_for(1s);
    cluster.start("engine-1", scene::engine());
    check_whole(cluster, clients, 1000);
  }
}

TEST_CASE("a killed node returns under its next incarnation and serves") {
  scene cluster{41, 1};
  REQUIRE(cluster.settle());
  cluster.kill("engine-0");
  cluster.run_for(700ms);
  cluster.start("engine-0", scene::engine());
  REQUIRE(cluster.settle(1));
  CHECK(cluster.inspect("head", "cluster").find("\"incarnation\":2") != std::string::npos);
  auto& client = cluster.request("head", greedy("r", 12));
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
  CHECK(client.tokens == expected_tokens({72, 105}, 12));
}

TEST_CASE("without its scheduler a gateway places by its last view, and says so") {
  auto config = small_engines();
  config.node.restart_pause = 5s;
  scene cluster{51, 3, config};
  REQUIRE(cluster.settle());
  cluster.kill_actor("head", "scheduler");
  cluster.run_for(10ms);
  auto clients = begin_streams(cluster, 12, 50);
  CHECK(cluster.counters("head").placements_by_view == 12);
  check_whole(cluster, clients, 50);
  cluster.run_for(6s); // it is back
  auto& after = cluster.request("head", greedy("after", 4));
  REQUIRE(cluster.run_until([&] { return after.ended(); }, 5s));
  CHECK(cluster.counters("head").placements_by_view == 12);
  CHECK(cluster.counters("head").restarts == 1);
}

TEST_CASE("a gateway actor that is started again loses no stream") {
  scene cluster{61, 2};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 10, 600);
  cluster.kill_actor("head", "gateway");
  auto& meanwhile = cluster.request("head", greedy("meanwhile", 8));
  check_whole(cluster, clients, 600);
  CHECK(cluster.run_until([&] { return meanwhile.ended(); }, 10s));
  CHECK(meanwhile.tokens == expected_tokens({72, 105}, 8));
}

TEST_CASE("a llumlet that crashes is started again, and its streams go on elsewhere") {
  scene cluster{71, 2};
  REQUIRE(cluster.settle());
  auto clients = begin_streams(cluster, 10, 600);
  cluster.kill_actor("engine-0", "llumlet engine-0");
  check_whole(cluster, clients, 600);
}

TEST_CASE("random kills, freezes and cuts lose nothing") {
  for (std::uint64_t seed = 100; seed < 103; ++seed) {
    CAPTURE(seed);
    scene cluster{seed, 4};
    REQUIRE(cluster.settle());
    auto clients = begin_streams(cluster, 24, 1500);
    std::mt19937_64 random{seed};
    for (int i = 0; i < 6; ++i) {
      auto victim = scene::engine_name(static_cast<std::uint32_t>(random() % 4));
      switch (random() % 4) {
        case 0:
          cluster.kill(victim);
          cluster.run_for(std::chrono::milliseconds{random() % 800});
          cluster.start(victim, scene::engine());
          break;
        case 1:
          cluster.pause(victim);
          cluster.run_for(std::chrono::milliseconds{random() % 1200});
          cluster.resume(victim);
          break;
        case 2:
          cluster.cut("head", victim, true);
          cluster.run_for(std::chrono::milliseconds{random() % 1200});
          cluster.cut("head", victim, false);
          break;
        default: cluster.reset("head", victim); break;
      }
      cluster.run_for(std::chrono::milliseconds{random() % 500});
    }
    check_whole(cluster, clients, 1500);
  }
}

} // namespace llumnix::testing
