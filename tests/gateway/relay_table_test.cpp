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

TEST_CASE_FIXTURE(table_rig, "how a reply ended is told in its engine's words, if they are words") {
  using row = std::pair<std::string, std::string>;
  for (const auto& [said, told] :
       {row{"length", "length"}, row{"tool_calls", "tool_calls"}, row{"a \\n b", "ended"},
        row{std::string(41, 'x'), "ended"}}) {
    CAPTURE(said);
    open(false);
    place();
    answer({200, {}, R"({"choices":[{"finish_reason":")" + said + R"("}]})"});
    CHECK(port.ended.back().outcome == told);
  }
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

TEST_CASE_FIXTURE(table_rig, "a relay wants an adapter if an engine lists its model as one") {
  engines.put("a", {.address = "h:1", .models = {"m", "sql"}, .adapters = {"sql"}});
  engines.put("b", {.address = "h:2", .models = {"m"}});
  CHECK(engines.is_adapter("sql"));
  CHECK_FALSE(engines.is_adapter("m")); // the model of both, not of an adapter
  CHECK_FALSE(engines.is_adapter("other"));
  CHECK_FALSE(engines.is_adapter(""));
  for (std::string model : {"sql", "m", ""}) {
    CAPTURE(model);
    auto body = R"({"model":")" + model + R"("})";
    auto wish
      = std::get<relay::relay_request>(relay::request_reader{}.read(openai::endpoint::chat, body));
    auto client = open(wish, body);
    CHECK(port.placed.back().wishes.adapter == (model == "sql" ? "sql" : ""));
  }
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
  CHECK(port.ended[0].outcome == "length");
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
