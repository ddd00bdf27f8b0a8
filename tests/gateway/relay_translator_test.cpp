#include "chunk_texts.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace llumnix::relay {

TEST_CASE("a completion's chunk goes on with a chat") {
  auto request = asked(endpoint::chat);
  CHECK(
    shown(request, chat_opening, text_token, "\"é\"\n")
    == event(
      R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
      R"("choices":[{"index":0,"delta":{"content":"\"é\"\n"},"logprobs":null,"finish_reason":null,)"
      R"("token_ids":null}]})"));
  CHECK(
    shown(request, chat_opening, text_end, "")
    == event(
      R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
      R"("choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length",)"
      R"("stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-0.32.0-5c217ed0"})"));
  CHECK(
    shown(asked(endpoint::chat, true), chat_opening, text_opening, "a")
    == event(
      R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
      R"("choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null,)"
      R"("token_ids":[68]}]})"));
  CHECK(shown(request, chat_opening, "[DONE]", "") == "data: [DONE]\n\n");
}

TEST_CASE("a completion's chunk goes on with another's") {
  constexpr std::string_view first
    = R"({"id":"cmpl-r1","object":"text_completion","created":17,"model":"tiny","choices":[],)"
      R"("system_fingerprint":"fp \u0031"})";
  CHECK(
    shown(asked(endpoint::completions), first, text_end, "x")
    == event(
      R"({"id":"cmpl-r1","object":"text_completion","created":17,"model":"tiny",)"
      R"("choices":[{"index":0,"text":"x","logprobs":null,"finish_reason":"length","stop_reason":null,)"
      R"("prompt_token_ids":null,"token_ids":null}],)"
      R"("system_fingerprint":"fp \u0031"})"));
  CHECK(
    shown(asked(endpoint::completions, true), first, text_opening, "a")
    == event(
      R"({"id":"cmpl-r1","object":"text_completion","created":17,"model":"tiny",)"
      R"("choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null,"stop_reason":null,)"
      R"("prompt_token_ids":null,"token_ids":[68]}]})"));
}

TEST_CASE("unknown fields of an engine that goes on are kept") {
  constexpr std::string_view data
    = R"({"x":{"a":[1.50,"\u0061"]},"choices":[{"y":1e0,"index":0,"text":"a","\u007a":[]}],"id":"b","prompt_token_ids":[1]})";
  CHECK(
    shown(asked(endpoint::chat), R"({"id":"a"})", data, "b")
    == event(
      R"({"x":{"a":[1.50,"\u0061"]},"choices":[{"y":1e0,"index":0,"delta":{"content":"b"},"z":[]}],"id":"a"})"));
  CHECK(
    shown(asked(endpoint::completions), R"({"id":null})", data, "b")
    == event(
      R"({"x":{"a":[1.50,"\u0061"]},"choices":[{"y":1e0,"index":0,"text":"b","z":[]}],"id":"b"})"));
  CHECK(shown(asked(endpoint::chat), "garbled", data, "").find(R"("id":"b")") != std::string::npos);
}

TEST_CASE("usage is that of the whole stream") {
  CHECK(
    shown(asked(endpoint::chat), chat_opening, usage_chunk, "")
    == event(
      R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny","choices":[],)"
      R"("usage":{"prompt_tokens":5,"total_tokens":45,"completion_tokens":40,)"
      R"("prompt_tokens_details":{"cached_tokens":5}},"system_fingerprint":"vllm-0.32.0-5c217ed0"})"));
  using row = std::pair<std::string_view, std::string_view>;
  for (auto [told, expected] :
       {row{"null", "null"}, row{"{}", "{}"},
        row{
          R"({"completion_tokens":3,"prompt_tokens_details":null,"x":{"prompt_tokens":1}})",
          R"({"completion_tokens":40,"prompt_tokens_details":null,"x":{"prompt_tokens":1}})"},
        row{
          R"({"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0}})",
          R"({"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0}})"},
        row{
          R"({"prompt_tokens_details":{"cached_tokens":null}})",
          R"({"prompt_tokens_details":{"cached_tokens":null}})"}})
    CHECK(
      shown(
        asked(endpoint::chat), "{}",
        R"({"choices":[{"index":0,"text":""}],"usage":)" + std::string{told} + "}", "")
      == event(
        R"({"choices":[{"index":0,"delta":{"content":""}}],"usage":)" + std::string{expected}
        + "}"));
}

TEST_CASE("log-probabilities take the form of the stream that began") {
  auto choice = [](std::string_view logprobs) {
    return with_choice(R"("index":0,"text":"ab","logprobs":)" + std::string{logprobs});
  };
  auto chat = [&](std::string_view logprobs, std::uint32_t top, std::size_t repeated = 0) {
    auto out = shown(asked(endpoint::chat, false, top), "{}", choice(logprobs), "", repeated);
    constexpr std::string_view before
      = R"(data: {"choices":[{"index":0,"delta":{"content":""},"logprobs":)";
    REQUIRE(out.starts_with(before));
    return out.substr(before.size(), out.size() - before.size() - 5);
  };
  constexpr std::string_view two
    = R"({"text_offset":[0,1],"token_logprobs":[-0.50,-1e-1],"tokens":["a","é"],)"
      R"("top_logprobs":[{"a":-0.50,"\n":-2,"c":-3},{"\u00e9":-1e-1,"x":-4}]})";
  CHECK(
    chat(two, 0)
    == R"({"content":[{"token":"a","logprob":-0.50,"bytes":[97],"top_logprobs":[]},)"
       R"({"token":"é","logprob":-1e-1,"bytes":[195,169],"top_logprobs":[]}]})");
  CHECK(
    chat(two, 2)
    == R"({"content":[{"token":"a","logprob":-0.50,"bytes":[97],"top_logprobs":[)"
       R"({"token":"a","logprob":-0.50,"bytes":[97]},{"token":"\n","logprob":-2,"bytes":[10]}]},)"
       R"({"token":"é","logprob":-1e-1,"bytes":[195,169],"top_logprobs":[)"
       R"({"token":"é","logprob":-1e-1,"bytes":[195,169]},{"token":"x","logprob":-4,"bytes":[120]}]}]})");
  CHECK(
    chat(two, 1, 1)
    == R"({"content":[{"token":"é","logprob":-1e-1,"bytes":[195,169],"top_logprobs":[)"
       R"({"token":"é","logprob":-1e-1,"bytes":[195,169]}]}]})");
  CHECK(chat(two, 2, translator::all) == "null");
  CHECK(chat("null", 2) == "null");
  using row = std::pair<std::string_view, std::string_view>;
  for (
    auto [told, expected] :
    {row{
       R"({"tokens":["a"],"token_logprobs":[null],"top_logprobs":null})",
       R"({"content":[{"token":"a","logprob":-9999.0,"bytes":[97],"top_logprobs":[]}]})"},
     row{
       R"({"tokens":["token_id:5"],"token_logprobs":[-1],"top_logprobs":[{"token_id:5":-1}]})",
       R"({"content":[{"token":"token_id:5","logprob":-1,"bytes":null,"top_logprobs":[)"
       R"({"token":"token_id:5","logprob":-1,"bytes":[116,111,107,101,110,95,105,100,58,53]}]}]})"},
     row{
       R"({"tokens":["",""],"token_logprobs":[-1,-2],"top_logprobs":[null,{"b":-3}]})",
       R"({"content":[{"token":"","logprob":-1,"bytes":[],"top_logprobs":[]},)"
       R"({"token":"","logprob":-2,"bytes":[],"top_logprobs":[{"token":"b","logprob":-3,"bytes":[98]}]}]})"},
     row{R"({"tokens":[],"token_logprobs":[],"top_logprobs":[]})", R"({"content":[]})"},
     row{
       R"({"tokens":["a","b"],"token_logprobs":[-1],"top_logprobs":[]})",
       R"({"content":[{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}]})"},
     row{R"({"tokens":[1],"token_logprobs":[-1]})", R"({"content":[]})"},
     row{R"({"tokens":"a","token_logprobs":[-1]})", "null"}, row{R"({"tokens":["a"]})", "null"},
     row{"{}", "null"}, row{"[1]", "null"}, row{"5", "null"}})
    CHECK(chat(told, 1) == expected);

  auto text = [&](std::string_view logprobs, std::size_t repeated = 0) {
    return shown(asked(endpoint::completions), "{}", choice(logprobs), "ab", repeated);
  };
  CHECK(
    text(two)
    == event(choice(R"({"text_offset":[100,101],"token_logprobs":[-0.50,-1e-1],"tokens":["a","é"],)"
                    R"("top_logprobs":[{"a":-0.50,"\n":-2,"c":-3},{"\u00e9":-1e-1,"x":-4}]})")));
  CHECK(
    text(two, 1)
    == event(choice(R"({"text_offset":[101],"token_logprobs":[-1e-1],"tokens":["é"],)"
                    R"("top_logprobs":[{"\u00e9":-1e-1,"x":-4}]})")));
  CHECK(text(two, translator::all) == event(choice("null")));
  CHECK(
    text(R"({"text_offset":[5,null,-1,1.5,"2"],"x":1})")
    == event(choice(R"({"text_offset":[105,null,-1,1.5,"2"],"x":1})")));
  for (auto same : {"null", R"({"text_offset":null})", "[]", R"({"text_offset":[]})"})
    CHECK(text(same) == event(choice(same)));
}

TEST_CASE("tokens that go by their ids keep their bytes") {
  auto request = asked(endpoint::chat);
  request.tokens_as_ids = true;
  constexpr std::string_view data
    = R"({"choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","é","token_id:9"],)"
      R"("token_logprobs":[-1,-2,-3]},"token_ids":[68,69,9]}]})";
  auto content = nlohmann::json::parse(
    data_of(shown(request, "{}", data, "ab", 1)))["choices"][0]["logprobs"]["content"];
  REQUIRE(content.size() == 2);
  CHECK(content[0]["token"] == "token_id:69");
  CHECK(content[0]["bytes"] == nlohmann::json({195, 169}));
  CHECK(content[1]["token"] == "token_id:9"); // an engine that does so by itself
  CHECK(content[1]["bytes"].is_null());
  // Fewer ids than tokens, and choices that come twice: no harm.
  for (
    const auto* odd :
    {R"({"choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[-1,-2]},"token_ids":[68]}]})",
     R"({"choices":[{"index":0,"text":"ab","logprobs":{"tokens":["a"],"token_logprobs":[-1]}}],"choices":[]})"})
    CHECK(shown(request, "{}", odd, "ab").find("logprobs") != std::string::npos);
}

TEST_CASE("a usage that the client did not ask for is left out, but not where it is all") {
  using row = std::pair<std::string_view, std::string_view>;
  chunk_reader reader;
  for (
    auto [data, left] :
    {row{
       R"({"id":"x","choices":[{"index":0,"text":"a"}],"usage":{"completion_tokens":3}})",
       R"({"id":"x","choices":[{"index":0,"text":"a"}]})"},
     row{
       R"({"usage": {"completion_tokens":3} , "choices":[{"token_ids":[1],"index":0,"text":"a"}]})",
       R"({"choices":[{"token_ids":[1],"index":0,"text":"a"}]})"},
     row{
       R"({"a":1,"usage":null,"prompt_token_ids":[2],"choices":[{"index":0,"delta":{}}],"b":2})",
       R"({"a":1,"prompt_token_ids":[2],"choices":[{"index":0,"delta":{}}],"b":2})"},
     row{
       R"({"choices":[],"usage":{"completion_tokens":3}})",
       R"({"choices":[],"usage":{"completion_tokens":3}})"}}) {
    CAPTURE(data);
    auto read = reader.read(data, true);
    REQUIRE(read.has_value());
    CHECK((*read)->usage.has_value() == (data.find("null") == std::string_view::npos));
    CHECK(reader.event() == left);
    std::string out;
    reader.append_as_sent(out, false);
    CHECK(out == event(left));
    out.clear();
    translator{asked(endpoint::completions), "{}"}.append(
      out, reader, "z", {1, 2, 3}, 0, translator::all);
    CHECK(
      (out.find("usage") == std::string::npos) == (left.find("usage") == std::string_view::npos));
  }
}

TEST_CASE("tokens shown before are left out") {
  CHECK(
    shown(
      asked(endpoint::completions, true), "{}",
      R"({"choices":[{"index":0,"text":"ab","token_ids":[68,69,70]}]})", "b", 2)
    == event(R"({"choices":[{"index":0,"text":"b","token_ids":[70]}]})"));
  constexpr std::string_view data
    = R"({"choices":[{"index":0,"text":"a","logprobs":{},"token_ids":[68]}]})";
  CHECK(
    shown(asked(endpoint::completions, true), "{}", data, "", translator::all)
    == event(R"({"choices":[{"index":0,"text":"","logprobs":null,"token_ids":null}]})"));
  CHECK(
    shown(asked(endpoint::chat), "{}", data, "", translator::all)
    == event(
      R"({"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"token_ids":null}]})"));
}

TEST_CASE("a stop string that the engine does not know of ends an output in the event it ends in") {
  constexpr std::string_view data
    = R"({"id":"b","choices":[{"index":0,"text":"xy","finish_reason":null,"stop_reason":null}]})";
  const std::string end = R"(,"finish_reason":"stop","stop_reason":"y\"z"}]})";
  for (auto [kind, choice] :
       {std::pair{endpoint::completions, R"("text":"x")"},
        {endpoint::chat, R"("delta":{"content":"x"})"}}) {
    chunk_reader reader;
    understood(reader, data);
    std::string out;
    translator{asked(kind), R"({"id":"a"})"}.append(out, reader, "x", {}, 0, 0, "y\"z");
    CHECK(out == event(R"({"id":"a","choices":[{"index":0,)" + std::string{choice} + end));
  }
}

TEST_CASE("a usage that no engine says is told as the stream's own") {
  const std::string usage
    = R"("choices":[],"usage":{"prompt_tokens":5,"total_tokens":9,"completion_tokens":4}})";
  for (auto [kind, first, head] :
       {std::tuple{
          endpoint::chat, chat_opening,
          R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,)"
          R"("model":"tiny",)"},
        {endpoint::completions, text_opening,
         R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b",)"},
        {endpoint::completions, std::string_view{"{}"}, R"({"object":"text_completion",)"}}) {
    std::string out;
    translator{asked(kind), first}.append_usage(out, {5, 4, 0});
    CHECK(out == event(head + usage));
  }
}

} // namespace llumnix::relay
