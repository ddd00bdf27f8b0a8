#include "apps/load/patterns.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <sstream>

namespace llumnix::load {

namespace {

std::vector<planned_request> all(pattern_options options, std::vector<trace_row> trace = {}) {
  request_source source{std::move(options), std::move(trace)};
  std::vector<planned_request> made;
  while (auto next = source.next())
    made.push_back(std::move(*next));
  return made;
}

std::string bodies(const pattern_options& options) {
  std::string text;
  for (const auto& request : all(options))
    text += request_body(request, options) + std::to_string(request.due.count());
  return text;
}

} // namespace

TEST_CASE("a token range is a number or MIN-MAX") {
  CHECK(*parse_token_range("64") == token_range{64, 64});
  CHECK(*parse_token_range("1-9") == token_range{1, 9});
  for (const char* text :
       {"", "0", "-", "9-1", "1-", "-3", "1-2-3", "x", "5x", "99999999999", "1-20000000"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_token_range(text));
  }
}

TEST_CASE("the same seed makes the same requests, another seed others") {
  pattern_options options{
    .requests = 50, .rate = 10, .prompt_tokens = {5, 90}, .max_tokens = {1, 30}, .temperature = 1};
  auto first = bodies(options);
  CHECK(bodies(options) == first);
  options.seed = 2;
  CHECK(bodies(options) != first);
}

TEST_CASE("prompts have the tokens asked for and none is like another") {
  for (bool chat : {true, false}) {
    pattern_options options{.requests = 200, .prompt_tokens = {20, 40}, .chat = chat};
    auto made = all(options);
    REQUIRE(made.size() == 200);
    std::uint32_t least = 1000;
    std::uint32_t most = 0;
    for (std::size_t i = 0; i < made.size(); ++i) {
      auto tokens
        = static_cast<std::uint32_t>(made[i].prompt.size()) + (chat ? chat_frame_tokens : 0);
      least = std::min(least, tokens);
      most = std::max(most, tokens);
      CHECK((i == 0 || made[i].prompt != made[i - 1].prompt));
    }
    CHECK(least == 20);
    CHECK(most == 40);
  }
}

TEST_CASE("pauses have the mean of the rate and the variation of their process") {
  using row = std::tuple<arrival_process, double, double>; // process, cv asked for, cv expected
  for (auto [process, cv, expected] :
       {row{arrival_process::uniform, 1, 0}, row{arrival_process::poisson, 1, 1},
        row{arrival_process::gamma, 4, 4}, row{arrival_process::gamma, 0.5, 0.5}}) {
    CAPTURE(expected);
    pattern_options options{
      .requests = 50'000, .rate = 100, .arrival = process, .cv = cv, .prompt_tokens = {5, 5}};
    auto made = all(options);
    double sum = 0;
    double squares = 0;
    for (std::size_t i = 1; i < made.size(); ++i) {
      auto pause = static_cast<double>((made[i].due - made[i - 1].due).count()) / 1e9;
      sum += pause;
      squares += pause * pause;
    }
    auto count = static_cast<double>(made.size() - 1);
    auto mean = sum / count;
    CHECK(mean == doctest::Approx(0.01).epsilon(0.08));
    CHECK(
      std::sqrt(std::max(0.0, squares / count - mean * mean)) / mean
      == doctest::Approx(expected).epsilon(0.1));
  }
}

TEST_CASE("a body carries what the pattern says and nothing more") {
  pattern_options options{.chat = true, .stream = true, .model = "m"};
  planned_request request{.prompt = "hello", .max_tokens = 3, .seed = std::nullopt};
  CHECK(
    nlohmann::json::parse(request_body(request, options))
    == nlohmann::json::parse(
      R"({"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":3,
             "temperature":0.0,"stream":true,"stream_options":{"include_usage":true}})"));
  options = {
    .chat = false,
    .stream = false,
    .choices = 2,
    .ignore_eos = true,
    .temperature = 0.5,
    .model = "m"};
  request.seed = 9;
  CHECK(
    nlohmann::json::parse(request_body(request, options))
    == nlohmann::json::parse(
      R"({"model":"m","prompt":"hello","max_tokens":3,"temperature":0.5,"stream":false,
             "n":2,"ignore_eos":true,"seed":9})"));
}

TEST_CASE("traces of every format are read, their pauses scaled") {
  using row = std::pair<trace_format, const char*>;
  for (auto [format, text] :
       {row{
          trace_format::azure_csv,
          "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.5000000,374,44\r\n"
          "2023-11-17 00:00:01.0000000,0,109\r\n"},
        row{
          trace_format::mooncake_jsonl,
          "{\"timestamp\": 500, \"input_length\": 374, \"output_length\": 44}\n\n"
          "{\"timestamp\": 2000, \"input_length\": 0, \"output_length\": 109, \"hash_ids\": [3, "
          "4]}\n"},
        row{
          trace_format::jsonl,
          "{\"at_ms\": 0.5, \"prompt_tokens\": 374, \"output_tokens\": 44}\n"
          "{\"at_ms\": 1500.5, \"prompt_tokens\": 0, \"output_tokens\": 109}\n"}}) {
    CAPTURE(text);
    std::istringstream in{text};
    auto rows = read_trace(in, format, 2, 10);
    REQUIRE(rows);
    REQUIRE(rows->size() == 2);
    CHECK((*rows)[0].at.count() == 0);
    CHECK((*rows)[0].prompt_tokens == 374);
    CHECK((*rows)[1].at == std::chrono::milliseconds{750});
    CHECK((*rows)[1].prompt_tokens == 1); // nothing can be asked of an empty prompt
    CHECK((*rows)[1].output_tokens == 109);
    std::istringstream again{text};
    CHECK(read_trace(again, format, 1, 1)->size() == 1);
  }
}

TEST_CASE("a trace that makes no sense is refused with its line") {
  using row = std::pair<trace_format, const char*>;
  for (auto [format, text] :
       {row{trace_format::azure_csv, "2023-13-16 18:15:46.0,1,1\n"},
        row{trace_format::azure_csv, "2023-11-16 18:15:46.0,1\n"},
        row{trace_format::azure_csv, "2023-11-16 18:15:46.0,1,-1\n"},
        row{trace_format::jsonl, "{\"at_ms\": 1, \"prompt_tokens\": 1}\n"},
        row{trace_format::jsonl, "hello\n"},
        row{trace_format::jsonl, "{\"at_ms\": -1, \"prompt_tokens\": 1, \"output_tokens\": 1}\n"},
        row{
          trace_format::jsonl,
          "{\"at_ms\": 1, \"prompt_tokens\": 99999999999, \"output_tokens\": 1}\n"},
        row{
          trace_format::mooncake_jsonl,
          "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": 3}\n"}}) {
    CAPTURE(text);
    std::istringstream in{text};
    auto rows = read_trace(in, format, 1, 10);
    REQUIRE_FALSE(rows);
    CHECK(rows.error().context == "line 1 is not a request");
  }
  std::istringstream backwards{"{\"at_ms\": 9, \"prompt_tokens\": 1, \"output_tokens\": "
                               "1}\n{\"at_ms\": 1, \"prompt_tokens\": 1, \"output_tokens\": 1}\n"};
  CHECK(
    read_trace(backwards, trace_format::jsonl, 1, 10).error().context
    == "line 2 is before the line above it");
  std::istringstream empty{"\n"};
  CHECK_FALSE(read_trace(empty, trace_format::jsonl, 1, 10));
}

TEST_CASE("requests of a trace share what its block names say they share") {
  std::vector<trace_row> trace{
    {.at = nanoseconds{0}, .prompt_tokens = 1100, .output_tokens = 5, .blocks = {1, 2, 3}},
    {.at = nanoseconds{7}, .prompt_tokens = 1300, .output_tokens = 6, .blocks = {1, 2, 4}}};
  auto made = all({.max_tokens = {99, 99}, .chat = false}, trace);
  REQUIRE(made.size() == 2);
  CHECK(made[0].prompt.size() == 1100);
  CHECK(made[1].prompt.size() == 1300);
  CHECK(made[0].prompt.substr(0, 1024) == made[1].prompt.substr(0, 1024));
  CHECK(made[0].prompt.substr(1024, 60) != made[1].prompt.substr(1024, 60));
  CHECK(made[0].prompt.substr(0, 512) != made[0].prompt.substr(512, 512));
  CHECK(made[1].due == nanoseconds{7});
  CHECK(made[1].max_tokens == 6);
}

} // namespace llumnix::load
