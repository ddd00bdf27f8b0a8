#include "tests/mooncake/metadata_stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::mooncake::testing {

TEST_CASE("one request asks for all keys as the reference does, and its answer counts runs") {
  stage on;
  on.on_loop([&] {
    auto& hosts = on.service.hosts; // keys of 1..10, computed apart from this code
    hosts["c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0"] = {"a", "b", "c"};
    hosts["24125b23e68883b5c2141db2959d48433fe6bde2f26bd914efad121d154ab2d6_0"] = {"c", "a", "d"};
    hosts["128a226d31d49c070c027325a6f501ea097fb252653e92d2055ff7af74062fc8_0"] = {"b", "c", "c"};
  });
  auto found = on.ask(tokens(10));
  REQUIRE(found);
  CHECK(found->named_by == holder_naming::kv_address);
  CHECK(found->list == holders{{"a", 8}, {"b", 4}, {"c", 10}});
  REQUIRE(on.service.asked.size() == 1);
  const auto& request = on.service.asked.front();
  CHECK(request.method == "GET");
  CHECK(request.path == "/batch_query_keys");
  CHECK(
    request.query
    == "keys=c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0,"
       "24125b23e68883b5c2141db2959d48433fe6bde2f26bd914efad121d154ab2d6_0,"
       "128a226d31d49c070c027325a6f501ea097fb252653e92d2055ff7af74062fc8_0");
  CHECK(request.header("accept") == "application/json");
  CHECK(request.body.empty());
}

TEST_CASE("a long list of keys takes several requests, as long as somebody holds everything") {
  auto options = quick();
  options.keys.chunk_tokens = 1; // 1200 keys of 66 bytes: three requests
  stage on{options};
  on.on_loop([&] { on.service.hold(tokens(1200), "all", options.keys); });
  on.on_loop([&] { on.service.hold(tokens(600), "half", options.keys); });
  CHECK(on.ask(tokens(1200))->list == holders{{"all", 1200}, {"half", 600}});
  CHECK(on.service.requests == 3);
  std::size_t keys = 0;
  for (const auto& request : on.service.asked) {
    CHECK(request.path.size() + 1 + request.query.size() <= 32 * 1024);
    keys += keys_of(request.query).size();
  }
  CHECK(keys == 1200);

  on.will_reply(500, ""); // the second request of the next fails
  on.on_loop([&] {
    on.service.next.push_front(
      [&](const auto& client, const auto& request) { on.service.answer(client, request); });
  });
  CHECK(code_of(on.ask(tokens(1200), 100ms, 200ms)) == errc::internal);
  CHECK(on.service.requests == 5);

  on.pass(30001ms);
  on.on_loop([&] { on.service.hosts.clear(); });
  CHECK(on.ask(tokens(1200))->list.empty());
  CHECK(on.service.requests == 6); // nobody holds the first
}

TEST_CASE("prompts without a key are answered without asking") {
  auto options = quick();
  options.keys.save_unfull_chunk = false;
  stage on{options};
  CHECK(on.ask(tokens(3))->list.empty());
  CHECK(code_of(on.ask({})) == errc::invalid_argument);
  CHECK(on.service.requests == 0);
}

TEST_CASE("too many queries at a time are refused") {
  auto options = quick();
  options.queries_max = 2;
  stage on{options};
  on.will_wait(2);
  on.find(tokens(8));
  on.find(tokens(8));
  CHECK(code_of(on.ask(tokens(8))) == errc::queue_full);
  REQUIRE(on.is_asked(2));
  on.on_loop([&] { on.service.kept[0]->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(2));
  CHECK(code_of(on.ask(tokens(8))) == errc::ok);
}

TEST_CASE("whoever waits for a client that ends is told so, once") {
  stage on;
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.on_loop([&] {
    on.find(tokens(8)); // not yet begun
    on.client.reset();
  });
  REQUIRE(on.hears(2));
  on.settle();
  CHECK(on.heard->size() == 2);
  for (const auto& each : on.heard->list)
    CHECK(code_of(each) == errc::cancelled);
}

TEST_CASE("an answer may end the client") {
  SUBCASE("as it comes") {
    stage on;
    std::atomic<bool> told = false;
    on.client->find(tokens(8), "m", [&](result<prefix_holders> found) {
      CHECK(code_of(found) == errc::ok);
      on.client.reset();
      told = true;
    });
    CHECK(eventually([&] { return told.load(); }));
  }
  SUBCASE("on a tick, with others") {
    stage on;
    on.will_wait(2);
    std::atomic<int> told = 0;
    for (int i = 0; i < 2; ++i)
      on.client->find(tokens(8), "m", [&](result<prefix_holders> found) {
        CHECK(code_of(found) == errc::timeout);
        on.client.reset();
        ++told;
      });
    REQUIRE(on.is_asked(2));
    on.pass(1500ms);
    CHECK(told == 2);
  }
}

TEST_CASE("the client's options come from the configuration") {
  scheduler_config config;
  config.mooncake = "10.0.0.1:9003";
  config.kv_attempts = 2;
  config.kv_attempt_pause = 7ms;
  config.kv_down = 9s;
  config.kv_chunk_tokens = 16;
  auto made = make_client_options(config);
  REQUIRE(made);
  CHECK(made->address == "10.0.0.1:9003");
  CHECK(made->attempts == 2);
  CHECK(made->attempt_pause == 7ms);
  CHECK(made->down == 9s);
  CHECK(made->keys.chunk_tokens == 16);
  CHECK(made->budget < 2s); // when a gateway gives up
  config.kv_hash = "md5";
  CHECK(make_client_options(config).error().code == errc::invalid_argument);
}

} // namespace llumnix::mooncake::testing
