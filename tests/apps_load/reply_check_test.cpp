#include "apps/load/reply_check.hpp"

#include <doctest/doctest.h>

#include <chrono>

namespace llumnix::load {

namespace {

using std::chrono::milliseconds;

/// One streamed completion of "Hi": three tokens.
struct reply_case {
  load_stats stats;
  pattern_options options{.chat = false};
  planned_request request{.prompt = "Hi", .max_tokens = 3, .seed = std::nullopt};
  time_point begin{std::chrono::seconds{1}};

  request_outcome
  read(std::string_view body, std::size_t piece = 1000, std::string_view failure = "") {
    reply_check check{request, options, true, std::nullopt, begin, stats};
    check.on_head(200, "r1", true);
    auto now = begin;
    for (std::size_t at = 0; at < body.size(); at += piece)
      check.on_body(body.substr(at, piece), now += milliseconds{10});
    return check.finish(failure, now + milliseconds{10});
  }
};

std::string choice(const std::string& text, const std::string& reason = "null", int index = 0) {
  return R"(data: {"choices":[{"index":)" + std::to_string(index) + R"(,"text":")" + text
         + R"(","finish_reason":)" + reason + "}]}\n\n";
}

const std::string usage
  = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3}}\n\n";
const std::string done = "data: [DONE]\n\n";
const std::string good
  = choice(" bava") + choice(" ka") + ": ping\n\n" + choice("ti beri") + choice("", "\"length\"");

} // namespace

TEST_CASE_FIXTURE(reply_case, "a right stream passes however it is cut") {
  for (std::size_t piece : {1, 2, 7, 64, 1000}) {
    CAPTURE(piece);
    auto outcome = read(good + usage + done, piece);
    CHECK(outcome.failure == "");
    CHECK_FALSE(outcome.has_wrong);
    CHECK(outcome.checked_tokens == 3);
    CHECK(outcome.output_tokens == 3);
    CHECK(outcome.prompt_tokens == 2);
  }
  auto with_returns = read("data: " + good.substr(6) + usage + "data:[DONE]\r\n\r\n");
  CHECK(with_returns.failure == "");
}

TEST_CASE_FIXTURE(reply_case, "what is wrong with a stream gets its name") {
  using row = std::pair<std::string, std::string>; // stream, failure
  for (const auto& [body, failure] :
       {row{good + usage, "stream ended without [DONE]"},
        row{good + done, "wrong output"}, // no usage
        row{good + usage + done + choice(" x"), "event after [DONE]"},
        row{good + good + usage + done, "wrong output"},
        row{choice(" bava kati") + choice("", "\"length\"") + usage + done, "wrong output"},
        row{choice(" bava kati beri") + usage + done, "wrong output"}, // no finish_reason
        row{choice(" bava kati beri", "\"stop\"") + usage + done, "wrong output"},
        row{choice(" bava", "null", 1) + usage + done, "a choice nobody asked for"},
        row{
          choice(" bava") + "data: {\"error\":{\"message\":\"m\",\"code\":\"internal\"}}\n\n",
          "error event internal"},
        row{"data: {broken\n\n", "event is not JSON"},
        row{"data: {}\n\n", "no choices in the answer"},
        row{"data: " + std::string(2 << 20, 'x'), "event too large"}}) {
    CAPTURE(failure);
    CHECK(read(body).failure == failure);
  }
}

TEST_CASE_FIXTURE(reply_case, "a wrong token names the request and the place") {
  auto outcome
    = read(choice(" bava") + choice(" zzzz") + choice(" beri", "\"length\"") + usage + done);
  REQUIRE(outcome.has_wrong);
  CHECK(outcome.wrong.request == "r1");
  CHECK(outcome.wrong.what == mismatch{1, " kati", " zzzz"});
}

TEST_CASE_FIXTURE(reply_case, "times count from when the request was due") {
  auto outcome = read(good + usage + done, good.size() / 4 + 1);
  CHECK(outcome.first_token >= milliseconds{10});
  CHECK(outcome.end_to_end > outcome.first_token);
  CHECK(outcome.per_token > nanoseconds{0});
}

TEST_CASE_FIXTURE(reply_case, "a connection lost in between is a broken stream") {
  auto outcome = read(choice(" bava"), 1000, "reply cut short");
  CHECK(outcome.failure == "stream broken: reply cut short");
  CHECK(outcome.stream_broken);
  CHECK_FALSE(outcome.has_wrong);
}

TEST_CASE_FIXTURE(reply_case, "a refusal is counted by status and code") {
  reply_check check{request, options, true, std::nullopt, begin, stats};
  check.on_head(503, "r1", false);
  check.on_body(R"({"error":{"message":"a long sentence","code":"no_available_worker"}})", begin);
  CHECK(check.finish("", begin).failure == "HTTP 503 no_available_worker");
}

TEST_CASE_FIXTURE(reply_case, "the model's length cuts an output that would not fit") {
  reply_check check{request, options, true, 4, begin, stats};
  check.on_head(200, "r1", true);
  check.on_body(
    choice(" bava kati", "\"length\"")
      + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":2}}\n\n" + done,
    begin);
  CHECK(check.finish("", begin).failure == "");
}

} // namespace llumnix::load
