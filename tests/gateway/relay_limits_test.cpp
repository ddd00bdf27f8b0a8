#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <string>

namespace llumnix::testing {

namespace {

constexpr std::size_t mib = 1 << 20;

std::string long_answer(std::size_t size) {
  return R"({"choices":[{"text":")" + std::string(size, 'a') + R"(","finish_reason":"stop"}]})";
}

} // namespace

TEST_CASE_FIXTURE(table_rig, "whole replies that are held have one bound for all of them") {
  auto first = open(false);
  place();
  auto& engine_of_first = engine();
  engine_of_first.on_head({200, {{"content-type", "application/json"}}, {}});
  auto body = long_answer(5 * mib);
  engine_of_first.on_body(body.substr(0, 4 * mib));
  auto held = replies->taken();
  CHECK(held >= 4 * mib);
  CHECK(held <= 8 * mib); // all there is to hold

  SUBCASE("what goes beyond it is an error, and no engine is to blame") {
    auto second = open(false);
    place();
    engine().on_head({200, {}, {}});
    engine().on_body(std::string(5 * mib, 'x'));
    CHECK(second->status == 502);
    CHECK(second->body.find("too long for what the gateway can hold") != std::string::npos);
    CHECK(replies->taken() == held);
    CHECK(pool.calls_open == 1);
    CHECK(port.placed.size() == 2); // nobody else was asked
    CHECK(engines.trouble("e:1")->rest_end() <= loop.now());
  }
  SUBCASE("small ones do not count") {
    auto second = open(false);
    place();
    answer({200, {{"content-type", "application/json"}}, whole});
    CHECK(second->status == 200);
    CHECK(replies->taken() == held);
  }
  SUBCASE("the answer counts until it is passed on") {
    engine_of_first.on_body(body.substr(4 * mib));
    engine_of_first.on_end({errc::ok, {}});
    CHECK(first->status == 200);
    CHECK(first->body == body);
    loop.run();
    CHECK(replies->taken() == 0);
  }
  SUBCASE("that of a request that is given up counts no more") {
    table.give_up_all(draining);
    loop.run();
    CHECK(replies->taken() == 0);
  }
  SUBCASE("nor that of an engine that was lost in the middle of it") {
    engine_of_first.on_end({errc::disconnected, "cut"});
    CHECK(first->status == 0);
    CHECK(replies->taken() == 0);
  }
}

TEST_CASE_FIXTURE(table_rig, "a refusal without end is not read to it") {
  engines.put("e:2", {.address = "e:2"});
  for (bool stream : {true, false}) {
    CAPTURE(stream);
    auto client = open(stream);
    place();
    engine().on_head({400, {}, {}});
    engine().on_body(std::string(mib + 1, 'x'));
    CHECK(port.loads.back().why.find("too long") != std::string::npos);
    CHECK(replies->taken() == 0);
    table.give_up_all(draining);
  }
}

} // namespace llumnix::testing
