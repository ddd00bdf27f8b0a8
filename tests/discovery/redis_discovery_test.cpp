#include "discovery_rig.hpp"
#include "integrations/discovery/redis_discovery.hpp"
#include "tests/redis/redis_server.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <mutex>

namespace llumnix::testing {
namespace {

const std::string prefix{redis_record_prefix};

discovery_config config_of(const redis_server& server) {
  discovery_config config;
  config.redis = server.address();
  config.redis_interval = 20ms;
  config.timeout = 500ms;
  return config;
}

/// A source on the test's own thread and the time as it is; what is posted comes from another one.
struct redis_rig final : executor {
  explicit redis_rig(const discovery_config& config) {
    record_rules rules{
      config.record_expiry, config.instance_type, parse_networks({"10.0.0.0/8"}).filter};
    auto made = redis_discovery::make(config, std::move(rules), *this);
    REQUIRE(made);
    redis = std::move(*made);
    redis->start(heard.listener());
  }
  void post(std::function<void()> work) override {
    std::lock_guard guard{mutex};
    posted.push_back(std::move(work));
  }
  clock::time_point now() const override { return clock::now(); }

  /// Runs the source until `done`; whether it came.
  template <class Condition>
  bool until(Condition done, std::chrono::milliseconds limit = 10s) {
    return eventually(
      [&] {
        redis->tick();
        std::deque<std::function<void()>> work;
        {
          std::lock_guard guard{mutex};
          work.swap(posted);
        }
        for (auto& each : work)
          each();
        return done();
      },
      limit);
  }
  bool hears(const std::string& ids) {
    return until([&] { return heard.ids() == ids; });
  }
  /// Lets the server be read a few times more.
  void reads_on(const redis_server& server) {
    const auto before = server.calls("scan");
    CHECK(until([&] { return server.calls("scan") >= before + 3; }));
  }

  std::mutex mutex;
  std::deque<std::function<void()>> posted;
  heard_lists heard;
  std::unique_ptr<redis_discovery> redis; // its thread posts
};

void set(
  const redis_server& server, const std::string& pod, int last, unix_ms written = utc_now()) {
  REQUIRE(server.ask({"SET", prefix + pod, record_of(pod, last, written)}) == "OK");
}

} // namespace

TEST_CASE("records of a Redis are read, and read again") {
  if (!redis_server::available())
    return;
  redis_server server;
  redis_rig rig{config_of(server)};
  CHECK(rig.redis->health().answered_s_ago < 0);
  CHECK(rig.hears("")); // none so far
  set(server, "a", 1);
  CHECK(rig.hears("a_dp0"));
  set(server, "b", 2, 0); // by a clock that stands still
  CHECK(rig.hears("a_dp0 b_dp0"));
  set(server, "a", 3);
  CHECK(rig.until([&] { return rig.heard.lists.back()[0].address == "10.0.0.3:8000"; }));
  server.ask({"DEL", prefix + "b"});
  CHECK(rig.hears("a_dp0"));
  const auto times = rig.heard.times();
  set(server, "a", 3, utc_now() + 5);
  rig.reads_on(server);
  CHECK(rig.heard.times() == times); // a renewal is no news
  auto health = rig.redis->health();
  CHECK(health.source == "redis " + server.address());
  CHECK(health.engines == 1);
  CHECK(health.errors == 0);
  CHECK(health.answered_s_ago >= 0);
  CHECK(health.answered_s_ago < 5);
}

TEST_CASE("many records, and keys that are none, are read past each other") {
  if (!redis_server::available())
    return;
  redis_server server;
  for (int i = 0; i < 600; ++i) // more than are asked for at a time
    set(server, "p" + std::to_string(i), 0);
  for (int i = 0; i < 600; ++i)
    REQUIRE(server.ask({"SET", "other:" + std::to_string(i), "x"}) == "OK");
  set(server, "good", 1);
  server.ask({"SET", prefix + "bytes", "\xff\xff"});
  server.ask({"SET", prefix + "huge", std::string(1 << 20, 'x')});
  server.ask({"SET", prefix + "empty", ""});
  server.ask({"LPUSH", prefix + "list", "x"});
  server.ask({"SET", prefix + "a b", record_of("a b", 2)});
  server.ask({"SET", prefix, record_of("", 3)});
  server.ask({"SET", prefix + std::string(600, 'n'), "x"});
  server.ask({"SET", prefix + "old", record_of("old", 4, utc_now() - 61'000)});
  server.ask(
    {"SET", prefix + "outside",
     encode({"outside", utc_now(), {{"neutral", "8.8.8.8", 80, "", 0, 0, 1, "", 1}}})});
  redis_rig rig{config_of(server)};
  CHECK(rig.until([&] { return rig.heard.times() == 1; }));
  REQUIRE(rig.heard.lists[0].size() == 2); // those of one address are one
  CHECK(rig.heard.lists[0][0].id == "good_dp0");
  rig.reads_on(server);
  CHECK(rig.heard.times() == 1);
  CHECK(rig.redis->health().errors == 7);               // each once
  CHECK(server.ask({"EXISTS", prefix + "old"}) == "1"); // nobody's to delete
}

TEST_CASE("a Redis that is away takes nobody along") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto config = config_of(server);
  config.record_expiry = 2s;
  config.timeout = 200ms;
  set(server, "a", 1);
  redis_rig rig{config};
  CHECK(rig.hears("a_dp0"));
  server.kill();
  CHECK(rig.until([&] { return rig.redis->health().errors >= 3; }));
  const auto away = std::chrono::steady_clock::now();
  rig.until(
    [&] { return std::chrono::steady_clock::now() - away > 2100ms; }); // longer than records live
  CHECK(rig.heard.times() == 1);
  CHECK(rig.redis->health().answered_s_ago > 1);
  server.start(); // empty
  CHECK(rig.until([&] { return rig.redis->health().answered_s_ago < 0.5; }));
  CHECK(rig.heard.ids() == "a_dp0"); // it lost everything, they say
  set(server, "b", 2);
  CHECK(rig.hears("a_dp0 b_dp0"));
  CHECK(rig.until([&] { // a does not come back, b goes on
    set(server, "b", 2, utc_now());
    return rig.heard.ids() == "b_dp0";
  }));
}

TEST_CASE("a Redis that is not there yet, or hangs, is waited for") {
  if (!redis_server::available())
    return;
  redis_server server{"secret"};
  set(server, "a", 1);
  auto config = config_of(server);
  config.redis_password = "wrong";
  config.timeout = 200ms;
  {
    redis_rig rig{config};
    CHECK(rig.until([&] { return rig.redis->health().errors >= 2; }));
    CHECK(rig.heard.times() == 0);
  }
  config.redis_password = "secret";
  redis_rig rig{config};
  CHECK(rig.hears("a_dp0"));
  server.signal(SIGSTOP);
  CHECK(rig.until([&] { return rig.redis->health().errors >= 2; }));
  server.signal(SIGCONT);
  set(server, "b", 2);
  CHECK(rig.hears("a_dp0 b_dp0"));
}

TEST_CASE("a record that nobody renews dies, also if its writer's clock is ahead") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto config = config_of(server);
  config.record_expiry = 1s;
  config.timeout = 200ms;
  set(server, "frozen", 1, utc_now() + 3'600'000);
  set(server, "renewed", 2);
  redis_rig rig{config};
  CHECK(rig.until([&] { return rig.heard.times() > 0; }));
  unix_ms beat = 0; // a clock of 1970
  CHECK(rig.until([&] {
    set(server, "renewed", 2, ++beat);
    return rig.heard.ids() == "renewed_dp0";
  }));
  CHECK(rig.heard.times() <= 2);
}

TEST_CASE("a Redis source may end at any moment") {
  if (!redis_server::available())
    return;
  redis_server server;
  set(server, "a", 1);
  for (int i = 0; i < 20; ++i) {
    redis_rig rig{config_of(server)};
    for (int turns = 0; turns < i / 4; ++turns)
      rig.until([&] { return true; });
    rig.redis.reset();
    for (auto& work : rig.posted)
      work();
    CHECK(rig.heard.times() <= 1);
  }
}

} // namespace llumnix::testing
