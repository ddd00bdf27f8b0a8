#include "gateway/openai/api_error.hpp"
#include "gateway/openai/chunks.hpp"
#include "gateway/openai/json_text.hpp"
#include "gateway/openai/logprobs.hpp"
#include "gateway/openai/replies.hpp"
#include "runtime/serving/byte_tokenizer.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <string>

namespace llumnix::openai {
namespace {

std::string json_of(std::string_view text) {
  std::string out;
  append_quoted(out, text);
  return out;
}

const reply_head chat_head{endpoint::chat, "r1", "modeled", 1700000000};
const reply_head text_head{endpoint::completions, "r1", "modeled", 1700000000};
const std::string chat_prefix
  = R"(data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"modeled","choices":[)";
const std::string text_prefix
  = R"(data: {"id":"cmpl-r1","object":"text_completion","created":1700000000,"model":"modeled","choices":[)";
const std::string counted_usage
  = R"({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1},)"
    R"("completion_tokens_details":{"reasoning_tokens":0}})";

std::string event(const reply_head& head, chunk_writer::usage_field field, const chunk& x) {
  std::string out;
  chunk_writer{head, field}.write(out, x, {3, 2, 1});
  return out;
}

} // namespace

TEST_CASE("text is escaped so that JSON gives it back") {
  std::string every;
  for (int byte = 0; byte < 128; ++byte)
    every += static_cast<char>(byte);
  for (const auto& text :
       {every, std::string{"\"\\/\b\f\n\r\t\0x", 9},
        std::string{"a\u00e9\u20ac\U0001F600\u2028 \u27c2"},
        std::string{"\xF4\x8F\xBF\xBF\xED\x9F\xBF\xC2\x80"}}) {
    CAPTURE(text);
    CHECK(nlohmann::json::parse(json_of(text)).get<std::string>() == text);
  }
  CHECK(json_of("a\n\x01\"") == R"("a\n\u0001\"")");
  CHECK(json_of("\u20ac") == "\"\u20ac\""); // raw UTF-8 stays
}

TEST_CASE("bytes that are no UTF-8 become U+FFFD each") {
  constexpr auto mark = "\uFFFD";
  using row = std::pair<std::string, int>; // bytes, replacements
  for (const auto& [bytes, count] :
       {row{"\x80", 1}, row{"\xC0\x80", 2}, row{"\xC2", 1}, row{"\xE2\x82", 2},
        row{"\xED\xA0\x80", 3}, row{"\xE0\x80\x80", 3}, row{"\xF0\x80\x80\x80", 4},
        row{"\xF4\x90\x80\x80", 4}, row{"\xF5\x80", 2}, row{"\xFF", 1}, row{"\xF0\x9F\x98", 3}}) {
    CAPTURE(bytes);
    std::string expected = "x";
    for (int i = 0; i < count; ++i)
      expected += mark;
    CHECK(nlohmann::json::parse(json_of("x" + bytes + "y")).get<std::string>() == expected + "y");
  }
}

TEST_CASE("log-probabilities read back to the same value") {
  using row = std::pair<float, std::string>;
  for (const auto& [value, text] :
       {row{0.0f, "0.0"}, row{-0.0f, "0.0"}, row{-1.0f, "-1.0"}, row{-3.99609375f, "-3.99609375"},
        row{-0.25f, "-0.25"}, row{-std::numeric_limits<float>::infinity(), "-9999.0"},
        row{std::numeric_limits<float>::quiet_NaN(), "-9999.0"}}) {
    std::string out;
    append_logprob(out, value);
    CHECK(out == text);
  }
}

TEST_CASE("chat chunks are these bytes") {
  using field = chunk_writer::usage_field;
  CHECK(
    event(chat_head, field::absent, {.index = 0, .text = "a\"b", .first = true})
    == chat_prefix
         + R"({"index":0,"delta":{"role":"assistant","content":"a\"b"},"logprobs":null,"finish_reason":null}]})"
         + "\n\n");
  CHECK(
    event(chat_head, field::null, {.index = 12, .text = " x"})
    == chat_prefix
         + R"({"index":12,"delta":{"content":" x"},"logprobs":null,"finish_reason":null}],"usage":null})"
         + "\n\n");
  CHECK(
    event(
      chat_head, field::counted, {.index = 0, .finish = finish_reason::stop, .stop_match = "\n"})
    == chat_prefix
         + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"\n"}],"usage":)"
         + counted_usage + "}\n\n");
  CHECK(
    event(chat_head, field::absent, {.index = 0, .finish = finish_reason::length})
    == chat_prefix + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})"
         + "\n\n");
}

TEST_CASE("completion chunks are these bytes") {
  using field = chunk_writer::usage_field;
  CHECK(
    event(
      text_head, field::absent,
      {.index = 1, .text = "hi", .first = true, .finish = finish_reason::length})
    == text_prefix + R"({"index":1,"text":"hi","logprobs":null,"finish_reason":"length"}]})"
         + "\n\n");
  CHECK(
    event(text_head, field::absent, {.index = 0, .text = "hi", .logprobs = "{}"})
    == text_prefix + R"({"index":0,"text":"hi","logprobs":{},"finish_reason":null}]})" + "\n\n");
}

TEST_CASE("a stream ends with its usage, if asked for, and [DONE]") {
  std::string out;
  chunk_writer{chat_head, chunk_writer::usage_field::null}.write_usage(out, {3, 2, 1});
  chunk_writer::write_done(out);
  CHECK(out == chat_prefix + R"(],"usage":)" + counted_usage + "}\n\ndata: [DONE]\n\n");
}

TEST_CASE("whole replies are these bytes") {
  byte_tokenizer words;
  logprob_writer writer{words};
  std::vector<whole_choice> choices{
    {"a\n", {}, {}, finish_reason::stop, "x"}, {"b", {}, {}, finish_reason::length, ""}};
  CHECK(
    render_reply(chat_head, choices, {3, 2, 1}, false, 0, writer)
    == R"({"id":"chatcmpl-r1","object":"chat.completion","created":1700000000,"model":"modeled","choices":[)"
       R"({"index":0,"message":{"role":"assistant","content":"a\n"},"logprobs":null,"finish_reason":"stop","stop_reason":"x"},)"
       R"({"index":1,"message":{"role":"assistant","content":"b"},"logprobs":null,"finish_reason":"length"}],"usage":)"
         + counted_usage + "}");
  CHECK(
    render_reply(text_head, std::span{choices}.subspan(1), {3, 2, 1}, false, 0, writer)
    == R"({"id":"cmpl-r1","object":"text_completion","created":1700000000,"model":"modeled","choices":[)"
       R"({"index":0,"text":"b","logprobs":null,"finish_reason":"length"}],"usage":)"
         + counted_usage + "}");
}

TEST_CASE("chat log-probabilities list the likeliest tokens, the one taken among them") {
  byte_tokenizer words;
  logprob_writer writer{words};
  std::vector<token_id> tokens{512, 0xE2};
  std::vector<token_logprob> logprobs{
    {-0.5f, {{513, -1.0f}, {514, -1.5f}}}, {-2.0f, {{65, -1.0f}}}};
  std::string out;
  writer.chat(out, tokens, logprobs, 2);
  auto json = nlohmann::json::parse(out)["content"];
  REQUIRE(json.size() == 2);
  CHECK(json[0]["token"] == " bara");
  CHECK(json[0]["logprob"] == -0.5);
  CHECK(json[0]["bytes"] == nlohmann::json{32, 98, 97, 114, 97});
  REQUIRE(json[0]["top_logprobs"].size() == 2);
  CHECK(json[0]["top_logprobs"][0]["token"] == " bara");
  CHECK(json[0]["top_logprobs"][1]["logprob"] == -1.0);
  CHECK(json[1]["token"] == "\uFFFD");
  CHECK(json[1]["bytes"] == nlohmann::json::array({0xE2}));
  CHECK(json[1]["top_logprobs"][0]["token"] == "A"); // likelier than the token taken
  CHECK(json[1]["top_logprobs"][1]["logprob"] == -2.0);

  out.clear();
  writer.chat(out, std::span{tokens}.first(1), std::span{logprobs}.first(1), 0);
  CHECK(
    out
    == R"({"content":[{"token":" bara","logprob":-0.5,"bytes":[32,98,97,114,97],"top_logprobs":[]}]})");
}

TEST_CASE("completion log-probabilities count their offsets in characters") {
  byte_tokenizer words;
  logprob_writer writer{words};
  std::vector<token_id> tokens{512, 0xC3, 0xA9, 'x'};
  std::vector<token_logprob> logprobs(4, token_logprob{-1.0f, {{600, -1.5f}}});
  std::string out;
  std::uint64_t offset = 10;
  writer.completion(out, tokens, logprobs, 1, offset);
  auto json = nlohmann::json::parse(out);
  CHECK(json["text_offset"] == nlohmann::json{10, 15, 16, 16});
  CHECK(json["tokens"][0] == " bara");
  CHECK(json["token_logprobs"] == nlohmann::json{-1.0, -1.0, -1.0, -1.0});
  CHECK(json["top_logprobs"][0] == nlohmann::json{{" bara", -1.0}});
  CHECK(offset == 17);
  out.clear();
  writer.completion(out, tokens, logprobs, 0, offset);
  CHECK(nlohmann::json::parse(out)["top_logprobs"].is_null());
}

TEST_CASE("failures of the cluster have a status, a type and a code") {
  struct row {
    errc code;
    int status;
    std::string type, name;
  };
  for (const auto& [code, status, type, name] :
       {row{errc::invalid_argument, 400, "invalid_request_error", "invalid_value"},
        row{errc::too_long, 400, "invalid_request_error", "context_length_exceeded"},
        row{errc::queue_full, 429, "rate_limit_error", "queue_full"},
        row{errc::no_instance, 503, "service_unavailable", "no_available_worker"},
        row{errc::draining, 503, "service_unavailable", "draining"},
        row{errc::timeout, 504, "timeout_error", "timeout"},
        row{errc::internal, 500, "internal_error", "internal_error"}}) {
    auto reply = error_reply(to_api_error({code, "why \"so\""}), "r1");
    CHECK(reply.status == status);
    auto json = nlohmann::json::parse(reply.body)["error"];
    CHECK(json["type"] == type);
    CHECK(json["code"] == name);
    CHECK(json["message"] == "why \"so\"");
    CHECK(json["param"].is_null());
    auto retry = std::find(
      reply.headers.begin(), reply.headers.end(),
      std::pair<std::string, std::string>{"retry-after", "1"});
    CHECK((retry != reply.headers.end()) == (status == 429 || status == 503));
  }
  CHECK(
    render_error({400, "invalid_type", "m", "n"})
    == R"({"error":{"message":"m","type":"invalid_request_error","param":"n","code":"invalid_type"}})");
}

} // namespace llumnix::openai
