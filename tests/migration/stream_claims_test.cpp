#include "runtime/serving/stream_claims.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
using verdict = handover::claim_verdict;

/// A stream under epoch 3, owned by S, ten tokens delivered; hand-over 1 goes to D, 2 to E.
struct claims_rig {
  stream_owner s{{"s", 1}, "s"};
  stream_owner d{{"d", 1}, "d"};
  stream_owner e{{"e", 1}, "e"};
  std::uint32_t epoch = 3;
  std::uint32_t delivered = 10;
  std::optional<stream_owner> owner = s;
  time_point now{};
  stream_claims claims{claim_settings{}, 3};

  handover::head head(std::uint64_t id, std::uint32_t of_epoch = 3) const {
    return {{0, id}, {"head", 1, 0, 7}, of_epoch};
  }
  verdict note(const claim_result& result, const stream_owner& who) {
    if (result.took_over) {
      epoch = result.answer.of.epoch + 1;
      owner = who;
    }
    CHECK((!result.took_over || result.answer.verdict == verdict::granted));
    return result.answer.verdict;
  }
  verdict claim(
    std::uint64_t id, const stream_owner& who, std::uint32_t of_epoch = 3,
    std::uint32_t start = 12) {
    return note(claims.on_claim({head(id, of_epoch), who, start}, epoch), who);
  }
  verdict reclaim(std::uint64_t id, std::uint32_t of_epoch = 3) {
    return note(claims.on_reclaim({head(id, of_epoch), s, 12}, epoch), s);
  }
  bool abandon(std::uint64_t id, const stream_owner& who, std::uint32_t of_epoch = 3) {
    return claims.on_abandon({head(id, of_epoch), who}, epoch, now);
  }
  void raise() { claims.raised(++epoch, delivered); }

  token_delta
  batch(std::uint32_t of_epoch, std::uint32_t start, std::uint32_t count, bool last = false) const {
    token_delta batch;
    batch.epoch = of_epoch;
    batch.start = start;
    batch.tokens.assign(count, 1);
    if (last)
      batch.finish = finish_reason::stop;
    return batch;
  }
  batch_verdict judged(
    std::uint32_t of_epoch, std::uint32_t start, std::uint32_t count, bool last = false) const {
    return claims.judge(batch(of_epoch, start, count, last), epoch, delivered);
  }
};

constexpr batch_verdict dropped{};
constexpr batch_verdict held{.hold = true};
constexpr batch_verdict aborted{.abort = true};
constexpr batch_verdict taken(std::uint32_t skip, std::uint32_t take, bool finish = false) {
  return {.skip = skip, .take = take, .finish = finish};
}

} // namespace

TEST_CASE_FIXTURE(claims_rig, "the first claim for the next epoch wins, and answers are final") {
  CHECK(claim(1, d) == verdict::granted);
  CHECK(epoch == 4);
  CHECK(owner == d);
  CHECK(claim(1, d) == verdict::granted); // the reply was lost
  CHECK(reclaim(1) == verdict::superseded);
  CHECK(reclaim(1) == verdict::superseded);
  CHECK(claim(2, e) == verdict::superseded);
  CHECK(claim(2, e, 4) == verdict::granted); // the next hand-over, by its epoch
  CHECK(claim(1, d) == verdict::superseded); // it owns nothing any more
  CHECK(owner == e);
}

TEST_CASE_FIXTURE(claims_rig, "a RECLAIM that is refused hears whether its hand-over came about") {
  auto told = [&](std::uint64_t id) {
    return claims.on_reclaim({head(id), s, 12}, epoch).answer.owner;
  };
  claim(1, d);
  CHECK(told(2) == stream_owner{}); // that of another one did
  CHECK(told(1) == d);
  CHECK(told(1) == d);
  SUBCASE("it gave up") {
    abandon(1, d);
    CHECK(told(1) == stream_owner{});
    raise();
    CHECK(told(1) == stream_owner{});
  }
  SUBCASE("it went on, and came back") {
    claim(2, e, 4);
    CHECK(told(1) == stream_owner{});
    claim(3, d, 5);
    CHECK(told(1) == stream_owner{});
  }
  SUBCASE("it was placed anew") {
    raise();
    CHECK(told(1) == stream_owner{});
  }
}

TEST_CASE_FIXTURE(claims_rig, "only a RECLAIM that is refused hears of an owner") {
  CHECK(claims.on_reclaim({head(1), s, 12}, epoch).answer.owner == stream_owner{});
  epoch = 4;
  CHECK(claims.on_claim({head(1), d, 12}, epoch).answer.owner == stream_owner{});
  CHECK(claims.on_reclaim({head(1), s, 12}, epoch).answer.owner == stream_owner{});
  CHECK(answer_when_gone(handover::reclaim{head(1), s, 12}).owner == stream_owner{});
}

TEST_CASE_FIXTURE(claims_rig, "a RECLAIM may be the first") {
  CHECK(reclaim(1) == verdict::granted);
  CHECK(epoch == 4);
  CHECK(claim(1, d) == verdict::superseded);
  CHECK(claim(1, d) == verdict::superseded);
  CHECK(reclaim(1) == verdict::granted);
  CHECK_FALSE(abandon(1, d)); // it never owned it
  CHECK(reclaim(1) == verdict::granted);
  CHECK_FALSE(claims.deadline());
}

TEST_CASE_FIXTURE(claims_rig, "claims of other epochs than the next are refused, for ever") {
  for (std::uint32_t other : {0u, 2u, 4u, ~0u}) {
    CAPTURE(other);
    CHECK(claim(1, d, other) == verdict::superseded);
    CHECK(reclaim(1, other) == verdict::superseded);
  }
  raise();
  CHECK(claim(1, d, 4) == verdict::superseded); // it was told so before
  CHECK(claim(2, d, 4) == verdict::granted);
}

TEST_CASE_FIXTURE(claims_rig, "claims of lives that are known to be over are refused") {
  CHECK(claims.on_claim({head(1), d, 12}, epoch, true).answer.verdict == verdict::superseded);
  CHECK(claims.on_reclaim({head(1), s, 12}, epoch, true).answer.verdict == verdict::superseded);
  CHECK(reclaim(2) == verdict::granted);
}

TEST_CASE_FIXTURE(claims_rig, "streams that are gone answer, too") {
  auto claimed = answer_when_gone(handover::claim{head(1), d, 12});
  CHECK(claimed.verdict == verdict::aborted);
  CHECK(claimed.of == head(1));
  CHECK_FALSE(claimed.reclaimed);
  auto reclaimed = answer_when_gone(handover::reclaim{head(1), s, 12});
  CHECK(reclaimed.verdict == verdict::superseded);
  CHECK(reclaimed.reclaimed);
}

TEST_CASE_FIXTURE(claims_rig, "after the grantee's ABANDON a RECLAIM wins the same epoch") {
  claim(1, d);
  CHECK_FALSE(abandon(1, d));
  CHECK(claim(1, d) == verdict::superseded); // it owns nothing any more
  CHECK(reclaim(1) == verdict::granted);
  CHECK(epoch == 4);
  CHECK(owner == s);
  CHECK_FALSE(claims.deadline());
  CHECK(reclaim(1) == verdict::granted);
  CHECK_FALSE(abandon(1, d)); // repeated, late
  CHECK_FALSE(claims.deadline());
}

TEST_CASE_FIXTURE(claims_rig, "an ABANDON after a RECLAIM was refused means a replay at once") {
  claim(1, d);
  reclaim(1);
  CHECK(abandon(1, d));
  CHECK_FALSE(abandon(1, d)); // once
  raise();
  CHECK(reclaim(1) == verdict::superseded);
  CHECK_FALSE(abandon(1, d));
}

TEST_CASE_FIXTURE(claims_rig, "no RECLAIM within 500 ms of an ABANDON means a replay") {
  claim(1, d);
  abandon(1, d);
  CHECK(claims.deadline() == now + 500ms);
  now += 300ms;
  CHECK_FALSE(abandon(1, d)); // does not begin anew
  CHECK_FALSE(claims.replay_due(now + 199ms));
  CHECK(claims.replay_due(now + 200ms));
  raise();
  CHECK_FALSE(claims.deadline());
}

TEST_CASE_FIXTURE(claims_rig, "an ABANDON before its claim refuses it") {
  CHECK_FALSE(abandon(1, d));
  CHECK_FALSE(claims.deadline());
  CHECK(claim(1, d) == verdict::superseded);
  CHECK(claim(1, d) == verdict::superseded);
  CHECK(epoch == 3);
  CHECK(reclaim(1) == verdict::granted);
  for (std::uint64_t id = 100; id < 200; ++id) // memory is bounded
    abandon(id, d, 4);
  CHECK(claim(199, d, 4) == verdict::superseded);
}

TEST_CASE("which NO to HOLDS counts") {
  stream_owner a{{"a", 1}, "a"}, again{{"a", 2}, "a"};
  CHECK(no_counts(a, 3, a, 3));
  CHECK_FALSE(no_counts(a, 2, a, 3));
  CHECK_FALSE(no_counts(again, 3, a, 3));
  CHECK_FALSE(no_counts(a, 3, std::nullopt, 3));
}

TEST_CASE_FIXTURE(claims_rig, "the batch rule") {
  claim(1, d, 3, 12); // two tokens of S are still on their way
  struct row {
    const char* what;
    std::uint32_t of_epoch, start, count;
    bool last;
    batch_verdict wanted;
  };
  const row rows[] = {
    {"old, fills the gap", 3, 10, 2, false, taken(0, 2)},
    {"old, partly told", 3, 8, 3, false, taken(2, 1)},
    {"old, all told", 3, 7, 3, false, taken(3, 0)},
    {"old, a gap before it", 3, 11, 1, false, held},
    {"old, at the claim index", 3, 12, 1, false, aborted},
    {"old, above it", 3, 20, 1, false, aborted},
    {"old, across it", 3, 10, 4, false, {.take = 2, .abort = true}},
    {"old, ends at it", 3, 10, 2, true, {.take = 2, .abort = true}},
    {"old, ends below it", 3, 10, 1, true, taken(0, 1, true)},
    {"of before anything was claimed", 2, 10, 1, false, aborted},
    {"new, at its turn", 4, 10, 1, false, taken(0, 1)},
    {"new, before its turn", 4, 12, 1, false, held},
    {"new, again", 4, 9, 1, false, taken(1, 0)},
    {"new, ends", 4, 10, 3, true, taken(0, 3, true)},
    {"new, ends, told but for the end", 4, 8, 2, true, taken(2, 0, true)},
    {"new, ends below what was told", 4, 7, 2, true, taken(2, 0)},
    {"of an epoch to come", 5, 10, 1, false, dropped},
    {"new, the last of numbers", 4, ~0u, 3, false, held},
    {"old, the last of numbers", 3, ~0u, 3, false, aborted},
  };
  for (const auto& [what, of_epoch, start, count, last, wanted] : rows) {
    CAPTURE(what);
    CHECK(judged(of_epoch, start, count, last) == wanted);
  }
}

TEST_CASE_FIXTURE(claims_rig, "the claim index of any later epoch counts") {
  claim(1, d, 3, 12);
  raise(); // at 10: D died
  CHECK(judged(3, 10, 1) == aborted);
  CHECK(judged(4, 10, 1) == aborted);
  CHECK(judged(5, 10, 1) == taken(0, 1));
  claim(2, e, 5, 30);
  delivered = 15;
  CHECK(judged(5, 15, 1) == taken(0, 1));
  CHECK(judged(4, 15, 1) == aborted);
  CHECK(judged(3, 9, 1) == taken(1, 0)); // late, and told by another
}

TEST_CASE_FIXTURE(claims_rig, "many moves are remembered, the oldest as over") {
  for (std::uint32_t move = 0; move < 100; ++move)
    CHECK(claim(move + 1, d, 3 + move, 100 + move) == verdict::granted);
  CHECK(judged(3, 10, 1) == aborted);
  CHECK(judged(102, 10, 1) == taken(0, 1));
}

TEST_CASE_FIXTURE(claims_rig, "held batches are given back in turn") {
  claim(1, d, 3, 12);
  CHECK(claims.hold(d, batch(4, 14, 2), now));
  CHECK(claims.hold(d, batch(4, 12, 2), now));
  CHECK(claims.hold(d, batch(4, 12, 2), now)); // twice
  CHECK_FALSE(claims.next_held(11));
  CHECK(claims.next_held(12)->batch.start == 12);
  CHECK_FALSE(claims.next_held(12));
  auto next = claims.next_held(14);
  REQUIRE(next);
  CHECK(next->batch.start == 14);
  CHECK(next->sender == d);
  CHECK_FALSE(claims.deadline());
}

TEST_CASE_FIXTURE(claims_rig, "a gap that lasts two seconds is replayed") {
  CHECK_FALSE(claims.replay_due(now + 1h));
  claims.hold(s, batch(3, 14, 1), now);
  claims.hold(s, batch(3, 11, 1), now + 1s); // its turn is sooner, it waits shorter
  CHECK(claims.deadline() == now + 2s);
  CHECK_FALSE(claims.replay_due(now + 1999ms));
  CHECK(claims.replay_due(now + 2s));
  raise();
  CHECK_FALSE(claims.deadline());
  CHECK_FALSE(claims.replay_due(now + 2s));
  CHECK_FALSE(claims.next_held(100));
}

TEST_CASE_FIXTURE(claims_rig, "a gap that is filled in time is none") {
  claims.hold(s, batch(3, 11, 1), now);
  CHECK(claims.next_held(11));
  CHECK_FALSE(claims.replay_due(now + 2s));
}

TEST_CASE_FIXTURE(claims_rig, "64 batches are held, no more") {
  for (std::uint32_t start = 11; start < 75; ++start)
    CHECK(claims.hold(s, batch(3, start, 1), now));
  CHECK_FALSE(claims.hold(s, batch(3, 75, 1), now));
}

TEST_CASE_FIXTURE(claims_rig, "a stream that never moved needs none of this") {
  CHECK(judge(batch(3, 10, 2, true), 3, 10) == taken(0, 2, true));
  CHECK(judge(batch(3, 9, 2), 3, 10) == taken(1, 1));
  CHECK(judge(batch(3, 11, 1), 3, 10) == held);
  CHECK(judge(batch(2, 10, 1), 3, 10) == aborted);
  CHECK(judge(batch(2, 5, 1), 3, 10) == aborted);
  CHECK(judge(batch(4, 10, 1), 3, 10) == dropped);
}

} // namespace llumnix
