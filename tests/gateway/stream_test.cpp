#include "gateway_rig.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

const std::string head
  = R"(data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"modeled","choices":[)";

std::string event_of(const std::string& choice) {
  return head + choice + "]}\n\n";
}

} // namespace

TEST_CASE("an error after the first event ends the stream without [DONE]") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true,"n":2)");
  rig.give(0, ids_of("half"));
  rig.refuse(1, {errc::no_instance, "gave up"});
  CHECK(client->ended);
  CHECK(client->body.find("[DONE]") == std::string::npos);
  auto events = client->events();
  REQUIRE(events.size() == 2);
  CHECK(events[0]["choices"][0]["delta"]["content"] == "half");
  CHECK(events[1]["error"]["type"] == "service_unavailable");
  CHECK(events[1]["error"]["message"] == "gave up");
  CHECK(rig.cluster.aborted == std::vector<std::uint64_t>{rig.cluster.placed[0].stream.stream});
  CHECK(rig.streams.size() == 0);
  CHECK(rig.handler->open_sessions() == 0);
}

TEST_CASE("a chat stream is these bytes, one write per batch") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true)", {{"x-request-id", "r1"}});
  CHECK(client->status == 0); // the head waits for the first event
  rig.give(0, {512});
  CHECK(client->status == 200);
  CHECK(client->header("content-type") == "text/event-stream; charset=utf-8");
  CHECK(client->header("cache-control") == "no-cache");
  CHECK(client->header("x-accel-buffering") == "no");
  CHECK(client->header("x-request-id") == "r1");
  rig.add(0, {513});
  rig.add(0, {'"'});
  rig.deliver();
  CHECK(client->writes == 2);
  CHECK(client->flushes == 2);
  rig.give(0, {'!', byte_tokenizer::eos}, finish_reason::stop);
  CHECK(client->writes == 3);
  CHECK(client->ended);
  CHECK(
    client->body
    == event_of(
         R"({"index":0,"delta":{"role":"assistant","content":" bara"},"logprobs":null,"finish_reason":null})")
         + event_of(
           R"({"index":0,"delta":{"content":" bare"},"logprobs":null,"finish_reason":null})")
         + event_of(R"({"index":0,"delta":{"content":"\""},"logprobs":null,"finish_reason":null})")
         + event_of(R"({"index":0,"delta":{"content":"!"},"logprobs":null,"finish_reason":null})")
         + event_of(R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"})")
         + "data: [DONE]\n\n");
  CHECK(rig.handler->open_sessions() == 0);
}

TEST_CASE("a completion's end goes with its last text") {
  gateway_rig rig;
  auto client = rig.complete(R"(,"prompt":"pre","echo":true,"stream":true)");
  rig.give(0, ids_of("a"));
  rig.give(0, ids_of("b"), finish_reason::length);
  auto events = client->events();
  REQUIRE(events.size() == 3);
  CHECK(events[0]["object"] == "text_completion");
  CHECK(events[0]["choices"][0]["text"] == "pre");
  CHECK(events[1]["choices"][0]["text"] == "a");
  CHECK(events[1]["choices"][0]["finish_reason"].is_null());
  CHECK(events[2]["choices"][0]["text"] == "b");
  CHECK(events[2]["choices"][0]["finish_reason"] == "length");
  CHECK(client->body.ends_with("data: [DONE]\n\n"));
}

TEST_CASE("two choices share the stream, each with its role once and its own end") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true,"n":2,"stream_options":{"include_usage":true})");
  rig.add(0, ids_of("a"));
  rig.add(1, ids_of("x"));
  rig.deliver();
  CHECK(client->writes == 1);
  rig.add(1, ids_of("y"), finish_reason::stop);
  rig.add(0, ids_of("b"));
  rig.deliver();
  rig.give(0, ids_of("c"), finish_reason::length);
  std::string text[2], finish[2];
  int roles[2] = {0, 0};
  auto events = client->events();
  REQUIRE(events.back()["choices"].empty());
  CHECK(events.back()["usage"]["prompt_tokens"] == 6);
  CHECK(events.back()["usage"]["completion_tokens"] == 5);
  events.pop_back();
  for (const auto& event : events) {
    CHECK(event["usage"].is_null());
    CHECK(event.contains("usage"));
    auto choice = event["choices"][0];
    auto index = choice["index"].get<std::size_t>();
    roles[index] += choice["delta"].contains("role");
    text[index] += choice["delta"].value("content", "");
    if (!choice["finish_reason"].is_null())
      finish[index] += choice["finish_reason"].get<std::string>();
  }
  CHECK(text[0] == "abc");
  CHECK(text[1] == "xy");
  CHECK(finish[0] == "length");
  CHECK(finish[1] == "stop");
  CHECK(roles[0] == 1);
  CHECK(roles[1] == 1);
}

TEST_CASE("usage is on every chunk when asked for, and nowhere when not") {
  gateway_rig rig;
  auto with = rig.chat(
    R"(,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})");
  auto without = rig.chat(R"(,"stream":true,"stream_options":{"include_usage":false})");
  for (std::size_t request : {0u, 1u}) {
    rig.give(request, ids_of("a"));
    rig.give(request, ids_of("b"), finish_reason::length);
  }
  auto events = with->events();
  REQUIRE(events.size() == 4);
  std::vector<int> completion;
  for (const auto& event : events)
    completion.push_back(event["usage"]["completion_tokens"]);
  CHECK(completion == std::vector<int>{1, 2, 2, 2});
  CHECK(events[3]["choices"].empty());
  REQUIRE(without->events().size() == 3);
  for (const auto& event : without->events())
    CHECK_FALSE(event.contains("usage"));
}

TEST_CASE("a choice that ends without a word still has a role and an end") {
  gateway_rig rig;
  auto chat = rig.chat(R"(,"stream":true)");
  auto text = rig.complete(R"(,"prompt":"x","stream":true)");
  rig.give(0, {byte_tokenizer::eos}, finish_reason::stop);
  rig.give(1, {byte_tokenizer::eos}, finish_reason::stop);
  REQUIRE(chat->events().size() == 2);
  CHECK(
    chat->events()[0]["choices"][0]["delta"]
    == nlohmann::json{{"role", "assistant"}, {"content", ""}});
  CHECK(chat->events()[1]["choices"][0]["finish_reason"] == "stop");
  REQUIRE(text->events().size() == 1);
  CHECK(text->events()[0]["choices"][0]["finish_reason"] == "stop");
}

TEST_CASE("text held back makes no event until it is whole") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true)");
  rig.give(0, {0xE2});
  CHECK(client->status == 0);
  rig.give(0, {0x82});
  rig.give(0, {0xAC});
  REQUIRE(client->events().size() == 1);
  CHECK(client->events()[0]["choices"][0]["delta"]["content"] == "\u20ac");
}

TEST_CASE("streamed log-probabilities go with their tokens") {
  gateway_rig rig;
  auto chat = rig.chat(R"(,"stream":true,"logprobs":true)");
  auto text = rig.complete(R"(,"prompt":"x","stream":true,"logprobs":1)");
  for (std::size_t request : {0u, 1u}) {
    rig.add(request, {512}, finish_reason::none, {{-0.5f, {}}});
    rig.deliver();
    rig.add(request, {byte_tokenizer::eos}, finish_reason::stop, {{-0.25f, {}}});
    rig.deliver();
  }
  auto events = chat->events();
  REQUIRE(events.size() == 3);
  CHECK(events[0]["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5);
  CHECK(events[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.25);
  CHECK(events[2]["choices"][0]["logprobs"].is_null());
  events = text->events();
  REQUIRE(events.size() == 2);
  CHECK(events[1]["choices"][0]["logprobs"]["text_offset"] == nlohmann::json{5});
}

TEST_CASE("whatever ids come, every event is valid JSON and the text is the model's") {
  gateway_rig rig{{}};
  rig.max_model_len = 0;
  auto client = rig.complete(R"(,"prompt":"x","stream":true,"max_tokens":100000)");
  std::string expected;
  for (token_id id = 0; id < 128; ++id) {
    rig.give(0, {id});
    expected += static_cast<char>(id);
  }
  rig.give(0, {0xFF, 'x', 0xC3, byte_tokenizer::broken}, finish_reason::length);
  std::string text;
  for (const auto& event : client->events())
    text += event["choices"][0]["text"].get<std::string>();
  CHECK(text == expected + "\uFFFDx\uFFFD\u27c2");
}

TEST_CASE("credit follows what the kernel took") {
  gateway_rig rig{{.credit_window = 4}};
  auto client = rig.chat(R"(,"stream":true)");
  CHECK(rig.cluster.placed[0].credit == 4);
  rig.give(0, ids_of("ab"));
  REQUIRE(rig.cluster.grants.size() == 1);
  CHECK(rig.cluster.grants[0].second == 6);
  client->stall();
  rig.give(0, ids_of("cd"));
  rig.give(0, ids_of("ef"));
  CHECK(rig.cluster.grants.size() == 1); // nothing more for a client that does not read
  client->drain();
  REQUIRE(rig.cluster.grants.size() == 2);
  CHECK(rig.cluster.grants[1].second == 10);
  rig.give(0, ids_of("gh"));
  CHECK(rig.cluster.grants.back().second == 12);
}

TEST_CASE("a client that accepts nothing for too long is cut off") {
  gateway_rig rig{{.stalled_client = std::chrono::milliseconds{500}}};
  auto client = rig.chat(R"(,"stream":true)");
  rig.give(0, ids_of("a"));
  client->stall();
  rig.give(0, ids_of("b"));
  rig.loop.time += std::chrono::milliseconds{500};
  rig.handler->on_tick();
  rig.loop.run();
  CHECK_FALSE(client->abandoned);
  rig.loop.time += std::chrono::milliseconds{1};
  rig.handler->on_tick();
  rig.loop.run();
  CHECK(client->abandoned);
  CHECK(rig.cluster.outcomes == std::vector<std::string>{"cancelled"});
  CHECK(
    rig.cluster.failures
    == std::vector<error>{{errc::cancelled, "the client read nothing for too long"}});
  CHECK(rig.handler->open_sessions() == 0);
}

TEST_CASE("a client found gone while it is written to cancels its streams once the batch is done") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true,"n":2)");
  auto other = rig.chat(R"(,"stream":true)");
  client->leave_at_flush = true;
  rig.add(0, ids_of("a"));
  rig.add(1, ids_of("b"));
  rig.add(2, ids_of("c"));
  rig.deliver();
  CHECK(rig.cluster.outcomes == std::vector<std::string>{"cancelled", "cancelled"});
  CHECK(rig.handler->open_sessions() == 1);
  CHECK(other->events().size() == 1);
  CHECK_FALSE(client->ended);
}

TEST_CASE("a stop string in a stream is cut off and named in the last chunk") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"stream":true,"stop":"\n\n")");
  rig.give(0, ids_of("one\n"));
  rig.give(0, ids_of("\ntwo"));
  auto events = client->events();
  REQUIRE(events.size() == 2);
  CHECK(events[0]["choices"][0]["delta"]["content"] == "one");
  CHECK(events[1]["choices"][0]["finish_reason"] == "stop");
  CHECK(events[1]["choices"][0]["stop_reason"] == "\n\n");
  CHECK(client->body.ends_with("data: [DONE]\n\n"));
}

} // namespace llumnix::testing
