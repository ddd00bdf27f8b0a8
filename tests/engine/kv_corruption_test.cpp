#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

namespace {

constexpr token_id broken = 258;

bool all_broken(const std::vector<token_id>& tokens, std::size_t from) {
  return from < tokens.size()
         && std::all_of(
           tokens.begin() + static_cast<std::ptrdiff_t>(from), tokens.end(),
           [](token_id id) { return id == broken; });
}

} // namespace

TEST_CASE("a spoiled block shows in the next token and in each one after") {
  // A prompt of 22 tokens fills blocks 0 to 4 and half of 5; 30 outputs reach block 12.
  struct row {
    std::uint32_t block;
    std::size_t good; // tokens before the first broken one
  };
  for (auto chunk : {2048u, 8u, 5u})
    for (auto [block, good] :
         {row{0, 0}, row{2, 0}, row{4, 0}, row{5, 0}, row{6, 3}, row{9, 15}, row{12, 27}}) {
      CAPTURE(chunk);
      CAPTURE(block);
      auto config = engine_fixture::small();
      config.max_num_batched_tokens = chunk;
      config.corrupt = "r1:" + std::to_string(block);
      engine_fixture x{config};
      auto request = x.request(1, letters(22), 30);
      REQUIRE(x.submit(request) == errc::ok);
      REQUIRE(x.submit(x.request(2, letters(22, 1), 30)) == errc::ok);
      x.run();
      auto expected = testing::expect(request, 256).tokens;
      auto& got = x.streams[1].tokens;
      REQUIRE(got.size() == 30);
      CHECK(
        std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(good), expected.begin()));
      CHECK(all_broken(got, good));
      CHECK(x.engine->broken_requests() == 1);
      CHECK(x.streams[2].tokens == testing::expect(x.request(2, letters(22, 1), 30), 256).tokens);
      CHECK(x.idle());
    }
}

TEST_CASE("bytes changed from outside are found out, wherever they are") {
  struct row {
    std::uint32_t position, word;
    std::size_t within; // steps
  };
  // One word of each block is read in a step: a place of 4 positions x 4 words comes round in 16
  // steps.
  for (auto [position, word, within] :
       {row{0, 0, 16}, row{6, 1, 16}, row{9, 3, 16}, row{20, 0, 16}, row{15, 2, 16},
        row{21, 0, 1}}) {
    CAPTURE(position);
    engine_fixture x;
    REQUIRE(x.submit(x.request(1, letters(22), 60)) == errc::ok);
    x.step(); // block i of the table is block i of the pool
    x.engine->pool().position(position / 4, position % 4)[word] ^= 1;
    for (std::size_t i = 0; i < within; ++i)
      x.step();
    CHECK(x.streams[1].tokens.back() == broken);
    auto seen = x.streams[1].tokens.size() - 1;
    x.run();
    CHECK(all_broken(x.streams[1].tokens, seen));
  }
}

TEST_CASE("a whole block replaced by another's bytes shows at the next step") {
  for (std::uint32_t victim : {0u, 2u, 4u}) {
    CAPTURE(victim);
    engine_fixture x;
    REQUIRE(x.submit(x.request(1, letters(22), 10)) == errc::ok);
    REQUIRE(x.submit(x.request(2, letters(22, 1), 10)) == errc::ok);
    x.step();
    for (std::uint32_t offset = 0; offset < 4; ++offset) {
      auto from = x.engine->pool().position(6 + victim, offset);
      std::copy(from.begin(), from.end(), x.engine->pool().position(victim, offset).begin());
    }
    x.run();
    CHECK(x.streams[1].tokens[0] != broken);
    CHECK(all_broken(x.streams[1].tokens, 1));
    CHECK(x.streams[2].tokens == testing::expect(x.request(2, letters(22, 1), 10), 256).tokens);
  }
}

TEST_CASE("a bad block and what was computed after it leave the prefix cache") {
  auto config = engine_fixture::small();
  config.corrupt = "r1:2";
  engine_fixture x{config};
  REQUIRE(x.submit(x.request(1, letters(22), 10)) == errc::ok);
  x.run();
  CHECK(x.engine->blocks().cached() == 2);
  auto again = x.request(2, letters(22), 10);
  REQUIRE(x.submit(again) == errc::ok);
  x.run();
  CHECK(x.streams[2].cached == 8);
  CHECK(x.streams[2].tokens == testing::expect(again, 256).tokens);
}

TEST_CASE("a broken request caches nothing more") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, letters(22), 60)) == errc::ok);
  x.step();
  x.engine->pool().position(1, 2)[1] ^= 1; // seen once in 16 steps, and no later digest suffers
  x.run();
  CHECK(x.engine->broken_requests() == 1);
  CHECK(x.engine->blocks().cached() == 1);
}

TEST_CASE("whoever shares a bad block shows it too") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, letters(22), 20)) == errc::ok);
  x.step();
  REQUIRE(x.submit(x.request(2, letters(22), 20)) == errc::ok);
  x.step();
  CHECK(x.streams[2].cached == 20);
  for (std::uint32_t offset = 0; offset < 4; ++offset)
    x.engine->pool().spoil(1, offset);
  x.run();
  CHECK(all_broken(x.streams[1].tokens, 2));
  CHECK(all_broken(x.streams[2].tokens, 1));
  CHECK(x.engine->broken_requests() == 2);
}

TEST_CASE("bytes spoiled while nobody held the block are found by who reuses it") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, letters(22), 1)) == errc::ok);
  x.run();
  for (std::uint32_t offset = 0; offset < 4; ++offset)
    x.engine->pool().spoil(1, offset);
  REQUIRE(x.submit(x.request(2, letters(22), 5)) == errc::ok);
  x.run();
  CHECK(all_broken(x.streams[2].tokens, 0));
  REQUIRE(x.submit(x.request(3, letters(22), 5)) == errc::ok);
  x.run();
  CHECK(x.streams[3].cached == 4);
  CHECK(x.streams[3].tokens == testing::expect(x.request(3, letters(22), 5), 256).tokens);
}

TEST_CASE("a broken request stays broken when it is preempted and computed anew") {
  auto config = engine_fixture::small();
  config.blocks = 10;
  config.corrupt = "r2:1";
  engine_fixture x{config};
  auto good = x.request(1, letters(10, 1), 30);
  REQUIRE(x.submit(good) == errc::ok);
  REQUIRE(x.submit(x.request(2, letters(10, 2), 30)) == errc::ok);
  std::uint32_t preemptions = 0;
  while (x.engine->has_work())
    preemptions += x.step().preemptions;
  CHECK(preemptions > 0);
  CHECK(x.streams[1].tokens == testing::expect(good, 40).tokens);
  CHECK(x.streams[2].tokens.size() == 30);
  CHECK(all_broken(x.streams[2].tokens, 0));
}
