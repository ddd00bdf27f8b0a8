#include "gateway/openai/request_parser.hpp"
#include "gateway/openai/tokenize.hpp"
#include "runtime/serving/byte_tokenizer.hpp"

#include <doctest/doctest.h>

#include <string>

namespace llumnix::openai {
namespace {

std::variant<generation_request, api_error> parse(endpoint kind, std::string body) {
  static request_parser parser{8}; // one for all bodies, as on a loop
  return parser.parse(kind, body);
}

std::string chat_body(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + fields + "}";
}

std::string completion_body(const std::string& fields) {
  return R"({"model":"m","prompt":"hi")" + fields + "}";
}

generation_request good(endpoint kind, std::string body) {
  CAPTURE(body);
  auto parsed = parse(kind, std::move(body));
  if (const auto* failure = std::get_if<api_error>(&parsed))
    FAIL(failure->message);
  return std::get<generation_request>(std::move(parsed));
}

struct bad_row {
  std::string body;
  std::string code;
  std::string param;
};

void check_bad(endpoint kind, const bad_row& row) {
  CAPTURE(row.body);
  auto parsed = parse(kind, row.body);
  REQUIRE(std::holds_alternative<api_error>(parsed));
  const auto& failure = std::get<api_error>(parsed);
  CHECK(failure.status == 400);
  CHECK(failure.code == row.code);
  CHECK(failure.param == row.param);
  CHECK_FALSE(failure.message.empty());
}

} // namespace

TEST_CASE("bodies that are no JSON object are refused") {
  for (const auto& body :
       {std::string{}, std::string{"{"}, std::string{"{\"model\":}"}, std::string{"{} {}"},
        std::string{"{\"model\":\xFF}"}, std::string{R"({"model":"\x"})"},
        std::string{R"({"model":"\ud8"})"}, std::string{R"({"n":99999999999999999999x})"},
        std::string{R"({"n":-})"}, std::string{"{\"model\":\"\xFF"}, std::string(5000, '['),
        R"({"a":)" + std::string(2000, '[') + std::string(2000, ']') + "}"})
    check_bad(endpoint::chat, {body, "invalid_json", ""});
  for (const auto& body : {"[]", "1", "\"x\"", "null"})
    check_bad(endpoint::chat, {body, "invalid_type", ""});
}

TEST_CASE("chat requests with a bad field are refused and the field is named") {
  for (
    const auto& [fields, code, param] : std::vector<bad_row>{
      {R"(,"temperature":"hot")", "invalid_type", "temperature"},
      {R"(,"temperature":true)", "invalid_type", "temperature"},
      {R"(,"temperature":2.1)", "invalid_value", "temperature"},
      {R"(,"temperature":-0.1)", "invalid_value", "temperature"},
      {R"(,"top_p":0)", "invalid_value", "top_p"},
      {R"(,"top_p":1.5)", "invalid_value", "top_p"},
      {R"(,"presence_penalty":-2.5)", "invalid_value", "presence_penalty"},
      {R"(,"frequency_penalty":"1")", "invalid_type", "frequency_penalty"},
      {R"(,"n":0)", "invalid_value", "n"},
      {R"(,"n":9)", "invalid_value", "n"},
      {R"(,"n":1.5)", "invalid_type", "n"},
      {R"(,"max_tokens":0)", "invalid_value", "max_tokens"},
      {R"(,"max_tokens":-1)", "invalid_value", "max_tokens"},
      {R"(,"max_tokens":"5")", "invalid_type", "max_tokens"},
      {R"(,"max_completion_tokens":1e300)", "invalid_value", "max_completion_tokens"},
      {R"(,"max_tokens":18446744073709551615)", "invalid_value", "max_tokens"},
      {R"(,"max_tokens":99999999999999999999)", "invalid_value", "max_tokens"},
      {R"(,"n":1e400)", "invalid_value", "n"},
      {R"(,"top_k":-99999999999999999999)", "invalid_value", "top_k"},
      {R"(,"temperature":99999999999999999999)", "invalid_value", "temperature"},
      {R"(,"seed":18446744073709551616)", "invalid_value", "seed"},
      {R"(,"stop_token_ids":[99999999999999999999])", "invalid_value", "stop_token_ids"},
      {R"(,"min_tokens":6,"max_tokens":5)", "invalid_value", "min_tokens"},
      {R"(,"stop":5)", "invalid_type", "stop"},
      {R"(,"stop":[1])", "invalid_type", "stop"},
      {R"(,"stop":"")", "invalid_value", "stop"},
      {R"(,"stop":["a","b","c","d","e"])", "invalid_value", "stop"},
      {R"(,"stop_token_ids":[-1])", "invalid_value", "stop_token_ids"},
      {R"(,"stop_token_ids":["x"])", "invalid_type", "stop_token_ids"},
      {R"(,"seed":1.5)", "invalid_type", "seed"},
      {R"(,"logprobs":3)", "invalid_type", "logprobs"},
      {R"(,"top_logprobs":3)", "invalid_value", "top_logprobs"},
      {R"(,"logprobs":true,"top_logprobs":21)", "invalid_value", "top_logprobs"},
      {R"(,"logit_bias":[])", "invalid_type", "logit_bias"},
      {R"(,"logit_bias":{"x":1})", "invalid_value", "logit_bias"},
      {R"(,"logit_bias":{"257":101})", "invalid_value", "logit_bias"},
      {R"(,"logit_bias":{"257":"1"})", "invalid_type", "logit_bias"},
      {R"(,"stream":"yes")", "invalid_type", "stream"},
      {R"(,"stream_options":{"include_usage":true})", "invalid_value", "stream_options"},
      {R"(,"stream":true,"stream_options":true)", "invalid_type", "stream_options"},
      {R"(,"stream":true,"stream_options":{"include_usage":1})", "invalid_type",
       "stream_options.include_usage"},
      {R"(,"ignore_eos":1)", "invalid_type", "ignore_eos"},
      {R"(,"user":1)", "invalid_type", "user"},
      {R"(,"top_k":-2)", "invalid_value", "top_k"},
      {R"(,"model":5)", "invalid_type", "model"},
      {R"(,"model":null)", "missing_required_parameter", "model"},
      {R"(,"messages":"hi")", "invalid_type", "messages"},
      {R"(,"messages":[])", "invalid_value", "messages"},
      {R"(,"messages":null)", "missing_required_parameter", "messages"},
      {R"(,"messages":["hi"])", "invalid_type", "messages[0]"},
      {R"(,"messages":[{"content":"x"}])", "missing_required_parameter", "messages[0].role"},
      {R"(,"messages":[{"role":"user"},{"role":"boss","content":"x"}])", "invalid_value",
       "messages[1].role"},
      {R"(,"messages":[{"role":"user","content":5}])", "invalid_type", "messages[0].content"},
      {R"(,"messages":[{"role":"user","content":["x"]}])", "invalid_type",
       "messages[0].content[0]"},
      {R"(,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}])",
       "unsupported_parameter", "messages[0].content[0].type"},
      {R"(,"messages":[{"role":"user","content":[{"type":"text"}]}])", "missing_required_parameter",
       "messages[0].content[0].text"}})
    check_bad(endpoint::chat, {chat_body(fields), code, param});
}

TEST_CASE("completion requests with a bad field are refused and the field is named") {
  for (const auto& [fields, code, param] : std::vector<bad_row>{
         {R"(,"prompt":null)", "missing_required_parameter", "prompt"},
         {R"(,"prompt":"")", "invalid_value", "prompt"},
         {R"(,"prompt":[])", "invalid_value", "prompt"},
         {R"(,"prompt":["a",""])", "invalid_value", "prompt"},
         {R"(,"prompt":[[1],[]])", "invalid_value", "prompt"},
         {R"(,"prompt":5)", "invalid_type", "prompt"},
         {R"(,"prompt":{})", "invalid_type", "prompt"},
         {R"(,"prompt":[1,"a"])", "invalid_type", "prompt"},
         {R"(,"prompt":["a",1])", "invalid_type", "prompt"},
         {R"(,"prompt":["a",[1]])", "invalid_type", "prompt"},
         {R"(,"prompt":[true])", "invalid_type", "prompt"},
         {R"(,"prompt":[1.5])", "invalid_type", "prompt"},
         {R"(,"prompt":[-1])", "invalid_value", "prompt"},
         {R"(,"prompt":[4294967296])", "invalid_value", "prompt"},
         {R"(,"prompt":[99999999999999999999])", "invalid_value", "prompt"},
         {R"(,"prompt":["a","b","c"],"n":3)", "invalid_value", "prompt"},
         {R"(,"best_of":2)", "unsupported_parameter", "best_of"},
         {R"(,"suffix":"x")", "unsupported_parameter", "suffix"},
         {R"(,"logprobs":true)", "invalid_type", "logprobs"},
         {R"(,"logprobs":21)", "invalid_value", "logprobs"},
         {R"(,"echo":"yes")", "invalid_type", "echo"},
         {R"(,"echo":true,"logprobs":1)", "unsupported_parameter", "echo"},
         {R"(,"min_tokens":17)", "invalid_value", "min_tokens"}})
    check_bad(endpoint::completions, {completion_body(fields), code, param});
}

TEST_CASE("lists and strings that travel with a request are bounded") {
  auto ids = [](int count) {
    std::string list = R"(,"stop_token_ids":[1)";
    for (int i = 1; i < count; ++i)
      list += ",1";
    return list + "]";
  };
  auto stop = [](std::size_t bytes) { return R"(,"stop":")" + std::string(bytes, 'x') + '"'; };
  auto prompts = [](int count) {
    std::string list = R"({"model":"m","prompt":["a")";
    for (int i = 1; i < count; ++i)
      list += R"(,"a")";
    return list + "]}";
  };
  CHECK(good(endpoint::chat, chat_body(ids(64))).sampling.stop_token_ids.size() == 64);
  CHECK(good(endpoint::chat, chat_body(stop(1024))).stop.front().size() == 1024);
  CHECK(good(endpoint::completions, prompts(8)).prompts.size() == 8);
  check_bad(endpoint::chat, {chat_body(ids(65)), "invalid_value", "stop_token_ids"});
  check_bad(endpoint::chat, {chat_body(stop(1025)), "invalid_value", "stop"});
  check_bad(endpoint::completions, {prompts(9), "invalid_value", "prompt"});
  check_bad(endpoint::completions, {prompts(5000), "invalid_value", "prompt"});
}

TEST_CASE("absent, null and unknown fields leave the defaults of OpenAI") {
  for (const auto& fields :
       {std::string{}, std::string{R"(,"temperature":null,"n":null,"stop":null,"seed":null)"},
        std::string{R"(,"tools":[],"anything":{"x":[1,{}]},"Temperature":9)"}}) {
    auto request = good(endpoint::chat, chat_body(fields));
    CHECK(request.model == "m");
    CHECK(request.sampling == sampling_params{.max_tokens = 2147483647, .stop_token_ids = {}});
    CHECK_FALSE(request.seeded);
    CHECK_FALSE(request.limited);
    CHECK(request.n == 1);
    CHECK(request.stop.empty());
    CHECK_FALSE(request.stream);
  }
  CHECK(good(endpoint::completions, completion_body("")).sampling.max_tokens == 16);
}

TEST_CASE("every field of a request is read") {
  auto request = good(
    endpoint::chat,
    chat_body(
      R"(,"temperature":0,"top_p":0.5,"n":3.0,"max_tokens":9,"max_completion_tokens":7,"min_tokens":2,
      "stop":["a","b"],"stop_token_ids":[600,257],"seed":-1,"ignore_eos":true,"logprobs":true,"top_logprobs":4,
      "logit_bias":{"5":1,"257":-100},"include_stop_str_in_output":true,"stream":true,"user":"u",
      "presence_penalty":2,"frequency_penalty":-2,
      "stream_options":{"include_usage":true,"continuous_usage_stats":true})"));
  CHECK(request.sampling.temperature == 0);
  CHECK(request.n == 3);
  CHECK(request.sampling.max_tokens == 7);
  CHECK(request.sampling.min_tokens == 2);
  CHECK(request.stop == std::vector<std::string>{"a", "b"});
  CHECK(request.sampling.stop_token_ids == std::vector<token_id>{600, 257});
  CHECK(request.seeded);
  CHECK(request.sampling.seed == ~std::uint64_t{0});
  CHECK(request.sampling.ignore_eos);
  CHECK(request.sampling.logprobs);
  CHECK(request.sampling.top_logprobs == 4);
  CHECK(request.sampling.eos == eos_rule::forbid);
  CHECK(request.include_stop);
  CHECK(request.stream);
  CHECK(request.include_usage);
  CHECK(request.continuous_usage);

  CHECK(
    good(endpoint::chat, chat_body(R"(,"seed":18446744073709551615)")).sampling.seed
    == ~std::uint64_t{0});
  CHECK(
    good(endpoint::chat, chat_body(R"(,"logit_bias":{"257":100})")).sampling.eos
    == eos_rule::force);
  CHECK(
    good(endpoint::chat, chat_body(R"(,"logit_bias":{"257":99})")).sampling.eos == eos_rule::free);
  CHECK(
    good(endpoint::chat, chat_body(R"(,"stop":"end")")).stop == std::vector<std::string>{"end"});
  CHECK(good(endpoint::chat, chat_body(R"(,"n":2,"n":4)")).n == 4); // the last counts
  auto zero = good(
    endpoint::completions,
    completion_body(R"(,"logprobs":0,"best_of":1,"echo":false,"suffix":"")"));
  CHECK(zero.sampling.logprobs);
  CHECK(zero.sampling.top_logprobs == 0);
}

TEST_CASE(
  "what other readers take is taken: bytes that are no UTF-8, half surrogates, large numbers") {
  auto request = good(
    endpoint::chat, "{\"model\":\"m\",\"x\":[18446744073709551616,-1e999],\"user\":\"\xFE\","
                    "\"messages\":[{\"role\":\"user\",\"content\":\"a\xFF\\ud800b\"}],"
                    "\"seed\":18446744073709551615,\"stop\":\"\\udfff\"}");
  CHECK(request.messages.at(0).content == "a\uFFFD\uFFFDb");
  CHECK(request.stop == std::vector<std::string>{"\uFFFD"});
  CHECK(request.sampling.seed == ~std::uint64_t{0}); // what fits is not touched
}

TEST_CASE("a number out of range is told as it was meant") {
  using row = std::pair<std::string, std::string>;
  for (const auto& [value, said] :
       {row{"9", "'n' must be from 1 to 8, not 9."}, row{"9.0", "'n' must be from 1 to 8, not 9."},
        row{"18446744073709551615", "'n' must be from 1 to 8, not 18446744073709551615."},
        row{"-99999999999999999999", "'n' must be from 1 to 8, not -1e+20."}}) {
    auto parsed = parse(endpoint::chat, chat_body(R"(,"n":)" + value));
    REQUIRE(std::holds_alternative<api_error>(parsed));
    CHECK(std::get<api_error>(parsed).message == said);
  }
}

TEST_CASE("messages keep their roles and join their text parts") {
  auto request = good(endpoint::chat, R"({"model":"m","messages":[
    {"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"a\n"},{"type":"text","text":"b"}]},
    {"role":"assistant","content":null,"tool_calls":[]},{"role":"tool"}]})");
  REQUIRE(request.messages.size() == 4);
  CHECK(request.messages[0].role == "developer");
  CHECK(request.messages[1].content == "a\nb");
  CHECK(request.messages[2].content.empty());
  CHECK(request.messages[3].role == "tool");
}

TEST_CASE("a prompt is a string, ids, or several of either") {
  auto prompts = [](const std::string& json) {
    return good(endpoint::completions, completion_body(R"(,"prompt":)" + json)).prompts;
  };
  using ids = std::vector<token_id>;
  CHECK(prompts(R"("a")") == std::vector<prompt>{"a"});
  CHECK(prompts("[5,6.0]") == std::vector<prompt>{ids{5, 6}});
  CHECK(prompts(R"(["a","b"])") == std::vector<prompt>{"a", "b"});
  CHECK(prompts("[[5],[6,7]]") == std::vector<prompt>{ids{5}, ids{6, 7}});
}

TEST_CASE("prompts become token ids and outputs are fitted into the model's length") {
  byte_tokenizer words;
  auto fit = [&](const std::string& fields, std::uint32_t length) {
    return tokenize(good(endpoint::completions, completion_body(fields)), words, length);
  };
  auto max_tokens = [&](const std::string& fields, std::uint32_t length) {
    return std::get<std::vector<tokenized_prompt>>(fit(fields, length)).at(0).max_tokens;
  };
  CHECK(max_tokens("", 0) == 16);
  CHECK(max_tokens("", 18) == 16);
  CHECK(max_tokens("", 10) == 8);
  CHECK(max_tokens(R"(,"max_tokens":3)", 10) == 3);
  struct row {
    std::string fields;
    std::uint32_t length;
    std::string code;
  };
  for (const auto& [fields, length, code] :
       {row{"", 2, "context_length_exceeded"}, row{"", 1, "context_length_exceeded"},
        row{R"(,"prompt":[300])", 100, "invalid_value"},
        row{R"(,"prompt":[[65],[2000]])", 100, "invalid_value"}}) {
    CAPTURE(fields);
    auto failure = std::get<api_error>(fit(fields, length));
    CHECK(failure.status == 400);
    CHECK(failure.code == code);
    CHECK(failure.param == "prompt");
  }
  auto chat = tokenize(good(endpoint::chat, chat_body("")), words, 100);
  const auto& only = std::get<std::vector<tokenized_prompt>>(chat).at(0);
  CHECK(only.ids == std::vector<token_id>{256, 260, 'h', 'i', 263, 261});
  CHECK(only.max_tokens == 94); // what is left
  auto echo = fit(R"(,"prompt":[[65,66],[512]],"echo":true)", 100);
  const auto& shown = std::get<std::vector<tokenized_prompt>>(echo);
  CHECK(shown[0].echo == "AB");
  CHECK(shown[1].echo == " bara");
}

TEST_CASE("a large body is read and the next small one too") {
  auto text = std::string(6 * 1024 * 1024, 'x');
  auto request = good(endpoint::completions, R"({"model":"m","prompt":")" + text + "\"}");
  CHECK(std::get<std::string>(request.prompts.at(0)) == text);
  CHECK(good(endpoint::chat, chat_body("")).messages.size() == 1);
}

} // namespace llumnix::openai
