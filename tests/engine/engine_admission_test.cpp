#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

TEST_CASE("requests that make no sense or can never fit are refused") {
  struct row {
    const char* name;
    std::function<void(inference_request&)> change;
    errc answer;
  };
  for (const auto& [name, change, answer] : {
         row{"fine", [](auto&) {}, errc::ok},
         row{"empty prompt", [](auto& x) { x.prompt.clear(); }, errc::invalid_argument},
         row{"id in the gap", [](auto& x) { x.prompt[1] = 300; }, errc::invalid_argument},
         row{"id too large", [](auto& x) { x.prompt[1] = 1024; }, errc::invalid_argument},
         row{"special id", [](auto& x) { x.prompt[1] = 258; }, errc::ok},
         row{"bad output id", [](auto& x) { x.output = {264}; }, errc::invalid_argument},
         row{"max_tokens 0", [](auto& x) { x.sampling.max_tokens = 0; }, errc::invalid_argument},
         row{
           "many alternatives", [](auto& x) { x.sampling.top_logprobs = 21; },
           errc::invalid_argument},
         row{"most alternatives", [](auto& x) { x.sampling.top_logprobs = 20; }, errc::ok},
         row{"longest prompt", [](auto& x) { x.prompt.assign(255, 'a'); }, errc::ok},
         row{"no room for a token", [](auto& x) { x.prompt.assign(256, 'a'); }, errc::too_long},
         row{"prompt and output", [](auto& x) { x.output.assign(252, 600); }, errc::too_long},
       }) {
    CAPTURE(name);
    engine_fixture x; // 256 tokens
    auto request = x.request(1, "hello");
    change(request);
    CHECK(x.submit(request) == answer);
    CHECK(x.engine->holds(x.stream(1), 0) == (answer == errc::ok));
    CHECK(x.engine->has_work() == (answer == errc::ok));
  }
}

TEST_CASE("max_model_len bounds prompts and outputs") {
  auto config = engine_fixture::small();
  config.max_model_len = 10;
  engine_fixture x{config};
  CHECK(x.submit(x.request(1, letters(10))) == errc::too_long);
  REQUIRE(x.submit(x.request(2, letters(7), 100)) == errc::ok);
  x.run();
  CHECK(x.streams[2].tokens.size() == 3);
  CHECK(x.streams[2].finish == finish_reason::length);
}

TEST_CASE("a request may fill the whole cache") {
  engine_fixture x;
  auto request = x.request(1, letters(200), 1000);
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  CHECK(x.streams[1].tokens == testing::expect(request, 256).tokens);
  CHECK(x.streams[1].tokens.size() == 56);
  CHECK(x.idle());
}

TEST_CASE("the queue is bounded, running requests do not count") {
  auto config = engine_fixture::small();
  config.max_waiting = 2;
  config.max_num_seqs = 1;
  engine_fixture x{config};
  CHECK(x.submit(x.request(1, "a")) == errc::ok);
  x.step();
  using row = std::pair<std::uint64_t, errc>;
  for (auto [number, answer] : {row{2, errc::ok}, row{3, errc::ok}, row{4, errc::queue_full}})
    CHECK(x.submit(x.request(number, "b")) == answer);
  CHECK(x.engine->abort(x.stream(3), 0));
  CHECK(x.submit(x.request(4, "b")) == errc::ok);
  x.run();
  for (std::uint64_t number : {1, 2, 4})
    CHECK(x.streams[number].finish == finish_reason::length);
}

TEST_CASE("a stream is held under one epoch, the highest") {
  engine_fixture x;
  auto request = x.request(1, "hello", 20);
  request.epoch = 5;
  REQUIRE(x.submit(request) == errc::ok);
  x.step();
  for (auto epoch : {4u, 5u}) {
    request.epoch = epoch;
    CHECK(x.submit(request) == errc::stale);
  }
  CHECK(x.engine->holds(x.stream(1), 5));
  CHECK_FALSE(x.engine->holds(x.stream(1), 4));

  request.epoch = 6;
  request.output = x.streams[1].tokens;
  REQUIRE(x.submit(request) == errc::ok);
  CHECK_FALSE(x.engine->holds(x.stream(1), 5));
  CHECK(x.engine->holds(x.stream(1), 6));
  CHECK(x.engine->status().num_running_requests == 0);
  auto result = x.step();
  REQUIRE(result.outputs.size() == 1);
  CHECK(result.outputs[0].delta.epoch == 6);
  CHECK(result.outputs[0].delta.start == 1);
  x.run();
  request.output.clear();
  CHECK(x.streams[1].tokens == testing::expect(request, 256).tokens);
  CHECK(x.idle());
}

TEST_CASE("a higher epoch overtakes even when its request is refused") {
  engine_fixture x;
  auto request = x.request(1, "hello");
  REQUIRE(x.submit(request) == errc::ok);
  request.epoch = 1;
  request.prompt.assign(1000, 'a');
  CHECK(x.submit(request) == errc::too_long);
  CHECK_FALSE(x.engine->holds(x.stream(1), 0));
}

TEST_CASE("streams of other nodes, lives and hubs are others") {
  engine_fixture x;
  auto request = x.request(1, "hello");
  REQUIRE(x.submit(request) == errc::ok);
  for (stream_ref other :
       {stream_ref{"tail", 1, 0, 1}, stream_ref{"head", 2, 0, 1}, stream_ref{"head", 1, 1, 1}}) {
    request.stream = other;
    CHECK_FALSE(x.engine->holds(other, 0));
    CHECK(x.submit(request) == errc::ok);
  }
}

TEST_CASE("abort frees every block before it returns, in whatever state the request is") {
  auto config = engine_fixture::small();
  config.prefix_cache = false;
  config.max_num_batched_tokens = 16;
  for (int steps : {0, 1, 3, 10}) {
    CAPTURE(steps);
    engine_fixture x{config};
    REQUIRE(x.submit(x.request(1, letters(40), 50)) == errc::ok);
    REQUIRE(x.submit(x.request(2, letters(30, 3), 50)) == errc::ok);
    for (int i = 0; i < steps; ++i)
      x.step();
    for (std::uint64_t number : {1, 2}) {
      CHECK(x.engine->abort(x.stream(number), 0));
      CHECK_FALSE(x.engine->holds(x.stream(number), 0));
    }
    CHECK(x.engine->blocks().free() == 64);
    CHECK(x.engine->blocks().consistent());
    CHECK(x.idle());
    CHECK_FALSE(x.engine->has_work());
    CHECK_FALSE(x.step().worked);
  }
}

TEST_CASE("abort reaches its epoch and those below, and nothing else") {
  engine_fixture x;
  auto request = x.request(1, "hello");
  request.epoch = 3;
  REQUIRE(x.submit(request) == errc::ok);
  CHECK_FALSE(x.engine->abort(x.stream(1), 2));
  CHECK_FALSE(x.engine->abort(x.stream(2), 3));
  CHECK(x.engine->holds(x.stream(1), 3));
  CHECK(x.engine->abort(x.stream(1), 4));
  CHECK_FALSE(x.engine->abort(x.stream(1), 4));
}
