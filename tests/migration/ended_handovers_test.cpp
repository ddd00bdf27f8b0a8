#include "runtime/migration/ended_handovers.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

using namespace std::chrono_literals;

handover::head head(std::uint64_t id) {
  return {{0, id}, {"head", 1, 0, 7}, 3};
}

} // namespace

TEST_CASE("ended hand-overs are remembered for a minute, the newest first") {
  ended_handovers ended{60s, 3};
  time_point start{};
  ended.remember({head(1), false}, start);
  ended.remember({head(2), true}, start + 1s);
  ended.remember({head(1), true}, start + 2s); // known; that it ran is news
  CHECK(ended.find({0, 1}, start + 59999ms)->ran_here);
  CHECK(ended.find({0, 1}, start + 60s) == nullptr);
  CHECK(ended.find({0, 2}, start + 60s)->ran_here);
  CHECK(ended.find({0, 3}, start + 60s) == nullptr);
  for (std::uint64_t id = 10; id < 20; ++id)
    ended.remember({head(id), false}, start + 60s);
  CHECK(ended.size() == 3);
  CHECK(ended.find({0, 16}, start + 60s) == nullptr);
  CHECK(ended.find({0, 17}, start + 60s) != nullptr);
}

TEST_CASE("messages of ended and unknown hand-overs are answered") {
  stream_owner self{{"d", 1}, "engine-d"};
  auto granted = handover::claim_verdict::granted;
  struct row {
    const char* what;
    std::uint64_t id; ///< 1: ended, 2: ended and ran here, 3: unknown
    stray_message message;
    std::size_t answer; ///< index: 0 nothing, 1 reject, 2 cancelled, 3 abandon
  };
  auto offer_of = [](std::uint64_t id) {
    handover::offer offer;
    offer.of = head(id);
    return offer;
  };
  const row rows[] = {
    {"OFFER, ended", 1, offer_of(1), 1},
    {"OFFER, ran here", 2, offer_of(2), 1},
    {"OFFER, unknown: not stray", 3, offer_of(3), 0},
    {"CANCEL, ended", 1, handover::cancel{head(1), {}}, 2},
    {"CANCEL, unknown", 3, handover::cancel{head(3), {}}, 2},
    {"GRANTED, ended", 1, handover::claim_answer{head(1), false, granted, 0}, 3},
    {"GRANTED, ran here", 2, handover::claim_answer{head(2), false, granted, 0}, 0},
    {"GRANTED, unknown", 3, handover::claim_answer{head(3), false, granted, 0}, 0},
    {"GRANTED to a RECLAIM, ended", 1, handover::claim_answer{head(1), true, granted, 0}, 0},
    {"SUPERSEDED, ended", 1, handover::claim_answer{head(1)}, 0},
    {"ACCEPT, ended", 1, handover::accept{head(1), {}, 0, 0}, 0},
    {"FREEZE-COMMIT, ended", 1, handover::freeze_commit{head(1), 0, 0, {}, 0, 0}, 0},
    {"FREEZE-COMMIT, unknown", 3, handover::freeze_commit{head(3), 0, 0, {}, 0, 0}, 0},
    {"COPY-PROGRESS, unknown", 3, handover::copy_progress{head(3), 1, 0, {}, {}, 0}, 0},
    {"COMMITTED, ended", 1, handover::committed{head(1)}, 0},
    {"RELEASE, unknown", 3, handover::release{head(3)}, 0},
  };
  for (const auto& [what, id, message, answer] : rows) {
    CAPTURE(what);
    ended_handovers ended;
    ended.remember({head(1), false}, time_point{});
    ended.remember({head(2), true}, time_point{});
    CHECK(answer_stray(ended, message, self, time_point{}).index() == answer);
  }
}

TEST_CASE("a CANCEL that overtakes its OFFER ends the hand-over") {
  ended_handovers ended;
  stream_owner self{{"d", 1}, "engine-d"};
  answer_stray(ended, handover::cancel{head(3), {}}, self, time_point{});
  handover::offer offer;
  offer.of = head(3);
  CHECK(answer_stray(ended, offer, self, time_point{}).index() == 1);
}

TEST_CASE("the digest of ids may be taken piece by piece") {
  std::vector<token_id> prompt{1, 2, 3}, output{0x01020304};
  id_digest digest;
  digest.add(prompt);
  digest.add(output);
  CHECK(digest.value() == digest_of(prompt, output));
  CHECK(digest_of({}, {}) == 0xCBF29CE484222325ull); // FNV-1a, 64 bits, of nothing
  CHECK(digest_of({0x61}, {}) == digest_of({}, {0x61}));
  // FNV-1a of the bytes 61 00 00 00, by hand: the hash of "a" and three multiplications.
  std::uint64_t wanted = 0xAF63DC4C8601EC8Cull;
  for (int byte = 0; byte < 3; ++byte)
    wanted *= 0x100000001B3ull;
  CHECK(digest_of({0x61}, {}) == wanted);
  CHECK(to_string(handover_id{0xAB, 1}) == "00000000000000ab0000000000000001");
}

} // namespace llumnix
