#include "gateway/relay/retry_after.hpp"
#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

TEST_CASE_FIXTURE(
  table_rig, "a relay's client that reads nothing for too long is cut off, and that is said") {
  auto client = open(true);
  begin_stream();
  client->stall();
  pool.watchers.back()->on_body(event);
  pool.watchers.back()->on_pause();
  loop.time += config.stalled_client + std::chrono::milliseconds{1};
  table.sweep(loop.now());
  CHECK(client->abandoned);
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "cancelled");
  CHECK(port.ended[0].failure == error{errc::cancelled, "the client read nothing for too long"});
}

TEST_CASE_FIXTURE(
  table_rig, "what an engine took and did not begin spends the retry budget when asked elsewhere") {
  const std::string busy = "data: {\"error\":{\"message\":\"busy\",\"code\":503}}\n\n";
  struct row {
    const char* what;
    std::function<void()> fail;
    bool bounded;
    int status;
  };
  config.engine_retries = 0;
  config.engine_retries_floor = 3;
  for (const auto& [what, fail, bounded, status] :
       {row{"a status", [&] { answer({503, {}, {}}); }, true, 503},
        row{"an event", [&] { say(busy); }, true, 503},
        row{"garbage", [&] { say("data: x\n\n"); }, true, 502},
        row{"an early end", [&] { say("data: [DONE]\n\n"); }, true, 502},
        row{"a cut", [&] { engine().on_end({errc::disconnected, "cut"}); }, true, 502},
        row{"no connection", [&] { engine().on_end({errc::unreachable, "no"}); }, false, 0}}) {
    CAPTURE(what);
    for (int i = 1; i < 9; ++i)
      engines.put("e:" + std::to_string(i), {.address = "e"});
    loop.time += std::chrono::seconds{10};                      // the floor is full again
    engines.trouble("e:1")->on_failure(loop.now(), loop.now()); // it is known to fail
    int retries = 0;
    for (int i = 0; i < 10; ++i) {
      loop.time += std::chrono::microseconds{1};
      auto client = open(true);
      place();
      auto before = port.placed.size();
      fail();
      auto placed_anew = port.placed.size() > before;
      retries += placed_anew;
      CHECK(client->status == (placed_anew ? 0 : status));
    }
    CHECK(retries == (bounded ? 3 : 10));
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(
  table_rig, "all that were under way when an engine began to fail move, whatever the budget") {
  struct row {
    const char* what;
    net::http_reply reply;
  };
  config.engine_retries = 0;
  config.engine_retries_floor = 0;
  for (const auto& [what, reply] :
       {row{"500", {500, {}, {}}}, row{"429", {429, {{"retry-after", "1"}}, {}}},
        row{"death", {0, {}, {}}},
        row{"garbage", {200, {{"content-type", "text/event-stream"}}, "data: x\n\n"}}}) {
    CAPTURE(what);
    loop.time += std::chrono::seconds{100};
    for (const auto* each : {"e:1", "e:2"}) {
      engines.remove(each);
      engines.put(each, {.address = each});
    }
    std::vector<std::shared_ptr<fake_exchange>> clients;
    auto asked = pool.watchers.size();
    for (int i = 0; i < 200; ++i) {
      clients.push_back(open(true));
      place();
    }
    auto late = open(true); // placed, but not asked yet
    auto late_head = port.placed.back();
    loop.time += std::chrono::milliseconds{1};
    auto before = port.placed.size();
    for (int i = 0; i < 200; ++i) {
      auto& engine = *pool.watchers[asked + i];
      if (reply.status > 0)
        engine.on_head(reply);
      if (!reply.body.empty())
        engine.on_body(reply.body);
      else
        engine.on_end({reply.status > 0 ? errc::ok : errc::disconnected, {}});
    }
    auto fail = [&] {
      if (reply.status > 0)
        answer(reply);
      else
        engine().on_end({errc::disconnected, {}});
    };
    CHECK(port.placed.size() == before + 200);
    CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
    table.on_placed(late_head.stream.stream, late_head.epoch, {{"head", 1}, "e:1"}, loop.now());
    fail();
    CHECK(port.placed.size() == before + 201);
    loop.time += std::chrono::milliseconds{1};
    auto later = open(true); // everybody knows
    place();
    fail();
    CHECK(port.placed.size() == before + 202);
    CHECK(later->status == (reply.status <= 200 ? 502 : reply.status));
    for (const auto& client : clients)
      CHECK(client->status == 0);
    table.give_up_all(draining);
    loop.run();
  }
}

TEST_CASE_FIXTURE(table_rig, "an engine that fails requests before their first token rests") {
  using std::chrono::milliseconds;
  auto event_with = [](const char* code) {
    return "data: {\"error\":{\"message\":\"x\",\"code\":" + std::string{code} + "}}\n\n";
  };
  struct row {
    const char* what;
    bool stream;
    std::function<void()> fail;
    int rest_ms; ///< 0: none
  };
  for (const auto& [what, stream, fail, rest_ms] :
       {row{"500", true, [&] { answer({500, {}, {}}); }, 100},
        row{"429", false, [&] { answer({429, {}, {}}); }, 100},
        row{"503 and for how long", true, [&] { answer({503, {{"retry-after", "2"}}, {}}); }, 2000},
        row{
          "503 and until when", true,
          [&] {
            answer(
              {503,
               {{"Date", "Sun, 06 Nov 1994 08:49:37 GMT"},
                {"Retry-After", "Sun, 06 Nov 1994 08:49:40 GMT"}},
               {}});
          },
          3000},
        row{"408", true, [&] { answer({408, {}, {}}); }, 0},
        row{"400", true, [&] { answer({400, {}, {}}); }, 0},
        row{"404", false, [&] { answer({404, {}, {}}); }, 0},
        row{"an event", true, [&] { say(event_with("500")); }, 100},
        row{"an event about the request", true, [&] { say(event_with("400")); }, 0},
        row{"garbage", true, [&] { say("data: x\n\n"); }, 100},
        row{"no answer", false, [&] { answer({200, {}, "{}"}); }, 100},
        row{"refused", true, [&] { engine().on_end({errc::unreachable, "no"}); }, 100},
        row{"cut", false, [&] { engine().on_end({errc::disconnected, "cut"}); }, 100},
        row{
          "cut after a token", true,
          [&] {
            say(event);
            engine().on_end({errc::disconnected, "cut"});
          },
          0},
        row{"a reply", false, [&] { answer({200, {}, whole}); }, 0},
        row{"a client that left", true, [&] { table.give_up_all(draining); }, 0}}) {
    CAPTURE(what);
    loop.time += milliseconds{100'000}; // for the retry budget
    for (const auto* each : {"e:1", "e:2"}) {
      engines.remove(each);
      engines.put(each, {.address = each});
    }
    auto client = open(stream);
    place("e:1");
    fail();
    const std::vector<instance_id> none;
    CHECK(engines.unsuited({}, none, loop.now()).empty() == (rest_ms == 0));
    if (rest_ms > 0) {
      CHECK(engines.find("e:1")->rest_end() == loop.now() + milliseconds{rest_ms});
      CHECK(engines.unsuited({}, none, loop.now()) == std::vector<instance_id>{"e:1"});
    }
    table.give_up_all(draining);
    loop.run();
  }
}

TEST_CASE("how long a reply asks to be left alone") {
  struct row {
    const char* retry_after;
    const char* date;
    std::int64_t ms;
  };
  constexpr unix_ms now = 784111777'000; // Sun, 06 Nov 1994 08:49:37 GMT
  for (auto [retry_after, date, ms] :
       {row{"", "", 0}, row{"2", "", 2000}, row{"0", "", 0}, row{"1.5", "", 1000},
        row{"3600", "", 60'000}, row{"99999999999999999999", "", 60'000}, row{"-1", "", 0},
        row{"2 s", "", 0}, row{"soon", "", 0}, row{"Sun, 06 Nov 1994 08:49:42 GMT", "", 5000},
        row{"Sun, 06 Nov 1994 08:49:36 GMT", "", 0},
        row{"Mon, 07 Nov 1994 08:49:37 GMT", "", 60'000},
        row{"Sun, 06 Nov 1994 09:49:42 GMT", "Sun, 06 Nov 1994 09:49:40 GMT", 2000},
        row{"Sun, 06 Nov 1994 08:49:42 GMT", "yesterday", 5000}}) {
    CAPTURE(retry_after);
    CHECK(relay::asked_rest(retry_after, date, now) == std::chrono::milliseconds{ms});
  }
}

TEST_CASE_FIXTURE(table_rig, "an engine on trial is well again with the first token it gives") {
  using std::chrono::milliseconds;
  engines.put("e:2", {.address = "e:2"});
  auto one = open(true);
  place("e:1");
  answer({500, {}, {}});
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  loop.time += milliseconds{100};
  auto two = open(true); // tries it
  CHECK(port.excluded.back().empty());
  place("e:1");
  open(true);
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  REQUIRE(pool.asked.back().address == "e:1");
  say(event);
  open(true);
  CHECK(port.excluded.back().empty());
}

TEST_CASE_FIXTURE(table_rig, "an engine that only keeps the line warm is silent") {
  struct row {
    const char* what;
    std::string events;
  };
  config.engine_silence = std::chrono::milliseconds{1000};
  engines.put("e:2", {.address = "e:2"});
  for (const auto& [what, events] :
       {row{"nothing", ""}, row{"comments", ": still here\n\n"}, row{"empty events", "\n\n"},
        row{
          "roles",
          "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
          "\"content\":\"\"}}]}\n\n"},
        row{
          "empty texts",
          "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"}}]}\n\n"}}) {
    CAPTURE(what);
    auto client = open(true);
    place();
    say(event);
    auto before = port.placed.size();
    for (int i = 0; i < 3; ++i) { // tokens come: all is well
      loop.time += std::chrono::milliseconds{900};
      table.sweep(loop.now());
      CHECK(client->status == 200);
      engine().on_body(event);
    }
    CHECK_FALSE(client->ended);
    for (int i = 0; i < 3 && port.placed.size() == before; ++i) {
      loop.time += std::chrono::milliseconds{400};
      engine().on_body(events);
      engine().on_pause();
      table.sweep(loop.now());
    }
    CHECK(port.placed.size() == before + 1);
    CHECK(port.loads.back().why == "the engine fell silent");
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(
  table_rig, "an engine that is silent before the first token is left once others answer") {
  using std::chrono::milliseconds;
  const std::string why = "the engine was silent before the first token, while others answered";
  const net::http_reply head{200, {{"content-type", "text/event-stream"}}, {}};
  struct row {
    const char* what;
    bool head;     ///< comes, as from a server in front of an engine that hangs
    bool streamed; ///< else it goes along with a streamed one
    bool others_answer;
  };
  config.engine_silence = milliseconds{1000};
  for (auto [what, with_head, streamed, others_answer] :
       {row{"nothing", false, true, true}, row{"a head", true, true, true},
        row{"nobody answers", true, true, false}, row{"whole", false, false, true}}) {
    CAPTURE(what);
    loop.time += milliseconds{10'000}; // the rest from the row before is over
    for (const auto* each : {"e:1", "e:2"}) {
      engines.remove(each);
      engines.put(each, {.address = each, .context_tokens = 1}); // 0.1 s for a whole reply
    }
    auto client = open(streamed);
    place("e:1");
    if (with_head)
      engine().on_head(head);
    if (!streamed) {
      open(true);
      place("e:1");
    }
    loop.time += milliseconds{900};
    open(true);
    CHECK(port.excluded.back().empty());
    place("e:2");
    if (others_answer)
      say(event);
    auto before = port.placed.size();
    table.sweep(loop.now());
    CHECK(port.placed.size() == before); // not yet
    loop.time += milliseconds{201};
    table.sweep(loop.now());
    table.sweep(loop.now()); // whole ones go along, in whatever order they were looked at
    CHECK(port.placed.size() - before == (others_answer ? (streamed ? 1 : 2) : 0));
    if (!others_answer) {
      table.give_up_all(draining);
      continue;
    }
    CHECK(port.loads.back().why == why);
    open(true);
    CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"}); // it is left alone
    loop.time += milliseconds{1001};
    open(true);
    CHECK(port.excluded.back().empty());
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(table_rig, "a request that others overtake at its engine goes elsewhere") {
  using std::chrono::milliseconds;
  config.engine_silence = milliseconds{5000};
  engines.put("e:2", {.address = "e:2"});
  auto client = open(true);
  place();
  for (int i = 0; i < 3; ++i) {
    loop.time += milliseconds{1700};
    table.sweep(loop.now());
    CHECK(port.placed.size() == 1u + i);
    open(true);
    place();
    say(event);
  }
  table.sweep(loop.now());
  CHECK(port.placed.size() == 4); // nobody else answers, who could do better
  open(true);
  place("e:2");
  say(event);
  table.sweep(loop.now());
  REQUIRE(port.placed.size() == 6);
  CHECK(port.placed.back().stream.stream == port.placed.front().stream.stream);
  CHECK(port.loads.back().why == "the engine answered requests that came later, and not this one");
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  open(true);
  CHECK(port.excluded.back().empty()); // the engine itself is well
}

TEST_CASE_FIXTURE(table_rig, "a first token is waited for where there is nobody else") {
  config.engine_silence = std::chrono::milliseconds{1000};
  open(true);
  place();
  loop.time += std::chrono::hours{1};
  table.sweep(loop.now());
  CHECK(port.placed.size() == 1);
  engines.put("e:2", {.address = "e:2", .ready = false});
  table.sweep(loop.now());
  CHECK(port.placed.size() == 1);
  engines.put("e:2", {.address = "e:2"}); // nobody asked it for anything, but it could
  table.sweep(loop.now());
  CHECK(port.placed.size() == 2);
  CHECK(port.loads.back().why == "the engine was silent before the first token, for very long");
  open(true);
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"}); // it is left alone
}

} // namespace llumnix::testing
