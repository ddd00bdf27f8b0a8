#include "actors/prefix_watch.hpp"
#include "tests/virtual/scene.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace llumnix::testing {

namespace {

using hits = std::vector<prefix_hit>;

/// A watch over two instances of blocks of 2 tokens, told by hand.
struct watched : stage {
  watched() {
    first = handle();
    second = handle();
    watch.on_node({"a", 1}, {{"a", first}});
    watch.on_node({"b", 1}, {{"b", second}});
    auto asked = watch.due(now);
    REQUIRE(asked.size() == 2);
    of_a = asked[0].watch;
    of_b = asked[1].watch;
  }
  llumlet_actor handle() {
    auto made = caf::actor_cast<llumlet_actor>(listener(nothing));
    run();
    return made;
  }
  /// Blocks 11, 12, ... of the tokens 1, 2, 3, ...
  static kv_changes prefix(std::uint32_t blocks, bool cleared = false) {
    kv_changes x;
    x.cleared = cleared;
    x.block_tokens = 2;
    for (std::uint32_t i = 0; i < blocks; ++i)
      x.store(i == 0 ? 0 : 10 + i, 11 + i, std::vector<token_id>{2 * i + 1, 2 * i + 2});
    return x;
  }
  hits find() {
    std::vector<token_id> prompt(20);
    for (token_id i = 0; i < 20; ++i)
      prompt[i] = i + 1;
    auto found = watch.find(prompt);
    CHECK(found.asked);
    CHECK(found.prompt_tokens == 20);
    return found.instances.list();
  }

  std::vector<kv_changes_msg> nothing;
  prefix_watch watch{7};
  time_point now{std::chrono::hours{1}};
  llumlet_actor first, second;
  std::uint64_t of_a = 0;
  std::uint64_t of_b = 0;
};

} // namespace

TEST_CASE_FIXTURE(watched, "what engines tell is who holds how much of a prompt, by name") {
  CHECK(find().empty());
  watch.hear({"b", of_b, 0, prefix(3, true)});
  watch.hear({"a", of_a, 0, prefix(2, true)});
  CHECK(find() == hits{{"a", 4}, {"b", 6}});
  kv_changes more;
  more.block_tokens = 2;
  more.remove(13);
  more.remove(12);
  more.store(11, 99, std::vector<token_id>{3, 4}); // by another name
  watch.hear({"b", of_b, 1, more});
  CHECK(find() == hits{{"a", 4}, {"b", 4}});
  CHECK(watch.count().blocks == 4);
  CHECK(watch.count().gaps == 0);
  CHECK(watch.due(now).empty());
}

TEST_CASE_FIXTURE(watched, "a word that is missing or senseless voids the others; it asks again") {
  auto senseless = prefix(1);
  senseless.tokens.pop_back();
  struct row {
    const char* what;
    kv_changes_msg heard;
  };
  std::uint64_t gaps = 0;
  for (auto& [what, heard] :
       {row{"one is missing", {"a", 0, 2, prefix(1)}},
        row{"one came twice", {"a", 0, 0, prefix(1)}},
        row{"the numbers do not agree", {"a", 0, 1, senseless}}}) {
    CAPTURE(what);
    watch.hear({"a", of_a, 0, prefix(2, true)});
    watch.hear({"b", of_b, gaps, prefix(3)});
    REQUIRE(find() == hits{{"a", 4}, {"b", 6}});
    auto wrong = heard;
    wrong.watch = of_a;
    watch.hear(wrong);
    CHECK(find() == hits{{"b", 6}});
    CHECK(watch.count().gaps == ++gaps);
    watch.hear({"a", of_a, 1, prefix(2)}); // of the question before
    CHECK(find() == hits{{"b", 6}});
    CHECK(watch.due(now).empty()); // not at once
    now += std::chrono::seconds{1};
    auto again = watch.due(now);
    REQUIRE(again.size() == 1);
    CHECK(again[0].to == first);
    CHECK(again[0].watch > of_b);
    of_a = again[0].watch;
  }
  CHECK(watch.due(now).empty());
}

TEST_CASE_FIXTURE(watched, "an engine is told how far it was heard, every sixteen messages") {
  for (std::uint64_t i = 0; i < 40; ++i) {
    CAPTURE(i);
    auto receipt = watch.hear({"a", of_a, i, prefix(2, true)});
    REQUIRE(receipt.has_value() == (i == 15 || i == 31));
    if (!receipt)
      continue;
    CHECK(receipt->to == first);
    CHECK(receipt->watch == of_a);
    CHECK(receipt->heard == i + 1);
  }
  CHECK_FALSE(watch.hear({"a", of_a, 47, prefix(2, true)})); // void
}

TEST_CASE_FIXTURE(watched, "an instance that is gone or another holds nothing") {
  auto both = [&] {
    watch.hear({"a", of_a, 0, prefix(2, true)});
    watch.hear({"b", of_b, 0, prefix(3, true)});
    REQUIRE(find() == hits{{"a", 4}, {"b", 6}});
  };
  SUBCASE("its node is lost") {
    both();
    watch.lose({"a", 1});
    watch.lose({"b", 0}); // a life before
    CHECK(find() == hits{{"b", 6}});
    CHECK(watch.count().watched == 1);
    watch.hear({"a", of_a, 1, prefix(2)});
    CHECK(find() == hits{{"b", 6}});
    CHECK(watch.due(now).empty());
    watch.on_node({"a", 2}, {{"a", handle()}});
    CHECK(watch.due(now).size() == 1);
    CHECK(find() == hits{{"b", 6}});
  }
  SUBCASE("its node runs it no more") {
    both();
    watch.on_node({"a", 1}, {});
    CHECK(find() == hits{{"b", 6}});
  }
  SUBCASE("it was started again") {
    both();
    watch.on_node({"a", 1}, {{"a", handle()}});
    CHECK(find() == hits{{"b", 6}});
    CHECK(watch.due(now).size() == 1);
  }
  SUBCASE("its card came again") {
    both();
    watch.on_node({"a", 1}, {{"a", first}});
    CHECK(find() == hits{{"a", 4}, {"b", 6}});
    CHECK(watch.due(now).empty());
  }
  SUBCASE("nobody knows it") {
    both();
    watch.hear({"c", of_a, 1, prefix(9)});
    watch.hear({"a", 0, 1, prefix(9)});
    CHECK(find() == hits{{"a", 4}, {"b", 6}});
    CHECK(watch.count().gaps == 0);
  }
}

namespace {

cluster_config cache_aware() {
  auto config = small_engines(); // 256 blocks of 16 tokens
  config.scheduler.policy = "cache-aware";
  config.scheduler.cache_aware_min_tokens = 320;
  return config;
}

/// A prompt of `shared` tokens that all with the same letter begin with, and others.
std::vector<token_id> prompt(char letter, std::size_t shared, std::size_t own = 0, char end = '.') {
  std::vector<token_id> tokens(shared, static_cast<token_id>(letter));
  tokens.resize(shared + own, static_cast<token_id>(end));
  return tokens;
}

struct cached_scene : scene {
  explicit cached_scene(cluster_config config = cache_aware()) : scene{11, 2, std::move(config)} {
    REQUIRE(settle());
  }
  virtual_client& send(const std::string& id, std::vector<token_id> tokens) {
    return request("head", greedy(id, 4, std::move(tokens)));
  }
  bool done(virtual_client& client) {
    return run_until([&] { return client.ended(); }, 10s) && client.failure.code == errc::ok;
  }
  struct place {
    std::string instance;
    std::uint32_t hit_tokens = 0;
    friend bool operator==(const place&, const place&) = default;
  };
  /// Where a request went at last, and what was known to be cached there.
  place where(const std::string& id) {
    place last;
    auto why = nlohmann::json::parse(inspect("head", "why", id));
    for (const auto& event : why["events"])
      if (event["kind"] == "placed")
        last = {event["instance"], event["reasons"].value("hit_tokens", 0u)};
    return last;
  }
  /// engine-1 computes a prompt, since engine-0 has more to do; then neither has anything to do.
  void warm_up() {
    auto& busy = send("busy", prompt('x', 800));
    run_for(0ms);
    auto& first = send("first", prompt('a', 640));
    REQUIRE(done(busy));
    REQUIRE(done(first));
    REQUIRE(where("first") == place{"engine-1", 0});
    run_for(200ms);
  }
  std::int64_t listeners(const std::string& node) {
    std::int64_t count = -1;
    auto actors = nlohmann::json::parse(inspect(node, "actors"));
    for (const auto& line : actors["actors"])
      if (line["role"] == "engine" && line["node"] == node)
        count = line["state"]["kv_listeners"];
    return count;
  }
};

using place = cached_scene::place;

} // namespace

TEST_CASE("a prompt goes where its beginning is cached, though somebody else "
          "has less to do") {
  for (bool by_scheduler : {true, false}) {
    CAPTURE(by_scheduler);
    auto config = cache_aware();
    config.gateway.forward_scheduler = by_scheduler;
    cached_scene x{config};
    x.warm_up();
    auto& second = x.send("second", prompt('a', 640, 200));
    auto& third = x.send("third", prompt('a', 640, 300, ','));
    auto& other = x.send("other", prompt('y', 400));
    REQUIRE(x.done(second));
    REQUIRE(x.done(third));
    REQUIRE(x.done(other));
    CHECK(x.where("second") == place{"engine-1", 640});
    CHECK(x.where("third") == place{"engine-1", 640}); // 200 + 300 there, 940 elsewhere
    CHECK(x.where("other") == place{"engine-0", 0});
    x.run_for(100ms);
    const auto& counted = x.counters("head");
    CHECK(counted.placements == 5);
    CHECK(counted.placements_with_hits == 2);
    CHECK(counted.hit_tokens == 1280);
    // x: 50; a: 40, 12 and 18 more of each, of 840 and 940 tokens with 3 that were computed; y: 25
    CHECK(counted.prefix_blocks == 50 + 40 + 12 + 18 + 25);
    CHECK(counted.prefix_gaps == 0);
    CHECK(counted.prefix_evicted == 0);
  }
}

TEST_CASE("short prompts are not looked up") {
  cached_scene x;
  x.warm_up();
  REQUIRE(x.done(x.send("short", prompt('a', 319))));
  CHECK(x.where("short") == place{"engine-0", 0});
  REQUIRE(x.done(x.send("long", prompt('a', 320))));
  CHECK(x.where("long") == place{"engine-1", 320}); // engine-0 has 304 of them now
}

TEST_CASE("nobody is sent to an engine for what died with it") {
  cached_scene x;
  x.warm_up();
  REQUIRE(x.counters("head").prefix_blocks == 90);
  x.kill("engine-1");
  x.run_for(5s);
  CHECK(x.counters("head").prefix_blocks == 50);
  REQUIRE(x.done(x.send("second", prompt('a', 640))));
  CHECK(x.where("second") == place{"engine-0", 0});
  x.start("engine-1", scene::engine());
  REQUIRE(x.settle());
  x.run_for(1s);
  CHECK(x.counters("head").prefix_blocks == 90); // all of engine-0
  REQUIRE(x.done(x.send("third", prompt('a', 640))));
  CHECK(x.where("third") == place{"engine-0", 640});
}

TEST_CASE("an engine that was started again holds nothing, and is asked") {
  cached_scene x;
  x.warm_up();
  x.kill_actor("engine-1", "llumlet engine-1");
  x.run_for(5s);
  REQUIRE(x.settle());
  CHECK(x.counters("head").prefix_blocks == 50);
  CHECK(x.listeners("engine-1") == 1);
  REQUIRE(x.done(x.send("second", prompt('a', 640))));
  CHECK(x.where("second") == place{"engine-0", 0});
}

TEST_CASE("what an engine holds is heard anew after its link broke, and by a "
          "gateway that is new") {
  cached_scene x;
  x.warm_up();
  SUBCASE("link") {
    x.reset("head", "engine-1");
  }
  SUBCASE("gateway") {
    x.kill_actor("head", "gateway");
  }
  x.run_for(5s);
  REQUIRE(x.settle());
  CHECK(x.counters("head").prefix_blocks == 90);
  CHECK(x.listeners("engine-1") == 1);
  REQUIRE(x.done(x.send("second", prompt('a', 640))));
  CHECK(x.where("second") == place{"engine-1", 640});
}

TEST_CASE("an engine tells nobody who is gone, and nobody where placements ask "
          "for no prefixes") {
  cached_scene x;
  CHECK(x.listeners("engine-0") == 1);
  x.kill("head");
  x.run_for(5s);
  CHECK(x.listeners("engine-0") == 0);

  cached_scene plain{small_engines()};
  CHECK(plain.listeners("engine-0") == 0);
}

} // namespace llumnix::testing
