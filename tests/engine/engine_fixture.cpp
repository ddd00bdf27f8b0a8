#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

engine_fixture::engine_fixture(engine_config how) : config{std::move(how)} {
  auto made = modeled_engine::make(config);
  REQUIRE_MESSAGE(made, (made ? "" : to_string(made.error())));
  engine = std::move(*made);
}

engine_config engine_fixture::small() {
  engine_config config;
  config.speed = 0;
  config.blocks = 64;
  config.block_tokens = 4;
  config.kv_bytes_per_token = 32;
  return config;
}

inference_request
engine_fixture::request(std::uint64_t number, std::string_view prompt, std::uint32_t max_tokens) {
  inference_request x;
  x.stream = stream(number);
  x.text_id = "r" + std::to_string(number);
  for (unsigned char byte : prompt)
    x.prompt.push_back(byte);
  x.sampling.temperature = 0;
  x.sampling.ignore_eos = true;
  x.sampling.max_tokens = max_tokens;
  return x;
}

errc engine_fixture::submit(const inference_request& request) {
  auto taken = engine->submit(request);
  return taken ? errc::ok : taken.error().code;
}

step_result engine_fixture::step() {
  auto result = engine->step(now);
  now += result.duration;
  for (const auto& [to, delta] : result.outputs) {
    CHECK(to.stream == delta.stream);
    auto& stream = streams[delta.stream];
    CHECK(stream.finish == finish_reason::none);
    stream.starts.push_back(delta.start);
    stream.tokens.insert(stream.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    stream.logprobs.insert(stream.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    stream.finish = delta.finish;
    stream.cached += delta.cached_tokens;
  }
  CHECK(engine->blocks().consistent());
  return result;
}

void engine_fixture::run(std::size_t most) {
  while (engine->has_work() && most-- > 0)
    REQUIRE(step().worked);
}

bool engine_fixture::idle() const {
  auto status = engine->status();
  return engine->blocks().free() == engine->blocks().total() && status.num_running_requests == 0
         && status.num_waiting_requests == 0 && status.num_used_gpu_tokens == 0;
}

std::string letters(std::size_t length, unsigned seed) {
  std::string text;
  for (std::size_t i = 0; i < length; ++i)
    text += static_cast<char>('a' + (seed + i * (seed + 1)) % 26);
  return text;
}

} // namespace llumnix::testing
