#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

namespace {

std::vector<std::uint64_t> told(const step_result& result) {
  std::vector<std::uint64_t> streams;
  for (const auto& output : result.outputs)
    streams.push_back(output.stream.stream);
  return streams;
}

using numbers = std::vector<std::uint64_t>;

} // namespace

TEST_CASE("a long prompt is computed in chunks, decodes go on beside it") {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = 10;
  engine_fixture x{config};
  REQUIRE(x.submit(x.request(1, "abc", 20)) == errc::ok);
  x.step();
  REQUIRE(x.submit(x.request(2, letters(20, 1), 4)) == errc::ok);
  using row = std::pair<std::uint32_t, numbers>;
  for (const auto& [prefill, streams] :
       {row{9, {1}}, row{9, {1}}, row{2, {1, 2}}, row{0, {1, 2}}}) {
    auto result = x.step();
    CHECK(result.prefill_tokens == prefill);
    CHECK(told(result) == streams);
  }
  x.run();
  CHECK(x.streams[2].tokens == testing::expect(x.request(2, letters(20, 1), 4), 256).tokens);
}

TEST_CASE("at most max_num_seqs run, the rest wait their turn") {
  auto config = engine_fixture::small();
  config.max_num_seqs = 2;
  engine_fixture x{config};
  for (std::uint64_t number : {1, 2, 3})
    REQUIRE(x.submit(x.request(number, letters(5, unsigned(number)), 2)) == errc::ok);
  CHECK(told(x.step()) == numbers{1, 2});
  CHECK(x.engine->status().num_waiting_requests == 1);
  CHECK(told(x.step()) == numbers{1, 2});
  CHECK(told(x.step()) == numbers{3});
}

TEST_CASE("first come is first served, unless priorities differ") {
  auto config = engine_fixture::small();
  config.max_num_seqs = 1;
  engine_fixture x{config};
  using row = std::pair<std::uint64_t, std::int32_t>;
  for (auto [number, priority] : {row{1, 0}, row{2, 0}, row{3, -1}, row{4, 5}, row{5, 0}}) {
    auto request = x.request(number, "abc", 1);
    request.priority = priority;
    REQUIRE(x.submit(request) == errc::ok);
  }
  numbers order;
  while (x.engine->has_work())
    for (auto number : told(x.step()))
      order.push_back(number);
  CHECK(order == numbers{3, 1, 2, 5, 4});
}

TEST_CASE("when blocks run out the last arrived is preempted and goes on exactly where it was") {
  for (bool cache : {false, true}) {
    CAPTURE(cache);
    auto config = engine_fixture::small();
    config.blocks = 12; // 48 tokens
    config.prefix_cache = cache;
    engine_fixture x{config};
    std::vector<inference_request> requests;
    for (std::uint64_t number : {1, 2, 3})
      requests.push_back(x.request(number, letters(10, unsigned(number)), 30));
    for (const auto& request : requests)
      REQUIRE(x.submit(request) == errc::ok);
    std::uint32_t preemptions = 0;
    std::uint64_t last = 0;
    while (x.engine->has_work()) {
      auto result = x.step();
      preemptions += result.preemptions;
      if (result.preemptions > 0 && last == 0) {
        CHECK(x.engine->status().waiting_requests == std::vector<std::string>{"cmpl-r3-0"});
        last = 3;
      }
    }
    CHECK(preemptions >= 2);
    for (const auto& request : requests) {
      auto& got = x.streams[request.stream.stream];
      CHECK(got.tokens == testing::expect(request, 48).tokens);
      CHECK(got.finish == finish_reason::length);
      for (std::uint32_t i = 0; i < got.starts.size(); ++i)
        CHECK(got.starts[i] == i);
    }
    CHECK(x.idle());
  }
}

TEST_CASE("the least important is preempted before the last arrived") {
  auto config = engine_fixture::small();
  config.blocks = 8;
  config.prefix_cache = false;
  engine_fixture x{config};
  auto low = x.request(1, letters(12, 1), 20);
  low.priority = 1;
  REQUIRE(x.submit(low) == errc::ok);
  x.step();
  REQUIRE(x.submit(x.request(2, letters(12, 2), 20)) == errc::ok);
  while (x.step().preemptions == 0) {
  }
  CHECK(x.engine->status().waiting_requests == std::vector<std::string>{"cmpl-r1-0"});
  x.run();
  CHECK(x.streams[1].tokens == testing::expect(low, 32).tokens);
}

TEST_CASE("stop ids and a forced end-of-sequence end an output") {
  engine_fixture x;
  auto request = x.request(1, "hello", 50);
  auto whole = testing::expect(request, 256).tokens;
  request.sampling.stop_token_ids = {whole[7]};
  auto expected = testing::expect(request, 256);
  REQUIRE(expected.finish == finish_reason::stop);
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  CHECK(x.streams[1].tokens == expected.tokens);
  CHECK(x.streams[1].finish == finish_reason::stop);

  auto forced = x.request(2, "hello", 50);
  forced.sampling.ignore_eos = false;
  forced.sampling.eos = eos_rule::force;
  forced.sampling.min_tokens = 3;
  REQUIRE(x.submit(forced) == errc::ok);
  x.run();
  CHECK(x.streams[2].tokens.size() == 4);
  CHECK(x.streams[2].tokens.back() == 257);
  CHECK(x.streams[2].finish == finish_reason::stop);
}

TEST_CASE("an engine says what it can do") {
  engine_fixture x;
  auto can = x.engine->capabilities();
  CHECK(can.status_per_step);
  CHECK(can.token_ids);
  CHECK(can.exports_kv);
  CHECK(can.pauses);
}
