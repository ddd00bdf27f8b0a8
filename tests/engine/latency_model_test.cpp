#include "runtime/engine/latency_model.hpp"
#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <cmath>

using namespace llumnix;
using testing::engine_fixture;

namespace {

latency_model a10() {
  return *find_latency_model("a10.llama-7b.tp1.osdi24");
}

} // namespace

TEST_CASE("the default entry has the coefficients of the file") {
  auto x = a10();
  CHECK(x.a0_ms == 5.582);
  CHECK(x.prefill_floor_ms == 35.0);
  CHECK(x.c1_ms_per_seq == 0.2831);
  CHECK(x.kv_bytes_per_token == 524288u);
  CHECK(x.kv_capacity_tokens == 12672u);
}

TEST_CASE("every entry can be found and takes its time") {
  auto ids = latency_model_ids();
  CHECK(ids.size() > 40);
  for (const auto& id : ids) {
    CAPTURE(id);
    auto x = find_latency_model(id);
    REQUIRE(x);
    CHECK(x->id == id);
    step_load load;
    load.add_prefill(512, 0);
    CHECK(x->step_ms(load) > 0);
    step_load decode;
    decode.add_decode(1024);
    CHECK(x->step_ms(decode) > 0);
  }
}

TEST_CASE("an unknown entry is answered with the nearest") {
  auto x = find_latency_model("a10.lama-7b.tp1.osdi24");
  REQUIRE(!x);
  CHECK(x.error().code == errc::not_found);
  CHECK(x.error().context.find("did you mean \"a10.llama-7b.tp1.osdi24\"?") != std::string::npos);
}

TEST_CASE("steps take what the formulas of the file say") {
  struct row {
    std::vector<std::pair<std::uint32_t, std::uint32_t>> prefills; // new, before
    std::vector<std::uint32_t> contexts;
    double ms;
  };
  for (const auto& [prefills, contexts, ms] : {
         row{{}, {}, 0},
         row{{{10, 0}}, {}, 35.0}, // the floor
         row{{{1000, 0}}, {}, 5.582 + 202.81 + 5.088},
         row{{{1000, 500}}, {}, 5.582 + 202.81 + 5.088 + 5.088},
         row{{{1000, 0}, {500, 0}}, {}, 5.582 + 202.81 + 5.088 + 101.405 + 1.272},
         row{{}, {100}, 34.445 + 0.2831 + 0.1},
         row{{}, {100, 300}, 34.445 + 2 * 0.2831 + 0.4},
         row{{{100, 0}}, {100, 300}, 34.445 + 2 * 0.2831 + 0.4 + 20.281},
       }) {
    step_load load;
    for (auto [tokens, before] : prefills)
      load.add_prefill(tokens, before);
    for (auto context : contexts)
      load.add_decode(context);
    CAPTURE(ms);
    CHECK(a10().step_ms(load) == doctest::Approx(ms));
  }
}

TEST_CASE("speed divides the time, in whole nanoseconds, and 0 abolishes it") {
  step_load load;
  load.add_decode(1); // 34.7291 ms
  CHECK(a10().step_time(load, 1) == nanoseconds{34'729'100});
  CHECK(a10().step_time(load, 10) == nanoseconds{3'472'910});
  CHECK(a10().step_time(load, 3) == nanoseconds{11'576'367});
  CHECK(a10().step_time(load, 0) == nanoseconds{0});
  CHECK(a10().step_time(load, 1e-300) > nanoseconds{1});
}

TEST_CASE("an engine's steps last as long as their load says") {
  auto config = engine_fixture::small();
  config.speed = 2;
  engine_fixture x{config};
  auto ms = [](double value) { return nanoseconds{std::llround(value * 1e6 / 2)}; };
  REQUIRE(x.submit(x.request(1, "0123456789")) == errc::ok);
  CHECK(x.step().duration == ms(35));
  auto first = x.step();
  CHECK(first.duration == ms(34.445 + 0.2831 + 0.001 * 10));
  CHECK(first.decode_tokens == 1);
  REQUIRE(x.submit(x.request(2, "abc")) == errc::ok);
  auto mixed = x.step();
  CHECK(mixed.duration == ms(34.445 + 0.2831 + 0.001 * 11 + 0.20281 * 3));
  CHECK(mixed.prefill_tokens == 3);
  CHECK(mixed.decode_tokens == 1);
}
