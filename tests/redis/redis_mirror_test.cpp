#include "integrations/redis/cms_codec.hpp"
#include "tests/redis/redis_server.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

namespace llumnix::testing {

namespace {

using namespace std::chrono_literals;

} // namespace

TEST_CASE("records appear under the reference's keys, in its bytes, and expire") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server);
  const std::string id = "pod:a \xc3\xa9";
  store->put_status(status_of(id, 7)); // waits for its metadata
  store->put_metadata(metadata_of(id));
  REQUIRE(eventually([&] { return stored_update(server, id) == 7; }));
  CHECK(server.ask({"GET", "llumnix:instance_status:" + id}) == encode(status_of(id, 7)));
  for (const auto* prefix : {"llumnix:instance_metadata:", "llumnix:instance_status:"}) {
    auto left = std::stoi(server.ask({"TTL", prefix + id}).value_or("-9"));
    CHECK(left > 60);
    CHECK(left <= 100);
  }
  CHECK(eventually([&] { return store->metrics().pending == 0; }));
  CHECK(store->metrics().connected);
  CHECK(store->metrics().writes >= 2);
  CHECK(store->metrics().failures == 0);
}

TEST_CASE("many updates become few commands, and the last one wins") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server);
  store->put_metadata(metadata_of("a"));
  constexpr int updates = 50000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 1; i <= updates; ++i)
    store->put_status(status_of("a", i));
  const auto took = std::chrono::steady_clock::now() - begin;
  REQUIRE(eventually([&] { return stored_update(server, "a") == updates; }));
  // One write per interval while it lasted, and what the start and its repetition add.
  const auto intervals = static_cast<std::uint64_t>(took / cms_config{}.status_interval);
  CHECK(server.calls("set") <= intervals + 8);
}

TEST_CASE("metadata is rewritten as a heartbeat, and only its time changes") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server, {.metadata_interval = 100ms, .status_interval = 5ms});
  auto metadata = metadata_of("a");
  store->put_metadata(metadata);
  const auto stored = [&] {
    return decode_metadata(server.ask({"GET", "llumnix:instance_metadata:a"}).value_or(""));
  };
  REQUIRE(eventually([&] { return holds_metadata(server, "a"); }));
  REQUIRE(eventually([&] { return stored() && stored()->utc_update > metadata.utc_update; }));
  auto later = *stored();
  REQUIRE(eventually([&] { return stored()->utc_update > later.utc_update; }));
  later.utc_update = metadata.utc_update;
  CHECK(later == metadata);
  CHECK(server.ask({"EXISTS", "llumnix:instance_status:a"}) == "0");
}

TEST_CASE("a removed instance leaves nothing behind, also when a status comes late") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server, {.status_interval = 5ms});
  for (const auto* id : {"a", "b"}) {
    store->put_metadata(metadata_of(id));
    store->put_status(status_of(id, 1));
  }
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "4"; }));
  store->remove("a");
  store->put_status(status_of("a", 2));
  REQUIRE(eventually([&] { return server.ask({"DBSIZE"}) == "2"; }));
  store->put_status(status_of("b", 3));
  REQUIRE(eventually([&] { return stored_update(server, "b") == 3; }));
  CHECK(server.ask({"DBSIZE"}) == "2");
  store->put_metadata(metadata_of("a")); // a new registration, with the status that came last
  REQUIRE(eventually([&] { return stored_update(server, "a") == 2; }));
}

TEST_CASE("foreign and broken records do the others no harm, and are logged once") {
  if (!redis_server::available())
    return;
  redis_server server;
  const std::string metadata_key{metadata_key_prefix};
  const std::string status_key{status_key_prefix};
  auto unknown_type = metadata_of("odd-type");
  unknown_type.instance_type = "psychic";
  auto mislabelled = metadata_of("another id");
  server.ask({"SET", metadata_key + "good", encode(metadata_of("good"))});
  server.ask({"SET", status_key + "good", encode(status_of("good", 3))});
  server.ask({"SET", metadata_key + "by:key", encode(mislabelled)});
  server.ask({"SET", metadata_key + "bad-status", encode(metadata_of("bad-status"))});
  server.ask({"SET", status_key + "bad-status", "\x0a\x7f"});
  server.ask({"SET", status_key + "no-metadata", encode(status_of("no-metadata", 1))});
  server.ask({"SET", metadata_key + "broken\n", "\xff\xff"});
  server.ask({"SET", metadata_key + "odd-type", encode(unknown_type)});
  server.ask({"SET", metadata_key + "empty", ""});
  server.ask({"SET", metadata_key, encode(metadata_of("nobody"))});
  server.ask({"LPUSH", metadata_key + "a-list", "x"});
  server.ask({"SET", "llumnix:discovery:pod-0", "x"});
  for (int i = 0; i < 600; ++i) // more than one MGET
    server.ask({"SET", metadata_key + "m" + std::to_string(i), encode(metadata_of("m"))});

  captured_log logged;
  auto store = make_store(server);
  for (int again = 0; again < 2; ++again) {
    auto found = read(*store);
    REQUIRE(found);
    REQUIRE(found->size() == 603);
    CHECK((*found)[0].metadata.instance_id == "bad-status");
    CHECK_FALSE((*found)[0].has_status);
    CHECK((*found)[1].metadata.instance_id == "by:key");
    CHECK((*found)[2].metadata == metadata_of("good"));
    CHECK((*found)[2].has_status);
    CHECK((*found)[2].status == status_of("good", 3));
  }
  CHECK(logged.count("odd-record") == 4);
  CHECK(logged.count("'broken\\x0a'") == 1);
  CHECK(logged.count("\n") == 5); // and one for the link
}

TEST_CASE("an empty store has no instances") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server);
  auto found = read(*store);
  REQUIRE(found);
  CHECK(found->empty());
}

TEST_CASE("what was written shortly before the end is still written") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server);
  store->put_metadata(metadata_of("a"));
  REQUIRE(eventually([&] { return holds_metadata(server, "a"); }));
  store->put_status(status_of("a", 2));
  store->put_metadata(metadata_of("b"));
  store.reset();
  CHECK(stored_update(server, "a") == 2);
  CHECK(holds_metadata(server, "b"));
}

TEST_CASE("a store that cannot work is not made") {
  struct row {
    const char* what;
    redis_config redis;
    cms_config cms;
  };
  const redis_config fine{.address = "127.0.0.1:6379", .username = {}, .password = {}};
  const auto at = [](std::string address) {
    return redis_config{.address = std::move(address), .username = {}, .password = {}};
  };
  for (const auto& [what, redis, cms] :
       {row{"no port", at("redis.roles"), {}}, row{"no host", at(":6379"), {}},
        row{"port 0", at("localhost:0"), {}}, row{"a port beyond all", at("localhost:70000"), {}},
        row{"a port that is none", at("localhost:6379x"), {}},
        row{"keys that expire between two heartbeats", fine, {.expiry_s = 20}},
        row{"a heartbeat all the time", fine, {.metadata_interval = 0ms}}}) {
    CAPTURE(what);
    auto store = redis_cms_store::make(redis, cms);
    REQUIRE_FALSE(store);
    CHECK(store.error().code == errc::invalid_argument);
  }
}

} // namespace llumnix::testing
