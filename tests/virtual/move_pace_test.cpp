#include "scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Engines whose requests last for long.
cluster_config slow_engines() {
  auto config = small_engines();
  config.engine.speed = 2; // a step takes about 20 ms
  return config;
}

/// Requests that are moved by orders, as RESCHEDULER would give them.
struct pace_scene : scene {
  explicit pace_scene(std::uint64_t seed, cluster_config config = slow_engines())
    : scene{seed, 1, std::move(config)} {
    REQUIRE(settle(1));
  }
  /// Starts requests at engine-0, then the other instances.
  void begin(std::size_t count, std::uint32_t engines, std::uint32_t tokens = 1500) {
    for (std::size_t i = 0; i < count; ++i)
      clients.push_back(
        &request("head", greedy("r" + std::to_string(i), tokens, std::vector<token_id>(50, 97))));
    REQUIRE(run_until(
      [&] {
        return std::all_of(
          clients.begin(), clients.end(), [](const auto* x) { return x->tokens.size() > 1; });
      },
      60s));
    for (std::uint32_t i = 1; i < engines; ++i)
      start(engine_name(i), engine());
    REQUIRE(settle(engines));
    run_for(1s); // until the instances are connected to each other
  }
  stream_ref stream(std::size_t client) const { return {"head", 1, 0, clients.at(client)->stream}; }
  migrate_msg order_to(const instance_id& to, bool by_load) const {
    migrate_msg msg;
    msg.to = owner(to);
    msg.selection = {selection_rule::requests, selection_order::shortest_running, 1};
    msg.policy = by_load ? "neutral_load" : "by hand";
    msg.term = by_load ? leader_term{1, {"head", 1}} : leader_term{};
    msg.by_load = by_load;
    return msg;
  }
  nlohmann::json migrations(const instance_id& id) {
    auto said = ask("cluster");
    for (const auto& instance : said.at("instances"))
      if (instance.at("id") == id)
        return instance.at("migrations");
    return {};
  }

  std::vector<virtual_client*> clients;
};

} // namespace

TEST_CASE("a request is moved by load once in a cool-down and so many times in all") {
  auto config = slow_engines();
  config.migration.moves_max = 3;
  pace_scene there{1, config};
  there.begin(1, 2);
  instance_id here = "engine-0", away = "engine-1";
  struct row {
    nanoseconds after;
    bool by_load;
    bool moved;
  };
  for (const auto& [after, by_load, moved] : {
         row{0s, true, true},      // the first
         row{0s, true, false},     // it has just come
         row{1800ms, true, false}, //
         row{200ms, true, true},   // the second
         row{0s, false, true},     // by hand at once
         row{1s, true, false},     // it has just come by that
         row{1100ms, true, true},  // the third
         row{2100ms, true, false}, // no more
         row{10s, true, false},    //
         row{0s, false, true},     // but by hand
       }) {
    there.run_for(after);
    auto answer = there.migrate(here, there.order_to(away, by_load), 5s);
    REQUIRE(answer);
    REQUIRE(answer->moves.size() == (moved ? 1 : 0));
    if (!moved)
      continue;
    CHECK(answer->moves[0].outcome == "moved");
    std::swap(here, away);
  }
  REQUIRE(there.run_until([&] { return there.clients[0]->ended(); }, 120s));
  CHECK(there.clients[0]->tokens == expected_tokens(std::vector<token_id>(50, 97), 1500));
}

TEST_CASE("a move by load that comes to nothing is not tried again at once") {
  auto config = slow_engines();
  config.migration.in_slots = 0; // nothing may come
  pace_scene there{2, config};
  there.begin(1, 2);
  auto order = there.order_to("engine-1", true);
  auto first = there.migrate("engine-0", order, 5s);
  REQUIRE(first);
  REQUIRE(first->moves.size() == 1);
  CHECK(first->moves[0].outcome == "refused");
  CHECK(there.migrate("engine-0", order, 5s)->moves.empty());
  there.run_for(2s);
  CHECK(there.migrate("engine-0", order, 5s)->moves.size() == 1);
}

TEST_CASE("so many requests leave over one link at a time, and the others over other links") {
  struct row {
    std::uint32_t per_link;
    std::vector<std::size_t> to_first; ///< clients that go to engine-1; the others to engine-2
    std::uint64_t at_once;
  };
  for (const auto& [per_link, to_first, at_once] : {
         row{1, {0, 1, 2, 3, 4, 5}, 1},
         row{1, {0, 1, 2}, 2},
         row{2, {0, 1, 2}, 4},
         row{3, {0, 1, 2, 3, 4, 5}, 3},
         row{4, {0, 1, 2, 3, 4, 5}, 4}, // all slots
         row{9, {0, 1, 2}, 4},
       }) {
    CAPTURE(per_link);
    CAPTURE(to_first.size());
    auto config = slow_engines();
    config.migration.per_link = per_link;
    pace_scene there{3, config};
    there.begin(6, 3);
    std::map<instance_id, migrate_msg> orders;
    for (std::size_t i = 0; i < 6; ++i) {
      bool first = std::count(to_first.begin(), to_first.end(), i) > 0;
      auto to = first ? "engine-1" : "engine-2";
      orders.try_emplace(to, there.order_to(to, false))
        .first->second.requests.push_back(there.stream(i));
    }
    std::vector<std::shared_ptr<std::vector<moves_msg>>> answers;
    for (const auto& [to, order] : orders)
      answers.push_back(there.order("engine-0", order));
    std::uint64_t most = 0;
    REQUIRE(there.run_until(
      [&] {
        most = std::max(most, there.counters("engine-0").departing.load());
        return std::all_of(
          answers.begin(), answers.end(), [](const auto& x) { return !x->empty(); });
      },
      30s));
    CHECK(most == at_once);
    for (const auto& answer : answers)
      for (const auto& move : answer->front().moves)
        CHECK(move.outcome == "moved");
    CHECK(there.counters("engine-0").moves_out.load() == 6);
    CHECK(there.counters("engine-0").departing.load() == 0);
    CHECK(there.counters("engine-1").moves_in.load() == to_first.size());
    CHECK(there.counters("engine-2").moves_in.load() == 6 - to_first.size());
  }
}

TEST_CASE("a full link does not hold up what waits until it is late") {
  auto config = slow_engines();
  config.migration.per_link = 1;
  pace_scene there{4, config};
  there.begin(3, 3);
  auto slow = there.order_to("engine-1", false);
  slow.requests = {there.stream(0), there.stream(1)};
  auto quick = there.order_to("engine-2", false);
  quick.requests = {there.stream(2)};
  there.cut("engine-0", "engine-1", true);
  auto held = there.order("engine-0", slow);
  auto passed = there.order("engine-0", quick);
  REQUIRE(there.run_until([&] { return !passed->empty(); }, 300ms)); // past those that wait
  CHECK(passed->front().moves.at(0).outcome == "moved");
  CHECK(held->empty());
  there.cut("engine-0", "engine-1", false);
  REQUIRE(there.run_until([&] { return !held->empty(); }, 20s));
}

TEST_CASE("what leaves and arrives shows while it does, and what has") {
  pace_scene there{5};
  there.begin(1, 2);
  using nlohmann::json;
  json idle{{"in", 0}, {"out", 0}, {"slots", 4}, {"out_slots", 4}, {"free_in", 4}, {"free_out", 4}};
  CHECK(there.migrations("engine-0") == idle);
  auto order = there.order_to("engine-1", false);
  auto answer = there.order("engine-0", order);
  REQUIRE(there.run_until([&] { return there.counters("engine-1").arriving.load() == 1; }, 1s));
  there.cut("engine-0", "engine-1", true);
  there.run_for(20ms); // the statuses
  auto leaving = idle;
  leaving["out"] = 1;
  leaving["free_out"] = 3;
  auto coming = idle;
  coming["in"] = 1;
  coming["free_in"] = 3;
  CHECK(there.migrations("engine-0") == leaving);
  CHECK(there.migrations("engine-1") == coming);
  there.cut("engine-0", "engine-1", false);
  REQUIRE(there.run_until([&] { return !answer->empty(); }, 10s));
  CHECK(answer->front().moves.at(0).outcome == "moved");
  there.run_for(2s); // D's hand-over has ended
  CHECK(there.migrations("engine-0") == idle);
  CHECK(there.migrations("engine-1") == idle);
  CHECK(there.counters("engine-0").moves_out.load() == 1);
  CHECK(there.counters("engine-1").moves_in.load() == 1);
  CHECK(there.counters("engine-0").departing.load() == 0);
  CHECK(there.counters("engine-1").arriving.load() == 0);
}

namespace {

/// Prompts of noise, tokens.
struct prompt_range {
  std::uint32_t least = 20;
  std::uint32_t most = 400;
};

/// A cluster under noise: requests of any length, placed by chance, so that it is never quite even.
struct noisy_scene : scene {
  noisy_scene(std::uint64_t seed, cluster_config config, prompt_range prompts = {})
    : scene{seed, 0, std::move(config)}, random{seed}, prompts{prompts} {
    kill("head");
    auto head = scene::head();
    head.roles.push_back("rescheduler");
    start("head", head);
    for (std::uint32_t i = 0; i < 4; ++i)
      start(engine_name(i), engine());
    REQUIRE(settle(4));
  }
  static cluster_config settings() {
    auto config = slow_engines();
    config.engine.speed = 5;
    config.scheduler.dispatch_top_k = 4;           // any instance, by chance
    config.rescheduler.neutral_load_threshold = 0; // whoever has more gives to who has less
    config.rescheduler.load_balance_threshold = 0.1;
    return config;
  }
  std::uint32_t between(std::uint32_t low, std::uint32_t high) {
    return low + static_cast<std::uint32_t>(random() % (high - low + 1));
  }
  /// Moves that were made, of each request: when, from and to.
  struct move {
    std::int64_t at_ms;
    std::string from, to;
  };
  void note_moves() {
    auto told = ask("events", std::to_string(last));
    last = told.at("last");
    CHECK(told.at("missed") == 0);
    for (const auto& event : told.at("events"))
      if (event.at("kind") == "moved")
        moves[event.at("request")].push_back({event.at("at_ms"), event.at("from"), event.at("to")});
  }
  void run(nanoseconds time) {
    ask("events"); // somebody watches
    for (auto until = now() + time; now() < until;) {
      request(
        "head", greedy(
                  "r" + std::to_string(sent++), between(100, 1000),
                  std::vector<token_id>(between(prompts.least, prompts.most), 97)));
      run_for(between(20, 200) * 1ms);
      note_moves();
    }
  }
  std::size_t made() const {
    std::size_t count = 0;
    for (const auto& [id, each] : moves)
      count += each.size();
    return count;
  }
  /// Moves back to where the request has been.
  std::size_t returns() const {
    std::size_t count = 0;
    for (const auto& [id, each] : moves) {
      std::set<std::string> been;
      for (const auto& move : each) {
        been.insert(move.from);
        count += been.contains(move.to);
      }
    }
    return count;
  }

  std::mt19937_64 random;
  prompt_range prompts;
  std::uint64_t last = 0;
  std::size_t sent = 0;
  std::map<std::string, std::vector<move>> moves;
};

} // namespace

TEST_CASE("under noise load does not oscillate: few moves, apart, and hardly one to and fro") {
  auto roomy = noisy_scene::settings();
  roomy.engine.blocks = 792;
  struct row {
    std::uint64_t seed;
    cluster_config config;
    prompt_range prompts;
  };
  for (const auto& [seed, config, prompts] :
       {row{1, noisy_scene::settings(), {}}, row{2, noisy_scene::settings(), {}},
        row{4, roomy, {1100, 1500}}}) { // more than a move's budget, each
    CAPTURE(seed);
    noisy_scene there{seed, config, prompts};
    there.run(20s);
    CHECK(there.made() > 0);
    CHECK(there.made() <= there.sent / 3);
    CHECK(there.returns() * 10 <= there.made());
    for (const auto& [id, moves] : there.moves) {
      CAPTURE(id);
      CHECK(moves.size() <= 5);
      for (std::size_t i = 1; i < moves.size(); ++i)
        CHECK(moves[i].at_ms - moves[i - 1].at_ms >= 1900);
    }
  }
}
