#include "relay_rig.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

/// What an engine held back for the sake of stop strings is asked of the one that goes on.
namespace llumnix::testing {
namespace {

using nlohmann::json;

const std::string body
  = R"({"model":"m","prompt":"hi","stream":true,"max_tokens":9,"stop":["xyz"],"temperature":1})";

std::string chunk(
  const char* id, std::vector<token_id> ids, const char* text, const char* finish = nullptr) {
  json choice{{"index", 0}, {"text", text}, {"token_ids", std::move(ids)}};
  choice["stop_reason"] = nullptr;
  choice["finish_reason"] = finish ? json(finish) : json();
  choice["prompt_token_ids"] = {7, 8};
  json event{{"id", id}, {"object", "text_completion"}, {"created", 1}, {"model", "m"}};
  event["choices"] = {choice};
  return "data: " + event.dump() + "\n\n";
}

struct recall_rig : table_rig {
  recall_rig() {
    for (const auto* each : {"e:1", "e:2", "e:3"})
      engines.put(each, {.address = each, .token_ids = true, .context_tokens = 100});
  }

  /// A stream of which four tokens were told, and the text of two shown, when its engine is lost.
  std::shared_ptr<fake_exchange> cut(const std::string& asked = body) {
    auto client
      = open(std::get<relay::relay_request>(
               relay::request_reader{}.read(openai::endpoint::completions, asked)),
             asked);
    place("e:1");
    say(chunk("a", {1}, "") + chunk("a", {2}, "") + chunk("a", {3}, "a") + chunk("a", {4}, "b"));
    engine().on_end({errc::disconnected, "cut"});
    place("e:2");
    return client;
  }
  const net::upstream_request& asked() const { return pool.asked.back(); }
  json asked_body() const {
    return json::parse(std::string{asked().body_begin.text} + asked().body);
  }
  void tell(int status, const std::string& text) {
    engine().on_head({status, {{"content-type", "application/json"}}, {}});
    engine().on_body(text);
    engine().on_end({errc::ok, {}});
  }
};

} // namespace

TEST_CASE_FIXTURE(
  recall_rig, "an engine that goes on is asked what was held back, and computes nothing again") {
  auto client = cut();
  CHECK(asked().address == "e:2");
  CHECK(asked().target == "/detokenize");
  CHECK(asked_body() == json{{"model", "m"}, {"tokens", {7, 8, 1, 2, 3, 4}}});
  tell(200, R"({"prompt":"hiabxy"})");
  CHECK(asked().target == "/v1/completions");
  CHECK(asked_body()["prompt"] == json{7, 8, 1, 2, 3, 4});
  CHECK(asked_body()["include_stop_str_in_output"] == true);
  CHECK(asked_body()["max_tokens"] == 5);
  say(chunk("b", {5}, "z!")); // with which "xyz" is complete
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "stop");
  CHECK(port.ended[0].output_tokens == 5);
  CHECK(pool.calls_open == 0);
  CHECK(client->body.find(R"("stop_reason":"xyz")") != std::string::npos);
  CHECK(client->body.ends_with("data: [DONE]\n\n"));
}

TEST_CASE_FIXTURE(recall_rig, "where it does not say so, some is computed again") {
  struct row {
    const char* what;
    std::function<void()> answer;
  };
  for (const auto& [what, answer] :
       {row{"no such route", [&] { tell(404, R"({"error":{}})"); }},
        row{"another text", [&] { tell(200, R"({"prompt":"hiacxy"})"); }},
        row{"half a character", [&] { tell(200, "{\"prompt\":\"hiabxy\uFFFD\"}"); }},
        row{"no JSON", [&] { tell(200, "abxy"); }}, row{"no text", [&] { tell(200, "{}"); }},
        row{"no connection", [&] { engine().on_end({errc::unreachable, "no"}); }},
        row{"silence", [&] {
              auto asked = pool.asked.size();
              table.sweep(loop.now() + std::chrono::milliseconds{900});
              CHECK(pool.asked.size() == asked);
              loop.time += std::chrono::milliseconds{1100};
              table.sweep(loop.now());
            }}}) {
    CAPTURE(what);
    auto client = cut();
    REQUIRE(asked().target == "/detokenize");
    answer();
    CHECK(asked().target == "/v1/completions");
    CHECK(asked().address == "e:2");
    CHECK_FALSE(asked_body().contains("include_stop_str_in_output"));
    CHECK(asked_body()["prompt"] == json{7, 8});
    CHECK(pool.calls_open == 1);
    table.give_up_all(draining);
    loop.run();
    CHECK(pool.calls_open == 0);
  }
}

TEST_CASE_FIXTURE(recall_rig, "with no text shown it is asked what the prompt alone reads") {
  const std::string body
    = R"({"prompt":"hi","stream":true,"stop":["vwxyz"],"max_tokens":9,"return_token_ids":true})";
  auto client
    = open(std::get<relay::relay_request>(
             relay::request_reader{}.read(openai::endpoint::completions, body)),
           body);
  place("e:1");
  say(chunk("a", {1}, "") + chunk("a", {2}, ""));
  engine().on_end({errc::disconnected, "cut"});
  place("e:2");
  CHECK(asked_body() == json{{"tokens", {7, 8}}});
  tell(200, R"({"prompt":"<hi>"})");
  CHECK(asked_body() == json{{"tokens", {7, 8, 1, 2}}});
  tell(200, R"({"prompt":"<hi> vw"})");
  CHECK(asked_body()["prompt"] == json{7, 8, 1, 2});
  say(chunk("b", {5}, "xyyy"));
  engine().on_end({errc::disconnected, "cut"}); // what is held back now the gateway knows
  place("e:3");
  CHECK(asked().target == "/v1/completions");
  CHECK(asked_body()["prompt"] == json{7, 8, 1, 2, 5});
  say(chunk("c", {6}, "!", "length") + "data: [DONE]\n\n");
  std::string text;
  for (const auto& event : client->events())
    text += event["choices"][0]["text"];
  CHECK(text == " vwxyyy!");
  CHECK(port.ended.back().outcome == "length");
}

TEST_CASE_FIXTURE(recall_rig, "an engine lost while it is asked is followed by another") {
  cut();
  REQUIRE(asked().target == "/detokenize");
  table.on_engine_lost("e:2");
  CHECK(pool.calls_open == 0);
  place("e:3");
  CHECK(asked().address == "e:3");
  CHECK(asked().target == "/detokenize");
  tell(200, R"({"prompt":"hiabxy"})");
  CHECK(asked_body()["include_stop_str_in_output"] == true);
  table.give_up_all(draining);
}

TEST_CASE_FIXTURE(recall_rig, "a client that leaves ends the question, too") {
  auto client = cut();
  REQUIRE(asked().target == "/detokenize");
  client->leave();
  CHECK(pool.calls_open == 0);
  CHECK(port.ended.back().outcome == "cancelled");
}

TEST_CASE_FIXTURE(recall_rig, "what shows no more than text is not asked for") {
  for (const char* more :
       {R"("stop":["xyz"],"temperature":0)", R"("stop":["xyz"],"stop_token_ids":[5])",
        R"("stop":["xyz"],"skip_special_tokens":false)", R"("stop":["xyz"],"min_tokens":5)",
        R"("stop":["x"])", R"("temperature":1)"}) {
    CAPTURE(more);
    cut(R"({"model":"m","prompt":"hi","stream":true,"max_tokens":9,)" + std::string{more} + "}");
    CHECK(asked().target == "/v1/completions");
    CHECK_FALSE(asked_body().contains("include_stop_str_in_output"));
    table.give_up_all(draining);
  }
}

TEST_CASE_FIXTURE(recall_rig, "an output that has ended is ended though its engine is lost") {
  for (bool usage : {false, true}) {
    CAPTURE(usage);
    auto asked = json::parse(body);
    if (usage)
      asked["stream_options"] = {{"include_usage", true}};
    auto client = open(
      std::get<relay::relay_request>(
        relay::request_reader{}.read(openai::endpoint::completions, asked.dump())),
      asked.dump());
    place("e:1");
    auto before = port.placed.size();
    say(chunk("a", {1}, "") + chunk("a", {2}, "abc", "stop"));
    engine().on_end({errc::disconnected, "cut"});
    CHECK(port.placed.size() == before);
    CHECK(port.ended.back().outcome == "stop");
    const std::string told
      = R"("usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2})";
    CHECK((client->body.find(told) != std::string::npos) == usage);
    CHECK(client->body.ends_with("data: [DONE]\n\n"));
  }
}

} // namespace llumnix::testing
