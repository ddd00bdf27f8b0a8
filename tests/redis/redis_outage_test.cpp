#include "integrations/redis/cms_codec.hpp"
#include "tests/redis/redis_server.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <string>
#include <vector>

namespace llumnix::testing {

namespace {

using namespace std::chrono_literals;

redis_config short_timeout() {
  return {.address = {}, .username = {}, .password = {}, .timeout = 200ms};
}

// What waits is a small multiple of the instances, however often they changed.
bool is_bounded(const redis_cms_store& store, std::uint64_t instances) {
  const auto pending = store.metrics().pending.load();
  return pending > 0 && pending <= 3 * instances;
}

} // namespace

TEST_CASE("a server that comes back empty holds everything again within two seconds") {
  if (!redis_server::available())
    return;
  redis_server server;
  captured_log logged;
  auto store = make_store(server);
  for (int i = 0; i < 100; ++i) {
    auto id = "i" + std::to_string(i);
    store->put_metadata(metadata_of(id));
    store->put_status(status_of(id, 1));
  }
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "200"; }));
  server.kill();
  REQUIRE(eventually([&] { return !store->metrics().connected; }));
  store->put_status(status_of("i0", 2)); // while it is away
  store->remove("i1");
  server.start();
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "198"; }, 2000ms));
  REQUIRE(eventually([&] { return stored_update(server, "i0") == 2; }, 2000ms));
  CHECK_FALSE(holds_metadata(server, "i1"));
  CHECK(store->metrics().reconnects == 1);
  CHECK(eventually([&] { return store->metrics().pending == 0; }));
  CHECK(logged.count("link-lost") == 1);
  CHECK(logged.count("link-up") == 2);
  CHECK(logged.count(" W redis link-up") == 1); // what a warning told of, a warning puts right
  CHECK(logged.count(" I redis link-up") == 1);
}

TEST_CASE("a server that hangs costs deadlines and no memory, and is used again when it goes on") {
  if (!redis_server::available())
    return;
  redis_server server;
  captured_log logged;
  auto store = make_store(server, {.status_interval = 2ms}, short_timeout());
  for (const auto* id : {"a", "b", "gone"}) {
    store->put_metadata(metadata_of(id));
    store->put_status(status_of(id, 1));
  }
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "6"; }));
  server.signal(SIGSTOP);
  int update = 1;
  REQUIRE(eventually([&] {
    store->put_status(status_of("a", ++update));
    return !store->metrics().connected;
  }));
  CHECK(eventually([&] { return store->metrics().failures > 0; }));
  for (int i = 0; i < 20000; ++i)
    store->put_status(status_of("a", ++update));
  store->remove("gone");
  CHECK(is_bounded(*store, 3));
  auto found = read(*store); // a stopped server still takes connections, but answers nobody
  REQUIRE_FALSE(found);
  CHECK(found.error().code == errc::unreachable);
  CHECK(is_bounded(*store, 3));

  server.signal(SIGCONT);
  REQUIRE(eventually([&] { return stored_update(server, "a") == update; }));
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "4"; }));
  CHECK_FALSE(holds_metadata(server, "gone"));
  CHECK(eventually([&] { return store->metrics().pending == 0; }));
  CHECK(logged.count("link-lost") == 1);
}

TEST_CASE("a reading that is under way when the server hangs ends with a timeout") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server, {}, short_timeout());
  REQUIRE(read(*store));
  server.signal(SIGSTOP);
  auto found = read(*store);
  server.signal(SIGCONT);
  REQUIRE_FALSE(found);
  CHECK(found.error().code == errc::timeout);
}

TEST_CASE("a wrong password is tried for ever, logged once and never shown") {
  if (!redis_server::available())
    return;
  redis_server server{"right-word"};
  captured_log logged;
  redis_config redis{.address = {}, .username = "default", .password = "wrong-word"};
  {
    auto store = make_store(server, {}, redis);
    store->put_metadata(metadata_of("a"));
    REQUIRE(eventually(
      [&] { return server.calls("auth") >= 5; })); // some of them ours: this test needs one
    CHECK_FALSE(store->metrics().connected);
    CHECK(logged.count("link-lost") == 1);
    CHECK(logged.count("WRONGPASS") == 1);
    server.ask({"CONFIG", "SET", "requirepass", "wrong-word"}); // now it is the right one
    REQUIRE(eventually([&] { return holds_metadata(server, "a"); }));
  }
  CHECK(logged.count("wrong-word") == 0);
  CHECK(logged.count("link-up") == 1);
}

TEST_CASE("a refused AUTH is told even when the server was away before") {
  if (!redis_server::available())
    return;
  redis_server server{"right-word"};
  server.kill();
  captured_log logged;
  auto store = make_store(server); // without a password
  REQUIRE(eventually([&] { return logged.count("link-lost") == 1; }));
  server.start();
  REQUIRE(eventually([&] { return logged.count("NOAUTH") == 1; }));
  CHECK(logged.count("link-lost") == 2);
  server.ask({"CONFIG", "SET", "requirepass", ""});
  CHECK(eventually([&] { return logged.count(" W redis link-up") == 1; }));
}

TEST_CASE("writes the server refuses are repeated until it takes them, and logged once") {
  if (!redis_server::available())
    return;
  redis_server server;
  server.ask({"CONFIG", "SET", "maxmemory", "1"}); // SET answers OOM, DEL and PING do not
  captured_log logged;
  auto store = make_store(server, {.status_interval = 2ms});
  store->put_metadata(metadata_of("a"));
  store->put_status(status_of("a", 1));
  REQUIRE(eventually([&] { return store->metrics().failures >= 4; }));
  CHECK(store->metrics().connected);
  CHECK(server.calls("set") < 20); // not in a hot loop
  CHECK(logged.count("write-refused") == 1);
  CHECK(logged.count("writes-taken") == 0);
  server.ask({"CONFIG", "SET", "maxmemory", "0"});
  REQUIRE(eventually([&] { return stored_update(server, "a") == 1; }));
  CHECK(eventually([&] { return logged.count("W redis writes-taken") == 1; }));
  server.ask({"CONFIG", "SET", "maxmemory", "1"}); // the next time is told anew
  store->put_status(status_of("a", 2));
  CHECK(eventually([&] { return logged.count("write-refused") == 2; }));
}

TEST_CASE("where nobody listens, a reading ends as unreachable and callers never wait") {
  if (!redis_server::available())
    return;
  redis_server server;
  server.kill(); // its port is free now
  for (const auto& host : {std::string{"127.0.0.1"}, std::string{"localhost"}}) {
    CAPTURE(host);
    auto redis = short_timeout();
    redis.address = host + server.address().substr(server.address().find(':'));
    auto store = make_store(server, {}, redis);
    const auto begin = std::chrono::steady_clock::now();
    auto found = read(*store);
    CHECK(
      std::chrono::steady_clock::now() - begin < 5s); // the timeout, on a machine that may be busy
    REQUIRE_FALSE(found);
    CHECK(found.error().code == errc::unreachable);
    for (int i = 0; i < 1000; ++i)
      store->put_status(status_of("a", i));
    CHECK(store->metrics().pending == 1);
  }
}

TEST_CASE("a name is resolved, and resolved again after an outage") {
  if (!redis_server::available())
    return;
  redis_server server;
  redis_config redis{.address = {}, .username = {}, .password = {}};
  redis.address = "localhost" + server.address().substr(server.address().find(':'));
  auto store = make_store(server, {}, redis);
  store->put_metadata(metadata_of("a"));
  REQUIRE(eventually([&] { return holds_metadata(server, "a"); }));
  server.kill();
  server.start();
  CHECK(eventually([&] { return holds_metadata(server, "a"); }));
}

TEST_CASE("a reading that waits when the store ends hears so, once") {
  if (!redis_server::available())
    return;
  redis_server server;
  for (bool hung : {true, false}) { // a command under way; no link at all
    CAPTURE(hung);
    auto store = make_store(server);
    REQUIRE(read(*store));
    hung ? server.signal(SIGSTOP) : server.kill();
    REQUIRE(eventually([&] { return hung || !store->metrics().connected; }));
    auto answers = std::make_shared<std::vector<errc>>();
    store->read_metadata(
      [answers](auto found) { answers->push_back(found ? errc::ok : found.error().code); });
    const auto begin = std::chrono::steady_clock::now();
    store.reset();
    CHECK(
      std::chrono::steady_clock::now() - begin
      < 900ms); // 200 ms, and far from the reply's deadline
    CHECK(*answers == std::vector<errc>{errc::cancelled});
    if (hung)
      server.signal(SIGCONT);
  }
}

} // namespace llumnix::testing
