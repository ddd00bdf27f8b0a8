#include "scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Two RESCHEDULERs, in nodes of their own, under a lease of 3 s that the head's CMS keeps.
struct leader_scene : scene {
  explicit leader_scene(std::uint64_t seed, std::uint32_t engines = 2)
    : scene{seed, engines, settings()} {
    for (const auto& name : reschedulers)
      start(name, rescheduler());
    REQUIRE(settle());
  }
  static cluster_config settings() {
    auto config = small_engines();
    config.rescheduler.neutral_load_threshold = 0.3;
    config.rescheduler.load_balance_threshold = 0.2;
    config.engine.speed = 2; // requests that last
    return config;
  }
  static virtual_node_options rescheduler() {
    virtual_node_options x;
    x.roles = {"rescheduler", "console"};
    x.seeds = {"head"};
    return x;
  }
  std::set<std::string> leaders(const std::set<std::string>& but = {}) const {
    std::set<std::string> found;
    for (const auto& name : reschedulers)
      if (!but.contains(name) && counters(name).leads.load() == 1)
        found.insert(name);
    return found;
  }
  std::uint64_t term(const std::string& name) const { return counters(name).leader_term.load(); }
  std::uint64_t orders(const std::string& name) const { return counters(name).move_orders.load(); }
  /// The one that leads, once one does.
  std::string elect(nanoseconds limit = 10s) {
    REQUIRE(run_until([&] { return leaders().size() == 1; }, limit));
    return *leaders().begin();
  }
  std::string other(const std::string& name) const {
    return name == reschedulers[0] ? reschedulers[1] : reschedulers[0];
  }
  /// The latest term that an instance has heard of.
  std::uint64_t followed(const std::string& engine) {
    auto said = ask("actors");
    for (const auto& actor : said.at("actors"))
      if (actor.at("role") == "llumlet" && actor.at("node") == engine)
        return actor.at("state").at("leader_term");
    return 0;
  }
  std::vector<nlohmann::json> events(const std::string& kind) {
    std::vector<nlohmann::json> found;
    auto said = ask("events", "0");
    for (const auto& event : said.at("events"))
      if (event.at("kind") == kind)
        found.push_back(event);
    return found;
  }
  migrate_msg order_of(const leader_term& term, const instance_id& to) {
    migrate_msg msg;
    msg.to = owner(to);
    msg.selection = {selection_rule::requests, selection_order::shortest_running, 1};
    msg.policy = "neutral_load";
    msg.term = term;
    return msg;
  }
  /// Requests at the one instance there is, each under way for long.
  void load(std::size_t count, std::uint32_t tokens = 1500) {
    std::vector<virtual_client*> clients;
    for (std::size_t i = 0; i < count; ++i)
      clients.push_back(
        &request("head", greedy("r" + std::to_string(i), tokens, std::vector<token_id>(200, 97))));
    REQUIRE(run_until(
      [&] {
        return std::all_of(
          clients.begin(), clients.end(), [](const auto* x) { return x->tokens.size() > 1; });
      },
      60s));
  }

  std::vector<std::string> reschedulers{"r1", "r2"};
};

} // namespace

TEST_CASE("of two reschedulers one leads and goes on to; everybody knows which") {
  leader_scene there{1};
  auto leader = there.elect();
  auto term = there.term(leader);
  there.run_for(1s);
  auto status = there.ask("cluster");
  CHECK(status.at("leaders").at("rescheduler") == leader);
  CHECK(status.at("leaders").at("scheduler") == "head");
  CHECK(status.at("terms").at("rescheduler").at("term") == term);
  CHECK(there.followed("engine-0") == term);
  CHECK(there.followed("engine-1") == term);
  auto told = there.events("leader");
  REQUIRE(told.size() == 1);
  CHECK(told[0].at("node") == leader);
  CHECK(told[0].at("term") == std::to_string(term));
  bool always = true;
  there.run_until(
    [&] {
      always = always && there.leaders() == std::set{leader};
      return !always;
    },
    60s);
  CHECK(always);
  CHECK(there.term(leader) == term);
  there.start("engine-2", scene::engine()); // a new instance is told too
  REQUIRE(there.settle(3));
  there.run_for(1s);
  CHECK(there.followed("engine-2") == term);
}

TEST_CASE(
  "a leader that is paused is followed within a lease; nothing it orders after it is done") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    CAPTURE(seed);
    leader_scene there{seed, 1};
    auto former = there.elect();
    auto second = there.other(former);
    auto old_term = there.term(former);
    there.load(8);
    there.pause(former);
    auto began = there.now();
    REQUIRE(there.run_until([&] { return there.leaders({former}).size() == 1; }, 10s));
    CHECK(there.now() - began <= 3050ms); // its lease, and the messages
    auto new_term = there.term(second);
    CHECK(new_term > old_term);
    there.run_for(100ms); // the instance is told
    auto ordered = there.orders(former);
    there.start("engine-1", scene::engine()); // something to be ordered
    there.resume(former);
    REQUIRE(there.settle(2));
    bool alone = true;
    there.run_until(
      [&] {
        alone = alone && there.orders(former) == ordered;
        return false;
      },
      20s);
    CHECK(alone);
    CHECK(there.orders(second) > 0);
    CHECK(there.leaders() == std::set{second});
    CHECK(there.counters("engine-0").moves_out.load() > 0);
    CHECK(there.counters("engine-0").orders_stale.load() == 0);
    // One that was on its way when it was paused.
    auto late = there.migrate("engine-0", there.order_of({old_term, {former, 1}}, "engine-1"), 10s);
    REQUIRE(late);
    REQUIRE(late->moves.size() == 1);
    CHECK(late->moves[0].outcome == "refused");
    CHECK(
      late->moves[0].reason
      == "the order is stale: " + former + "/1 under term " + std::to_string(old_term)
           + " gave it, and " + second + "/1 under term " + std::to_string(new_term) + " leads");
    CHECK(late->overtaken_by == leader_term{new_term, {second, 1}});
    CHECK(there.counters("engine-0").orders_stale.load() == 1);
    there.run_for(100ms);
    auto told = there.events("order_refused");
    REQUIRE(told.size() == 1);
    CHECK(told[0].at("instance") == "engine-0");
    CHECK(told[0].at("leader") == former);
    CHECK(told[0].at("reason") == late->moves[0].reason);
  }
}

TEST_CASE("a leader that is paused for less than it matters leads on") {
  leader_scene there{3};
  auto leader = there.elect();
  auto term = there.term(leader);
  there.run_for(5s);
  there.pause(leader);
  there.run_for(300ms);
  there.resume(leader);
  there.run_for(10s);
  CHECK(there.leaders() == std::set{leader});
  CHECK(there.term(leader) == term);
}

TEST_CASE("orders of an earlier term are refused; those of people and drains are not") {
  leader_scene there{4};
  auto leader = there.elect();
  there.run_for(1s);
  auto now = there.term(leader);
  there.load(2);
  struct row {
    const char* what;
    leader_term of;
    bool taken;
  };
  for (const auto& [what, of, taken] : {
         row{"the leader", {now, {leader, 1}}, true},
         row{"a former one", {now - 1, {leader, 1}}, false},
         row{"nobody", {}, true},
         row{"a later one that we had not heard of", {now + 5, {"r9", 1}}, true},
         row{"the leader, overtaken by that", {now, {leader, 1}}, false},
         row{"nobody, again", {}, true},
       }) {
    CAPTURE(what);
    auto answer = there.migrate("engine-0", there.order_of(of, "engine-1"), 10s);
    if (answer && answer->moves.empty()) // it has moved
      answer = there.migrate("engine-1", there.order_of(of, "engine-0"), 10s);
    REQUIRE(answer);
    REQUIRE(answer->moves.size() == 1);
    CHECK((answer->moves[0].outcome != "refused") == taken);
    CHECK(static_cast<bool>(answer->overtaken_by) != taken);
  }
}

TEST_CASE("a leader whose orders are refused for a later term leads again, under a term above it") {
  leader_scene there{5, 1};
  auto leader = there.elect();
  there.run_for(1s);
  auto former = there.term(leader);
  auto above = former + 1000000; // the wall clock was set back since that was granted
  there.migrate("engine-0", there.order_of({above, {"gone", 1}}, "engine-9"), 5s);
  there.load(8);
  there.start("engine-1", scene::engine());
  REQUIRE(there.settle(2));
  REQUIRE(there.run_until(
    [&] {
      auto now = there.leaders();
      return now.size() == 1 && there.term(*now.begin()) > above;
    },
    20s));
  REQUIRE(there.run_until([&] { return there.counters("engine-0").moves_out.load() > 0; }, 20s));
}

TEST_CASE("terms never go back, and a leader leads on, when the keeper is started again") {
  leader_scene there{6};
  auto leader = there.elect();
  auto term = there.term(leader);
  SUBCASE("its actor crashes") {
    for (int i = 0; i < 3; ++i) {
      there.kill_actor("head", "cms");
      there.run_for(4s);
    }
    CHECK(there.leaders() == std::set{leader});
    CHECK(there.term(leader) == term);
    CHECK(there.ask("cluster").at("terms").at("rescheduler").at("term") == term);
  }
  SUBCASE("the leader goes with it") {
    there.kill_actor("head", "cms");
    there.kill(leader);
    auto began = there.now();
    REQUIRE(there.run_until([&] { return there.leaders({leader}).size() == 1; }, 20s));
    CHECK(there.now() - began > 3s); // a lease that nobody knows of might run
    CHECK(there.now() - began < 5s);
    CHECK(there.term(there.other(leader)) > term);
  }
  SUBCASE("another node keeps the lease") {
    virtual_node_options keeper;
    keeper.roles = {"cms", "console"};
    keeper.seeds = {"head"};
    there.start("a", keeper); // first by name
    there.run_for(6s);
    CHECK(there.leaders() == std::set{leader});
    CHECK(there.term(leader) == term);
    there.kill("a");
    there.run_for(6s);
    CHECK(there.leaders() == std::set{leader});
    CHECK(there.term(leader) == term);
    there.kill(leader);
    REQUIRE(there.run_until([&] { return there.leaders({leader}).size() == 1; }, 20s));
    CHECK(there.term(there.other(leader)) > term);
  }
}

TEST_CASE("a rescheduler that ends in order, or whose actor ends, leaves the lease to the next") {
  leader_scene there{7};
  auto leader = there.elect();
  auto term = there.term(leader);
  there.run_for(2s);
  auto began = there.now();
  auto within = 1500ms; // the next claim: a third of the lease
  SUBCASE("its node stops") {
    there.stop(leader, 0ms);
    within = 3100ms; // its last word may not get out any more
  }
  SUBCASE("its actor is ended") {
    there.kill_actor(leader, "rescheduler");
  }
  std::uint64_t next = 0;
  REQUIRE(there.run_until(
    [&] {
      for (const auto& name : there.reschedulers)
        next = std::max(next, there.term(name) > term ? there.term(name) : 0);
      return next > term;
    },
    10s));
  CHECK(there.now() - began < within);
}

TEST_CASE("the next life of a leader's node does not lead before its former lease is over") {
  leader_scene there{8};
  auto leader = there.elect();
  auto second = there.other(leader);
  there.kill(second);
  auto term = there.term(leader);
  there.run_for(2s);
  auto began = there.now();
  there.kill(leader);
  there.start(leader, leader_scene::rescheduler());
  REQUIRE(there.run_until([&] { return there.term(leader) > term; }, 10s));
  CHECK(there.now() - began > 1900ms);
  CHECK(there.now() - began < 3500ms);
}

TEST_CASE("in halves of a divided cluster instances follow one leader; healed, it has one") {
  leader_scene there{9};
  there.kill("r2");
  virtual_node_options both;
  both.roles = {"rescheduler", "cms", "console"};
  both.seeds = {"head"};
  there.start("r2", both);
  there.run_for(5s);
  auto leader = there.elect();
  auto term = there.term(leader);
  there.cut("r2", "head", true);
  there.cut("r2", "r1", true);
  auto apart = [&] { return there.leaders().size() == 2; };
  if (leader == "r1")
    REQUIRE(there.run_until(apart, 20s)); // r2 asks its own CMS
  else
    REQUIRE(there.run_until(apart, 20s)); // r1 asks the head's
  auto later = std::max(there.term("r1"), there.term("r2"));
  CHECK(later > term);
  CHECK(there.term("r1") != there.term("r2"));
  there.run_for(200ms);
  CHECK(there.followed("engine-0") == later);
  CHECK(there.followed("engine-1") == later);
  there.cut("r2", "head", false);
  there.cut("r2", "r1", false);
  there.run_for(10s);
  REQUIRE(there.leaders().size() == 1);
  auto now = there.term(*there.leaders().begin());
  CHECK(now >= later);
  CHECK(there.followed("engine-0") == now);
}
