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

TEST_CASE("what was prefilled is computed again only where its KV could go nowhere") {
  using enum errc;
  for (auto why : {unsupported, bad_message})
    CHECK(next_decode_path(move_path::kv, why) == move_path::recompute);
  for (auto why :
       {ok, not_found, queue_full, out_of_blocks, draining, stale, too_long, cancelled, unreachable,
        timeout, disconnected, internal})
    CHECK_FALSE(next_decode_path(move_path::kv, why));
  for (auto why : {unsupported, bad_message, timeout})
    CHECK_FALSE(next_decode_path(move_path::recompute, why));
}

TEST_CASE("a move that did not go by KV says why, before all else") {
  struct row {
    std::string no_kv;
    std::string reason;
    std::string told;
  };
  for (const auto& [no_kv, reason, told] :
       {row{"", "", ""}, row{"", "no slot", "no slot"},
        row{why_no_kv("other blocks"), "", "no kv: other blocks"},
        row{why_no_kv("other blocks"), "no slot", "no kv: other blocks; then: no slot"}})
    CHECK(told_reason(no_kv, reason) == told);
}

TEST_CASE("a request outlives its prefill when it may have more than one token more") {
  struct row {
    std::uint32_t max_tokens;
    std::size_t made;
    bool outlives;
  };
  for (auto [max_tokens, made, outlives] :
       {row{1, 0, false}, row{2, 0, true}, row{10, 8, true}, row{10, 9, false},
        row{10, 10, false}}) {
    CAPTURE(max_tokens);
    CAPTURE(made);
    inference_request request;
    request.sampling.max_tokens = max_tokens;
    request.output.assign(made, 600);
    CHECK(outlives_prefill(request) == outlives);
  }
}
