#include "tests/virtual/scene.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

TEST_CASE("a slow reader holds up itself and nobody else") {
  auto config = small_engines();
  config.gateway.credit_window = 32;
  scene cluster{1, 1, config};
  REQUIRE(cluster.settle());
  auto& slow = cluster.request("head", greedy("slow", 500));
  slow.reads = false;
  auto& other = cluster.request("head", greedy("other", 500, {75}));
  REQUIRE(cluster.run_until([&] { return other.ended(); }, 10s));
  CHECK(other.tokens == expected_tokens({75}, 500));
  cluster.run_for(2s);
  CHECK(slow.tokens.size() == 32); // the window, and not a token more
  CHECK_FALSE(slow.ended());

  slow.reads = true;
  slow.flush();
  REQUIRE(cluster.run_until([&] { return slow.ended(); }, 10s));
  CHECK(slow.tokens == expected_tokens({72, 105}, 500));
}

TEST_CASE("a slow reader's stream survives the loss of its engine with its window") {
  auto config = small_engines();
  config.gateway.credit_window = 32;
  scene cluster{2, 2, config};
  REQUIRE(cluster.settle());
  auto& slow = cluster.request("head", greedy("slow", 100));
  slow.reads = false;
  cluster.run_for(500ms);
  REQUIRE(slow.tokens.size() == 32);
  cluster.kill("engine-0");
  cluster.run_for(1s);
  CHECK(slow.tokens.size() == 32);
  slow.reads = true;
  slow.flush();
  REQUIRE(cluster.run_until([&] { return slow.ended(); }, 10s));
  CHECK(slow.tokens == expected_tokens({72, 105}, 100));
}

TEST_CASE("a client that goes away frees its slot and blocks within a step") {
  scene cluster{3, 1};
  REQUIRE(cluster.settle());
  auto& client = cluster.request("head", greedy("r", 2000));
  REQUIRE(cluster.run_until([&] { return client.tokens.size() > 10; }, 5s));
  auto idle = [&] {
    auto document = cluster.inspect("head", "cluster");
    return document.find("\"running\":0") != std::string::npos
           && document.find("\"waiting\":0") != std::string::npos;
  };
  CHECK_FALSE(idle());
  auto before = client.tokens.size();
  cluster.disconnect(client);
  cluster.run_for(10ms);
  CHECK(idle());
  CHECK(client.tokens.size() == before);
}

} // namespace llumnix::testing
