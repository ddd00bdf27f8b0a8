#pragma once

#include "runtime/engine/modeled_engine.hpp"
#include "tests/engine/second_engine.hpp"

#include <map>
#include <memory>
#include <string_view>

namespace llumnix::testing {

/// A small engine on a clock turned by hand, and what its streams have received so far.
struct engine_fixture {
  struct received {
    std::vector<token_id> tokens;
    std::vector<token_logprob> logprobs;
    std::vector<std::uint32_t> starts;
    finish_reason finish = finish_reason::none;
    std::uint32_t cached = 0;
  };

  explicit engine_fixture(engine_config how = small());
  /// 64 blocks of 4 tokens of 32 bytes, no waiting.
  static engine_config small();
  /// A greedy request of stream `number` with a prompt of that text and room for `max_tokens`.
  static inference_request
  request(std::uint64_t number, std::string_view prompt, std::uint32_t max_tokens = 8);
  static stream_ref stream(std::uint64_t number) { return {"head", 1, 0, number}; }

  /// Submits; `errc::ok` if taken.
  errc submit(const inference_request& request);
  /// One step; its outputs are appended to `streams`.
  step_result step();
  /// Steps until nothing is left to do, at most `most` times.
  void run(std::size_t most = 100'000);
  /// All blocks free, nothing waiting or running.
  bool idle() const;

  engine_config config;
  std::unique_ptr<modeled_engine> engine;
  time_point now{};
  std::map<std::uint64_t, received> streams;
};

/// The text of `length` letters, different for each `seed` from the first letter on.
std::string letters(std::size_t length, unsigned seed = 0);

} // namespace llumnix::testing
