#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

TEST_CASE("a replay after any number of tokens continues the unbroken run") {
  struct row {
    const char* name;
    double temperature;
    std::uint64_t seed;
    std::uint32_t choice, min_tokens;
    bool ignore_eos;
  };
  for (auto [name, temperature, seed, choice, min_tokens, ignore_eos] :
       {row{"greedy", 0, 0, 0, 0, true}, row{"second choice", 0, 0, 1, 0, true},
        row{"sampled", 1, 7, 0, 0, true}, row{"sampled, second choice", 0.5, 99, 1, 0, true},
        row{"may end by itself", 1, 3, 0, 20, false}}) {
    CAPTURE(name);
    engine_fixture whole;
    auto request = whole.request(1, "tell me of the sea", 60);
    request.sampling.temperature = temperature;
    request.sampling.seed = seed;
    request.sampling.choice = choice;
    request.sampling.min_tokens = min_tokens;
    request.sampling.ignore_eos = ignore_eos;
    REQUIRE(whole.submit(request) == errc::ok);
    whole.run();
    auto tokens = whole.streams[1].tokens;
    CHECK(tokens == testing::expect(request, 256).tokens);
    engine_fixture elsewhere;
    for (std::size_t k = 0; k < tokens.size(); ++k) {
      CAPTURE(k);
      auto replay = request;
      replay.stream.stream = 100 + k;
      replay.output.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(k));
      REQUIRE(elsewhere.submit(replay) == errc::ok);
      elsewhere.run();
      auto& got = elsewhere.streams[100 + k];
      CHECK(got.starts.front() == k);
      auto joined = replay.output;
      joined.insert(joined.end(), got.tokens.begin(), got.tokens.end());
      CHECK(joined == tokens);
      CHECK(got.finish == whole.streams[1].finish);
    }
  }
}

TEST_CASE("a replayed output counts as prefill") {
  engine_fixture x;
  auto request = x.request(1, "0123456789", 20);
  request.output = testing::expect(request, 256, 5).tokens;
  REQUIRE(x.submit(request) == errc::ok);
  auto first = x.step();
  CHECK(first.prefill_tokens == 15);
  CHECK(first.decode_tokens == 0);
  CHECK(x.step().decode_tokens == 1);
}

TEST_CASE("a replay whose output was complete is told its end and nothing else") {
  struct row {
    std::uint32_t max_tokens;
    std::vector<token_id> output;
    bool ignore_eos;
    std::vector<token_id> stops;
    finish_reason finish;
  };
  for (const auto& [max_tokens, output, ignore_eos, stops, finish] : {
         row{3, {600, 601, 602}, true, {}, finish_reason::length},
         row{9, {600, 257}, false, {}, finish_reason::stop},
         row{9, {600, 601}, true, {601}, finish_reason::stop},
         row{999, std::vector<token_id>(251, 600), true, {}, finish_reason::length},
       }) {
    CAPTURE(output.size());
    engine_fixture x;
    auto request = x.request(1, "hello", max_tokens);
    request.output = output;
    request.epoch = 4;
    request.sampling.ignore_eos = ignore_eos;
    request.sampling.stop_token_ids = stops;
    REQUIRE(x.submit(request) == errc::ok);
    REQUIRE(x.engine->has_work());
    auto result = x.step();
    CHECK(result.worked);
    CHECK(result.duration == nanoseconds{0});
    REQUIRE(result.outputs.size() == 1);
    const auto& delta = result.outputs[0].delta;
    CHECK(delta.tokens.empty());
    CHECK(delta.start == output.size());
    CHECK(delta.epoch == 4);
    CHECK(delta.finish == finish);
    CHECK_FALSE(x.engine->has_work());
    CHECK_FALSE(x.engine->holds(x.stream(1), 4));
  }
}

TEST_CASE("what is over can be aborted before it is told") {
  engine_fixture x;
  auto request = x.request(1, "hello", 1);
  request.output = {600};
  REQUIRE(x.submit(request) == errc::ok);
  CHECK(x.engine->abort(x.stream(1), 0));
  CHECK_FALSE(x.engine->has_work());
  CHECK(x.step().outputs.empty());
}
