#include "tests/engine/moving_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;
using testing::moving_fixture;

namespace {

constexpr token_id broken = 258;

bool all_broken(const std::vector<token_id>& tokens, std::size_t from) {
  return from < tokens.size()
         && std::all_of(
           tokens.begin() + static_cast<std::ptrdiff_t>(from), tokens.end(),
           [](token_id id) { return id == broken; });
}

engine_config chunked(std::uint32_t tokens) {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = tokens;
  return config;
}

/// What a client gets when nobody moves anything.
engine_fixture::received unmoved(inference_request request) {
  request.credit = inference_request::no_limit;
  engine_fixture x;
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  return x.streams[request.stream.stream];
}

void check_unmoved(moving_fixture& x, const inference_request& request) {
  auto got = x.client(), expected = unmoved(request);
  CHECK(got.tokens == expected.tokens);
  CHECK(got.tokens == testing::expect(request, 256).tokens);
  CHECK(got.logprobs == expected.logprobs);
  CHECK(got.finish == expected.finish);
  CHECK(got.cached == expected.cached);
  CHECK(x.idle());
}

} // namespace

// --- whole moves ---

TEST_CASE("a request that moved goes on as one that did not") {
  struct row {
    const char* name;
    double temperature;
    std::uint32_t choice, min_tokens;
    bool ignore_eos, logprobs, stops;
  };
  std::uint32_t ended = 0;
  for (auto [name, temperature, choice, min_tokens, ignore_eos, logprobs, stops] :
       {row{"greedy", 0, 0, 0, true, false, false},
        row{"second choice", 0, 1, 0, true, true, false},
        row{"seeded", 1, 0, 0, true, false, false}, row{"may end", 1, 2, 20, false, true, false},
        row{"stops", 0.5, 0, 8, false, true, true}})
    for (std::uint32_t before : {1, 2, 30})
      for (std::uint32_t rounds : {1, 3}) {
        CAPTURE(name);
        CAPTURE(before);
        CAPTURE(rounds);
        moving_fixture x{chunked(16)};
        auto request = x.source.request(1, letters(22), 60);
        request.sampling.temperature = temperature;
        request.sampling.seed = 77;
        request.sampling.choice = choice;
        request.sampling.min_tokens = min_tokens;
        request.sampling.ignore_eos = ignore_eos;
        request.sampling.logprobs = logprobs;
        request.sampling.top_logprobs = 2;
        if (stops)
          request.sampling.stop_token_ids = {testing::expect(request, 256).tokens.at(50)};
        REQUIRE(x.source.submit(request) == errc::ok);
        REQUIRE(x.source.submit(x.source.request(2, letters(9, 3), 50)) == errc::ok);
        REQUIRE(x.destination.submit(x.destination.request(3, letters(9, 4), 50)) == errc::ok);
        for (std::uint32_t i = 0; i < before; ++i)
          x.source.step();
        REQUIRE(x.begin(1) == errc::ok);
        for (std::uint32_t i = 0; i < rounds && x.round() == errc::ok; ++i) {
          for (std::uint32_t steps = 0; steps <= i; ++steps)
            x.source.step();
          x.destination.step();
        }
        if (x.source.streams[1].finish != finish_reason::none) { // it ended meanwhile
          ++ended;
          CHECK(x.finish() == errc::not_found);
          x.out.unpin(x.id);
          x.in.give_up(x.id);
          x.source.run();
          x.destination.run();
          CHECK(x.source.streams[1].tokens == testing::expect(request, 256).tokens);
          CHECK(x.idle());
          continue;
        }
        REQUIRE(x.finish() == errc::ok);
        CHECK_FALSE(x.source.engine->holds(x.source.stream(1), 0));
        CHECK(x.destination.engine->holds(x.source.stream(1), 1));
        auto first = x.destination.step();
        CHECK(first.prefill_tokens == 0); // nothing is computed twice
        CHECK(first.outputs.front().stream == x.source.stream(1));
        CHECK(first.outputs.front().delta.epoch == 1);
        x.source.run();
        x.destination.run();
        check_unmoved(x, request);
        CHECK(
          x.source.streams[2].tokens
          == testing::expect(x.source.request(2, letters(9, 3), 50), 256).tokens);
        CHECK(
          x.destination.streams[3].tokens
          == testing::expect(x.source.request(3, letters(9, 4), 50), 256).tokens);
      }
  CHECK(ended < 4);
}

TEST_CASE("ids that the source never told are told with the first step here") {
  for (bool logprobs : {false, true})
    for (std::uint32_t kept_back : {1, 3, 8})
      for (std::uint32_t credit : {inference_request::no_limit, 8u}) {
        CAPTURE(kept_back);
        CAPTURE(credit);
        moving_fixture x;
        auto request = x.source.request(1, letters(22), 30);
        request.sampling.logprobs = logprobs;
        request.credit = credit;
        REQUIRE(x.source.submit(request) == errc::ok);
        for (int i = 0; i < 8; ++i)
          x.source.step();
        REQUIRE(x.begin(1) == errc::ok);
        REQUIRE(x.finish(8 - kept_back) == errc::ok);
        REQUIRE(x.destination.engine->has_work());
        auto first = x.destination.step();
        REQUIRE(first.outputs.size() == 1);
        const auto& delta = first.outputs[0].delta;
        CHECK(delta.start == 8 - kept_back);
        bool may_go_on = credit == inference_request::no_limit;
        CHECK(delta.tokens.size() == kept_back + (may_go_on ? 1 : 0));
        CHECK(delta.logprobs.size() == (logprobs ? delta.tokens.size() : 0));
        CHECK(x.destination.engine->has_work() == may_go_on); // told once
        x.destination.engine->grant(x.source.stream(1), 1, inference_request::no_limit);
        x.destination.run();
        check_unmoved(x, request);
      }
}

TEST_CASE("ids that were not told do not wait for what is computed first") {
  moving_fixture x{engine_fixture::small(), chunked(8)};
  auto request = x.source.request(1, letters(22), 30);
  REQUIRE(x.source.submit(request) == errc::ok);
  for (int i = 0; i < 3; ++i)
    x.source.step();
  REQUIRE(x.begin(1) == errc::ok);
  REQUIRE(x.finish(0, false) == errc::ok); // 25 positions to compute, 8 in a step
  auto first = x.destination.step();
  REQUIRE(first.outputs.size() == 1);
  CHECK(first.prefill_tokens == 8);
  CHECK(first.outputs[0].delta.tokens.size() == 3);
  for (int i = 0; i < 2; ++i)
    CHECK(x.destination.step().outputs.empty());
  CHECK(x.destination.step().outputs.size() == 1);
  x.destination.run();
  check_unmoved(x, request);
}

TEST_CASE("a request can move on before it was served once") {
  moving_fixture x;
  auto request = x.source.request(1, letters(22), 30);
  REQUIRE(x.source.submit(request) == errc::ok);
  for (int i = 0; i < 5; ++i)
    x.source.step();
  REQUIRE(x.begin(1) == errc::ok);
  REQUIRE(x.finish(2) == errc::ok);
  handover_id back{8, 1};
  REQUIRE(x.in.pin(back, x.source.stream(1), 1));
  auto leaving = *x.in.freeze(back);
  CHECK_FALSE(x.destination.step().worked); // untold, and frozen
  CHECK(leaving.written == 26);
  CHECK(leaving.request.output.size() == 5);
  x.in.thaw(back, 2);
  x.in.unpin(back);
  auto first = x.destination.step();
  REQUIRE(first.outputs.size() == 1);
  CHECK(first.outputs[0].delta.start == 2);
  CHECK(first.outputs[0].delta.tokens.size() == 4);
  CHECK(first.outputs[0].delta.epoch == 2);
  x.destination.run();
  check_unmoved(x, request);
}

TEST_CASE("what had reached its end when it came is told just that") {
  struct row {
    std::uint32_t max_tokens;
    std::vector<token_id> output;
    std::uint32_t sent;
    bool ignore_eos;
    std::vector<token_id> stops;
    finish_reason finish;
  };
  for (const auto& [max_tokens, output, sent, ignore_eos, stops, finish] : {
         row{3, {600, 601, 602}, 3, true, {}, finish_reason::length},
         row{3, {600, 601, 602}, 1, true, {}, finish_reason::length},
         row{9, {600, 257}, 0, false, {}, finish_reason::stop},
         row{9, {600, 601}, 2, true, {601}, finish_reason::stop},
         row{999, std::vector<token_id>(251, 600), 251, true, {}, finish_reason::length},
       }) {
    CAPTURE(output.size());
    moving_fixture x;
    auto request = x.source.request(1, "hello", max_tokens);
    request.sampling.ignore_eos = ignore_eos;
    request.sampling.stop_token_ids = stops;
    REQUIRE(x.in.reserve(x.id, request, 0));
    request.output = output;
    request.epoch = 1;
    REQUIRE(x.in.adopt(x.id, request, sent, {}));
    auto result = x.destination.step();
    REQUIRE(result.outputs.size() == 1);
    const auto& delta = result.outputs[0].delta;
    CHECK(delta.start == sent);
    CHECK(delta.tokens.size() == output.size() - sent);
    CHECK(delta.finish == finish);
    CHECK_FALSE(x.destination.engine->has_work());
    CHECK(x.idle());
  }
}

TEST_CASE("what arrived is cached like what was computed") {
  moving_fixture x;
  REQUIRE(x.source.submit(x.source.request(1, letters(22), 30)) == errc::ok);
  x.source.step();
  REQUIRE(x.begin(1) == errc::ok);
  REQUIRE(x.round() == errc::ok);
  CHECK(x.destination.engine->blocks().cached() == 0); // more may land there
  REQUIRE(x.finish() == errc::ok);
  CHECK(x.destination.engine->blocks().cached() == 5);
  auto second = x.destination.request(2, letters(22), 6);
  REQUIRE(x.destination.submit(second) == errc::ok);
  x.destination.run();
  CHECK(x.destination.streams[2].cached == 20);
  CHECK(x.destination.streams[2].tokens == testing::expect(second, 256).tokens);
  CHECK(x.idle());
}

TEST_CASE("a move leaves out what the destination has cached") {
  moving_fixture x;
  REQUIRE(x.destination.submit(x.destination.request(9, letters(22), 1)) == errc::ok);
  x.destination.run();
  auto request = x.source.request(1, letters(22), 30);
  REQUIRE(x.source.submit(request) == errc::ok);
  x.source.step();
  REQUIRE(x.begin(1) == errc::ok);
  CHECK(x.room.present_tokens == 20);
  REQUIRE(x.finish() == errc::ok);
  CHECK(x.destination.step().prefill_tokens == 0);
  x.destination.run();
  check_unmoved(x, request);
}

TEST_CASE("a request that waits moves without KV, ahead of those that wait") {
  auto narrow = engine_fixture::small();
  narrow.max_num_seqs = 1;
  moving_fixture x{narrow, narrow};
  auto request = x.source.request(1, letters(22), 30);
  REQUIRE(x.source.submit(x.source.request(2, letters(9, 3), 50)) == errc::ok);
  REQUIRE(x.source.submit(request) == errc::ok);
  for (std::uint64_t other : {5, 6})
    REQUIRE(x.destination.submit(x.source.request(other, letters(9, 4), 50)) == errc::ok);
  x.source.step();
  x.destination.step();
  REQUIRE(x.begin(1) == errc::ok);
  CHECK_FALSE(x.leaving.running);
  CHECK(x.leaving.written == 0);
  CHECK(x.leaving.blocks.empty());
  REQUIRE(x.finish() == errc::ok);
  CHECK(x.source.engine->status().num_waiting_requests == 0);
  auto first = x.destination.step();
  CHECK(first.prefill_tokens == 22);
  REQUIRE(first.outputs.size() == 2); // with 5; 6 has no seat
  CHECK(first.outputs[0].stream == x.source.stream(1));
  x.source.run();
  x.destination.run();
  check_unmoved(x, request);
}

TEST_CASE("KV can be computed ahead while the source goes on") {
  for (std::uint32_t chunk : {2048, 8, 3}) {
    CAPTURE(chunk);
    moving_fixture x{engine_fixture::small(), chunked(chunk)};
    auto request = x.source.request(1, letters(22), 40);
    auto local = x.destination.request(5, letters(9, 4), 30);
    REQUIRE(x.source.submit(request) == errc::ok);
    REQUIRE(x.destination.submit(local) == errc::ok);
    while (x.destination.streams[5].tokens.empty())
      x.destination.step();
    for (int i = 0; i < 4; ++i)
      x.source.step();
    REQUIRE(x.begin(1) == errc::ok);
    CHECK(x.in.ready_tokens(x.id) == 0);
    std::uint32_t ready = 0;
    for (int round = 0; round < 3; ++round) {
      x.leaving = *x.out.look(x.id);
      x.in.compute_ahead(x.id, x.ids());
      while (x.in.ready_tokens(x.id) < x.leaving.written) {
        auto step = x.destination.step();
        REQUIRE(step.outputs.size() == 1); // of 5, which is served first; the room is silent
        CHECK(step.outputs[0].stream == x.source.stream(5));
        CHECK(step.decode_tokens == 1);
        auto expected = std::min(ready + chunk - 1, x.leaving.written);
        CHECK(step.prefill_tokens == expected - ready);
        ready = expected;
        CHECK(x.in.ready_tokens(x.id) == ready);
        x.source.step();
      }
    }
    REQUIRE(x.finish(x.told(), false) == errc::ok);
    x.destination.run();
    x.source.run();
    check_unmoved(x, request);
    CHECK(x.destination.streams[5].tokens == testing::expect(local, 256).tokens);
  }
}

// --- bad bytes ---

TEST_CASE("a bad bit in any word of any position is caught as it lands") {
  moving_fixture x;
  auto request = x.source.request(1, letters(22), 30);
  REQUIRE(x.source.submit(request) == errc::ok);
  for (int i = 0; i < 4; ++i)
    x.source.step();
  REQUIRE(x.begin(1) == errc::ok);
  REQUIRE(x.leaving.written == 25);
  x.copy(0, 25);
  for (std::uint32_t position = 0; position < 25; ++position)
    for (std::uint32_t word = 0; word < 4; ++word) {
      CAPTURE(position);
      CAPTURE(word);
      auto& bytes
        = x.destination.engine->pool().position(x.room.blocks[position / 4], position % 4)[word];
      bytes ^= 1ull << (position + word);
      auto landed = x.in.landed(x.id, x.ids(), 0, 25);
      REQUIRE(!landed);
      CHECK(landed.error().code == errc::bad_message);
      CHECK(
        landed.error().context.find("position " + std::to_string(position)) != std::string::npos);
      CHECK(x.in.ready_tokens(x.id) == position); // also where it was ready before
      bytes ^= 1ull << (position + word);
    }
  CHECK(testing::code_of(x.in.landed(x.id, x.ids(), 0, 25)) == errc::ok);
  CHECK(x.in.ready_tokens(x.id) == 25);
  CHECK(x.destination.engine->broken_requests() == 0);
  REQUIRE(x.finish() == errc::ok);
  x.destination.run();
  check_unmoved(x, request);
}

TEST_CASE("a bit that flips after it landed shows as broken tokens") {
  struct row {
    std::uint32_t position, word;
    std::size_t within; // steps
  };
  for (auto [position, word, within] :
       {row{0, 0, 16}, row{7, 3, 16}, row{16, 1, 16}, row{24, 0, 1}}) {
    CAPTURE(position);
    moving_fixture x;
    REQUIRE(x.source.submit(x.source.request(1, letters(22), 60)) == errc::ok);
    for (int i = 0; i < 4; ++i)
      x.source.step();
    REQUIRE(x.begin(1) == errc::ok);
    REQUIRE(x.finish() == errc::ok);
    x.destination.engine->pool().position(x.room.blocks[position / 4], position % 4)[word] ^= 1;
    for (std::size_t i = 0; i < within; ++i)
      x.destination.step();
    CHECK(x.destination.streams[1].tokens.back() == broken);
    auto seen = x.destination.streams[1].tokens.size() - 1;
    x.destination.run();
    CHECK(all_broken(x.destination.streams[1].tokens, seen));
    CHECK(x.destination.engine->broken_requests() == 1);
  }
}

TEST_CASE("a bad block that a room shares shows when it was computed ahead") {
  moving_fixture x;
  REQUIRE(x.destination.submit(x.destination.request(9, letters(22), 1)) == errc::ok);
  x.destination.run();
  REQUIRE(x.in.reserve(x.id, x.source.request(1, letters(22), 9), 0)->present_tokens == 20);
  for (std::uint32_t offset = 0; offset < 4; ++offset)
    x.destination.engine->pool().spoil(2, offset);
  auto request = x.source.request(1, letters(22), 9);
  x.in.compute_ahead(x.id, request.prompt);
  x.destination.run();
  REQUIRE(x.in.adopt(x.id, request, 0, {}));
  x.destination.run();
  CHECK(all_broken(x.destination.streams[1].tokens, 0));
  CHECK(x.destination.engine->blocks().cached() == 2);
  CHECK(x.idle());
}

TEST_CASE("a block to be corrupted is corrupted here too, if it is computed here") {
  for (bool tail : {true, false}) {
    auto config = engine_fixture::small();
    config.corrupt = "r1:6"; // positions 24 to 27
    moving_fixture x{engine_fixture::small(), config};
    REQUIRE(x.source.submit(x.source.request(1, letters(22), 30)) == errc::ok);
    for (int i = 0; i < 8; ++i)
      x.source.step(); // 29 positions
    REQUIRE(x.begin(1) == errc::ok);
    REQUIRE(x.finish(8, tail) == errc::ok);
    x.destination.run();
    CHECK(x.destination.engine->broken_requests() == (tail ? 0 : 1));
  }
}
