#include "runtime/migration/move_ladder.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

TEST_CASE("KV that cannot be had is computed; who has no room or wants none is not asked again") {
  using enum errc;
  for (auto why : {unsupported, unreachable, timeout, disconnected, bad_message})
    CHECK(next_path(move_path::kv, why) == move_path::recompute);
  for (auto why :
       {ok, not_found, queue_full, out_of_blocks, draining, stale, too_long, cancelled,
        invalid_argument, internal})
    CHECK_FALSE(next_path(move_path::kv, why));
  for (auto why : {unsupported, unreachable, timeout, bad_message, ok})
    CHECK_FALSE(next_path(move_path::recompute, why));
}
