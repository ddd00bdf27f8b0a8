#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace llumnix;
using testing::engine_fixture;
using testing::second_engine;

namespace {

/// Both engines under the same seeded life: arrivals with common prefixes, aborts, credit, replays
/// under higher epochs, priorities, and as few blocks as make trouble.
class soak {
public:
  soak(engine_config config, unsigned seed)
    : chance_{seed},
      engine_{config},
      second_{
        {config.blocks, config.block_tokens, config.max_num_seqs, config.max_num_batched_tokens,
         config.blocks * config.block_tokens, config.prefix_cache}} {}

  void turn() {
    auto what = pick(100);
    if (what < 22)
      arrive();
    else if (what < 26 && !live_.empty())
      leave();
    else if (what < 34 && !live_.empty())
      grant();
    else if (what < 37 && !live_.empty())
      overtake();
    else
      step();
    compare_accounts();
  }

  void finish() {
    for (auto& [number, _] : live_) {
      engine_.engine->grant(engine_.stream(number), epochs_[number], inference_request::no_limit);
      second_.grant(number, inference_request::no_limit);
    }
    while (second_.has_work())
      step();
    CHECK(engine_.idle());
    CHECK(live_.empty());
  }

  std::uint32_t preemptions = 0, ended = 0, reused = 0;

private:
  std::uint32_t pick(std::uint32_t below) {
    return std::uniform_int_distribution<std::uint32_t>{0, below - 1}(chance_);
  }

  void submit(const inference_request& request) {
    REQUIRE(engine_.submit(request) == errc::ok);
    second_.submit(request);
    live_[request.stream.stream] = request;
    epochs_[request.stream.stream] = request.epoch;
  }

  void arrive() {
    auto number = ++last_;
    auto request = engine_.request(number, testing::letters(1 + pick(40), pick(3)), 1 + pick(30));
    request.prompt.push_back(pick(2) ? 'x' : 'y');
    request.sampling.temperature = pick(2);
    request.sampling.seed = number;
    request.sampling.ignore_eos = pick(2) == 0;
    request.sampling.min_tokens = pick(3);
    if (pick(4) == 0)
      request.sampling.stop_token_ids = {512 + pick(512), 512 + pick(512)};
    request.priority = static_cast<std::int32_t>(pick(10) == 0 ? pick(3) : 1) - 1;
    if (pick(3) == 0)
      request.credit = pick(6);
    submit(request);
  }

  std::uint64_t any() {
    return std::next(live_.begin(), pick(static_cast<std::uint32_t>(live_.size())))->first;
  }

  void leave() {
    auto number = any();
    CHECK(engine_.engine->abort(engine_.stream(number), epochs_[number]));
    second_.abort(number);
    live_.erase(number);
  }

  void grant() {
    auto number = any(), credit = static_cast<std::uint64_t>(pick(40));
    engine_.engine->grant(
      engine_.stream(number), epochs_[number], static_cast<std::uint32_t>(credit));
    second_.grant(number, static_cast<std::uint32_t>(credit));
  }

  void overtake() {
    auto request = live_[any()];
    ++request.epoch;
    request.credit = inference_request::no_limit;
    const auto& told = engine_.streams[request.stream.stream].tokens;
    request.output = told;
    second_.abort(request.stream.stream);
    submit(request);
  }

  void step() {
    REQUIRE(engine_.engine->has_work() == second_.has_work());
    auto result = engine_.step();
    auto expected = second_.step();
    REQUIRE(result.worked == !(expected.prefill == 0 && expected.decode == 0));
    CHECK(result.prefill_tokens == expected.prefill);
    CHECK(result.decode_tokens == expected.decode);
    CHECK(result.preemptions == expected.preemptions);
    REQUIRE(result.outputs.size() == expected.outputs.size());
    for (std::size_t i = 0; i < result.outputs.size(); ++i) {
      const auto& delta = result.outputs[i].delta;
      second_engine::told got{
        delta.stream, delta.start, delta.tokens, delta.finish, delta.cached_tokens};
      CHECK(got == expected.outputs[i]);
      CHECK(delta.epoch == epochs_[delta.stream]);
      reused += delta.cached_tokens;
      if (delta.finish != finish_reason::none) {
        live_.erase(delta.stream);
        ++ended;
      }
    }
    preemptions += result.preemptions;
  }

  void compare_accounts() {
    auto status = engine_.engine->status();
    REQUIRE(engine_.engine->blocks().free() == second_.free_blocks());
    REQUIRE(status.num_running_requests == static_cast<std::int32_t>(second_.running()));
    REQUIRE(status.num_waiting_requests == static_cast<std::int32_t>(second_.waiting()));
    REQUIRE(engine_.engine->blocks().consistent());
    CHECK(engine_.engine->broken_requests() == 0);
  }

  std::mt19937 chance_;
  engine_fixture engine_;
  second_engine second_;
  std::map<std::uint64_t, inference_request> live_;
  std::map<std::uint64_t, std::uint32_t> epochs_;
  std::uint64_t last_ = 0;
};

} // namespace

TEST_CASE("the engine does, step by step, what a slow second one does") {
  struct row {
    std::uint32_t blocks, block_tokens, seqs, batched_tokens;
    bool cache, poison;
  };
  std::uint32_t preemptions = 0, ended = 0, reused = 0;
  for (auto [blocks, block_tokens, seqs, batched_tokens, cache, poison] :
       {row{24, 4, 256, 2048, true, false}, row{24, 4, 256, 2048, false, false},
        row{24, 4, 5, 16, true, false}, row{40, 3, 8, 7, true, false},
        row{80, 1, 256, 64, true, false}, row{100, 4, 6, 32, false, true}})
    for (unsigned seed = 1; seed <= 4; ++seed) {
      CAPTURE(blocks);
      CAPTURE(seed);
      auto config = engine_fixture::small();
      config.blocks = blocks;
      config.block_tokens = block_tokens;
      config.max_num_seqs = seqs;
      config.max_num_batched_tokens = batched_tokens;
      config.prefix_cache = cache;
      config.poison_freed = poison;
      soak life{config, seed};
      for (int i = 0; i < 1500; ++i)
        life.turn();
      life.finish();
      preemptions += life.preemptions;
      ended += life.ended;
      reused += life.reused;
    }
  // The lives were eventful.
  CHECK(preemptions > 500);
  CHECK(ended > 2000);
  CHECK(reused > 5000);
}
