#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

TEST_CASE("a request without credit skips steps, keeps its blocks, and others go on") {
  engine_fixture x;
  auto slow = x.request(1, letters(9, 1), 20);
  slow.credit = 3;
  REQUIRE(x.submit(slow) == errc::ok);
  REQUIRE(x.submit(x.request(2, letters(9, 2), 20)) == errc::ok);
  x.run();
  CHECK(x.streams[1].tokens.size() == 3);
  CHECK(x.streams[2].tokens.size() == 20);
  CHECK_FALSE(x.engine->has_work());
  CHECK_FALSE(x.step().worked);
  CHECK(x.engine->status().num_running_requests == 1);
  CHECK(x.engine->blocks().free() == 64 - 3);

  x.engine->grant(x.stream(1), 0, 5);
  CHECK(x.engine->has_work());
  x.run();
  CHECK(x.streams[1].tokens.size() == 5);
  x.engine->grant(x.stream(1), 0, inference_request::no_limit);
  x.run();
  CHECK(x.streams[1].tokens == testing::expect(slow, 256).tokens);
  CHECK(x.idle());
}

TEST_CASE("only a higher grant to the right stream and epoch counts") {
  engine_fixture x;
  auto request = x.request(1, "hello", 20);
  request.credit = 2;
  request.epoch = 1;
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  x.engine->grant(x.stream(1), 0, 9);
  x.engine->grant(x.stream(1), 2, 9);
  x.engine->grant(x.stream(2), 1, 9);
  x.engine->grant(x.stream(1), 1, 1);
  x.engine->grant(x.stream(1), 1, 2);
  CHECK_FALSE(x.engine->has_work());
  x.engine->grant(x.stream(1), 1, 4);
  x.engine->grant(x.stream(1), 1, 3);
  x.run();
  CHECK(x.streams[1].tokens.size() == 4);
}

TEST_CASE("a waiting request without credit is passed over") {
  auto config = engine_fixture::small();
  config.max_num_seqs = 1;
  engine_fixture x{config};
  auto held = x.request(1, "hello", 2);
  held.credit = 0;
  REQUIRE(x.submit(held) == errc::ok);
  CHECK_FALSE(x.engine->has_work());
  REQUIRE(x.submit(x.request(2, "world", 2)) == errc::ok);
  x.run();
  CHECK(x.streams[2].finish == finish_reason::length);
  CHECK(x.streams.count(1) == 0);
  x.engine->grant(x.stream(1), 0, 2);
  x.run();
  CHECK(x.streams[1].finish == finish_reason::length);
}

TEST_CASE("stalled requests lose seat and blocks only when nobody else can run") {
  auto config = engine_fixture::small();
  config.prefix_cache = false;
  struct row {
    std::uint32_t blocks, seqs;
  };
  for (auto [blocks, seqs] : {row{8, 256}, row{64, 2}}) {
    CAPTURE(blocks);
    config.blocks = blocks;
    config.max_num_seqs = seqs;
    engine_fixture x{config};
    auto first = x.request(1, letters(12, 1), 10), second = x.request(2, letters(12, 2), 10);
    first.credit = second.credit = 2;
    REQUIRE(x.submit(first) == errc::ok);
    REQUIRE(x.submit(second) == errc::ok);
    x.run();
    CHECK(x.engine->status().num_running_requests == 2);
    auto third = x.request(3, letters(10, 3), 2);
    REQUIRE(x.submit(third) == errc::ok);
    REQUIRE(x.engine->has_work());
    CHECK(x.step().preemptions == 1); // the last arrived of the two
    CHECK(x.engine->status().num_running_requests == 2);
    x.run();
    CHECK(x.streams[3].tokens == testing::expect(third, blocks * 4).tokens);
    for (std::uint64_t number : {1, 2})
      x.engine->grant(x.stream(number), 0, inference_request::no_limit);
    x.run();
    CHECK(x.streams[1].tokens == testing::expect(first, blocks * 4).tokens);
    CHECK(x.streams[2].tokens == testing::expect(second, blocks * 4).tokens);
    CHECK(x.idle());
  }
}
