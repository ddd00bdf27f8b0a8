#include "scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Requests that all ended up at one of two instances.
struct balance_scene : scene {
  explicit balance_scene(std::uint64_t seed, double threshold = 0.2)
    : scene{seed, 0, settings(threshold)} {
    kill("head");
    auto head = scene::head();
    head.roles.push_back("rescheduler");
    start("head", head);
    start("engine-0", scene::engine());
    REQUIRE(settle(1));
    run_for(4s); // until it leads
  }
  static cluster_config settings(double threshold) {
    auto config = small_engines();
    config.rescheduler.neutral_load_threshold = 0.3;
    config.rescheduler.load_balance_threshold = threshold;
    config.engine.speed = 5; // long enough to be balanced
    return config;
  }
  /// A number of RESCHEDULER's.
  std::uint64_t number(const std::string& name) {
    for (const auto& actor : list_of("actors", "actors"))
      if (actor.at("role") == "rescheduler")
        return actor.at("state").at(name);
    FAIL("there is no RESCHEDULER");
    return 0;
  }
};

} // namespace

TEST_CASE("an unbalanced cluster becomes balanced, stays so, and no token is lost") {
  balance_scene there{1};
  std::vector<virtual_client*> clients;
  std::vector<std::vector<token_id>> prompts;
  for (std::size_t i = 0; i < 8; ++i) {
    std::vector<token_id> prompt(300);
    for (std::size_t k = 0; k < prompt.size(); ++k)
      prompt[k] = static_cast<token_id>(97 + (k * 5 + i) % 26);
    prompts.push_back(prompt);
    clients.push_back(&there.request("head", greedy("r" + std::to_string(i), 150, prompt)));
  }
  REQUIRE(there.run_until(
    [&] {
      return std::all_of(
        clients.begin(), clients.end(), [](const auto* x) { return x->tokens.size() > 2; });
    },
    60s));
  there.start("engine-1", scene::engine()); // idle, beside a full one
  REQUIRE(there.settle(2));
  REQUIRE(there.run_until([&] { return there.number("moved") >= 2; }, 20s));
  there.run_for(1s);
  auto moved = there.number("moved");
  CHECK(moved <= 4);
  for (std::size_t i = 0; i < clients.size(); ++i) {
    REQUIRE(there.run_until([&] { return clients[i]->ended(); }, 120s));
    CHECK(clients[i]->tokens == expected_tokens(prompts[i], 150));
  }
}

TEST_CASE("a balanced cluster is left alone") {
  balance_scene there{2, 0.7};
  there.start("engine-1", scene::engine());
  REQUIRE(there.settle(2));
  std::vector<virtual_client*> clients;
  for (std::size_t i = 0; i < 8; ++i) {
    std::vector<token_id> prompt(300, static_cast<token_id>(97 + i));
    clients.push_back(&there.request("head", greedy("r" + std::to_string(i), 100, prompt)));
    there.run_for(20ms);
  }
  for (auto* client : clients)
    REQUIRE(there.run_until([&] { return client->ended(); }, 120s));
  CHECK(there.number("orders") == 0);
}
