#include "gateway/relay/whole_reply.hpp"

#include <doctest/doctest.h>

#include <string>

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

TEST_CASE("a reply cut anywhere is no reply") {
  const std::string body
    = R"({"choices":[{"message":{"content":"a\u20acb"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5}})";
  for (std::size_t size = 0; size < body.size(); ++size)
    CHECK_FALSE(read_whole_reply(std::string_view{body}.substr(0, size)).has_value());
}

} // namespace llumnix::relay
