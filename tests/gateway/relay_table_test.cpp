#include "gateway/relay/retry_after.hpp"
#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

TEST_CASE_FIXTURE(table_rig, "a relay's end says when it was placed and when its tokens came") {
  auto client = open(true);
  loop.time += std::chrono::milliseconds{5};
  place();
  loop.time += std::chrono::milliseconds{30};
  say(event);
  loop.time += std::chrono::milliseconds{9};
  engine().on_body(event);
  engine().on_pause();
  loop.time += std::chrono::milliseconds{90};
  client->leave();
  REQUIRE(port.ended.size() == 1);
  const auto& times = port.ended[0].times;
  CHECK(times.placed == std::chrono::milliseconds{5});
  CHECK(times.first_token == std::chrono::milliseconds{35});
  CHECK(times.last_token == std::chrono::milliseconds{44});
}

TEST_CASE_FIXTURE(table_rig, "of a whole reply the first token is known where its engine tells") {
  using namespace std::chrono_literals;
  struct row {
    const char* told; ///< by the engine
    std::optional<nanoseconds> first; ///< from its arrival
  };
  for (const auto& [told, first] :
       {row{"null", {}}, row{R"({"time_to_first_token_ms":20})", 25ms},
        row{R"({"time_to_first_token_ms":5000})", 105ms}}) { // which is later than its end
    CAPTURE(told);
    auto client = open(false);
    loop.time += 5ms;
    place();
    loop.time += 100ms;
    const std::string reply
      = R"({"choices":[{"finish_reason":"stop"}],"usage":{"completion_tokens":5},"metrics":)";
    answer({200, {}, reply + told + "}"});
    const auto& end = port.ended.back();
    CHECK(end.outcome == "stop");
    CHECK(end.output_tokens == 5);
    CHECK(end.times.first_token == first);
    CHECK(end.times.last_token == (first ? std::optional<nanoseconds>{105ms} : std::nullopt));
  }
  auto text = metrics.text(loop.now());
  CHECK(text.find("request_e2e_latency_seconds_count{model=\"m\"} 3\n") != std::string::npos);
  CHECK(text.find("request_ttft_milliseconds_count{model=\"m\"} 2\n") != std::string::npos);
  CHECK(text.find("request_tpot_milliseconds_count{model=\"m\"} 2\n") != std::string::npos);
}

TEST_CASE_FIXTURE(table_rig, "tokens of several outputs side by side are no time per token") {
  const std::string body = R"({"model":"m","n":2,"stream":true})";
  auto wish
    = std::get<relay::relay_request>(relay::request_reader{}.read(openai::endpoint::chat, body));
  auto client = open(wish, body);
  place();
  loop.time += std::chrono::milliseconds{30};
  say(event);
  client->leave();
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].times.first_token == std::chrono::milliseconds{30});
  CHECK(port.ended[0].times.last_token == std::nullopt);
}

TEST_CASE_FIXTURE(table_rig, "a relay's wishes go with it, to the engine after a lost one too") {
  engines.put("e:2", {.address = "e:2"});
  wishes = {250.f, {}, "s"};
  auto client = open(true);
  REQUIRE(port.placed.size() == 1);
  CHECK(port.placed[0].wishes == wishes);
  place();
  engine().on_end({errc::unreachable, "gone"});
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 1);
  CHECK(port.placed[1].wishes == wishes);
}

TEST_CASE_FIXTURE(table_rig, "relays given up are told so, in the form that fits") {
  auto begun = open(true);
  begin_stream();
  REQUIRE(begun->streaming);
  auto asked = open(false);
  place();
  auto waiting = open(true);
  table.give_up_all(draining);
  table.give_up_all(draining); // nothing is left, also not to be freed
  loop.run();
  for (const auto& client : {asked, waiting}) {
    CHECK(client->status == 503);
    CHECK(client->json()["error"]["code"] == "draining");
    CHECK(client->header("retry-after") == "1");
  }
  CHECK(begun->ended);
  CHECK(begun->body.find("[DONE]") == std::string::npos);
  CHECK(begun->events().back()["error"]["code"] == "draining");
  CHECK(port.withdrawn.size() == 1);
  REQUIRE(port.ended.size() == 3);
  for (const auto& end : port.ended) {
    CHECK(end.outcome == "failed");
    CHECK(end.failure == draining);
  }
  CHECK(table.size() == 0);
}

TEST_CASE_FIXTURE(table_rig, "clients whose relays end may send their next requests at once") {
  for (int i = 0; i < 100; ++i)
    open(true)->after_reply = [this] { open(false); };
  table.give_up_all(draining);
  loop.run();
  CHECK(table.size() == 100);
  CHECK(port.ended.size() == 100);
}

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
  table_rig, "an error where the first token belongs is like a reply with its status") {
  struct row {
    const char* code;
    int status; ///< for the client; 0: another engine is asked
  };
  for (auto [code, status] :
       {row{"400", 400}, row{"404", 404}, row{"422", 422}, row{"408", 0}, row{"429", 0},
        row{"500", 0}, row{"\"x\"", 0}})
    for (bool event : {true, false}) {
      CAPTURE(code);
      CAPTURE(event);
      engines.put("e:2", {.address = "e:2"});
      loop.time += std::chrono::seconds{1}; // for the retry budget
      auto client = open(true);
      place();
      auto before = port.placed.size();
      auto said = R"({"error":{"message":"no such token","code":)" + std::string{code} + "}}";
      if (event)
        say("data: " + said + "\n\ndata: [DONE]\n\n");
      else
        answer(
          {code[0] == '"' ? 500 : std::atoi(code), {{"content-type", "application/json"}}, said});
      CHECK(client->status == status);
      CHECK(port.placed.size() - before == (status == 0));
      if (status > 0) {
        CHECK(client->body == said);
        CHECK(client->header("content-type") == "application/json");
        CHECK(port.ended.back().failure.code == errc::invalid_argument);
        continue;
      }
      place("e:2"); // which says the same: the client may hear it
      if (event)
        say("data: " + said + "\n\n");
      else
        answer(
          {code[0] == '"' ? 500 : std::atoi(code), {{"content-type", "application/json"}}, said});
      CHECK(client->status == (code[0] == '"' ? 500 : std::atoi(code)));
      CHECK(client->body == said);
    }
}

TEST_CASE_FIXTURE(table_rig, "whoever is told that engines failed is told why") {
  struct row {
    std::string events;
    const char* message;
    int status;
  };
  config.max_placements = 1;
  for (const auto& [events, message, status] :
       {row{"data: {\"error\":{\"message\":\"boom\"}}\n\n", "boom", 500},
        row{
          "data: {}\n\n",
          "gave up after 1 engines: the engine sent what is no chunk: byte 2 of an event: "
          "no chunk of a stream",
          502},
        row{
          "data: [DONE]\n\n",
          "gave up after 1 engines: the engine ended the stream before its output", 502}}) {
    auto client = open(true);
    place();
    say(events);
    CHECK(client->status == status);
    CHECK(client->json()["error"]["message"] == message);
  }
}

TEST_CASE_FIXTURE(table_rig, "replies that are none of the API's are asked of another engine") {
  engines.put("e:2", {.address = "e:2"});
  const std::string json = "application/json";
  struct row {
    const char* what;
    bool stream;
    net::http_reply reply;
    const char* why; ///< null: it is the client's
  };
  for (const auto& [what, stream, reply, why] :
       {row{"no content", false, {204, {}, {}}, "the engine answered 204"},
        row{"elsewhere", false, {302, {{"location", "/"}}, {}}, "the engine answered 302"},
        row{
          "not a stream", true, {200, {{"content-type", json}}, "{}"}, "not answer with a stream"},
        row{"without end", true, {200, {}, std::string(1 << 21, 'x')}, "too long"},
        row{"a failure without end", true, {500, {}, std::string(1 << 21, 'x')}, "too long"},
        row{"packed", false, {200, {{"Content-Encoding", "gzip"}}, "{}"}, "compressed"},
        row{"a packed refusal", true, {400, {{"content-encoding", "gzip"}}, "{}"}, "compressed"},
        row{
          "a packed stream",
          true,
          {200, {{"content-type", "text/event-stream"}, {"content-encoding", "br"}}, "{}"},
          "compressed"},
        row{"not packed", false, {200, {{"content-encoding", "identity"}}, whole}, nullptr},
        row{"a page", false, {200, {}, "<html>"}, "no JSON object"},
        row{"good", false, {200, {{"content-type", json}}, whole}, nullptr},
        row{"empty", false, {200, {{"content-type", json}}, "{}"}, "holds no answer"},
        row{
          "unfinished",
          false,
          {200, {{"content-type", json}}, R"({"choices":[{"text":"a","finish_reason":null}]})"},
          "holds no answer"},
        row{"refused", true, {400, {{"content-type", json}}, R"({"error":{}})"}, nullptr}}) {
    CAPTURE(what);
    auto client = open(stream);
    place();
    auto before = port.placed.size();
    answer(reply);
    CHECK(port.placed.size() - before == (why ? 1 : 0));
    CHECK(client->status == (why ? 0 : reply.status));
    if (why)
      CHECK(port.loads.back().why.find(why) != std::string::npos);
    else
      CHECK(client->body == reply.body);
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(table_rig, "an engine's answer that is too long is no fault of the client's") {
  auto client = open(false);
  config.max_placements = 1;
  place();
  engine().on_head({200, {}, {}});
  engine().on_end({errc::too_long, "too long"});
  CHECK(client->status == 502);
}

TEST_CASE_FIXTURE(table_rig, "refusals and garbage before the first token spend the retry budget") {
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
        row{"death", [&] { engine().on_end({errc::disconnected, "cut"}); }, false, 0}}) {
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
      engine.on_head(reply);
      if (!reply.body.empty())
        engine.on_body(reply.body);
      else
        engine.on_end({errc::ok, {}});
    }
    CHECK(port.placed.size() == before + 200);
    CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
    table.on_placed(late_head.stream.stream, late_head.epoch, {{"head", 1}, "e:1"}, loop.now());
    answer(reply);
    CHECK(port.placed.size() == before + 201);
    loop.time += std::chrono::milliseconds{1};
    auto later = open(true); // everybody knows
    place();
    answer(reply);
    CHECK(port.placed.size() == before + 202);
    CHECK(later->status == (reply.status == 200 ? 502 : reply.status));
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
}

TEST_CASE_FIXTURE(table_rig, "a request goes to engines that serve its model") {
  struct row {
    const char* model;
    std::vector<instance_id> excluded;
  };
  engines.put("e:1", {.address = "e:1", .models = {"b", "a"}});
  engines.put("e:2", {.address = "e:2", .models = {"b"}});
  engines.put("e:3", {.address = "e:3"}); // nobody knows
  for (const auto& [model, excluded] :
       {row{"a", {"e:2"}}, row{"b", {}}, row{"", {}}, row{"c", {"e:1", "e:2"}}}) {
    CAPTURE(model);
    relay::relay_request wish;
    wish.model = model;
    open(wish, "{}");
    CHECK(port.excluded.back() == excluded);
  }
}

TEST_CASE_FIXTURE(table_rig, "an engine that does not serve the model is not asked") {
  config.wait_for_instance = std::chrono::milliseconds{1000};
  engines.put("e:1", {.address = "e:1", .models = {"a"}});
  engines.put("e:2", {.address = "e:2", .models = {"b"}});
  relay::relay_request wish;
  wish.model = "b";
  auto client = open(wish, "{}");
  place("e:1"); // e:2 takes no work now
  CHECK(pool.asked.empty());
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  for (int i = 0; i < 10; ++i) { // it is waited for
    CHECK(client->status == 0);
    loop.time += std::chrono::milliseconds{100};
    table.sweep(loop.now());
    REQUIRE(port.placed.size() == 2u + i);
    place("e:1");
  }
  CHECK(pool.asked.empty());
  CHECK(client->status == 503);
  CHECK(client->json()["error"]["message"] == "no engine that serves 'b' takes work");
}

TEST_CASE_FIXTURE(table_rig, "token ids in and out go to engines that have a way for them") {
  engines.put("e:1", {.address = "e:1", .tokens = false});
  engines.put("e:2", {.address = "e:2", .tokens = true});
  engines.put("e:3", {.address = "e:3"}); // nobody knows yet
  auto client = open_tokens();
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1", "e:3"});
  CHECK(port.loads.back().prompt_tokens == 2);
  place("e:2");
  REQUIRE(pool.asked.size() == 1);
  CHECK(pool.asked[0].target == "/inference/v1/generate");
  CHECK(pool.asked[0].address == "e:2");
  say("data: "
      "{\"request_id\":\"r\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"token_ids\":[5]"
      "}]}"
      "\n\ndata: [DONE]\n\n");
  CHECK(client->ended);
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "stop");
  CHECK(port.ended[0].prompt_tokens == 2);
  CHECK(port.ended[0].output_tokens == 1);
}

TEST_CASE_FIXTURE(table_rig, "a whole reply with token ids is counted, with a usage or without") {
  engines.put("e:1", {.address = "e:1", .tokens = true});
  struct row {
    const char* usage;
    std::uint32_t prompt, output;
  };
  for (auto [usage, prompt, output] :
       {row{R"(,"usage":{"prompt_tokens":2,"completion_tokens":1})", 2, 1}, row{"", 2, 0}}) {
    auto client = open_tokens(false);
    place();
    const auto said
      = R"({"request_id":"r","choices":[{"index":0,"finish_reason":"stop","token_ids":[5]}])"
        + std::string{usage} + "}";
    answer({200, {{"content-type", "application/json"}}, said});
    CHECK(client->status == 200);
    CHECK(client->body == said);
    CHECK(port.ended.back().prompt_tokens == prompt);
    CHECK(port.ended.back().output_tokens == output);
  }
}

TEST_CASE_FIXTURE(table_rig, "where nobody has a way for token ids the client is told what to do") {
  config.wait_for_instance = std::chrono::milliseconds{1000};
  auto client = open_tokens(); // nobody knows yet
  place("e:1");
  CHECK(client->status == 0);
  CHECK_FALSE(table.nobody_takes_tokens("m"));
  engines.put("e:1", {.address = "e:1", .tokens = false});
  CHECK(table.nobody_takes_tokens("m"));
  loop.time += std::chrono::milliseconds{100};
  table.sweep(loop.now());
  place("e:1");
  CHECK(pool.asked.empty());
  CHECK(client->status == 404);
  CHECK(client->json()["error"]["type"] == "not_found_error");
  CHECK(
    client->json()["error"]["message"].get<std::string>().find("--enable-scale-out")
    != std::string::npos);
}

TEST_CASE_FIXTURE(table_rig, "an engine started again without a way for token ids is left") {
  for (const auto* id : {"e:1", "e:2"})
    engines.put(id, {.address = id, .tokens = true});
  auto client = open_tokens();
  place("e:1");
  const std::string said = R"({"error":{"message":"disabled","code":403}})";
  answer({403, {{"content-type", "application/json"}}, said});
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  place("e:2");
  CHECK(pool.asked.back().address == "e:2");
  answer({403, {{"content-type", "application/json"}}, said});
  CHECK(client->status == 403);
  CHECK(client->body == said);
}

TEST_CASE_FIXTURE(table_rig, "a stream of token ids goes on where there is a way for them") {
  for (const auto* id : {"e:1", "e:2"})
    engines.put(id, {.address = id, .tokens = true});
  auto client = open_tokens();
  place("e:1");
  say(
    "data: "
    "{\"request_id\":\"r\",\"choices\":[{\"index\":0,\"finish_reason\":null,\"token_ids\":[5,6]}]}"
    "\n\n");
  engine().on_end({errc::disconnected, "cut"});
  CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
  CHECK(port.loads.back().delivered_tokens == 2);
  place("e:2");
  REQUIRE(pool.asked.size() == 2);
  CHECK(pool.asked[1].target == "/inference/v1/generate");
  CHECK(
    pool.asked[1].body
    == R"({"stream":true,"sampling_params":{"y":1,"max_tokens":7},"token_ids":[7,8,5,6]})");
  say("data: "
      "{\"request_id\":\"q\",\"choices\":[{\"index\":0,\"finish_reason\":\"length\",\"token_ids\":["
      "4]}]}"
      "\n\ndata: [DONE]\n\n");
  REQUIRE(client->ended);
  auto told = client->events();
  REQUIRE(told.size() == 2);
  CHECK(told[1]["request_id"] == "r");
  CHECK(told[1]["choices"][0]["token_ids"] == std::vector<int>{4});
  CHECK(port.ended[0].output_tokens == 3);
}

TEST_CASE_FIXTURE(table_rig, "what an engine sends before the first token is bounded") {
  engines.put("e:2", {.address = "e:2"});
  const std::string role = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
                           "\"assistant\",\"content\":\"\"}}]}\n\n";
  for (const auto& piece :
       {std::string{": x\n\n"}, std::string{"\n\n"}, role, "data: " + std::string(50, 'x'),
        std::string{"id: x\n"}}) {
    CAPTURE(piece);
    open(true);
    place();
    auto before = port.placed.size();
    engine().on_head({200, {{"content-type", "text/event-stream"}}, {}});
    std::string many;
    while (many.size() < 64 * 1024)
      many += piece;
    std::size_t sent = 0;
    for (; sent < (std::size_t{8} << 20) && port.placed.size() == before; sent += many.size())
      engine().on_body(many);
    CHECK(port.placed.size() == before + 1);
    CHECK(sent < (std::size_t{2} << 20));
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(table_rig, "the ids of a long prompt fit into one event") {
  relay::relay_request wish;
  wish.stream = true;
  for (auto [context, fits] :
       {std::pair{0u, true}, std::pair{1u << 20, true}, std::pair{10u, false}}) {
    CAPTURE(context);
    engines.put("e:1", {.address = "e:1", .token_ids = true, .context_tokens = context});
    auto client = open(wish, R"({"x":")" + std::string(400'000, 'x') + "\"}");
    place();
    std::string ids = "1";
    for (int i = 0; i < 400'000; ++i)
      ids += ",100000";
    say(
      R"(data: {"id":"c","prompt_token_ids":[)" + ids
      + R"(],"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})" + "\n\n" + event);
    CHECK((client->status == 200) == fits);
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(table_rig, "what was held for a slow client is not the engine's silence") {
  config.engine_silence = std::chrono::milliseconds{1000};
  auto client = open(true);
  place();
  say(event);
  client->stall();
  std::string much;
  while (much.size() < 512 * 1024)
    much += event;
  engine().on_body(much);
  engine().on_pause();
  loop.time += std::chrono::milliseconds{5000};
  table.sweep(loop.now());
  client->drain();
  table.sweep(loop.now());
  CHECK_FALSE(client->ended);
}

TEST_CASE_FIXTURE(table_rig, "while no engine has it, none is silent") {
  engines.put("e:2", {.address = "e:2"});
  config.engine_silence = std::chrono::milliseconds{1000};
  open(true);
  begin_stream();
  engine().on_end({errc::disconnected, "cut"});
  auto placed = port.placed.size();
  loop.time += std::chrono::milliseconds{3000};
  table.sweep(loop.now());
  CHECK(port.placed.size() == placed); // it was asked for already
}

TEST_CASE_FIXTURE(table_rig, "whoever places a request anew is told why") {
  engines.put("e:2", {.address = "e:2"});
  open(true);
  CHECK(port.loads.back().why.empty());
  place();
  engine().on_end({errc::unreachable, "no connection"});
  CHECK(port.loads.back().why == "no connection");
  place("e:2");
  table.on_engine_lost("e:2");
  loop.time += std::chrono::milliseconds{200}; // both failed: after a pause all are asked again
  table.sweep(loop.now());
  CHECK(port.loads.back().why == "engine e:2 answers nobody any more");
}

TEST_CASE_FIXTURE(table_rig, "what no engine can go on with is named at the end") {
  relay::relay_request wish;
  wish.stream = true;
  wish.single_use = "seed";
  auto client = open(wish, "{}");
  begin_stream();
  engine().on_end({errc::disconnected, "the connection was cut"});
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].failure.code == errc::unsupported);
  for (const auto& said :
       {port.ended[0].failure.context,
        client->events().back()["error"]["message"].get<std::string>()}) {
    CHECK(said.find("the connection was cut") != std::string::npos);
    CHECK(said.find("'seed'") != std::string::npos);
  }
}

TEST_CASE_FIXTURE(
  table_rig, "engines that tell no ids are asked to count, and gone on from by text") {
  const std::string chat_body
    = R"({"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"x":[1.0]})";
  const std::string completion_body = R"({"prompt":"so \"it","max_tokens":9,"min_tokens":4})";
  auto counted = [](const char* text, int tokens) {
    return R"(data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":")"
           + std::string{text} + R"("}}],"usage":{"prompt_tokens":5,"completion_tokens":)"
           + std::to_string(tokens) + "}}\n\n";
  };
  for (bool chat : {true, false}) {
    CAPTURE(chat);
    engines.put("e:1", {.address = "e:1", .continues_text = true});
    engines.put("e:2", {.address = "e:2", .continues_text = true});
    relay::relay_request wish;
    wish.kind = chat ? openai::endpoint::chat : openai::endpoint::completions;
    wish.stream = true;
    wish.max_tokens = 9;
    wish.min_tokens = chat ? 0 : 4;
    auto client = open(wish, chat ? chat_body : completion_body);
    place();
    auto asked = nlohmann::json::parse(pool.asked.back().body);
    CHECK(asked["stream_options"]["continuous_usage_stats"] == true);
    CHECK(asked["stream_options"]["include_usage"] == true);
    say(counted("a\\\"", 2) + counted("b\\n", 3));
    engine().on_end({errc::disconnected, "cut"});
    place("e:2");
    CHECK(pool.asked.back().target == (chat ? "/v1/chat/completions" : "/v1/completions"));
    asked = nlohmann::json::parse(pool.asked.back().body);
    CHECK(asked["max_tokens"] == 7); // from before the line's end
    if (chat) {
      CHECK(asked["x"] == nlohmann::json::parse("[1.0]"));
      CHECK(asked["continue_final_message"] == true);
      CHECK(asked["add_generation_prompt"] == false);
      REQUIRE(asked["messages"].size() == 2);
      CHECK(asked["messages"][1] == nlohmann::json{{"role", "assistant"}, {"content", "a\""}});
    } else {
      CHECK(asked["prompt"] == "so \"ita\"");
      CHECK(asked["min_tokens"] == 2);
    }
    say(counted("b", 1) + counted("\\n", 2) + counted("c", 3));
    std::string text;
    for (const auto& each : client->events()) {
      CHECK_FALSE(each.contains("usage"));
      const auto& choice = each["choices"][0];
      text += choice.contains("delta") ? choice["delta"]["content"].get<std::string>()
                                       : choice["text"].get<std::string>();
    }
    CHECK(text == "a\"b\nc");
    CHECK(table.list(loop.now()).back().output_tokens == 5);
    table.give_up_all(draining);
    loop.run();
  }
}

TEST_CASE_FIXTURE(table_rig, "by text only such an engine goes on as can, from texts alone") {
  struct row {
    const char* body;
    bool knows;      ///< the other engine
    const char* why; ///< null: it goes on
  };
  config.wait_for_instance = std::chrono::milliseconds{0};
  for (auto [body, knows, why] :
       {row{R"({"messages":[{}]})", true, nullptr},
        row{R"({"messages":[{}]})", false, "it is not known whether it goes on with a text"},
        row{R"({"messages":[{}],"continue_final_message":true})", true, "'continue_final_message'"},
        row{R"({"messages":[{}],"truncate_prompt_tokens":7})", true, "'truncate_prompt_tokens'"},
        row{R"({"messages":[{}],"add_generation_prompt":false})", true, "'add_generation_prompt'"},
        row{R"({"messages":[{}],"input_ids":[1]})", true, "'input_ids'"},
        row{R"({"messages":[{}],"input_ids":null})", true, nullptr},
        row{R"({"messages":"x"})", true, "no text"}}) {
    CAPTURE(body);
    engines.put("e:1", {.address = "e:1", .continues_text = true});
    engines.put("e:2", {.address = "e:2", .continues_text = knows});
    relay::relay_request wish;
    wish.stream = true;
    auto client = open(wish, body);
    begin_stream();
    engine().on_end({errc::disconnected, "cut"});
    auto asked = pool.asked.size();
    place("e:2");
    CHECK(client->ended == (why != nullptr));
    CHECK(pool.asked.size() - asked == (why ? 0 : 1));
    if (why)
      CHECK(
        client->events().back()["error"]["message"].get<std::string>().find(why)
        != std::string::npos);
    table.give_up_all(draining);
    loop.run();
  }
}

TEST_CASE_FIXTURE(table_rig, "the client's body is not copied, also where ids are asked for") {
  struct row {
    bool stream, tells_ids;
    std::string_view rest;
  };
  for (auto [stream, tells_ids, rest] :
       {row{true, false, ""}, row{true, true, R"(,"return_token_ids":true})"},
        row{false, true, ""}}) {
    engines.put("e:1", {.address = "e:1", .token_ids = tells_ids});
    open(stream);
    place();
    const auto& asked = pool.asked.back();
    CHECK(asked.body_begin.text.data() == asked.body_begin.owner->data());
    CHECK(asked.body_begin.text == (rest.empty() ? R"({"model":"m"})" : R"({"model":"m")"));
    CHECK(asked.body == rest);
  }
}

} // namespace llumnix::testing
