#include "runtime/engine/modeled_engine.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

using namespace llumnix;

TEST_CASE("the defaults are those of the 7B on A10") {
  auto engine = modeled_engine::make({});
  REQUIRE(engine);
  CHECK((*engine)->blocks().total() == 792);
  CHECK((*engine)->max_model_len() == 12672);
  CHECK((*engine)->status().num_total_gpu_tokens == 12672);
  CHECK((*engine)->pool().words_per_token() == 256);
}

TEST_CASE("a configuration nobody can run is refused, naming knob and way out") {
  struct row {
    std::function<void(engine_config&)> spoil;
    errc code;
    std::string says;
  };
  for (const auto& [spoil, code, says] : {
         row{
           [](auto& x) { x.latency = "a10.llama-7b.tp1.osdi2"; }, errc::not_found, "did you mean"},
         row{
           [](auto& x) { x.latency = "a10.llama-30b.tp4.osdi24"; }, errc::invalid_argument,
           "set engine.blocks"},
         row{
           [](auto& x) { x.kv_bytes_per_token = 8; }, errc::invalid_argument, "kv_bytes_per_token"},
         row{[](auto& x) { x.kv_bytes_per_token = 20; }, errc::invalid_argument, "multiple of 8"},
         row{[](auto& x) { x.block_tokens = 0; }, errc::invalid_argument, "engine.block_tokens"},
         row{[](auto& x) { x.block_tokens = 20000; }, errc::invalid_argument, "12672 tokens"},
         row{[](auto& x) { x.speed = -1; }, errc::invalid_argument, "engine.speed"},
         row{[](auto& x) { x.speed = std::nan(""); }, errc::invalid_argument, "engine.speed"},
         row{[](auto& x) { x.speed = INFINITY; }, errc::invalid_argument, "engine.speed"},
         row{[](auto& x) { x.max_num_seqs = 0; }, errc::invalid_argument, "engine.max_num_seqs"},
         row{
           [](auto& x) { x.max_num_batched_tokens = 0; }, errc::invalid_argument,
           "engine.max_num_batched_tokens"},
         row{
           [](auto& x) { x.max_model_len = 12673; }, errc::invalid_argument,
           "engine.blocks to 793"},
         row{[](auto& x) { x.blocks = 4'000'000'000; }, errc::invalid_argument, "too many"},
         row{
           [](auto& x) {
             x.blocks = 100'000'000;
             x.kv_bytes_per_token = 1u << 31;
           },
           errc::out_of_blocks, "lower engine.blocks"},
         row{[](auto& x) { x.corrupt = "r1"; }, errc::invalid_argument, "engine.corrupt"},
         row{[](auto& x) { x.corrupt = ":1"; }, errc::invalid_argument, "engine.corrupt"},
         row{[](auto& x) { x.corrupt = "r1:"; }, errc::invalid_argument, "engine.corrupt"},
         row{[](auto& x) { x.corrupt = "r1:-1"; }, errc::invalid_argument, "engine.corrupt"},
         row{[](auto& x) { x.corrupt = "r1:1x"; }, errc::invalid_argument, "engine.corrupt"},
         row{
           [](auto& x) { x.corrupt = "r1:99999999999"; }, errc::invalid_argument, "engine.corrupt"},
       }) {
    CAPTURE(says);
    engine_config config;
    spoil(config);
    auto engine = modeled_engine::make(config);
    REQUIRE(!engine);
    CHECK(engine.error().code == code);
    CHECK(engine.error().context.find(says) != std::string::npos);
  }
}

TEST_CASE("knobs in words of their own are understood") {
  engine_config config;
  config.latency = "a10.llama-30b.tp4.osdi24";
  config.blocks = 10;
  config.max_model_len = 100;
  config.corrupt = "a:b:3";
  auto setup = make_modeled_setup(config);
  REQUIRE(setup);
  CHECK(setup->blocks == 10);
  CHECK(setup->max_model_len == 100);
  CHECK(setup->corrupt->text_id == "a:b");
  CHECK(setup->corrupt->block == 3);
}

TEST_CASE("sixteen engines with large pools start without filling them") {
  engine_config config;
  config.blocks = 60'000; // 1.8 GiB each
  std::vector<std::unique_ptr<modeled_engine>> engines;
  for (int i = 0; i < 16; ++i) {
    auto engine = modeled_engine::make(config);
    REQUIRE(engine);
    engines.push_back(std::move(*engine));
  }
  CHECK(engines.back()->pool().read(59'999, 15, 255) == 0);
}
