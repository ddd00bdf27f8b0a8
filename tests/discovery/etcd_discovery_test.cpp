#include "fake_etcd.hpp"
#include "integrations/discovery/etcd_discovery.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

using mood = etcd_pool::mood;

constexpr auto& range = etcd::range_path;
constexpr auto& watch = etcd::watch_path;
constexpr auto& authenticate = etcd::authenticate_path;

struct etcd_rig {
  explicit etcd_rig(discovery_config change = {}) : config{std::move(change)} {
    if (config.etcd.empty())
      config.etcd = {"a:1", "b:1", "c:1"};
    for (const auto& address : config.etcd)
      pool.members[address] = {&store};
    put("p", 1);
  }
  void start() {
    record_rules rules{config.record_expiry, "neutral", parse_networks({"10.0.0.0/8"}).filter};
    etcd = std::make_unique<etcd_discovery>(config, std::move(rules), pool, loop);
    etcd->start(heard.listener());
    CHECK(heard.times() == 0);
  }
  void pass(std::chrono::milliseconds time) {
    pass_until([] { return false; }, time);
  }
  bool pass_until(const std::function<bool()>& done, std::chrono::milliseconds limit) {
    for (auto end = loop.time + limit; loop.time < end; loop.time += 100ms) {
      etcd->tick();
      while (pool.deliver() || !loop.posted.empty()) // each answer may lead to another question
        loop.run_posted();
      if (done())
        return true;
    }
    return false;
  }
  void put(const std::string& pod, int last) {
    store.put(pod, record_of(pod, last, utc_now() + ++written));
  }
  std::uint64_t errors() const { return etcd->health().errors; }

  discovery_config config;
  hand_loop loop;
  fake_etcd store;
  etcd_pool pool;
  heard_lists heard;
  unix_ms written = 0;
  std::unique_ptr<etcd_discovery> etcd; // before what it uses
};

} // namespace

TEST_CASE("records of an etcd are read, then followed") {
  etcd_rig rig;
  rig.start();
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "p_dp0");
  CHECK(rig.pool.watches() == 1);
  rig.put("q", 2);
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "p_dp0 q_dp0");
  rig.store.remove("p");
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "q_dp0");
  rig.put("q", 3); // the same pod, elsewhere
  rig.pass(100ms);
  CHECK(rig.heard.lists.back()[0].address == "10.0.0.3:8000");
  rig.put("q", 3); // a renewal is no news
  rig.pass(20s);
  CHECK(rig.heard.times() == 4);
  CHECK(rig.pool.count(watch) == 1);
  CHECK(rig.pool.count(range) == 1 + 4); // a probe every five seconds
  auto health = rig.etcd->health();
  CHECK(health.source == "etcd");
  CHECK(health.engines == 1);
  CHECK(health.errors == 0);
  CHECK(health.answered_s_ago < 6);
}

TEST_CASE("what is written between reading and watching is not missed") {
  etcd_rig rig;
  rig.start();
  rig.etcd->tick();
  rig.pool.deliver(); // the reading is answered,
  rig.put("q", 2);    // and only then somebody writes
  rig.store.remove("p");
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "q_dp0");
}

TEST_CASE("many records come in pages, also those with huge values") {
  etcd_rig rig;
  for (int i = 0; i < 200; ++i)
    rig.put("many" + std::to_string(100 + i), 10 + i);
  for (int i = 0; i < 3; ++i)
    rig.store.put("huge" + std::to_string(i), std::string(1400 * 1000, 'x'));
  rig.start();
  rig.pass(2s);
  REQUIRE(rig.heard.times() == 1);
  CHECK(rig.heard.lists[0].size() == 201);
  CHECK(rig.errors() == 3); // records that are too long
  rig.pass(25s);
  CHECK(rig.pool.count(watch) == 1); // none is missed by the probes
}

TEST_CASE("members that fail are passed over") {
  for (auto failure : {mood::absent, mood::silent}) {
    etcd_rig rig;
    rig.pool.members["a:1"].now = rig.pool.members["b:1"].now = failure;
    rig.start();
    CHECK(rig.pass_until([&] { return rig.heard.times() == 1; }, 12s));
    CHECK(rig.errors() == 2);
    CHECK(rig.pool.questions.back().address == "c:1");
    rig.pass(20s);
    rig.pool.members["c:1"].now = failure;
    rig.pool.members["a:1"].now = mood::up;
    rig.put("q", 2);
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "p_dp0 q_dp0"; }, 20s));
    CHECK(rig.heard.times() == 2); // nobody was taken back meanwhile
  }
}

TEST_CASE("an outage takes nobody along, however long it lasts") {
  etcd_rig rig;
  rig.start();
  rig.pass(10s);
  for (auto& [address, member] : rig.pool.members)
    member.now = mood::absent;
  rig.pass(100ms);
  const auto asked = rig.pool.questions.size();
  rig.pass(10min);
  CHECK(rig.heard.times() == 1);
  CHECK(rig.pool.questions.size() - asked < 250); // three each ten seconds
  CHECK(rig.etcd->health().answered_s_ago > 590);
  for (auto& [address, member] : rig.pool.members)
    member.now = mood::up;
  CHECK(rig.pass_until([&] { return rig.pool.watches() == 1; }, 11s));
  CHECK(rig.heard.ids() == "p_dp0"); // which nobody could renew
  rig.put("q", 2);
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "p_dp0 q_dp0");
}

TEST_CASE("a record that is kept from vanishing but not renewed dies") {
  etcd_rig rig;
  rig.start();
  rig.pass(58s);
  CHECK(rig.heard.ids() == "p_dp0");
  rig.put("q", 2);
  CHECK(rig.pass_until([&] { return rig.heard.ids() == "q_dp0"; }, 10s));
  rig.put("p", 1);
  rig.pass(100ms);
  CHECK(rig.heard.ids() == "p_dp0 q_dp0");
  for (int i = 0; i < 5; ++i) {
    rig.pass(30s);
    rig.put("p", 1);
  }
  CHECK(rig.heard.ids() == "p_dp0");
}

TEST_CASE("a watch that ends is taken up again without a gap") {
  using ending = void (*)(etcd_rig&);
  const std::pair<const char*, ending> rows[] = {
    {"cut", [](etcd_rig& rig) { rig.pool.cut_watches(); }},
    {"compacted",
     [](etcd_rig& rig) {
       rig.pool.extra[std::string{watch}]
         = {R"({"result":{"canceled":true,"compact_revision":"9"}})", "\n"};
     }},
    {"an error",
     [](etcd_rig& rig) {
       rig.pool.extra[std::string{watch}] = {R"({"error":{"message":"no leader"}})", "\n"};
     }},
    {"no JSON", [](etcd_rig& rig) { rig.pool.extra[std::string{watch}] = {"<html>\n"}; }},
    {"another's key",
     [](etcd_rig& rig) {
       rig.pool.extra[std::string{watch}]
         = {R"({"result":{"events":[{"kv":{"key":"aw=="}}]}})", "\n"};
     }},
    {"an endless line",
     [](etcd_rig& rig) {
       rig.pool.extra[std::string{watch}] = std::vector<std::string>(5, std::string(1 << 20, ' '));
     }},
  };
  for (const auto& [what, end] : rows) {
    CAPTURE(what);
    etcd_rig rig;
    rig.start();
    rig.pass(10s);
    rig.put("q", 2);
    rig.store.remove("p");
    rig.pool.hold_watches_back = true;
    rig.pass(1s);
    CHECK(rig.heard.times() == 1);
    rig.store.compact();
    rig.pool.hold_watches_back = false;
    end(rig);
    rig.put("r", 3);
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "q_dp0 r_dp0"; }, 500ms));
    rig.pass(10s);
    CHECK(rig.pool.count(watch) == 2);
    CHECK(rig.pool.watches() == 1);
    CHECK(rig.errors() == 0); // no fault of the store's
  }
}

TEST_CASE("a watch that tells nothing is found out") {
  etcd_rig rig;
  rig.start();
  rig.pass(10s);
  rig.pool.hold_watches_back = true; // as a proxy that waits for the end of the answer
  SUBCASE("of what was written") {
    rig.put("q", 2);
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "p_dp0 q_dp0"; }, 11s));
  }
  SUBCASE("of what was removed") {
    rig.put("q", 2);
    rig.pool.hold_watches_back = false;
    rig.pass(100ms);
    rig.pool.hold_watches_back = true;
    rig.store.remove("p");
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "q_dp0"; }, 21s));
  }
  CHECK(rig.errors() == 1);
  rig.put("r", 3); // from then on it is as good as asking again and again
  CHECK(rig.pass_until([&] { return rig.heard.ids().find("r_dp0") != std::string::npos; }, 16s));
}

TEST_CASE("a watch that never begins is polling, ever slower") {
  etcd_rig rig;
  rig.pool.instead[std::string{watch}] = {404, "{}"};
  rig.start();
  rig.pass(10min);
  CHECK(rig.heard.times() >= 1);
  CHECK(rig.pool.count(range) < 260);
  rig.put("q", 2);
  CHECK(rig.pass_until([&] { return rig.heard.ids() == "q_dp0"; }, 11s)); // p is dead by now
}

TEST_CASE("a store that was put back is read again") {
  etcd_rig rig;
  for (int i = 0; i < 5; ++i)
    rig.put("p", 1);
  rig.start();
  rig.pass(10s);
  rig.store.reset();
  rig.put("q", 2);
  CHECK(rig.pass_until([&] { return rig.heard.ids() == "q_dp0"; }, 10s));
}

TEST_CASE("a store that lost everything takes nobody along at once") {
  etcd_rig rig;
  for (int i = 0; i < 5; ++i)
    rig.put("p", 1);
  rig.start();
  rig.pass(10s);
  rig.store.reset();
  rig.pass(30s);
  CHECK(rig.heard.ids() == "p_dp0");
  CHECK(rig.pass_until([&] { return rig.heard.ids().empty(); }, 40s));
}

TEST_CASE("everything is read again from time to time") {
  discovery_config config;
  config.etcd_interval = 20s;
  etcd_rig rig{config};
  rig.start();
  for (int i = 0; i < 10; ++i) {
    rig.pass(10s);
    rig.put("p", 1);
  }
  CHECK(rig.pool.count(watch) == 5);
  CHECK(rig.heard.times() == 1);
  CHECK(rig.errors() == 0);
}

TEST_CASE("an etcd with users is told who asks") {
  discovery_config config;
  config.etcd_username = "gateway";
  config.etcd_password = "secret";
  SUBCASE("and lets us in") {
    etcd_rig rig{config};
    rig.store.user = "gateway";
    rig.store.password = "secret";
    rig.start();
    rig.pass(10s);
    CHECK(rig.heard.ids() == "p_dp0");
    CHECK(rig.pool.count(authenticate) == 1);
    CHECK(rig.pool.questions[0].token.empty());
    CHECK(rig.pool.questions[1].token == "abc.1");
    rig.store.token = "abc.2"; // the old one has run out
    rig.put("q", 2);
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "p_dp0 q_dp0"; }, 10s));
    rig.pass(10s);
    CHECK(rig.pool.count(authenticate) == 2);
  }
  SUBCASE("and does not") {
    etcd_rig rig{config};
    rig.store.user = "gateway";
    rig.store.password = "other";
    rig.start();
    rig.pass(60s);
    CHECK(rig.heard.times() == 0);
    CHECK(rig.pool.count(range) == 0);
    CHECK(rig.pool.count(authenticate) < 50);
    rig.store.password = "secret";
    CHECK(rig.pass_until([&] { return rig.heard.times() == 1; }, 11s));
  }
  SUBCASE("but knows no users") {
    etcd_rig rig{config};
    rig.start();
    rig.pass(10s);
    CHECK(rig.heard.ids() == "p_dp0");
    CHECK(rig.errors() == 0);
  }
  SUBCASE("but we have no name") {
    etcd_rig rig;
    rig.store.user = "gateway";
    rig.start();
    rig.pass(5s);
    CHECK(rig.heard.times() == 0);
    CHECK(rig.errors() > 0);
  }
}

TEST_CASE("answers that are none change nothing") {
  const fake_etcd::answer rows[] = {
    {200, ""},
    {200, "{}"},
    {200, "<html>"},
    {503, R"({"message":"no leader","code":14})"},
    {302, ""},
    {204, ""},
    {200, R"({"header":{"revision":"9"},"more":true})"},
    {200, R"({"header":{"revision":"9"},"kvs":[{"key":"aw=="}]})"},
    {200, std::string((4 << 20) + 1, ' ')},
    {200, std::string(1 << 20, '[')}};
  for (const auto& answer : rows) {
    CAPTURE(answer.body.substr(0, 100));
    etcd_rig rig;
    rig.start();
    rig.pass(10s);
    rig.pool.instead[std::string{range}] = answer;
    rig.pass(12s);
    CHECK(rig.heard.times() == 1);
    CHECK(rig.errors() > 0);
    CHECK(rig.pool.questions.size() < 100);
    rig.pool.instead.clear();
    rig.put("q", 2);
    CHECK(rig.pass_until([&] { return rig.heard.ids() == "p_dp0 q_dp0"; }, 11s));
  }
}

TEST_CASE("an etcd source may end at any moment") {
  for (int turns = 0; turns < 8; ++turns) {
    etcd_rig rig;
    rig.start();
    rig.etcd->tick();
    for (int i = 0; i < turns; ++i) {
      rig.pool.deliver();
      if (i + 1 < turns)
        rig.loop.run_posted();
    }
    rig.etcd.reset();
    CHECK(rig.pool.connections() == 0);
    rig.loop.run_posted();
  }
}

} // namespace llumnix::testing
