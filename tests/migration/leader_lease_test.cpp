#include "runtime/cluster/leader_lease.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

using namespace llumnix;
using namespace std::chrono_literals;

namespace {

constexpr nanoseconds lease = 3s;
constexpr time_point begin{100s};
const node_life a{"a", 1};
const node_life b{"b", 1};

/// A keeper asked at times that count from `begin`; its wall clock shows 1000 s more.
struct keeper {
  leader_lease kept{};
  lease_answer
  ask(const node_life& by, nanoseconds at, std::uint64_t holds = 0, std::uint64_t seen = 0) {
    return kept.claim({by, holds, seen, lease}, begin + at, wall(at));
  }
  /// Makes `by` the leader under its first term: one that asks at 0 leads at 3 s.
  std::uint64_t elect(const node_life& by) {
    ask(by, 0s);
    return ask(by, 3s).leader.number;
  }
  static unix_ms wall(nanoseconds at) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(at + 1000s).count();
  }
};

} // namespace

TEST_CASE("the first claim waits for a lease, in which an unknown leader would renew") {
  keeper there;
  auto answer = there.ask(a, 0s);
  CHECK(!answer.leader);
  CHECK(answer.wait == 3s);
  answer = there.ask(b, 1s);
  CHECK(!answer.leader);
  CHECK(answer.wait == 2s);
  CHECK(!there.ask(a, 2999ms).leader);
  answer = there.ask(b, 3s);
  CHECK(answer.leader == leader_term{1003000, b}); // wall time, in milliseconds
  answer = there.ask(a, 3s);
  CHECK(answer.leader == leader_term{1003000, b});
  CHECK(answer.wait == 3s);
}

TEST_CASE("a lease goes on while it is renewed, and to the next when it is over or released") {
  struct row {
    const char* what;
    nanoseconds last_renewal;
    bool released;
    nanoseconds asked; ///< by b
    bool granted;
  };
  for (const auto& [what, last_renewal, released, asked, granted] : {
         row{"it runs", 3s, false, 5999ms, false},
         row{"it is over", 3s, false, 6s, true},
         row{"it was renewed", 4s, false, 6s, false},
         row{"renewed, and over", 4s, false, 7s, true},
         row{"released", 4s, true, 4001ms, true},
         row{"released long ago, nobody asked since: as new", 4s, true, 8s, false},
         row{"over long ago, nobody asked since: as new", 4s, false, 7001ms, false},
       }) {
    CAPTURE(what);
    keeper there;
    auto term = there.elect(a);
    if (last_renewal > 3s)
      CHECK(there.ask(a, last_renewal, term).leader == leader_term{term, a});
    if (released)
      there.kept.release({term, a});
    auto answer = there.ask(b, asked);
    CHECK((answer.leader.leader == b) == granted);
    if (granted)
      CHECK(answer.leader.number > term);
  }
}

TEST_CASE("who renews late leads on, unless somebody else does by then") {
  for (bool taken : {false, true}) {
    CAPTURE(taken);
    keeper there;
    auto term = there.elect(a);
    if (taken)
      CHECK(there.ask(b, 6s).leader == leader_term{1006000, b});
    auto answer = there.ask(a, 6500ms, term);
    CHECK(answer.leader == (taken ? leader_term{1006000, b} : leader_term{term, a}));
  }
}

TEST_CASE("a leader that has forgotten its term gets another at once") {
  keeper there;
  auto term = there.elect(a);
  auto answer = there.ask(a, 4s);
  CHECK(answer.leader == leader_term{1004000, a});
  CHECK(answer.leader.number > term);
  answer = there.ask({"a", 2}, 4s); // another life of its node: the former may be alive
  CHECK(answer.leader == leader_term{1004000, a});
}

TEST_CASE("only its own leader releases a lease") {
  keeper there;
  auto term = there.elect(a);
  for (const auto& other : {leader_term{term, b}, leader_term{term - 1, a}, leader_term{}})
    there.kept.release(other);
  CHECK(there.kept.leader(begin + 4s) == leader_term{term, a});
  CHECK(there.kept.left(begin + 4s) == 2s);
  there.kept.release({term, a});
  CHECK(!there.kept.leader(begin + 4s));
  CHECK(there.kept.left(begin + 4s) == 0s);
}

TEST_CASE(
  "a keeper that was started again takes the leader's word, and nobody else's for a lease") {
  keeper there;
  auto term = there.elect(a);
  there.kept = {};
  SUBCASE("the leader renews") {
    CHECK(!there.ask(b, 4s, 0, term).leader);
    CHECK(there.ask(a, 4500ms, term).leader == leader_term{term, a});
    CHECK(there.ask(b, 7s, 0, term).leader == leader_term{term, a});
    CHECK(there.ask(b, 7500ms, 0, term).leader == leader_term{1007500, b});
  }
  SUBCASE("the leader is gone") {
    CHECK(!there.ask(b, 4s).leader);
    CHECK(there.ask(b, 7s).leader == leader_term{1007000, b});
  }
  SUBCASE("two say that they lead: the later term does") {
    CHECK(there.ask(a, 4s, term).leader == leader_term{term, a});
    CHECK(there.ask(b, 4s, term + 5).leader == leader_term{term + 5, b});
    CHECK(there.ask(a, 5s, term).leader == leader_term{term + 5, b});
  }
}

TEST_CASE("terms grow, whatever the wall clock and claimants say") {
  constexpr auto all = std::numeric_limits<std::uint64_t>::max();
  struct row {
    const char* what;
    unix_ms wall;
    std::uint64_t seen;
    std::uint64_t granted;
  };
  for (const auto& [what, wall, seen, granted] : {
         row{"the wall clock", 5000, 0, 5000},
         row{"the wall clock was set back", 5000, 7000, 7001},
         row{"it shows a time before 1970", -1, 0, 1},
         row{"it shows no time", 0, 41, 42},
         row{"a claimant has heard of nonsense", 5000, all, 5000},
       }) {
    CAPTURE(what);
    leader_lease kept;
    kept.claim({a, 0, seen, lease}, begin, wall);
    CHECK(kept.claim({a, 0, seen, lease}, begin + 3s, wall).leader.number == granted);
    CHECK(kept.claim({b, 0, 0, lease}, begin + 6s, wall - 100).leader.number == granted + 1);
    CHECK(kept.claim({b, all, 0, lease}, begin + 7s, wall).leader.number == granted + 2);
  }
}

TEST_CASE("lengths that nobody would ask for are cut") {
  leader_lease kept;
  CHECK(kept.claim({a, 0, 0, -1s}, begin, 0).wait == 10ms);
  leader_lease other;
  CHECK(other.claim({a, 0, 0, nanoseconds::max()}, begin, 0).wait == 10min);
}

TEST_CASE("a holder claims at the start, and then every third of the lease") {
  lease_holder it{a, lease};
  auto first = it.due(begin);
  REQUIRE(first);
  CHECK(first->by == a);
  CHECK(first->holds == 0);
  CHECK(first->length == lease);
  CHECK(!it.due(begin + 999ms));
  it.answered({{7, a}, {}}, begin, begin + 10ms);
  CHECK(!it.due(begin + 999ms));
  auto second = it.due(begin + 1s);
  REQUIRE(second);
  CHECK(second->holds == 7);
  CHECK(second->seen == 7);
}

TEST_CASE("a holder leads until a tenth before its lease is over, counted from its claim") {
  lease_holder it{a, lease};
  it.due(begin);
  CHECK(!it.leads(begin));
  it.answered({{7, a}, {}}, begin, begin + 500ms); // the answer took its time
  CHECK(it.leads(begin + 2699ms));
  CHECK(!it.leads(begin + 2700ms));
  it.due(begin + 1s);
  CHECK(it.leads(begin + 2699ms)); // no answer so far
  it.answered({{7, a}, {}}, begin + 1s, begin + 2s);
  CHECK(it.leads(begin + 3699ms));
  CHECK(!it.leads(begin + 3700ms));
  CHECK(it.due(begin + 5s)->holds == 0); // paused: it does not say that it leads
}

TEST_CASE("an answer that came after the lease was over makes no leader") {
  lease_holder it{a, lease};
  it.due(begin);
  it.answered({{7, a}, {}}, begin, begin + 3s);
  CHECK(!it.leads(begin + 3s));
}

TEST_CASE("a holder asks again when the leader's lease is over, or a third of its own later") {
  struct row {
    nanoseconds wait;
    nanoseconds next;
  };
  for (const auto& [wait, next] : {row{400ms, 500ms}, row{5s, 1s}, row{0s, 130ms}}) {
    CAPTURE(wait.count());
    lease_holder it{a, lease};
    it.due(begin);
    it.answered({{7, b}, wait}, begin, begin + 100ms);
    CHECK(it.next() == begin + next);
    CHECK(!it.leads(begin + 100ms));
  }
}

TEST_CASE("a holder stops when somebody else leads, it is overtaken, or it ends") {
  auto leading = [] {
    lease_holder it{a, lease};
    it.due(begin);
    it.answered({{7, a}, {}}, begin, begin);
    REQUIRE(it.leads(begin + 1s));
    return it;
  };
  auto now = begin + 1s;
  SUBCASE("another leads") {
    auto it = leading();
    it.answered({{8, b}, 1s}, now, now);
    CHECK(!it.leads(now));
    CHECK(it.due(begin + 2s)->seen == 8);
  }
  SUBCASE("an order was refused for a later term") {
    auto it = leading();
    it.overtaken({9, b}, now);
    CHECK(!it.leads(now));
    CHECK(it.next() == now + lease);     // the other may lead first
    it.answered({{7, a}, {}}, now, now); // an answer that was on its way
    CHECK(!it.leads(now));
    auto claim = it.due(now + lease);
    REQUIRE(claim);
    CHECK(claim->holds == 0);
    CHECK(claim->seen == 9);
  }
  SUBCASE("an order of an earlier term of ours was refused") {
    auto it = leading();
    it.overtaken({6, b}, now);
    CHECK(it.leads(now));
    it.overtaken({7, a}, now);
    CHECK(it.leads(now));
  }
  SUBCASE("it ends") {
    auto it = leading();
    CHECK(it.stop(now) == leader_term{7, a});
    CHECK(!it.leads(now));
    CHECK(!it.due(now + 1h));
  }
  SUBCASE("it ends after its lease") {
    auto it = leading();
    CHECK(!it.stop(begin + 1min));
  }
  SUBCASE("another keeps the lease: it is told at once, and the leader leads on") {
    auto it = leading();
    it.keeper_changed(now);
    CHECK(it.due(now)->holds == 7);
    CHECK(it.leads(now));
  }
}

TEST_CASE("an instance follows the latest leader alone, and always whoever leads nobody") {
  struct row {
    leader_term of;
    bool admitted;
  };
  leader_fence fence;
  for (const auto& [of, admitted] :
       {row{{}, true}, row{{5, a}, true}, row{{5, a}, true}, row{{7, b}, true}, row{{5, a}, false},
        row{{6, a}, false}, row{{7, a}, false}, // a is before b
        row{{7, b}, true}, row{{}, true}, row{{7, {"b", 2}}, true}, row{{7, b}, false},
        row{{leader_term::number_max + 1, a}, false}}) {
    CAPTURE(to_string(of));
    CHECK(fence.admit(of) == admitted);
  }
  fence.heard({8, a});
  CHECK(!fence.admit({7, {"b", 2}}));
  fence.heard({6, b});
  CHECK(fence.latest() == leader_term{8, a});
  CHECK(to_string(fence.latest()) == "a/1 under term 8");
  CHECK(to_string(leader_term{}) == "nobody");
}

TEST_CASE("two who claim and are paused at random never lead at once") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    auto random = [state = seed]() mutable {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      return state >> 33;
    };
    leader_lease kept;
    struct claimant {
      lease_holder it;
      time_point paused_until{};
      struct answer {
        time_point arrives;
        time_point sent;
        lease_answer said;
      };
      std::vector<answer> coming{};
    };
    std::vector<claimant> all{{lease_holder{a, lease}}, {lease_holder{b, lease}}};
    std::uint64_t highest = 0;
    std::size_t changes = 0;
    for (auto now = begin; now < begin + 120s; now += 50ms) {
      if (random() % 400 == 0)
        kept = {}; // its keeper is started again
      std::size_t leaders = 0;
      for (auto& x : all) {
        if (random() % 100 == 0)
          x.paused_until = now + random() % 8000 * 1ms;
        if (now < x.paused_until)
          continue;
        for (auto& each : x.coming)
          if (each.arrives <= now)
            x.it.answered(each.said, each.sent, now);
        std::erase_if(x.coming, [&](const auto& each) { return each.arrives <= now; });
        if (auto claim = x.it.due(now); claim && random() % 10 != 0) {
          auto said = kept.claim(*claim, now, keeper::wall(now - begin));
          if (said.leader.number > highest)
            ++changes;
          CHECK(said.leader.number >= (said.leader ? highest : 0));
          highest = std::max(highest, said.leader.number);
          x.coming.push_back({now + random() % 500 * 1ms, now, said});
        }
        leaders += x.it.leads(now);
      }
      CHECK(leaders <= 1);
    }
    CHECK(changes > 0);
  }
}
