#include "runtime/cluster/dispatch_ledger.hpp"

#include <doctest/doctest.h>

#include <random>
#include <utility>

using namespace llumnix;
using enum infer_type;

namespace {

constexpr unix_ms start = 1'000'000;

dispatched_request dispatch(std::string id, infer_type stage = neutral) {
  return {std::move(id), stage, 100, 70};
}

/// A status of instance `a` with these lists of engine ids.
instance_status report(std::vector<std::string> recent, std::vector<std::string> waiting = {}) {
  instance_status status;
  status.instance_id = "a";
  status.recent_waiting_requests = std::move(recent);
  status.waiting_requests = std::move(waiting);
  return status;
}

constexpr inflight_load nothing{};
constexpr inflight_load one_neutral{1, 1, 1, 70, 100};
constexpr inflight_load one_prefill{1, 1, 0, 70, 0};
constexpr inflight_load one_decode{1, 0, 1, 0, 100};

} // namespace

TEST_CASE("an engine's request is found under the id it was dispatched with (cms weakness 18)") {
  struct row {
    std::string reported;
    std::vector<std::string> dispatched;
    std::string found; ///< empty: none of them
  };
  const std::string uuid = "550e8400-e29b-41d4-a716-446655440000";
  for (auto& [reported, dispatched, found] : std::initializer_list<row>{
         // As the reference reads them (spec/cms.md 3).
         {"cmpl-550e8400-e29b-0", {"550e8400-e29b"}, "550e8400-e29b"},
         {"chatcmpl-550e8400-e29b-0", {"550e8400-e29b"}, "550e8400-e29b"},
         {"cmpl-r1+0+x", {"r1"}, "r1"},
         {"reqA", {"reqA"}, "reqA"},
         {"a-b+c-d", {"a-b"}, "a-b"},
         {"a-b-c", {"a-b"}, "a-b"},
         {"r-", {"r"}, "r"},
         {"chatcmpl-x", {"x"}, "x"},
         {"cmpl-chatcmpl-x", {"chatcmpl"}, "chatcmpl"},
         // Without any suffix.
         {"chatcmpl-" + uuid, {uuid}, uuid},
         {uuid, {uuid}, uuid},
         {"chatcmpl-r-1", {"r-1"}, "r-1"},
         {"r+1", {"r+1"}, "r+1"},
         // Whole: what was dispatched looks like an engine's own.
         {"cmpl-r1", {"cmpl-r1"}, "cmpl-r1"},
         {"cmpl-cmpl-r1-0", {"cmpl-r1"}, "cmpl-r1"},
         // A random suffix, behind the number of a prompt or not.
         {"cmpl-" + uuid + "-0-abcdef12", {uuid}, uuid},
         {"cmpl-r1-0-abcdef12", {"r1"}, "r1"},
         {"cmpl-r1-11-ABCDEF12", {"r1"}, "r1"},
         {"chatcmpl-" + uuid + "-abcdef12", {uuid}, uuid},
         {"chatcmpl-r1-abcdef12", {"r1"}, "r1"},
         {"generate-tokens-" + uuid + "-abcdef12", {uuid}, uuid},
         {"generate-tokens-r1-abcdef12", {"r1"}, "r1"},
         {"generate-tokens-r1", {"r1"}, "r1"},
         // Others that are named alike keep theirs.
         {"chatcmpl-r-1", {"r", "r-1"}, "r-1"},
         {"cmpl-r-1-0", {"r", "r-1"}, "r-1"},
         {"cmpl-r-1-0-abcdef12", {"r", "r-1", "r-1-0-abcdef12"}, "r-1-0-abcdef12"},
         {"chatcmpl-r-1-abcdef12", {"r-1", "r"}, "r-1"},
         {"cmpl-x", {"x", "cmpl-x"}, "cmpl-x"},
         {"cmpl-job-1-2-0", {"job-1", "job"}, ""},
         {"cmpl-job-1-abcdefgh", {"job"}, ""},
         {"cmpl-job-one-abcdef12", {"job"}, ""},
         {"cmpl-job-0-abcdef1", {"job"}, ""},
         {"Cmpl-r1", {"r1"}, ""},
         {"xcmpl-r1-0", {"r1"}, ""},
         {"550e8400-e29b-41d4-a716-44665544000g", {"550e8400-e29b"}, ""},
         {"cmpl-", {"cmpl"}, ""}}) {
    CAPTURE(reported);
    dispatch_ledger ledger{10};
    for (auto& id : dispatched)
      ledger.book("a", dispatch(id), start);
    ledger.reconcile(report({reported}), start + 1);
    for (auto& id : dispatched) {
      CAPTURE(id);
      CHECK(ledger.release(id).empty() == (id == found)); // what a status has shown is forgotten
    }
  }
}

TEST_CASE("roles are known by their names") {
  for (auto role : {neutral, prefill, decode})
    CHECK(parse_infer_type(to_string(role)) == role);
  for (auto other : {"", "Neutral", "prefill ", "both"})
    CHECK_FALSE(parse_infer_type(other).has_value());
}

TEST_CASE("a dispatch adds the counters of its stages") {
  using row = std::pair<infer_type, inflight_load>;
  for (auto [stage, expected] :
       {row{neutral, one_neutral}, row{prefill, one_prefill}, row{decode, one_decode}}) {
    CAPTURE(to_string(stage));
    dispatch_ledger ledger{10};
    CHECK(ledger.book("a", dispatch("r", stage), start));
    CHECK(ledger.inflight("a") == expected);
    CHECK(ledger.inflight("b") == nothing);
  }
}

TEST_CASE("the same stage twice, or a stage after both, counts once") {
  using row = std::pair<infer_type, infer_type>;
  for (auto [first, second] :
       {row{neutral, neutral}, row{prefill, prefill}, row{decode, decode}, row{neutral, prefill},
        row{neutral, decode}}) {
    CAPTURE(to_string(first));
    CAPTURE(to_string(second));
    dispatch_ledger ledger{10};
    ledger.book("a", dispatch("r", first), start);
    auto before = ledger.inflight("a");
    CHECK_FALSE(ledger.book("a", dispatch("r", second), start));
    CHECK(ledger.inflight("a") == before);
  }
}

TEST_CASE(
  "the other stage on the same instance makes the entry neutral and is no further request") {
  using row = std::pair<infer_type, infer_type>;
  for (auto [first, second] : {row{prefill, decode}, row{decode, prefill}}) {
    CAPTURE(to_string(first));
    dispatch_ledger ledger{10};
    ledger.book("a", dispatch("r", first), start);
    CHECK(ledger.book("a", dispatch("r", second), start));
    CHECK(ledger.inflight("a") == one_neutral);
    CHECK_FALSE(ledger.book("a", dispatch("r", first), start));
    ledger.release("r");
    CHECK(ledger.inflight("a") == nothing);
  }
}

TEST_CASE("stages of different sizes are taken back as they were counted") {
  dispatch_ledger ledger{10};
  ledger.book("a", {"r", prefill, 100, 70}, start);
  ledger.book("a", {"r", decode, 130, 5}, start);
  CHECK(ledger.inflight("a") == inflight_load{1, 1, 1, 70, 130});
  ledger.release("r");
  CHECK(ledger.inflight("a") == nothing);
}

// Mends weakness 17 of spec/cms.md.
TEST_CASE("a release takes a request back on every instance that has it, once") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r", prefill), start);
  ledger.book("b", dispatch("r", decode), start);
  ledger.book("b", dispatch("other"), start);
  CHECK(ledger.release("r") == std::vector<instance_id>{"a", "b"});
  CHECK(ledger.inflight("a") == nothing);
  CHECK(ledger.inflight("b") == one_neutral);
  CHECK(ledger.release("r").empty());
  CHECK(ledger.release("never seen").empty());
  CHECK(ledger.inflight("b") == one_neutral);
}

// Mends weakness 12 of spec/cms.md.
TEST_CASE("a status that has seen the request takes it back, and keeps it while it waits") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r"), start);
  ledger.reconcile(report({"cmpl-r-0"}, {"cmpl-r-0"}), start + 1);
  CHECK(ledger.inflight("a") == nothing);

  SUBCASE("so that the same request booked again meanwhile counts nothing") {
    CHECK_FALSE(ledger.book("a", dispatch("r"), start + 2));
    CHECK(ledger.inflight("a") == nothing);
  }
  SUBCASE("and a release takes nothing back a second time") {
    CHECK(ledger.release("r") == std::vector<instance_id>{"a"});
    CHECK(ledger.inflight("a") == nothing);
  }
  SUBCASE("nor does a second sighting") {
    ledger.reconcile(report({"cmpl-r-0"}, {"cmpl-r-0"}), start + 2);
    CHECK(ledger.inflight("a") == nothing);
  }
  SUBCASE("and forgets it once it waits no longer, so that it may come again") {
    ledger.reconcile(report({"cmpl-r-0"}), start + 2);
    CHECK(ledger.release("r").empty());
    CHECK(ledger.book("a", dispatch("r"), start + 3));
    CHECK(ledger.inflight("a") == one_neutral);
  }
}

TEST_CASE("a request seen and already running is forgotten with the same status") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r"), start);
  ledger.reconcile(report({"chatcmpl-r-0"}), start + 1);
  CHECK(ledger.inflight("a") == nothing);
  CHECK(ledger.release("r").empty());
}

TEST_CASE("a request no status has shown counts until it is stale, and then no longer") {
  struct row {
    unix_ms age;
    bool waiting;
    bool counted;
  };
  for (auto [age, waiting, counted] :
       {row{0, false, true}, row{9'999, false, true}, row{10'000, false, false},
        row{60'000, false, false}, row{-5, false, true}, row{10'000, true, true},
        row{60'000, true, true}}) {
    CAPTURE(age);
    CAPTURE(waiting);
    dispatch_ledger ledger{10};
    ledger.book("a", dispatch("r"), start);
    auto status = report({"cmpl-x-0"}, {});
    if (waiting) // listed as waiting, but not yet among those seen at a step
      status.waiting_requests = {"cmpl-r-0"};
    ledger.reconcile(status, start + age);
    CHECK(ledger.inflight("a") == (counted ? one_neutral : nothing));
    CHECK(ledger.release("r").empty() == !counted);
  }
}

TEST_CASE("a request no status has shown expires without one (cms weakness 15)") {
  struct row {
    unix_ms age;
    bool shown;
    bool waiting;
    bool counted;
  };
  for (auto [age, shown, waiting, counted] :
       {row{0, false, false, true}, row{9'999, false, false, true},
        row{10'000, false, false, false}, row{60'000, false, false, false},
        row{-5, false, false, true}, row{60'000, true, true, false},
        row{60'000, false, true, true}}) {
    CAPTURE(age);
    CAPTURE(shown);
    CAPTURE(waiting);
    dispatch_ledger ledger{10};
    ledger.book("a", dispatch("r"), start);
    std::vector<std::string> listed{"r-0"}, none;
    ledger.reconcile(report(shown ? listed : none, waiting ? listed : none), start);
    bool ends = !waiting && !counted;
    std::vector<instance_id> changed;
    if (ends)
      changed.push_back("a");
    CHECK(ledger.expire(start + age) == changed);
    CHECK(ledger.inflight("a") == (counted ? one_neutral : nothing));
    CHECK(ledger.expire(start + age).empty());
    CHECK(ledger.release("r").empty() == ends);
  }
}

TEST_CASE("requests expire by their own age, in whatever order they were booked") {
  dispatch_ledger ledger{10};
  for (auto [id, at] : {std::pair{"s", 2'000}, {"u", 4'000}, {"r", 1'000}, {"t", 3'000}})
    for (auto instance : {"a", "b"})
      ledger.book(instance, dispatch(id), start + at);
  ledger.release("t");
  using row = std::pair<int, std::int32_t>;
  for (auto [at, left] :
       {row{10'999, 3}, row{11'000, 2}, row{12'000, 1}, row{13'999, 1}, row{14'000, 0}}) {
    CAPTURE(at);
    ledger.expire(start + at);
    CHECK(ledger.inflight("a").requests == left);
    CHECK(ledger.inflight("b").requests == left);
  }
  // What waited when its time was up ends with the status that has it no longer.
  ledger.book("a", dispatch("w"), start);
  ledger.reconcile(report({}, {"w-0"}), start + 1);
  CHECK(ledger.expire(start + 20'000).empty());
  ledger.reconcile(report({}, {}), start + 20'001);
  CHECK(ledger.inflight("a") == nothing);
}

TEST_CASE("where entries count until they are released, no status and no time ends them") {
  auto ledger = dispatch_ledger::until_released();
  CHECK(ledger.book("a", dispatch("r"), start));
  CHECK(ledger.book("a", dispatch("s"), start));
  constexpr inflight_load two_neutral{2, 2, 2, 140, 200};
  for (auto age : {1, 10'000, 3'600'000, 400'000'000}) {
    CAPTURE(age);
    ledger.reconcile(report({"cmpl-r-0", "cmpl-s-0"}, {"cmpl-r-0"}), start + age);
    ledger.reconcile(report({}), start + age);
    CHECK(ledger.expire(start + age).empty());
    CHECK(ledger.inflight("a") == two_neutral);
  }
  SUBCASE("a release does") {
    CHECK(ledger.release("r") == std::vector<instance_id>{"a"});
    CHECK(ledger.inflight("a") == one_neutral);
    CHECK(ledger.release("r").empty());
    CHECK(ledger.book("a", dispatch("r"), start));
    CHECK(ledger.inflight("a") == two_neutral);
  }
  SUBCASE("and so does the end of the instance") {
    ledger.forget("a");
    CHECK(ledger.inflight("a") == nothing);
    CHECK(ledger.release("s").empty());
  }
}

TEST_CASE("a status speaks for its own instance only") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r"), start);
  ledger.book("b", dispatch("r"), start);
  ledger.reconcile(report({"cmpl-r-0"}), start + 60'000);
  CHECK(ledger.inflight("a") == nothing);
  CHECK(ledger.inflight("b") == one_neutral);
  CHECK(ledger.release("r") == std::vector<instance_id>{"b"});
}

TEST_CASE("ids listed twice, and ids nobody dispatched, do no harm") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r"), start);
  ledger.reconcile(report({"cmpl-r-0", "r-1", "cmpl-s-0"}, {"t", "t", ""}), start + 1);
  CHECK(ledger.inflight("a") == nothing);
}

TEST_CASE("a second stage booked after the first was seen counts until it is seen itself") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r", prefill), start);
  ledger.reconcile(report({"cmpl-r-0"}, {"cmpl-r-0"}), start + 1);
  CHECK(ledger.book("a", dispatch("r", decode), start + 9'000));
  CHECK(ledger.inflight("a") == inflight_load{0, 0, 1, 0, 100});
  SUBCASE("in a status") {
    ledger.reconcile(report({"cmpl-r-0"}), start + 9'001);
    CHECK(ledger.inflight("a") == nothing);
  }
  SUBCASE("or is stale, counted from its own dispatch") {
    ledger.reconcile(report({}), start + 11'000);
    CHECK(ledger.inflight("a").decode_requests == 1);
    ledger.reconcile(report({}), start + 19'000);
    CHECK(ledger.inflight("a") == nothing);
    CHECK(ledger.release("r").empty());
  }
}

TEST_CASE("forgetting an instance leaves the request's other bookings alone") {
  dispatch_ledger ledger{10};
  ledger.book("a", dispatch("r"), start);
  ledger.book("b", dispatch("r"), start);
  ledger.forget("a");
  ledger.forget("a");
  CHECK(ledger.inflight("a") == nothing);
  CHECK(ledger.inflight("b") == one_neutral);
  CHECK(ledger.book("a", dispatch("r"), start)); // a new life may be sent it again
  CHECK(ledger.release("r") == std::vector<instance_id>{"b", "a"});
  CHECK(ledger.inflight("a") == nothing);
  CHECK(ledger.inflight("b") == nothing);
}

TEST_CASE("counters stay at the limit of 32 bits, and come back exactly (scheduling weakness 11)") {
  dispatch_ledger ledger{10};
  constexpr std::int32_t most = 2'147'483'647;
  ledger.book("a", {"r", neutral, most, most}, start);
  ledger.book("a", {"s", neutral, most, most}, start);
  CHECK(ledger.inflight("a") == inflight_load{2, 2, 2, most, most});
  auto waiting = report({}, {"r-0", "s-0"});
  CHECK(ledger.waiting_prefills(waiting) == most);
  ledger.release("r");
  CHECK(ledger.inflight("a") == inflight_load{1, 1, 1, most, most});
  ledger.release("s");
  CHECK(ledger.inflight("a") == nothing);
}

TEST_CASE("whatever happens, once every request has been released nothing is counted") {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    std::mt19937 chance{seed};
    auto pick = [&](std::uint32_t n) { return chance() % n; };
    auto request = [&] { return "r" + std::to_string(pick(6)); };
    auto instance = [&] { return std::string{"abc"[pick(3)]}; };
    dispatch_ledger ledger{10};
    unix_ms now = start;
    for (int event = 0; event < 300; ++event, now += pick(3'000)) {
      switch (pick(6)) {
        case 0:
        case 1:
        case 2: ledger.book(instance(), dispatch(request(), infer_type(pick(3))), now); break;
        case 3: ledger.release(request()); break;
        case 4: {
          auto status = report({request() + "-0"}, {request() + "-0", request() + "-0"});
          status.instance_id = instance();
          ledger.reconcile(status, now);
          break;
        }
        default:
          ledger.expire(now);
          if (pick(4) == 0)
            ledger.forget(instance());
      }
      for (auto id : {"a", "b", "c"}) {
        auto load = ledger.inflight(id);
        CHECK(load.requests >= 0);
        CHECK(load.prefill_tokens == 70 * load.prefill_requests);
        CHECK(load.decode_tokens == 100 * load.decode_requests);
        CHECK(load.prefill_requests >= 0);
        CHECK(load.decode_requests >= 0);
      }
    }
    for (int i = 0; i < 6; ++i)
      ledger.release("r" + std::to_string(i));
    for (auto id : {"a", "b", "c"})
      CHECK(ledger.inflight(id) == nothing);
  }
}

TEST_CASE("what is counted can be counted elsewhere, and comes to the same") {
  for (bool until_released : {true, false}) {
    CAPTURE(until_released);
    auto make = [&] {
      return until_released ? dispatch_ledger::until_released() : dispatch_ledger{10};
    };
    auto first = make();
    first.book("b", dispatch("p", prefill), start);
    first.book("a", dispatch("p", decode), start);
    first.book("a", {"urgent", neutral, 50, 20, -3}, start);
    first.book("a", dispatch("both", prefill), start);
    first.book("a", dispatch("both", decode), start);
    first.book("c", dispatch("gone"), start);
    first.release("gone");
    auto second = make();
    auto counted = first.counted();
    CHECK(counted.size() == 4);
    for (const auto& [instance, request] : counted)
      CHECK(second.book(instance, request, start));
    for (auto instance : {"a", "b", "c"})
      CHECK(second.inflight(instance) == first.inflight(instance));
    CHECK(second.release("p").size() == 2);
  }
}
