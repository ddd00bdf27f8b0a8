#include "gateway/relay/engine_directory.hpp"
#include "gateway/relay/failure_backoff.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string_view>
#include <vector>

namespace llumnix::relay {

using namespace std::chrono_literals;

namespace {

constexpr time_point start{1000s};

} // namespace

TEST_CASE("an engine that fails in a row rests twice as long each time, up to ten seconds") {
  failure_backoff engine;
  auto now = start;
  CHECK_FALSE(engine.resting(now));
  CHECK_FALSE(engine.on_trial(now));
  for (auto rest : {100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 10000ms, 10000ms}) {
    engine.on_failure(now, now);
    CHECK(engine.resting_until() == now + rest);
    CHECK(engine.resting(now + rest - 1ms));
    CHECK_FALSE(engine.on_trial(now + rest - 1ms));
    now += rest;
    CHECK_FALSE(engine.resting(now));
    CHECK(engine.on_trial(now));
  }
  for (int i = 0; i < 100; ++i)
    engine.on_failure(now, now); // no shift without end
  CHECK(engine.resting_until() == now + 10s);
}

TEST_CASE("what is heard of an engine counts by when it was asked") {
  using engine = failure_backoff;
  struct row {
    const char* what;
    void (*heard)(engine&); ///< after a failure at `start`, which was asked at the same time
    std::chrono::milliseconds rest;
  };
  for (const auto& [what, heard, rest] :
       {row{"nothing", [](engine&) {}, 100ms},
        row{
          "one that was under way failed, too",
          [](engine& x) { x.on_failure(start - 1ms, start + 50ms); }, 100ms},
        row{
          "one that was asked later", [](engine& x) { x.on_failure(start + 1ms, start + 50ms); },
          250ms},
        row{"one under way is answered", [](engine& x) { x.on_success(start - 1ms); }, 100ms},
        row{
          "one under way is answered, the next fails",
          [](engine& x) {
            x.on_success(start - 1ms);
            x.on_failure(start + 50ms, start + 50ms);
          },
          250ms},
        row{
          "one that was asked later is answered, the next fails",
          [](engine& x) {
            x.on_failure(start + 10ms, start + 20ms);
            x.on_success(start + 30ms);
            CHECK_FALSE(x.resting(start + 30ms));
            CHECK_FALSE(x.on_trial(start + 30ms));
            x.on_failure(start + 50ms, start + 50ms);
          },
          150ms},
        row{"one was asked meanwhile", [](engine& x) { x.on_asked(start + 50ms); }, 100ms},
        row{"one was offered meanwhile", [](engine& x) { x.on_offered(start + 50ms); }, 100ms}}) {
    CAPTURE(what);
    engine x;
    x.on_failure(start, start);
    heard(x);
    CHECK(x.resting_until() == start + rest);
  }
}

TEST_CASE("one request at a time tries an engine whose rest is over") {
  failure_backoff engine;
  engine.on_failure(start, start);
  engine.on_failure(start, start + 1ms);
  engine.on_offered(start + 300ms);
  CHECK(engine.resting_until() == start + 400ms); // nobody else, until it was placed
  engine.on_asked(start + 310ms);
  CHECK(engine.resting_until() == start + 510ms); // 200 ms again
  engine.on_asked(start + 320ms);                 // for want of another
  CHECK(engine.resting_until() == start + 510ms);
  engine.on_asked(start + 600ms);
  CHECK(engine.resting_until() == start + 800ms); // neither
  engine.on_failure(start + 600ms, start + 610ms);
  CHECK(engine.resting_until() == start + 1010ms);
  engine.on_offered(start + 1100ms); // it was placed elsewhere
  CHECK(engine.on_trial(start + 1200ms));
  engine.on_success(start + 1200ms);
  engine.on_offered(start + 1300ms);
  engine.on_asked(start + 1300ms);
  CHECK_FALSE(engine.resting(start + 1300ms));
}

TEST_CASE("who rests gets nothing while another does not; if all rest, the next to wake does") {
  struct row {
    const char* what;
    std::vector<std::pair<const char*, std::chrono::milliseconds>> resting; ///< and until when
    std::vector<instance_id> failed;
    std::vector<instance_id> unsuited;
  };
  for (const auto& [what, resting, failed, unsuited] :
       {row{"nobody rests", {}, {}, {"x"}}, row{"one rests", {{"a", 5ms}}, {}, {"x", "a"}},
        row{"all rest", {{"a", 5ms}, {"b", 3ms}, {"c", 4ms}}, {}, {"x", "a", "c"}},
        row{"the others failed", {{"a", 5ms}}, {"b", "c"}, {"b", "c", "x"}},
        row{"one failed, all rest", {{"a", 5ms}, {"b", 3ms}, {"c", 4ms}}, {"b"}, {"b", "x", "a"}},
        row{"all failed", {{"a", 5ms}}, {"a", "b", "c"}, {"a", "b", "c", "x"}},
        row{"rests are over", {{"a", 0ms}, {"b", -1ms}}, {}, {"x"}}}) {
    CAPTURE(what);
    engine_directory engines;
    for (const auto* id : {"a", "b", "c"})
      engines.put(id, {.address = id, .models = {"m"}});
    engines.put("x", {.address = "x", .models = {"other"}});
    for (auto [id, until] : resting)
      engines.trouble(id)->rest(start + until, start - 10ms);
    CHECK(engines.unsuited({"m"}, failed, start) == unsuited);
  }
}

TEST_CASE("token ids in and out are for engines that are known to have a way for them") {
  struct row {
    const char* what;
    std::optional<bool> a, b;
    std::vector<instance_id> unsuited;
    bool nobody; ///< of model m has it
  };
  for (const auto& [what, a, b, unsuited, nobody] :
       {row{"all", true, true, {"x"}, false}, row{"one", false, true, {"a", "x"}, false},
        row{"none", false, false, {"a", "b", "x"}, true},
        row{"perhaps", {}, false, {"a", "b", "x"}, false},
        row{"one, and perhaps another", {}, true, {"a", "x"}, false}}) {
    CAPTURE(what);
    engine_directory engines;
    engines.put("a", {.address = "a", .tokens = a, .models = {"m"}});
    engines.put("b", {.address = "b", .tokens = b, .models = {"m"}});
    engines.put("x", {.address = "x", .tokens = true, .models = {"other"}});
    CHECK(engines.unsuited({"m", true}, {}, start) == unsuited);
    CHECK(engines.unsuited({"m"}, {}, start) == std::vector<instance_id>{"x"});
    CHECK(engines.any_beside({"b"}, {"m", true}) == (a == true));
    CHECK(engines.nobody_takes_tokens("m") == nobody);
    CHECK_FALSE(engines.nobody_takes_tokens(""));
    CHECK_FALSE(engines.nobody_takes_tokens("nobody's"));
  }
  CHECK_FALSE(engine_directory{}.nobody_takes_tokens("")); // not known yet
}

TEST_CASE("of requests placed at once only one may go to an engine on trial") {
  engine_directory engines;
  for (const auto* id : {"a", "b"})
    engines.put(id, {.address = id});
  auto& a = *engines.trouble("a");
  a.on_failure(start, start);
  using all = std::vector<instance_id>;
  CHECK(engines.unsuited({}, {}, start + 99ms) == all{"a"});
  CHECK(engines.unsuited({}, {}, start + 100ms).empty());
  CHECK(engines.unsuited({}, {}, start + 100ms) == all{"a"});
  a.on_asked(start + 101ms);
  CHECK(engines.unsuited({}, {}, start + 200ms) == all{"a"});
  engines.put("a", {.address = "a"}); // what it can is found out again
  CHECK(engines.unsuited({}, {}, start + 200ms) == all{"a"});
  a.on_success(start + 101ms);
  CHECK(engines.unsuited({}, {}, start + 200ms).empty());
  CHECK(engines.unsuited({}, {}, start + 200ms).empty());
}

TEST_CASE("who was left alone for its own reasons is tried by one request afterwards") {
  engine_directory engines;
  for (const auto* id : {"a", "b"})
    engines.put(id, {.address = id});
  auto& a = *engines.trouble("a");
  a.rest(start + 2s, start);
  using all = std::vector<instance_id>;
  CHECK(engines.unsuited({}, {}, start + 1999ms) == all{"a"});
  CHECK(engines.unsuited({}, {}, start + 2s).empty());
  CHECK(engines.unsuited({}, {}, start + 2s) == all{"a"});
  a.on_success(start + 2s);
  CHECK(engines.unsuited({}, {}, start + 2s).empty());
  CHECK(engines.unsuited({}, {}, start + 2s).empty());
}

TEST_CASE("what one loop finds of an engine all loops know, and one request of all tries it") {
  auto common = std::make_shared<engine_common>();
  engine_directory here;
  engine_directory there;
  for (auto* loop : {&here, &there}) {
    loop->put("a", {.address = "a", .common = common});
    loop->put("b", {.address = "b"});
    loop->put("a", {.address = "a", .token_ids = true}); // what it can is found out
  }
  using all = std::vector<instance_id>;
  here.trouble("a")->on_failure(start, start);
  CHECK(there.unsuited({}, {}, start + 99ms) == all{"a"});
  CHECK(there.unsuited({}, {}, start + 100ms).empty());
  CHECK(here.unsuited({}, {}, start + 100ms) == all{"a"});
  there.trouble("a")->on_success(start + 100ms);
  CHECK(here.unsuited({}, {}, start + 100ms).empty());

  engine_pulse::expected answer{there.find("b")->pulse, 1, start};
  auto silent = here.find("a")->pulse;
  CHECK_FALSE(here.others_answered(*silent, start - 1s));
  auto signs = there.find("a")->pulse;
  engine_pulse::expected other{signs, 1, start};
  other.on_tokens(start + 5s);
  CHECK(here.others_answered(*here.find("b")->pulse, start - 1s) == start + 5s);
  other.find_hung();
  engine_pulse::expected waits{silent, 1, start};
  CHECK(waits.wait(start + 6s).engine_hung);
  CHECK(waits.wait(start + 6s).engine_silent == 1s);
}

TEST_CASE("requests that were sent to an engine before its outage began could not know better") {
  struct row {
    const char* what;
    void (*heard)(engine_trouble&);
    std::chrono::milliseconds placed; ///< after `start`
    bool surprised;
  };
  for (const auto& [what, heard, placed, surprised] :
       {row{"no trouble", [](engine_trouble&) {}, 0ms, false},
        row{"a failure", [](engine_trouble& x) { x.on_failure(start, start + 5ms); }, 5ms, true},
        row{"known", [](engine_trouble& x) { x.on_failure(start, start + 5ms); }, 6ms, false},
        row{"a rest", [](engine_trouble& x) { x.rest(start + 1s, start + 5ms); }, 5ms, true},
        row{
          "more failures in a row",
          [](engine_trouble& x) {
            x.on_failure(start, start + 5ms);
            x.on_failure(start + 20s, start + 20s);
          },
          6ms, false},
        row{
          "well between, and again soon",
          [](engine_trouble& x) {
            x.on_failure(start, start);
            x.on_success(start + 1s);
            x.on_failure(start + 9s, start + 9999ms);
          },
          9000ms, false},
        row{
          "well between, and again later",
          [](engine_trouble& x) {
            x.on_failure(start, start);
            x.on_success(start + 1s);
            x.on_failure(start + 9s, start + 10s);
          },
          9000ms, true}}) {
    CAPTURE(what);
    engine_trouble engine;
    heard(engine);
    CHECK(engine.surprised(start + placed) == surprised);
  }
}

} // namespace llumnix::relay
