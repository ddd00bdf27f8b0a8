#include "tests/virtual/scene.hpp"
#include "tests/virtual/scripted_index.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

cluster_config cache_aware() {
  auto config = small_engines();
  config.scheduler.policy = "cache-aware";
  config.scheduler.cache_aware_min_tokens = 3;
  return config;
}

virtual_node_options with(scripted_index& index) {
  auto options = scene::head();
  options.prefix_index = &index;
  return options;
}

/// A gateway that asks an index, and engines.
struct asking_scene : virtual_cluster {
  explicit asking_scene(std::uint32_t engines) : virtual_cluster{1, cache_aware()} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    start("head", with(index));
    for (std::uint32_t i = 0; i < engines; ++i)
      start(scene::engine_name(i), scene::engine());
    REQUIRE(
      run_until([&] { return counters("head").longest_request > 0 && known() == engines; }, 2s));
  }
  std::uint32_t known() {
    auto document = inspect("head", "cluster");
    std::uint32_t count = 0;
    for (std::size_t at = 0; (at = document.find("\"state\":\"ready\"", at)) != std::string::npos;
         ++at)
      ++count;
    return count;
  }

  scripted_index index;
};

std::vector<token_id> prompt_of(std::size_t size) {
  return std::vector<token_id>(size, 7);
}

} // namespace

TEST_CASE("a request waits for its index alone, and goes where its beginning is") {
  asking_scene there{3};
  auto& long_one = there.request("head", greedy("long", 4, prompt_of(100)));
  auto& short_one = there.request("head", greedy("short", 4, prompt_of(2)));
  REQUIRE(there.run_until([&] { return short_one.ended(); }, 2s));
  CHECK_FALSE(long_one.ended());
  CHECK(
    there.index.asked
    == std::vector<std::vector<token_id>>{prompt_of(100)}); // once, though others went on
  there.index.tell(prefix_holders{holder_naming::instance, {{"engine-2", 64}, {"nobody", 96}}});
  REQUIRE(there.run_until([&] { return long_one.ended(); }, 2s));
  CHECK(
    there.inspect("head", "why", "long").find("\"instance\":\"engine-2\"") != std::string::npos);
  CHECK(there.counters("head").placements_with_hits == 1);
  CHECK(there.counters("head").hit_tokens == 64);
}

TEST_CASE("without an answer a request is placed without hits") {
  asking_scene there{1};
  auto& client = there.request("head", greedy("r", 4, prompt_of(100)));
  REQUIRE(there.run_until([&] { return !there.index.waiting.empty(); }, 2s));
  there.index.tell(error{errc::unreachable, "the store is down"});
  REQUIRE(there.run_until([&] { return client.ended(); }, 2s));
  CHECK(there.counters("head").placements_with_hits == 0);
  CHECK(there.counters("head").placements == 1);
}

TEST_CASE("an answer for a request that has gone changes nothing") {
  asking_scene there{1};
  auto& client = there.request("head", greedy("r", 4, prompt_of(100)));
  REQUIRE(there.run_until([&] { return !there.index.waiting.empty(); }, 2s));
  there.disconnect(client);
  there.run_for(100ms);
  there.index.tell(prefix_holders{holder_naming::instance, {{"engine-0", 64}}});
  there.run_for(100ms);
  CHECK(there.counters("head").placements == 0);
  CHECK(there.counters("head").waiting == 0);
}

} // namespace llumnix::testing
