#include "gateway/large_bodies.hpp"
#include "gateway_rig.hpp"

#include <doctest/doctest.h>

#include <future>
#include <optional>

namespace llumnix::testing {
namespace {

using namespace std::chrono_literals;

/// Keeps the only thread of a pool busy until told.
class blocker {
public:
  explicit blocker(parse_pool& pool) {
    auto number = pool.submit([this](body_reader&) {
      begun_.set_value();
      end_.get_future().wait();
    });
    REQUIRE(number != 0);
    REQUIRE(begun_.get_future().wait_for(20s) == std::future_status::ready);
  }
  ~blocker() { release(); }
  void release() {
    if (!std::exchange(released_, true))
      end_.set_value();
  }

private:
  std::promise<void> begun_, end_;
  bool released_ = false;
};

std::string large_prompt(std::size_t bytes = 300'000) {
  return R"(,"prompt":")" + std::string(bytes, 'x') + '"';
}

} // namespace

TEST_CASE("a large body is read elsewhere while the loop goes on with small ones") {
  gateway_rig rig{{}, {}, 8};
  rig.max_model_len = 0;
  blocker busy{*rig.pool};
  auto large = rig.complete(large_prompt());
  auto small = rig.complete(R"(,"prompt":"x")");
  CHECK(rig.cluster.placed.size() == 1);
  CHECK(large->watched());
  rig.give(0, ids_of("a"), finish_reason::length);
  CHECK(small->status == 200);
  busy.release();
  REQUIRE(rig.loop.run_until([&] { return rig.cluster.placed.size() == 2; }));
  CHECK(rig.cluster.placed[1].prompt.size() == 300'000);
  rig.give(1, ids_of("b"), finish_reason::length);
  CHECK(large->json()["choices"][0]["text"] == "b");
}

TEST_CASE("what is wrong with a large body is told like with a small one") {
  gateway_rig rig{{}, {}, 8};
  struct row {
    std::string body;
    int status;
    std::string code;
  };
  const std::string text(300'000, 'x');
  for (const auto& [body, status, code] :
       {row{text, 400, "invalid_json"},
        row{R"({"model":"gpt-9","prompt":")" + text + "\"}", 404, "model_not_found"},
        row{R"({"model":"modeled","prompt":")" + text + "\"}", 400, "context_length_exceeded"},
        row{R"({"model":"modeled","n":0,"prompt":")" + text + "\"}", 400, "invalid_value"}}) {
    auto client = rig.send("POST", "/v1/completions", body, {{"x-request-id", "r1"}});
    REQUIRE(rig.loop.run_until([&] { return client->status != 0; }));
    CHECK(client->status == status);
    CHECK(client->json()["error"]["code"] == code);
    CHECK(client->header("x-request-id") == "r1"); // the id is free again each time
    CHECK_FALSE(client->watched());
  }
  CHECK(rig.cluster.placed.empty());
}

TEST_CASE("more large bodies than may wait are refused for now") {
  gateway_rig rig{{}, {}, 2};
  rig.max_model_len = 0;
  blocker busy{*rig.pool};
  std::vector<std::shared_ptr<fake_exchange>> waiting{
    rig.complete(large_prompt()), rig.complete(large_prompt())};
  auto refused = rig.complete(large_prompt());
  CHECK(refused->status == 503);
  CHECK(refused->json()["error"]["code"] == "overloaded");
  CHECK(refused->header("retry-after") == "1");
  waiting.front()->leave(); // makes room
  auto next = rig.complete(large_prompt());
  CHECK(next->status == 0);
  busy.release();
  REQUIRE(rig.loop.run_until([&] { return rig.cluster.placed.size() == 2; }));
}

TEST_CASE("a client that leaves while its body waits opens nothing, and its id is free") {
  gateway_rig rig{{}, {}, 8};
  rig.max_model_len = 0;
  blocker busy{*rig.pool};
  auto client = rig.complete(large_prompt(), {{"x-request-id", "r1"}});
  client->leave();
  CHECK(client.use_count() == 1);
  CHECK(rig.send("GET", "/health", {}, {{"x-request-id", "r1"}})->header("x-request-id") == "r1");
  busy.release();
  auto other = rig.complete(large_prompt());
  REQUIRE(rig.loop.run_until([&] { return !rig.cluster.placed.empty(); }));
  CHECK(rig.cluster.placed[0].prompt.size() == 300'000);
}

TEST_CASE("a client that leaves while its body is being read opens nothing") {
  gateway_rig rig{{}, {}, 1};
  rig.max_model_len = 0;
  auto client = rig.complete(large_prompt(4'000'000)); // takes a while
  auto end = std::chrono::steady_clock::now() + 20s;
  while (rig.pool->submit([](body_reader&) {}) == 0) // waits: no other may
    REQUIRE(std::chrono::steady_clock::now() < end);
  client->leave();
  CHECK(client.use_count() == 1);
  std::shared_ptr<fake_exchange> other;
  while (!other || other->status == 503)
    other = rig.complete(large_prompt());
  REQUIRE(rig.loop.run_until([&] { return !rig.cluster.placed.empty(); }));
  CHECK(rig.cluster.placed[0].prompt.size() == 300'000);
  CHECK(client->status == 0);
}

TEST_CASE("requests whose bodies are being read are given up like all others") {
  gateway_rig rig{{}, {}, 8};
  rig.max_model_len = 0;
  blocker busy{*rig.pool};
  auto waiting = rig.complete(large_prompt());
  auto gone = rig.complete(large_prompt());
  gone->leave();
  rig.handler->give_up_all({errc::draining, "the gateway stops"});
  CHECK(waiting->status == 503);
  CHECK(waiting->json()["error"]["code"] == "draining");
  CHECK(gone->status == 0);
  busy.release();
  rig.loop.run();
  CHECK(rig.cluster.placed.empty());
}

TEST_CASE("a handler may go while bodies wait, are being read, or have just been read") {
  for (std::size_t bytes : {300'000u, 4'000'000u}) {
    gateway_rig rig{{}, {}, 8};
    rig.max_model_len = 0;
    auto reading = rig.complete(large_prompt(bytes));
    auto waiting = rig.complete(large_prompt());
    auto gone = rig.complete(large_prompt());
    gone->leave();
    rig.handler.reset();
    rig.loop.run(); // what was posted finds nobody
    for (const auto* client : {&reading, &waiting, &gone}) {
      CHECK(client->use_count() == 1);
      CHECK_FALSE((*client)->watched());
      CHECK((*client)->status == 0);
    }
    CHECK(rig.cluster.placed.empty());
  }
}

TEST_CASE("a pool that goes first drops what waits") {
  gateway_config config;
  byte_tokenizer words;
  int ran = 0;
  auto held = std::make_shared<int>();
  {
    std::optional<parse_pool> pool;
    pool.emplace(config, words, parse_pool::options{.threads = 1, .waiting_max = 8});
    blocker busy{*pool};
    for (int i = 0; i < 3; ++i)
      pool->submit([held, &ran](body_reader&) { ++ran; });
    CHECK(held.use_count() == 4);
    std::thread ending{[&] { pool.reset(); }};
    while (held.use_count() > 1)
      std::this_thread::yield();
    busy.release();
    ending.join();
  }
  CHECK(ran == 0);
}

TEST_CASE("a body that is passed on comes back as it was, with its share of the budget") {
  gateway_config config;
  byte_tokenizer words;
  fake_loop loop;
  parse_pool pool{config, words, {}};
  std::optional<client_call> told;
  std::optional<body_content> content;
  large_bodies bodies{pool, loop, [&](client_call& x, body_content&& what) {
                        told = std::move(x);
                        content = std::move(what);
                      }};
  auto share = std::make_shared<int>();
  for (bool relayed : {true, false}) {
    client_call call{std::make_shared<fake_exchange>(loop), {}, {}, loop.now()};
    const std::string body = R"({"model":"modeled","stream":true,"prompt":"hello there"})";
    call.request.body = body;
    call.request.held = share;
    told.reset();
    REQUIRE(bodies.read(call, {.kind = openai::endpoint::completions, .relayed = relayed}));
    CHECK(bodies.size() == 1);
    REQUIRE(loop.run_until([&] { return told.has_value(); }));
    CHECK(bodies.size() == 0);
    CHECK(told->request.body == (relayed ? body : ""));
    CHECK(told->request.held == (relayed ? share : nullptr));
    CHECK(std::holds_alternative<checked_request>(*content) != relayed);
    if (auto* wanted = std::get_if<relayable_request>(&*content))
      CHECK(wanted->wish.stream);
  }
}

} // namespace llumnix::testing
