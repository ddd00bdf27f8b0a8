#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;
using namespace std::chrono_literals;

namespace {

using ids = std::vector<std::string>;

} // namespace

TEST_CASE("an idle engine reports its capacity and nothing else") {
  engine_fixture x;
  auto status = x.engine->status();
  CHECK(status.num_total_gpu_tokens == 256);
  CHECK(status.num_used_gpu_tokens == 0);
  CHECK(status.profiling_id == -1);
  CHECK(status.step_id == 0);
  CHECK(status.schedulable);
  CHECK(status.waiting_requests.empty());
}

TEST_CASE("waiting requests count with what the prefix cache does not hold") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, letters(20), 1)) == errc::ok);
  x.run();
  REQUIRE(x.submit(x.request(2, letters(22), 9)) == errc::ok);    // 20 cached
  REQUIRE(x.submit(x.request(3, letters(10, 1), 1)) == errc::ok); // prefill only
  REQUIRE(x.submit(x.request(4, "x", 1)) == errc::ok);            // one token to compute
  auto status = x.engine->status();
  CHECK(status.waiting_requests == ids{"cmpl-r2-0", "cmpl-r3-0", "cmpl-r4-0"});
  CHECK(status.num_waiting_requests == 3);
  CHECK(status.num_uncomputed_tokens_scheduler_waiting_prefills == 2 + 10);
  CHECK(status.num_uncomputed_tokens_all_waiting_prefills == 2 + 10);
  CHECK(status.scheduler_waiting_to_decode_requests_num == 2);
  CHECK(status.scheduler_waiting_to_decode_tokens_num == 22 + 1);
  CHECK(status.num_running_requests == 0);
}

TEST_CASE("running requests count as prefills until their prompt is computed") {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = 8;
  engine_fixture x{config};
  REQUIRE(x.submit(x.request(1, letters(20), 9)) == errc::ok);
  struct row {
    std::int32_t left, used, tokens;
  };
  for (auto [left, used, tokens] :
       {row{12, 8, 20}, row{4, 16, 20}, row{0, 20, 21}, row{0, 24, 22}}) {
    x.step();
    auto status = x.engine->status();
    CAPTURE(left);
    CHECK(status.num_running_requests == 1);
    CHECK(status.num_uncomputed_tokens_scheduler_running_prefills == left);
    CHECK(status.num_unallocated_tokens_scheduler_running_prefills == left);
    CHECK(status.num_used_gpu_tokens == used);
    CHECK(status.scheduler_running_to_decode_requests_num == 1);
    CHECK(status.scheduler_running_to_decode_tokens_num == tokens);
  }
}

TEST_CASE("a request that will not decode is no decode") {
  engine_fixture x;
  auto credit = x.request(1, letters(20), 1);
  REQUIRE(x.submit(credit) == errc::ok);
  auto replay = x.request(2, letters(20, 1), 5); // four of five are there
  replay.output = testing::expect(replay, 256, 4).tokens;
  REQUIRE(x.submit(replay) == errc::ok);
  CHECK(x.engine->status().scheduler_waiting_to_decode_requests_num == 0);
  CHECK(x.engine->status().num_uncomputed_tokens_scheduler_waiting_prefills == 44);
}

TEST_CASE("a request is told as seen waiting once, after the first step that saw it") {
  engine_fixture x;
  REQUIRE(x.submit(x.request(1, "abc", 1)) == errc::ok);
  CHECK(x.engine->take_seen_waiting().empty());
  x.step();
  REQUIRE(x.submit(x.request(2, "abc", 1)) == errc::ok);
  x.step();
  CHECK(x.engine->take_seen_waiting() == ids{"cmpl-r1-0", "cmpl-r2-0"});
  CHECK(x.engine->take_seen_waiting().empty());
  x.step();
  CHECK(x.engine->take_seen_waiting().empty());
  CHECK(x.engine->status().recent_waiting_requests.empty()); // that is for who sends it to fill
}

TEST_CASE("update_id grows with each change, and with nothing else") {
  engine_fixture x;
  auto last = x.engine->status().update_id;
  auto grew = [&] {
    auto before = std::exchange(last, x.engine->status().update_id);
    return last > before;
  };
  CHECK_FALSE(grew());
  REQUIRE(x.submit(x.request(1, "abc", 3)) == errc::ok);
  CHECK(grew());
  CHECK(x.submit(x.request(1, "abc", 3)) == errc::stale);
  CHECK_FALSE(grew());
  x.step();
  CHECK(grew());
  x.engine->grant(x.stream(1), 0, 9);
  CHECK_FALSE(grew());
  CHECK(x.engine->abort(x.stream(1), 0));
  CHECK(grew());
  CHECK_FALSE(x.engine->abort(x.stream(1), 0));
  CHECK_FALSE(grew());
  x.step();
  CHECK_FALSE(grew());
  CHECK(x.engine->status().step_id == 1);
}
