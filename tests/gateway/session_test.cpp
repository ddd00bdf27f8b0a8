#include "gateway_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix::testing {

TEST_CASE("a request that nobody can serve gets the failure's own status") {
  using row = std::pair<error, int>;
  for (const auto& [why, status] :
       {row{{errc::queue_full, "512 requests wait"}, 429},
        row{{errc::no_instance, "none is ready"}, 503},
        row{{errc::too_long, "prompt of 9 tokens"}, 400}, row{{errc::internal, "broken"}, 500}})
    for (const auto* stream : {"", R"(,"stream":true)"}) {
      gateway_rig rig;
      auto client = rig.chat(stream, {{"x-request-id", "r1"}});
      rig.refuse(0, why);
      CHECK(client->status == status);
      CHECK_FALSE(client->streaming);
      CHECK(client->header("content-type") == "application/json");
      CHECK(client->header("x-request-id") == "r1");
      CHECK(client->header("retry-after") == (status == 429 || status == 503 ? "1" : ""));
      CHECK(client->json()["error"]["message"] == why.context);
      CHECK(rig.handler->open_sessions() == 0);
      CHECK_FALSE(client->watched());
      CHECK(
        rig.metrics.text(rig.loop.now()).find("status_code=\"" + std::to_string(status) + "\"} 1")
        != std::string::npos);
    }
}

TEST_CASE("what the gateway gives up is told so, in the form that fits, and ends as failed") {
  gateway_rig rig;
  auto whole = rig.chat("");
  auto waiting = rig.chat(R"(,"stream":true)");
  auto begun = rig.chat(R"(,"stream":true,"n":2)");
  auto complete = rig.chat("");
  rig.give(2, ids_of("half"));
  rig.give(4, ids_of("all"), finish_reason::length);
  const error why{errc::draining, "the gateway stops"};
  rig.handler->give_up_all(why);
  rig.handler->give_up_all(why); // nothing is left, also not to be freed
  rig.loop.run();
  for (const auto& client : {whole, waiting}) {
    CHECK(client->status == 503);
    CHECK_FALSE(client->streaming);
    CHECK(client->json()["error"]["code"] == "draining");
    CHECK(client->json()["error"]["type"] == "service_unavailable");
    CHECK(client->header("retry-after") == "1");
  }
  CHECK(begun->ended);
  CHECK(begun->body.find("[DONE]") == std::string::npos);
  REQUIRE(begun->events().size() == 2);
  CHECK(begun->events()[1]["error"]["code"] == "draining");
  CHECK(begun->events()[1]["error"]["message"] == "the gateway stops");
  CHECK(complete->status == 200);
  CHECK(rig.handler->open_sessions() == 0);
  CHECK(rig.streams.size() == 0);
  CHECK(rig.cluster.aborted == std::vector<std::uint64_t>{rig.cluster.placed[2].stream.stream});
  CHECK(rig.cluster.withdrawn.size() == 3);
  CHECK(
    rig.cluster.outcomes
    == std::vector<std::string>{"length", "failed", "failed", "failed", "failed"});
  CHECK(std::count(rig.cluster.failures.begin(), rig.cluster.failures.end(), why) == 4);
  CHECK(rig.metrics.text(rig.loop.now()).find("status_code=\"503\"} 3") != std::string::npos);
}

TEST_CASE("one failed choice fails the request and the others are cancelled") {
  gateway_rig rig;
  auto client = rig.complete(R"(,"prompt":"x","n":3)");
  REQUIRE(rig.cluster.placed.size() == 3);
  rig.give(0, ids_of("done"), finish_reason::length);
  rig.refuse(1, {errc::no_instance, "gone"});
  CHECK(client->status == 503);
  CHECK(client->json()["error"]["code"] == "no_available_worker");
  CHECK(rig.cluster.withdrawn == std::vector<std::uint64_t>{rig.cluster.placed[2].stream.stream});
  CHECK(
    rig.cluster.failures.back() == error{errc::cancelled, "another choice of the request failed"});
  CHECK(rig.streams.size() == 0);
  CHECK(rig.handler->open_sessions() == 0);
}

TEST_CASE("a whole reply holds the text, its end and its usage") {
  gateway_rig rig;
  auto client = rig.chat("", {{"x-request-id", "r1"}});
  REQUIRE(rig.cluster.placed.size() == 1);
  const auto& placed = rig.cluster.placed[0];
  CHECK(placed.text_id == "r1");
  CHECK(placed.model == "modeled");
  CHECK(placed.prompt == std::vector<token_id>{256, 260, 'h', 'i', 263, 261});
  CHECK(placed.credit == inference_request::no_limit); // collected anyway
  CHECK(placed.sampling.max_tokens == 994);
  rig.add(0, {'a', '"', '\n'}, finish_reason::none, {}, 4);
  rig.deliver();
  CHECK(client->status == 0);
  rig.give(0, {512, byte_tokenizer::eos}, finish_reason::stop);
  CHECK(client->status == 200);
  CHECK(client->header("content-type") == "application/json");
  CHECK(client->header("x-request-id") == "r1");
  auto json = client->json();
  CHECK(json["id"] == "chatcmpl-r1");
  CHECK(json["object"] == "chat.completion");
  CHECK(
    json["choices"][0]["message"]
    == nlohmann::json{{"role", "assistant"}, {"content", "a\"\n bara"}});
  CHECK(json["choices"][0]["finish_reason"] == "stop");
  CHECK(json["usage"]["prompt_tokens"] == 6);
  CHECK(json["usage"]["completion_tokens"] == 5);
  CHECK(json["usage"]["total_tokens"] == 11);
  CHECK(json["usage"]["prompt_tokens_details"]["cached_tokens"] == 4);
  CHECK(rig.handler->open_sessions() == 0);
}

TEST_CASE("choices of several prompts are numbered prompt after prompt and sampled as if alone") {
  gateway_rig rig;
  auto client
    = rig.complete(R"(,"prompt":[[65],[66,67]],"n":2,"echo":true,"max_tokens":4,"min_tokens":1)");
  REQUIRE(rig.cluster.placed.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(rig.cluster.placed[i].sampling.choice == i % 2);
    CHECK(rig.cluster.placed[i].sampling.seed == rig.cluster.placed[0].sampling.seed);
    CHECK(rig.cluster.placed[i].prompt.size() == 1 + i / 2);
  }
  for (auto i : {3u, 1u, 0u, 2u})
    rig.give(i, ids_of(std::string(1, static_cast<char>('a' + i))), finish_reason::length);
  auto json = client->json();
  const char* texts[] = {"Aa", "Ab", "BCc", "BCd"};
  REQUIRE(json["choices"].size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(json["choices"][i]["index"] == i);
    CHECK(json["choices"][i]["text"] == texts[i]);
  }
  CHECK(json["usage"]["prompt_tokens"] == 3); // each prompt once
  CHECK(json["usage"]["completion_tokens"] == 4);
}

TEST_CASE("a seed is drawn where the client gave none") {
  gateway_rig rig;
  rig.chat(R"(,"seed":5)");
  rig.chat("");
  rig.chat("");
  CHECK(rig.cluster.placed[0].sampling.seed == 5);
  CHECK(rig.cluster.placed[1].sampling.seed != rig.cluster.placed[2].sampling.seed);
  gateway_rig same;
  same.chat(R"(,"seed":5)");
  same.chat("");
  CHECK(
    same.cluster.placed[1].sampling.seed
    == rig.cluster.placed[1].sampling.seed); // draws follow the handler's seed
}

TEST_CASE("a stop string ends a reply and is named") {
  gateway_rig rig;
  auto client = rig.complete(R"(,"prompt":"x","stop":["END"],"max_tokens":50)");
  rig.give(0, ids_of("some E"));
  rig.give(0, ids_of("ND more"));
  auto choice = client->json()["choices"][0];
  CHECK(choice["text"] == "some ");
  CHECK(choice["finish_reason"] == "stop");
  CHECK(choice["stop_reason"] == "END");
}

TEST_CASE("log-probabilities of a whole reply cover all of its tokens") {
  gateway_rig rig;
  auto chat = rig.chat(R"(,"logprobs":true,"top_logprobs":2)");
  auto text = rig.complete(R"(,"prompt":"x","logprobs":1)");
  CHECK(rig.cluster.placed[0].sampling.logprobs);
  CHECK(rig.cluster.placed[0].sampling.top_logprobs == 2);
  for (std::size_t request : {0u, 1u}) {
    rig.add(request, {512}, finish_reason::none, {{-0.5f, {{513, -1.0f}}}});
    rig.deliver();
    rig.add(request, {'y'}, finish_reason::length, {{-0.25f, {{514, -0.75f}}}});
    rig.deliver();
  }
  auto content = chat->json()["choices"][0]["logprobs"]["content"];
  REQUIRE(content.size() == 2);
  CHECK(content[0]["top_logprobs"].size() == 2);
  CHECK(content[1]["token"] == "y");
  auto logprobs = text->json()["choices"][0]["logprobs"];
  CHECK(logprobs["tokens"] == nlohmann::json{" bara", "y"});
  CHECK(logprobs["text_offset"] == nlohmann::json{0, 5});
  CHECK(logprobs["token_logprobs"] == nlohmann::json{-0.5, -0.25});
}

TEST_CASE("a client that leaves before its reply cancels its streams") {
  gateway_rig rig;
  auto client = rig.chat(R"(,"n":2)");
  client->leave();
  rig.loop.run();
  CHECK(rig.cluster.withdrawn.size() == 2);
  CHECK(rig.streams.size() == 0);
  CHECK(rig.handler->open_sessions() == 0);
  CHECK(client->status == 0);
  CHECK(rig.metrics.text(rig.loop.now()).find("status_code=\"499\"} 1") != std::string::npos);
}

TEST_CASE("a request's id is taken while it runs and free afterwards") {
  gateway_rig rig;
  auto first = rig.chat(R"(,"max_tokens":1)", {{"x-request-id", "job"}});
  auto second = rig.chat(R"(,"max_tokens":1)", {{"x-request-id", "job"}});
  rig.give(1, ids_of("b"), finish_reason::length);
  CHECK(second->json()["id"] == "chatcmpl-job-2");
  CHECK(second->header("x-request-id") == "job-2");
  rig.give(0, ids_of("a"), finish_reason::length);
  CHECK(first->json()["id"] == "chatcmpl-job");
  CHECK(rig.send("GET", "/health", {}, {{"x-request-id", "job"}})->header("x-request-id") == "job");
}

TEST_CASE("a handler that goes frees open sessions and cancels their streams") {
  gateway_rig rig;
  auto whole = rig.chat("");
  auto stream = rig.chat(R"(,"stream":true,"n":2)");
  rig.add(1, ids_of("a"));
  rig.deliver();
  stream->leave(); // its session waits for the loop to be freed
  rig.handler.reset();
  rig.loop.run();
  CHECK(rig.streams.size() == 0);
  CHECK_FALSE(whole->watched());
  CHECK(whole.use_count() == 1);
  CHECK(stream.use_count() == 1);
}

} // namespace llumnix::testing
