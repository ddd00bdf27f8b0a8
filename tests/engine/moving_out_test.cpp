#include "tests/engine/moving_fixture.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace llumnix;
using testing::code_of;
using testing::engine_fixture;
using testing::engine_with_moves;
using testing::letters;

TEST_CASE("only what runs here and is on no other way out is pinned") {
  engine_with_moves x;
  x.start(1, 22);
  auto over = x.request(3, "abc", 1);
  over.output = {600};
  REQUIRE(x.submit(over) == errc::ok);
  handover_id other{1, 2};
  CHECK(code_of(x.moves.pin(x.id, x.stream(1), 1)) == errc::not_found);
  CHECK(code_of(x.moves.pin(x.id, x.stream(2), 0)) == errc::not_found);
  CHECK(code_of(x.moves.pin(x.id, x.stream(3), 0)) == errc::not_found);
  CHECK(code_of(x.moves.look(x.id)) == errc::not_found);
  CHECK(code_of(x.moves.pin(x.id, x.stream(1), 0)) == errc::ok);
  CHECK(code_of(x.moves.pin(x.id, x.stream(1), 0)) == errc::invalid_argument);
  CHECK(code_of(x.moves.pin(other, x.stream(1), 0)) == errc::queue_full);
  x.moves.unpin(x.id);
  CHECK(code_of(x.moves.look(x.id)) == errc::not_found);
  CHECK(code_of(x.moves.pin(other, x.stream(1), 0)) == errc::ok);
}

TEST_CASE("calls for hand-overs that nobody knows do nothing") {
  engine_with_moves x;
  x.start(1, 22);
  x.step();
  x.moves.thaw(x.id, 9);
  x.moves.drop(x.id);
  x.moves.unpin(x.id);
  x.moves.give_up(x.id);
  x.moves.compute_ahead(x.id, std::vector<token_id>{1, 2});
  CHECK(x.moves.ready_tokens(x.id) == 0);
  CHECK(code_of(x.moves.freeze(x.id)) == errc::not_found);
  CHECK(code_of(x.moves.landed(x.id, {}, 0, 0)) == errc::not_found);
  CHECK(code_of(x.moves.adopt(x.id, x.request(1, "a"), 0, {})) == errc::not_found);
  // Not frozen: nothing to put back, nothing to drop.
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  x.moves.thaw(x.id, 9);
  x.moves.drop(x.id);
  CHECK(x.engine->holds(x.stream(1), 0));
  x.moves.unpin(x.id);
  x.run();
  CHECK(x.right(1, 22));
  CHECK(x.idle());
}

TEST_CASE("a look tells what completed steps wrote, and never the last token") {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = 8;
  engine_with_moves x{config};
  x.start(1, 22, 5);
  struct row {
    std::uint32_t written;
    std::size_t blocks, outputs;
  };
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  for (auto [written, blocks, outputs] :
       {row{0, 0, 0}, row{8, 2, 0}, row{16, 4, 0}, row{22, 6, 1}, row{23, 6, 2}, row{24, 6, 3},
        row{25, 7, 4}}) {
    CAPTURE(written);
    auto leaving = *x.moves.look(x.id);
    CHECK(leaving.written == written);
    CHECK(leaving.blocks.size() == blocks);
    CHECK(leaving.running == (written > 0));
    CHECK(leaving.request.output == x.streams[1].tokens);
    CHECK(leaving.request.output.size() == outputs);
    CHECK(leaving.request.prompt == x.request(1, letters(22, 1)).prompt);
    CHECK(x.readable(leaving));
    x.step();
  }
  CHECK(x.streams[1].finish == finish_reason::length);
  CHECK(code_of(x.moves.look(x.id)) == errc::not_found);
  CHECK(x.free() == 64 - 7);
  x.moves.unpin(x.id);
  CHECK(x.idle());
}

TEST_CASE("pinned blocks outlive their request, whatever ends it") {
  for (bool poison : {false, true})
    for (bool frozen : {false, true})
      for (const auto* end : {"abort", "overtaken", "drop", "end"}) {
        CAPTURE(end);
        CAPTURE(frozen);
        CAPTURE(poison);
        engine_with_moves x{engine_with_moves::few_blocks(64, poison)};
        x.start(1, 22, 5);
        x.step();
        REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
        x.step();
        x.step();
        auto leaving = frozen ? *x.moves.freeze(x.id) : *x.moves.look(x.id);
        REQUIRE(leaving.written == 24);
        CHECK(x.moves.pinned_blocks() == 0); // the request holds them as well
        auto what = std::string{end};
        if (what == "abort") {
          CHECK(x.engine->abort(x.stream(1), 0));
        } else if (what == "overtaken") {
          auto newer = x.request(1, "abc", 1);
          newer.epoch = 1;
          x.streams.clear();
          REQUIRE(x.submit(newer) == errc::ok);
          x.run();
        } else if (what == "drop") {
          x.moves.freeze(x.id).value();
          x.moves.drop(x.id);
        } else {
          if (frozen)
            x.moves.thaw(x.id, 0);
          x.run();
        }
        CHECK_FALSE(x.engine->holds(x.stream(1), 0));
        CHECK(code_of(x.moves.look(x.id)) == errc::not_found);
        CHECK(x.moves.pinned_blocks() == 6);
        CHECK(x.free() == 58);
        CHECK(x.engine->status().num_migrate_out_reqs == 0);
        CHECK(x.engine->conserves_blocks());
        x.start(2, 200, 9); // 52 blocks: as much as there is but the last ones
        x.run();
        CHECK(x.right(2, 200, 9));
        CHECK(x.readable(leaving));
        x.moves.unpin(x.id);
        CHECK(x.idle());
        CHECK(x.engine->conserves_blocks());
        CHECK(x.readable(leaving) == !poison);
      }
}

TEST_CASE("pinned requests are preempted last, and keep their bytes if they are") {
  engine_with_moves x{engine_with_moves::few_blocks(12)};
  for (std::uint64_t number : {1, 2, 3})
    x.start(number, 10);
  x.step();
  handover_id second{1, 2};
  REQUIRE(x.moves.pin(x.id, x.stream(3), 0));
  REQUIRE(x.moves.pin(second, x.stream(2), 0));
  std::uint32_t preemptions = 0;
  while (preemptions == 0)
    preemptions += x.step().preemptions;
  // The first of them needed a fifth block: 4 + 4 + 4 are taken. It goes itself.
  CHECK(preemptions == 1);
  CHECK(x.moves.look(x.id)->preemptions == 0);
  CHECK(x.moves.look(second)->preemptions == 0);
  auto before = *x.moves.look(second);
  while (x.moves.look(second)->preemptions == 0) {
    before = *x.moves.look(second);
    x.step();
  }
  auto after = *x.moves.look(second);
  CHECK_FALSE(after.running);
  CHECK(after.written == 0);
  CHECK(after.blocks.empty());
  CHECK(x.readable(before));
  CHECK(x.engine->conserves_blocks());
  x.moves.unpin(second);
  x.moves.unpin(x.id);
  x.run();
  for (std::uint64_t number : {1, 2, 3})
    CHECK(x.right(number, 10));
  CHECK(x.idle());
}

TEST_CASE("a frozen request is left alone, and goes on where it was") {
  for (bool unpinned_first : {false, true})
    for (std::uint32_t steps : {0, 1, 2, 9}) {
      CAPTURE(steps);
      auto config = engine_fixture::small();
      config.max_num_batched_tokens = 16;
      engine_with_moves x{config};
      x.start(1, 22);
      x.start(2, 9, 50);
      for (std::uint32_t i = 0; i < steps; ++i)
        x.step();
      auto told = x.streams[1].tokens;
      REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
      auto frozen = *x.moves.freeze(x.id);
      CHECK(frozen.running == (steps > 0));
      CHECK(frozen.request.output == told);
      for (int i = 0; i < 3; ++i) {
        x.step();
        CHECK(x.moves.freeze(x.id)->written == frozen.written);
      }
      CHECK(x.streams[1].tokens == told);
      CHECK(x.engine->holds(x.stream(1), 0));
      auto status = x.engine->status();
      CHECK(status.num_running_requests == 1);
      CHECK(status.num_waiting_requests == 0);
      if (unpinned_first)
        x.moves.unpin(x.id);
      x.moves.thaw(x.id, 3);
      if (!unpinned_first)
        x.moves.unpin(x.id);
      CHECK(x.engine->holds(x.stream(1), 3));
      x.run();
      CHECK(x.right(1, 22));
      CHECK(x.right(2, 9, 50));
      CHECK(x.idle());
      CHECK(x.moves.pin(x.id, x.stream(2), 0).error().code == errc::not_found);
    }
}

TEST_CASE("what is put back is put in front") {
  auto config = engine_fixture::small();
  config.max_num_seqs = 2;
  engine_with_moves x{config};
  for (std::uint64_t number : {1, 2, 3, 4})
    x.start(number, 9, number == 1 ? 5 : 30);
  x.step();
  handover_id waiting{1, 4};
  REQUIRE(x.moves.pin(x.id, x.stream(2), 0));
  REQUIRE(x.moves.pin(waiting, x.stream(4), 0));
  REQUIRE(x.moves.freeze(x.id));
  REQUIRE(x.moves.freeze(waiting));
  x.step(); // 3 takes the seat
  CHECK(x.engine->status().num_running_requests == 2);
  x.moves.thaw(x.id, 1);
  x.moves.thaw(waiting, 1);
  auto result = x.step();
  REQUIRE(result.outputs.size() == 3); // one more than there are seats
  CHECK(result.outputs[0].stream == x.stream(2));
  x.start(5, 9);
  while (x.engine->holds(x.stream(1), 0) || x.engine->holds(x.stream(3), 0))
    x.step();
  CHECK(x.streams[5].tokens.empty());
  x.moves.unpin(x.id);
  x.moves.unpin(waiting);
  x.run();
  for (std::uint64_t number : {2, 3, 4, 5})
    CHECK(x.right(number, 9));
  CHECK(x.idle());
}

TEST_CASE("credit is heard while frozen, and a frozen one may go before its pin or after") {
  engine_with_moves x;
  auto request = x.request(1, letters(22, 1), 30);
  request.credit = 2;
  REQUIRE(x.submit(request) == errc::ok);
  x.run();
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  REQUIRE(x.moves.freeze(x.id));
  x.engine->grant(x.stream(1), 0, 7);
  CHECK_FALSE(x.engine->has_work());
  CHECK(x.moves.look(x.id)->request.credit == 7);
  x.moves.unpin(x.id);
  CHECK(code_of(x.moves.look(x.id)) == errc::not_found);
  CHECK(x.engine->holds(x.stream(1), 0)); // nobody decided yet
  CHECK(x.free() == 64 - 6);
  x.moves.drop(x.id);
  CHECK(x.idle());
  CHECK(x.engine->conserves_blocks());
}

TEST_CASE("requests on their way are told in the status") {
  engine_with_moves x;
  x.start(1, 22);
  for (int i = 0; i < 3; ++i)
    x.step();
  auto before = x.engine->status().update_id;
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  auto status = x.engine->status();
  CHECK(status.update_id > before);
  CHECK(status.num_running_requests == 1);
  CHECK(status.num_migrate_out_reqs == 1);
  CHECK(status.num_migrate_out_tokens == 25);
  CHECK(status.kv_cache_usage_ratio_migrate_out == 0.0977); // 25 of 256
  REQUIRE(x.moves.freeze(x.id));
  CHECK(x.engine->status().num_running_requests == 0);
  handover_id arriving{1, 2};
  REQUIRE(x.moves.reserve(arriving, x.request(2, letters(22, 2)), 4));
  status = x.engine->status();
  CHECK(status.num_migrate_in_reqs == 1);
  CHECK(status.num_migrate_in_tokens == 22);
  CHECK(status.kv_cache_usage_ratio_migrate_in == 0.0859); // 22 of 256
  CHECK(status.num_used_gpu_tokens == (6 + 7) * 4);
  CHECK(status.num_waiting_requests == 0);
  CHECK(x.moves.reserved_blocks() == 7);
  x.moves.give_up(arriving);
  x.moves.drop(x.id);
  CHECK(x.moves.pinned_blocks() == 6);
  x.moves.unpin(x.id);
  status = x.engine->status();
  CHECK(status.num_migrate_in_reqs + status.num_migrate_out_reqs == 0);
  CHECK(status.kv_cache_usage_ratio_migrate_in + status.kv_cache_usage_ratio_migrate_out == 0);
  CHECK(x.idle());
}

TEST_CASE("a request that is to decode elsewhere makes one token and stands") {
  auto config = engine_fixture::small();
  config.max_num_batched_tokens = 8;
  engine_with_moves x{config};
  x.start(1, 22, 5);
  CHECK(x.moves.decode_elsewhere(x.stream(1), 0));
  CHECK_FALSE(x.moves.decode_elsewhere(x.stream(1), 1));
  CHECK_FALSE(x.moves.decode_elsewhere(x.stream(2), 0));
  CHECK(x.moves.movable().front().moving);
  REQUIRE(x.moves.pin(x.id, x.stream(1), 0));
  for (auto written : {8u, 16u, 22u}) {
    CHECK(x.moves.look(x.id)->prefilling);
    auto told = x.step();
    REQUIRE(told.prefills.size() == 1);
    CHECK(told.prefills[0].stream == x.stream(1));
    CHECK(told.prefills[0].done == (written == 22));
    CHECK(x.moves.look(x.id)->written == written);
  }
  CHECK_FALSE(x.moves.look(x.id)->prefilling);
  CHECK(x.moves.look(x.id)->request.output.size() == 1);
  CHECK_FALSE(x.engine->has_work());
  CHECK(x.engine->status().scheduler_running_to_decode_requests_num == 0);
  x.moves.decode_here(x.stream(1), 1); // not that one
  CHECK_FALSE(x.engine->has_work());
  x.moves.decode_here(x.stream(1), 0);
  CHECK(x.engine->has_work());
  CHECK(x.engine->status().scheduler_running_to_decode_requests_num == 1);
  x.moves.unpin(x.id);
  x.run();
  CHECK(x.right(1, 22, 5));
  CHECK(x.idle());
}

TEST_CASE("what has but one token to make decodes nowhere else") {
  engine_with_moves x;
  x.start(1, 22, 1);
  CHECK_FALSE(x.moves.decode_elsewhere(x.stream(1), 0));
  x.run();
  CHECK(x.right(1, 22, 1));
}

TEST_CASE("one that stands is preempted for nobody who waits") {
  engine_with_moves x{engine_with_moves::few_blocks(12)}; // 48 positions
  x.start(1, 40, 5);
  REQUIRE(x.moves.decode_elsewhere(x.stream(1), 0));
  x.step();
  x.start(2, 20, 5);
  auto waits = x.step();
  CHECK_FALSE(waits.worked);
  CHECK(waits.preemptions == 0);
  x.moves.decode_here(x.stream(1), 0);
  x.run();
  CHECK(x.right(1, 40, 5));
  CHECK(x.right(2, 20, 5));
  CHECK(x.idle());
}
