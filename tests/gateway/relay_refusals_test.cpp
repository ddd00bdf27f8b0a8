#include "relay_rig.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

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
          "gave up after 1 attempt at 1 engine: the engine sent what is no chunk: byte 2 of an event: "
          "no chunk of a stream",
          502},
        row{
          "data: [DONE]\n\n",
          "gave up after 1 attempt at 1 engine: the engine ended the stream before its output",
          502}}) {
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

TEST_CASE_FIXTURE(
  table_rig, "an engine that says too much at once is left, though it began well") {
  engines.put("e:2", {.address = "e:2"});
  relay::relay_request wish;
  wish.model = "m";
  wish.stream = true;
  wish.max_tokens = 2;
  std::string too_much;
  for (int i = 0; i < 80; ++i)
    too_much += event;
  auto client = open(wish, R"({"model":"m","max_tokens":2})");
  place();
  auto before = port.placed.size();
  say(too_much); // in one read: nothing of it was shown
  CHECK(port.placed.size() == before + 1);
  CHECK(client->status == 0);
  CHECK(port.loads.back().why.find("more than it was asked for") != std::string::npos);
  place("e:2");
  say(event);
  CHECK(client->status == 200);
  auto shown = client->body;
  CHECK(shown.find("hi") == shown.rfind("hi"));
  say(too_much); // now the client has some
  CHECK(port.placed.size() == before + 1);
  CHECK(client->body.find("more than it was asked for") != std::string::npos);
  CHECK(client->body.find("[DONE]") == std::string::npos);
}

TEST_CASE_FIXTURE(table_rig, "an engine's answer that is too long is no fault of the client's") {
  auto client = open(false);
  config.max_placements = 1;
  place();
  engine().on_head({200, {}, {}});
  engine().on_end({errc::too_long, "too long"});
  CHECK(client->status == 502);
}

TEST_CASE_FIXTURE(
  table_rig, "an engine that has unloaded an adapter it listed is passed over, and asked anew") {
  std::vector<std::function<void()>> asked;
  table.services().ask_models = [&](std::function<void()> answered) {
    asked.push_back(std::move(answered));
  };
  auto lists = [&](const char* engine, std::vector<std::string> models) {
    engines.put(engine, {.address = engine, .models = std::move(models)});
  };
  const net::http_reply unknown{404, {{"content-type", "application/json"}}, R"({"error":{}})"};
  for (bool stream : {true, false}) {
    for (bool loaded_elsewhere : {true, false}) {
      lists("e:1", {"m"});
      lists("e:2", {"m"});
      asked.clear();
      auto client = open(stream);
      auto before = port.placed.size();
      place();
      answer(unknown);
      CHECK(client->status == 0);
      REQUIRE(port.placed.size() == before + 1);
      CHECK(port.excluded.back() == std::vector<instance_id>{"e:1"});
      CHECK(engines.find("e:1")->rest_end() <= loop.now()); // it is well
      CHECK(asked.empty());
      place("e:2");
      answer(unknown); // nobody else lists it, but who knows
      CHECK(client->status == 0);
      REQUIRE(asked.size() == 1);
      CHECK(port.placed.size() == before + 1);
      lists("e:2", {"other"});
      lists("e:1", {loaded_elsewhere ? "m" : "other"});
      asked.front()();
      if (!loaded_elsewhere) {
        CHECK(client->status == 404);
        CHECK(client->body == unknown.body);
        continue;
      }
      REQUIRE(port.placed.size() == before + 2);
      place("e:1");
      if (stream)
        say(event);
      else
        answer({200, {}, whole});
      CHECK(client->status == 200);
    }
  }
  // One that never listed it is believed.
  lists("e:1", {});
  auto client = open(true);
  place();
  answer(unknown);
  CHECK(client->status == 404);
}

TEST_CASE_FIXTURE(
  table_rig, "an engine that forgets a model it lists again and again is believed in the end") {
  engines.put("e:1", {.address = "e:1", .models = {"m"}});
  table.services().ask_models = [&](std::function<void()> answered) {
    loop.post(std::move(answered));
  };
  auto client = open(true);
  for (int i = 0; i < 10 && client->status == 0; ++i) {
    place();
    answer({404, {}, "{}"});
    loop.run();
  }
  CHECK(client->status == 404);
  CHECK(pool.asked.size() == 4);
}

TEST_CASE_FIXTURE(table_rig, "a whole reply with fewer outputs than were asked for is none") {
  engines.put("e:2", {.address = "e:2"});
  const std::string body = R"({"model":"m","n":2})";
  auto wish
    = std::get<relay::relay_request>(relay::request_reader{}.read(openai::endpoint::chat, body));
  auto client = open(wish, body);
  place();
  answer({200, {}, whole});
  CHECK(client->status == 0);
  CHECK(port.loads.back().why == "the engine was asked for 2 outputs, and its reply holds 1");
  place("e:2");
  answer(
    {200,
     {},
     R"({"id":"x","choices":[{"text":"a","finish_reason":"stop"},{"text":"b","finish_reason":"stop"}]})"});
  CHECK(client->status == 200);
}

} // namespace llumnix::testing
