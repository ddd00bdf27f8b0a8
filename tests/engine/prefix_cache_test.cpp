#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

TEST_CASE("equal prefixes are computed once, in full blocks, and the last token always") {
  struct row {
    std::size_t first, second; // prompt lengths, one a prefix of the other
    std::uint32_t cached;
  };
  for (auto [first, second, cached] :
       {row{20, 20, 16}, row{21, 21, 20}, row{20, 30, 20}, row{30, 20, 16}, row{3, 3, 0},
        row{4, 5, 4}}) {
    CAPTURE(first);
    CAPTURE(second);
    engine_fixture x;
    REQUIRE(x.submit(x.request(1, letters(first), 1)) == errc::ok);
    x.run();
    auto request = x.request(2, letters(second), 5);
    REQUIRE(x.submit(request) == errc::ok);
    auto result = x.step();
    CHECK(result.prefill_tokens == second - cached);
    REQUIRE(result.outputs.size() == 1);
    CHECK(result.outputs[0].delta.cached_tokens == cached);
    x.run();
    CHECK(x.streams[2].cached == cached); // told once
    CHECK(x.streams[2].tokens == testing::expect(request, 256).tokens);
    CHECK(x.idle());
  }
}

TEST_CASE("the output is cached like the prompt, for a chat that goes on") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, letters(10), 10)) == errc::ok);
  x.run();
  auto next = x.request(2, letters(10), 5);
  next.prompt.insert(next.prompt.end(), x.streams[1].tokens.begin(), x.streams[1].tokens.end());
  next.prompt.push_back('x');
  REQUIRE(x.submit(next) == errc::ok);
  x.run();
  CHECK(x.streams[2].cached == 16); // 19 positions were computed
}

TEST_CASE("requests admitted in one step share their prefix") {
  engine_fixture x;
  for (std::uint64_t number : {1, 2, 3}) {
    auto request = x.request(number, letters(22), 6);
    request.sampling.choice = static_cast<std::uint32_t>(number - 1);
    REQUIRE(x.submit(request) == errc::ok);
  }
  CHECK(x.step().prefill_tokens == 22 + 2 + 2);
  CHECK(x.engine->blocks().free() == 64 - 5 - 3);
  x.run();
  for (std::uint64_t number : {1, 2, 3}) {
    auto request = x.request(number, letters(22), 6);
    request.sampling.choice = static_cast<std::uint32_t>(number - 1);
    CHECK(x.streams[number].tokens == testing::expect(request, 256).tokens);
  }
}

TEST_CASE("with the cache off or blocks sanitized everything is computed") {
  for (bool poison : {false, true}) {
    auto config = engine_fixture::small();
    config.prefix_cache = poison;
    config.poison_freed = poison;
    engine_fixture x{config};
    for (std::uint64_t number : {1, 2}) {
      REQUIRE(x.submit(x.request(number, letters(22), 3)) == errc::ok);
      CHECK(x.step().prefill_tokens == 22);
      x.run();
      CHECK(x.streams[number].cached == 0);
    }
    CHECK(x.engine->blocks().cached() == 0);
    auto first = x.engine->pool().read(0, 0, 0);
    CHECK((first == x.engine->pool().read(0, 3, 3)) == poison);
  }
}

TEST_CASE("cached tokens of a replay are those of the prompt, at most") {
  engine_fixture x;
  auto request = x.request(1, letters(10), 20);
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  request.stream = x.stream(2);
  request.output = x.streams[1].tokens;
  request.output.resize(12);
  REQUIRE(x.submit(request) == errc::ok);
  CHECK(x.step().prefill_tokens == 2);
  CHECK(x.streams[2].cached == 10);
}
