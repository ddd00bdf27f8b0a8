#include "gateway/relay/asking.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {
namespace {

using nlohmann::json;

relay_request read(openai::endpoint kind, std::string_view body) {
  return std::get<relay_request>(request_reader{}.read(kind, body));
}

std::string text_of(std::string_view body, const asked_body& asked) {
  return std::string{body.substr(0, asked.body.kept)} + asked.body.rest;
}

engine_endpoint engine(bool ids, bool text, std::uint32_t context = 0) {
  return {.address = "e:1", .token_ids = ids, .continues_text = text, .context_tokens = context};
}

} // namespace

TEST_CASE("an engine that begins tells ids, or counts for the gateway, or is just asked") {
  struct row {
    std::string_view more; ///< of the client's body
    bool ids, text;        ///< what the engine can
    bool asks_ids, hides_usage;
  };
  for (auto [more, ids, text, asks_ids, hides_usage] :
       {row{R"("stream":true)", true, true, true, false},
        row{R"("stream":true)", false, true, false, true},
        row{R"("stream":true)", false, false, false, false},
        row{R"("stream":false)", true, true, false, false},
        row{R"("stream":false)", false, true, false, false},
        row{R"("stream":true,"logprobs":true)", false, true, false, false},
        row{R"("stream":true,"stop":["zz"])", false, true, false, false},
        row{R"("stream":true,"seed":1)", false, true, false, false},
        row{
          R"("stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})",
          false, true, false, false}}) {
    CAPTURE(more);
    CAPTURE(ids);
    CAPTURE(text);
    auto body = R"({"messages":[{"role":"user","content":"hi"}],)" + std::string{more} + "}";
    auto asked = ask_for(body, read(openai::endpoint::chat, body), {}, engine(ids, text));
    REQUIRE(asked);
    CHECK(asked->hides_usage == hides_usage);
    CHECK(asked->hides_ids == asks_ids);
    auto sent = json::parse(text_of(body, *asked));
    CHECK(sent.contains("return_token_ids") == asks_ids);
    if (hides_usage)
      CHECK(sent["stream_options"]["continuous_usage_stats"] == true);
    else if (!asks_ids)
      CHECK(asked->body.kept == body.size());
  }
}

TEST_CASE("asked for usage on each chunk, an engine sees what else the client's options say") {
  const std::string body
    = R"({"stream":true,"stream_options":{"x":{"a":[1.50]},"include_usage":false,"y":"z"},)"
      R"("messages":[{"role":"user","content":"hi"}]})";
  auto request = read(openai::endpoint::chat, body);
  const std::string options
    = R"("stream_options":{"x":{"a":[1.50]},"y":"z","include_usage":true,)"
      R"("continuous_usage_stats":true})";
  for (const auto& next :
       {resumption{}, resumption{resumption::from::text, {}, "so far", 2}}) {
    auto asked = ask_for(body, request, next, engine(false, true));
    REQUIRE(asked);
    CHECK(asked->hides_usage);
    CHECK(text_of(body, *asked).find(options) != std::string::npos);
  }
}

TEST_CASE("a body too large to be copied is not counted") {
  auto body = R"({"stream":true,"prompt":")" + std::string(1 << 20, 'x') + R"("})";
  auto asked = ask_for(body, read(openai::endpoint::completions, body), {}, engine(false, true));
  REQUIRE(asked);
  CHECK_FALSE(asked->hides_usage);
  CHECK(asked->body.kept == body.size());
}

TEST_CASE("who goes on does so by ids, or by the text, in the form that fits") {
  const std::string body
    = R"({"stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]})";
  auto request = read(openai::endpoint::chat, body);
  resumption by_ids{resumption::from::ids, {1, 2, 3}, {}, 1};
  auto asked = ask_for(body, request, by_ids, engine(true, true));
  REQUIRE(asked);
  CHECK_FALSE(asked->hides_usage);
  auto sent = json::parse(text_of(body, *asked));
  CHECK(sent["prompt"] == json{1, 2, 3});
  CHECK(sent["max_tokens"] == 8);

  resumption by_text{resumption::from::text, {}, "so far", 2};
  asked = ask_for(body, request, by_text, engine(false, true));
  REQUIRE(asked);
  CHECK(asked->hides_usage);
  sent = json::parse(text_of(body, *asked));
  CHECK(sent["messages"][1]["content"] == "so far");
  CHECK(sent["max_tokens"] == 7);

  const std::string odd = R"({"stream":true,"prompt":[1,2]})";
  CHECK(
    ask_for(odd, read(openai::endpoint::completions, odd), by_text, engine(false, true))
      .error()
      .code
    == errc::unsupported);
}

TEST_CASE("an engine that goes on behind all tokens is asked to hold nothing back") {
  using openai::endpoint;
  struct row {
    endpoint kind;
    std::string_view more; ///< of the client's body
    bool may;              ///< nothing but stop strings is shown by it
  };
  for (auto [kind, more, may] :
       {row{endpoint::chat, R"("user":"x")", true},
        row{endpoint::completions, R"("include_stop_str_in_output":false)", true},
        row{endpoint::completions, R"("include_stop_str_in_output":true)", true},
        row{endpoint::chat, R"("stop_token_ids":[],"skip_special_tokens":"yes")", true},
        row{endpoint::chat, R"("stop_token_ids":[3])", false},
        row{endpoint::chat, R"("skip_special_tokens":0)", false}}) {
    CAPTURE(more);
    auto body
      = R"({"stream":true,"max_tokens":9,"stop":["ab","\u20ac"],)" + std::string{more} + "}";
    auto request = read(kind, body);
    CHECK(request.stops == std::vector<std::string>{"ab", "\u20ac"});
    CHECK(request.may_show_stops == may);
    for (bool shows : {false, true}) {
      const resumption next{resumption::from::ids, {7, 8}, {}, 1, shows};
      auto asked = ask_for(body, request, next, engine(true, true));
      REQUIRE(asked);
      auto sent = json::parse(text_of(body, *asked));
      CHECK(sent["stop"] == json{"ab", "\u20ac"});
      auto given = json::parse(body).value("include_stop_str_in_output", json());
      CHECK(sent.value("include_stop_str_in_output", json()) == (shows ? json(true) : given));
    }
  }
  const auto* tokens = R"({"token_ids":[1],"sampling_params":{"stop":"ab"}})";
  CHECK_FALSE(read(endpoint::tokens, tokens).may_show_stops);
}

TEST_CASE("why an engine cannot go on from there") {
  struct row {
    bool chat;
    std::string_view limit;
    resumption::from where;
    bool text;
    std::uint32_t context;
    bool can;
  };
  using from = resumption::from;
  for (auto [chat, limit, where, text, context, can] :
       {row{true, "", from::scratch, false, 0, true}, row{true, "", from::ids, false, 0, false},
        row{true, "", from::ids, false, 4096, true},
        row{true, R"("max_tokens":5,)", from::ids, false, 0, true},
        row{false, "", from::ids, false, 0, true}, row{true, "", from::text, false, 4096, false},
        row{true, "", from::text, true, 0, true}, row{false, "", from::text, false, 0, true}}) {
    CAPTURE(chat);
    CAPTURE(context);
    auto kind = chat ? openai::endpoint::chat : openai::endpoint::completions;
    auto request = read(kind, "{" + std::string{limit} + R"("stream":true})");
    const resumption next{where, {}, {}, 0};
    bool by_ids = where == from::ids;
    CHECK(cannot_go_on(request, next, engine(by_ids, text, context)).empty() == can);
    if (by_ids)
      CHECK(cannot_go_on(request, next, engine(false, text, context)) == "it tells no token ids");
  }
}

TEST_CASE("a whole reply may have what it asks for, as far as the context reaches") {
  struct row {
    std::optional<std::uint32_t> max_tokens;
    std::uint32_t prompt, context, most;
  };
  for (auto [max_tokens, prompt, context, most] :
       {row{std::nullopt, 100, 0, 4096}, row{std::nullopt, 100, 2048, 1948},
        row{std::nullopt, 100, 131072, 4096}, row{10, 100, 2048, 10}, row{5000, 100, 2048, 1948},
        row{5000, 100, 0, 5000}, row{std::nullopt, 3000, 2048, 0}}) {
    relay_request request;
    request.max_tokens = max_tokens;
    request.prompt_tokens = prompt;
    CHECK(whole_reply_tokens(request, context) == most);
  }
}

} // namespace llumnix::relay
