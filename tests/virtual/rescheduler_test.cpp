#include "scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Requests that all ended up at one of two instances.
struct balance_scene : scene {
  explicit balance_scene(std::uint64_t seed, double threshold = 0.2)
    : balance_scene{seed, settings(threshold)} {}
  balance_scene(std::uint64_t seed, cluster_config config) : scene{seed, 0, std::move(config)} {
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

namespace {

/// Engines and a rescheduler as they are by default, but for how many bytes a token has.
cluster_config usual() {
  cluster_config config;
  config.engine.kv_bytes_per_token = 16;
  return config;
}

/// Long prompts, all at engine-0: as many run as its KV holds, the others wait.
struct long_prompts : balance_scene {
  static constexpr std::size_t count = 13;
  static constexpr std::size_t prompt_tokens = 2200;
  static constexpr std::uint32_t output_tokens = 300;

  explicit long_prompts(std::uint64_t seed) : balance_scene{seed, usual()} {
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<token_id> prompt(prompt_tokens);
      for (std::size_t k = 0; k < prompt.size(); ++k)
        prompt[k] = static_cast<token_id>(97 + (k * 5 + i) % 26);
      prompt[0] = static_cast<token_id>(200 + i); // nothing of it is cached
      prompts.push_back(prompt);
      clients.push_back(
        &request("head", greedy("r" + std::to_string(i), output_tokens, std::move(prompt))));
    }
    REQUIRE(run_until([&] { return at("engine-0").at("running") >= 5; }, 60s));
    start("engine-1", scene::engine());
    REQUIRE(settle(2));
  }
  /// What runs and waits at an instance.
  nlohmann::json at(const std::string& id) {
    for (const auto& instance : list_of("instances", "cluster"))
      if (instance.at("id") == id)
        return instance.at("scheduling");
    return {};
  }
  std::uint64_t here(const std::string& id) {
    auto there = at(id);
    return there.at("running").get<std::uint64_t>() + there.at("waiting").get<std::uint64_t>();
  }

  std::vector<virtual_client*> clients;
  std::vector<std::vector<token_id>> prompts;
};

} // namespace

TEST_CASE("by default long prompts are balanced, though each is more than a move's budget") {
  long_prompts there{3};
  REQUIRE(there.here("engine-0") == long_prompts::count);
  REQUIRE(there.run_until([&] { return there.number("moved") >= 4; }, 30s));
  there.run_for(2s);
  auto moved = there.number("moved");
  CHECK(moved <= 6); // never more than half of them
  CHECK(there.at("engine-1").at("running") >= 4);
  CHECK(there.here("engine-0") >= there.here("engine-1"));
  there.run_for(2s);
  CHECK(there.number("moved") == moved); // it is even enough, and stays so
  CHECK(there.here("engine-1") == moved);
  for (std::size_t i = 0; i < there.clients.size(); ++i) {
    REQUIRE(there.run_until([&] { return there.clients[i]->ended(); }, 120s));
    CHECK(there.clients[i]->tokens == expected_tokens(there.prompts[i], 300));
  }
}

TEST_CASE("by a metric that counts requests load settles, whatever a move is said to take") {
  struct row {
    std::string rule;
    double value;
  };
  for (const auto& [rule, value] : {row{"NUM_REQ", 16}, row{"NUM_REQ", -1}, row{"TOKEN", 4096}}) {
    CAPTURE(rule);
    CAPTURE(value);
    auto config = balance_scene::settings(2);
    config.engine.speed = 1; // all last to the end
    config.engine.blocks = 4096;
    config.rescheduler.neutral_load_metric = "decode_batch_size";
    config.rescheduler.neutral_load_threshold = 7;
    config.rescheduler.select_rule = rule;
    config.rescheduler.select_value = value;
    balance_scene there{4, config};
    std::vector<virtual_client*> clients;
    for (std::size_t i = 0; i < 20; ++i)
      clients.push_back(&there.request(
        "head", greedy("r" + std::to_string(i), 2000, std::vector<token_id>(20, 97))));
    REQUIRE(there.run_until(
      [&] {
        return std::all_of(
          clients.begin(), clients.end(), [](const auto* x) { return x->tokens.size() > 2; });
      },
      60s));
    there.start("engine-1", scene::engine());
    there.start("engine-2", scene::engine());
    REQUIRE(there.settle(3));
    there.run_for(12s);
    auto moved = there.number("moved");
    CHECK(moved >= 12); // 20, 0, 0 has become 7, 7, 6 or so
    CHECK(moved <= 30); // and not by way of much else
    std::vector<std::uint64_t> each;
    for (const auto& instance : there.list_of("instances", "cluster"))
      each.push_back(instance.at("scheduling").at("running"));
    REQUIRE(each.size() == 3);
    CHECK(each[0] + each[1] + each[2] == 20);
    CHECK(std::ranges::max(each) - std::ranges::min(each) <= 2);
    auto orders = there.number("orders");
    there.run_for(6s);
    CHECK(there.number("moved") == moved);
    CHECK(there.number("orders") == orders);
    CHECK(std::none_of(clients.begin(), clients.end(), [](const auto* x) { return x->ended(); }));
  }
}
