#include "relay_reading.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <tuple>

namespace llumnix::relay {

using openai::endpoint;

TEST_CASE("scalars are read as engines read them") {
  for (auto yes : {"true", R"("true")", R"("True")", "1", "1.0", R"("1")", R"("yes")", R"("ON")",
                   R"("t")", R"("Y")"}) {
    CAPTURE(yes);
    auto read = chat(R"({"stream":)" + std::string{yes} + R"(,"return_token_ids":)" + yes + "}");
    CHECK(read.stream);
    CHECK(read.wants_token_ids);
    CHECK(read.single_use.empty());
  }
  for (auto no : {"false", R"("false")", R"("FALSE")", "0", "0.0", R"("0")", R"("no")", R"("off")",
                  R"("F")", R"("n")", "null"}) {
    CAPTURE(no);
    auto read = chat(R"({"stream":)" + std::string{no} + R"(,"echo":)" + no + "}");
    CHECK_FALSE(read.stream);
    CHECK(read.single_use.empty());
  }
  for (auto five : {"5", "5.0", R"("5")", R"(" 5 ")", R"("5.0")"}) {
    CAPTURE(five);
    auto value = std::string{five};
    auto read = completion(
      R"({"max_tokens":)" + value + R"(,"min_tokens":)" + value + R"(,"priority":)" + value
      + R"(,"logprobs":)" + value + "}");
    CHECK(read.max_tokens == 5u);
    CHECK(read.min_tokens == 5);
    CHECK(read.priority == 5);
    CHECK(read.top_logprobs == 5);
    CHECK(read.single_use.empty());
    CHECK(chat(R"({"n":)" + value + "}").choices == 5);
  }
  auto counted = completion(R"({"logprobs":true,"temperature":"0","seed":"1"})");
  CHECK(counted.logprobs);
  CHECK(counted.top_logprobs == 1);
  CHECK(counted.greedy);
  CHECK(counted.single_use.empty());
  CHECK(completion(R"({"echo":1})").single_use == "echo");
  CHECK(completion(R"({"seed":"1"})").single_use == "seed");
  CHECK(chat(R"({"stream":true,"stream_options":{"include_usage":"off"}})").include_usage == false);
}

TEST_CASE("what only the engine can make something of is left to it, and asked for once") {
  using row = std::tuple<endpoint, std::string_view, std::string_view>;
  for (auto [kind, body, name] :
       {row{endpoint::chat, R"({"stream":"maybe"})", "stream"},
        row{endpoint::chat, R"({"stream":2})", "stream"},
        row{endpoint::chat, R"({"stream":true,"\u0073tream":[]})", "stream"},
        row{
          endpoint::chat, R"({"stream_options":{"include_usage":"x"}})",
          "stream_options.include_usage"},
        row{
          endpoint::chat, R"({"stream_options":{"continuous_usage_stats":[]}})",
          "stream_options.continuous_usage_stats"},
        row{endpoint::chat, R"({"n":1.5})", "n"}, row{endpoint::chat, R"({"n":"two"})", "n"},
        row{endpoint::chat, R"({"max_tokens":""})", "max_tokens"},
        row{endpoint::chat, R"({"max_tokens":"1 2"})", "max_tokens"},
        row{endpoint::chat, R"({"max_completion_tokens":{}})", "max_completion_tokens"},
        row{endpoint::chat, R"({"min_tokens":"nan"})", "min_tokens"},
        row{endpoint::chat, R"({"logprobs":7})", "logprobs"},
        row{endpoint::completions, R"({"logprobs":[1]})", "logprobs"},
        row{endpoint::completions, R"({"priority":"high"})", "priority"},
        row{endpoint::chat, R"({"temperature":"hot"})", "temperature"},
        row{endpoint::chat, R"({"presence_penalty":[]})", "presence_penalty"},
        row{endpoint::tokens, R"({"token_ids":[1],"sampling_params":{"n":{}}})", "n"},
        row{endpoint::chat, R"({"echo":3,"n":3})", "n"}}) {
    CAPTURE(body);
    auto read = accepted(kind, body);
    CHECK_FALSE(read.stream);
    CHECK(read.single_use == name);
  }
}

} // namespace llumnix::relay
