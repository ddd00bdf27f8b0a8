#include "gateway/relay/whole_reply.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <utility>

namespace llumnix::relay {

TEST_CASE("of a whole reply the gateway reads usage and whether its choices came to their ends") {
  struct row {
    const char* body;
    errc code;
    std::uint64_t prompt = 0;
    std::uint64_t completion = 0;
  };
  for (
    const auto& [body, code, prompt, completion] : {
      row{
        R"({"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":6,"x":[1]}})",
        errc::ok, 5, 6},
      row{
        R"({"choices":[{"finish_reason":"stop"},{"index":1,"finish_reason":"abort"}]})",
        errc::disconnected},
      row{R"({"choices":[{"text":"abort","finish_reason":"length"}]})", errc::ok},
      row{
        R"({"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":-1,"completion_tokens":99999999999999999999}})",
        errc::ok},
      row{R"({"choices":[{"finish_reason":"stop"}],"usage":null})", errc::ok},
      row{R"({"choices":[{"text":"half","finish_reason":null}]})", errc::bad_message},
      row{R"({"choices":[{"text":"half","finish_reason":""}]})", errc::bad_message},
      row{R"({"choices":[{"text":"half","finish_reason":7}]})", errc::bad_message},
      row{R"({"choices":[{"text":"half"}]})", errc::bad_message},
      row{R"({"choices":[{"finish_reason":"stop"},{"finish_reason":null}]})", errc::bad_message},
      row{R"({"choices":[{"finish_reason":"stop"},null]})", errc::bad_message},
      row{R"({"choices":[3,"abort",null]})", errc::bad_message},
      row{R"({"choices":[]})", errc::bad_message},
      row{R"({"choices":{"finish_reason":"abort"},"usage":null})", errc::bad_message},
      row{R"({"object":"list"})", errc::bad_message},
      row{R"({"error":{"message":"x"}})", errc::bad_message},
      row{R"({})", errc::bad_message},
      row{R"({"a":)", errc::bad_message},
      row{R"({"a":1}})", errc::bad_message},
      row{R"([])", errc::bad_message},
      row{"", errc::bad_message},
    }) {
    CAPTURE(body);
    auto read = read_whole_reply(body);
    CHECK((read ? errc::ok : read.error().code) == code);
    if (read) {
      CHECK(read->usage.value_or(openai::usage{}).prompt_tokens == prompt);
      CHECK(read->usage.value_or(openai::usage{}).completion_tokens == completion);
    }
  }
}

TEST_CASE("of a whole reply the last choice says how it ended") {
  auto read = read_whole_reply(
    R"({"choices":[{"finish_reason":"stop"},{"finish_reason":"length","index":1}]})");
  REQUIRE(read);
  CHECK(read->finish_reason == "length");
}

TEST_CASE("of a whole reply only its engine knows when its first token came") {
  using us = std::chrono::microseconds;
  using row = std::pair<const char*, std::optional<nanoseconds>>;
  for (const auto& [metrics, told] :
       {row{R"({"queue_time_ms":1,"time_to_first_token_ms":85.25})", us{85'250}},
        row{R"({"time_to_first_token_ms":0})", us{0}},
        row{R"({"time_to_first_token_ms":2e1})", us{20'000}},
        row{R"({"time_to_first_token_ms":null})", {}},
        row{R"({"time_to_first_token_ms":-1})", {}},
        row{R"({"time_to_first_token_ms":"85"})", {}},
        row{R"({"time_to_first_token_ms":1e99})", {}},
        row{R"({"time_to_first_token_ms":{"a":1}})", {}},
        row{R"({"generation_time_ms":9})", {}},
        row{"{}", {}}, row{"null", {}}, row{"[7]", {}}}) {
    CAPTURE(metrics);
    auto read = read_whole_reply(
      R"({"choices":[{"finish_reason":"stop"}],"metrics":)" + std::string{metrics} + "}");
    REQUIRE(read.has_value());
    CHECK(read->first_token == told);
  }
}

TEST_CASE("a reply cut anywhere is no reply") {
  const std::string body
    = R"({"choices":[{"message":{"content":"a\u20acb"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5}})";
  for (std::size_t size = 0; size < body.size(); ++size)
    CHECK_FALSE(read_whole_reply(std::string_view{body}.substr(0, size)).has_value());
}

} // namespace llumnix::relay
