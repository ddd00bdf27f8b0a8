#include "relay_reading.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {
namespace {

using openai::endpoint;

constexpr auto all = 4294967295u;

std::variant<relay_request, openai::api_error> read(endpoint kind, std::string_view body) {
  return request_reader{}.read(kind, body);
}

std::string first(endpoint kind, std::string_view body, bool ask_ids) {
  auto made = first_body(body, accepted(kind, body), ask_ids);
  return std::string{body.substr(0, made.kept)} + made.rest;
}

const std::vector<token_id> some_ids{0, 260, 74, 4294967295};

std::string
next(endpoint kind, std::string_view body, std::uint32_t delivered = 0, std::uint32_t context = 0) {
  return continuation_body(body, accepted(kind, body), some_ids, delivered, context);
}

/// What a continuation adds, with the ids above.
std::string added(std::string_view limits) {
  return std::string{limits}
         + R"("stream":true,"return_token_ids":true,"prompt":[0,260,74,4294967295])";
}

} // namespace

TEST_CASE("what is no JSON object is refused") {
  using row = std::tuple<std::string, std::string_view, std::string_view>; // body, code, message
  std::string deep(10000, '[');
  for (const auto& [body, code, message] :
       {row{"", "invalid_json", "The body is not valid JSON, at byte 0."},
        row{"  ", "invalid_json", "The body is not valid JSON, at byte 2."},
        row{R"({"a":1)", "invalid_json", "The body is not valid JSON, at byte 6."},
        row{R"({"a":1}})", "invalid_json", "The body is not valid JSON, at byte 7."},
        row{R"({"a":[1,]})", "invalid_json", "The body is not valid JSON, at byte 8."},
        row{R"([1,)", "invalid_json", "The body is not valid JSON, at byte 3."},
        row{"{\"a\":\"\xFF\"}", "invalid_json", "The body is not valid UTF-8, at byte 6."},
        row{R"({"a":)" + deep, "invalid_json", "The body is nested too deeply, at byte 1029."},
        row{deep, "invalid_json", "The body is nested too deeply, at byte 1024."},
        row{"[]", "invalid_type", "The body must be a JSON object."},
        row{"\"{}\"", "invalid_type", "The body must be a JSON object."},
        row{"null", "invalid_type", "The body must be a JSON object."}}) {
    auto outcome = read(endpoint::chat, body);
    REQUIRE(std::holds_alternative<openai::api_error>(outcome));
    CHECK(
      std::get<openai::api_error>(outcome)
      == openai::api_error{400, std::string{code}, std::string{message}, {}});
  }
}

TEST_CASE("every beginning of a body is refused") {
  std::string_view body
    = R"({"model":"tiny","messages":[{"role":"user","content":"h\u00e9"}],"stop":["a"],"stream":true})";
  chat(body);
  for (std::size_t size = 0; size < body.size(); ++size)
    CHECK(std::holds_alternative<openai::api_error>(read(endpoint::chat, body.substr(0, size))));
}

TEST_CASE("known fields of a wrong type are refused by name") {
  using row = std::tuple<endpoint, std::string_view, std::string_view, std::string_view>;
  for (auto [kind, body, param, expected] :
       {row{endpoint::chat, R"({"model":1})", "model", "a string"},
        row{endpoint::chat, R"({"stream_options":true})", "stream_options", "an object"},
        row{endpoint::chat, R"({"stop":1})", "stop", "a string or an array of strings"},
        row{endpoint::chat, R"({"stop":["a",2]})", "stop", "a string or an array of strings"},
        row{endpoint::chat, R"({"stop":["a",null]})", "stop", "a string or an array of strings"},
        row{endpoint::completions, R"({"prompt":1})", "prompt", "a string or an array"},
        row{endpoint::completions, R"({"prompt":{}})", "prompt", "a string or an array"}}) {
    CAPTURE(body);
    auto outcome = read(kind, body);
    REQUIRE(std::holds_alternative<openai::api_error>(outcome));
    auto name = std::string{param};
    CHECK(
      std::get<openai::api_error>(outcome)
      == openai::api_error{
        400, "invalid_type", "'" + name + "' must be " + std::string{expected} + ".", name});
  }
}

TEST_CASE("an engine says itself what it thinks of the rest") {
  for (auto body :
       {"{}", R"({"messages":17})", R"({"messages":[[],1,{"content":{"a":1}},{"content":[1]}]})",
        R"({"tools":5.5e700,"x":12345678901234567890123456789,"y":"\ud800"})",
        R"({"logit_bias":"x","top_k":"y","bad_words":3})", R"({"n":-3,"max_tokens":-1})"}) {
    chat(body);
    completion(body);
  }
}

TEST_CASE("plain fields are read") {
  auto read = chat(
    R"({"model":"t\u0069ny","stream":true,"return_token_ids":true,"stream_options":{"include_usage":true,)"
    R"("continuous_usage_stats":true},"max_tokens":7,"min_tokens":3,"logprobs":true,"top_logprobs":4})");
  CHECK(read.kind == endpoint::chat);
  CHECK(read.model == "tiny");
  CHECK(read.stream);
  CHECK(read.wants_token_ids);
  CHECK(read.include_usage);
  CHECK(read.continuous_usage);
  CHECK(read.max_tokens == 7u);
  CHECK(read.min_tokens == 3);
  CHECK(read.logprobs);
  CHECK(read.top_logprobs == 4);
  CHECK(read.choices == 1);
  CHECK(read.single_use.empty());

  auto bare = completion("{}");
  CHECK(bare.kind == endpoint::completions);
  CHECK(bare.model.empty());
  CHECK_FALSE(bare.stream);
  CHECK_FALSE(bare.wants_token_ids);
  CHECK_FALSE(bare.include_usage);
  CHECK_FALSE(bare.continuous_usage);
  CHECK_FALSE(bare.max_tokens);
  CHECK(bare.min_tokens == 0);
  CHECK(bare.held_back == 0);
  CHECK(bare.stop_reach == 0);
  CHECK_FALSE(bare.logprobs);
  CHECK(bare.choices == 1);
  CHECK(bare.prompt_tokens == 0);
}

TEST_CASE("a name is what it says, however it is written, and its last value counts") {
  CHECK(chat(R"({"\u0073tream":true})").stream);
  CHECK(chat(R"({"s\u0074ream":true,"stream":false})").stream == false);
  CHECK(chat(R"({"stream":false,"strea\u006d":true})").stream);
  CHECK(chat(R"({"stream":true,"stream":null})").stream == false);
  CHECK(chat(R"({"stream":"x","stream":true})").stream);
  CHECK_FALSE(chat(R"({"Stream":true,"stream ":true,"x":{"stream":true}})").stream);
  CHECK(chat(R"({"seed":1,"see\u0064":null})").single_use.empty());
}

TEST_CASE("usage is counted as vLLM does") {
  using row = std::tuple<std::string_view, bool, bool>;
  for (auto [options, usage, continuous] :
       {row{"null", false, false}, row{"{}", true, false},
        row{R"({"include_usage":false,"continuous_usage_stats":true})", false, false},
        row{R"({"include_usage":null,"continuous_usage_stats":true})", true, true},
        row{R"({"include_usage":true,"x":{"include_usage":false}})", true, false},
        row{R"({"include_usage":true,"include_us\u0061ge":false})", false, false}}) {
    CAPTURE(options);
    auto read = chat(R"({"stream":true,"stream_options":)" + std::string{options} + "}");
    CHECK(read.include_usage == usage);
    CHECK(read.continuous_usage == continuous);
  }
}

TEST_CASE("lengths of any size are read") {
  using row = std::tuple<endpoint, std::string_view, std::optional<std::uint32_t>>;
  for (auto [kind, body, limit] :
       {row{endpoint::chat, R"({"max_tokens":5})", 5},
        row{endpoint::chat, R"({"max_tokens":5.0})", 5},
        row{endpoint::chat, R"({"max_tokens":5,"max_completion_tokens":9})", 9},
        row{endpoint::chat, R"({"max_completion_tokens":9,"max_tokens":5})", 9},
        row{endpoint::chat, R"({"max_completion_tokens":null,"max_tokens":5})", 5},
        row{endpoint::completions, R"({"max_completion_tokens":9,"max_tokens":5})", 5},
        row{endpoint::completions, R"({"max_completion_tokens":9})", {}},
        row{endpoint::chat, R"({"max_tokens":0})", {}},
        row{endpoint::chat, R"({"max_tokens":-1})", {}},
        row{endpoint::chat, R"({"max_tokens":4294967295})", all},
        row{endpoint::chat, R"({"max_tokens":4294967297})", all},
        row{endpoint::chat, R"({"max_tokens":99999999999999999999999999})", all},
        row{endpoint::chat, R"({"max_tokens":1e400})", all},
        row{endpoint::chat, R"({"max_tokens":null})", {}}}) {
    CAPTURE(body);
    CHECK(accepted(kind, body).max_tokens == limit);
  }
  CHECK(chat(R"({"min_tokens":-5})").min_tokens == 0);
  CHECK(chat(R"({"min_tokens":1e19})").min_tokens == all);
}

TEST_CASE("stop strings may be held back, counted in characters") {
  using row = std::tuple<std::string_view, std::uint32_t, std::uint32_t>; // held back, reach
  for (auto [body, held, reach] :
       {row{R"({"stop":"a"})", 0, 0}, row{R"({"stop":"abc"})", 2, 2}, row{R"({"stop":""})", 0, 0},
        row{R"({"stop":[]})", 0, 0}, row{R"({"stop":["ab","abcd","a"]})", 3, 3},
        row{"{\"stop\":\"\u00e9\u20ac\U0001F600\"}", 2, 2},
        row{R"({"stop":"\u00e9\ud83d\ude00\n\"x"})", 4, 4}, row{R"({"stop":"\ud83dxy"})", 2, 2},
        row{R"({"stop":["abcd"],"include_stop_str_in_output":true})", 0, 3},
        row{R"({"stop":["abcd"],"include_stop_str_in_output":false})", 3, 3},
        row{R"({"stop":null})", 0, 0}}) {
    CAPTURE(body);
    CHECK(chat(body).held_back == held);
    CHECK(chat(body).stop_reach == reach);
  }
}

TEST_CASE("choices are prompts times n") {
  using row = std::tuple<std::string_view, std::uint32_t, std::string_view>;
  for (auto [body, choices, single_use] :
       {row{R"({"prompt":"x","n":3})", 3, "n"}, row{R"({"prompt":["x"]})", 1, ""},
        row{R"({"prompt":["x","y"],"n":3})", 6, "n"}, row{R"({"prompt":["x","y"]})", 2, "prompt"},
        row{R"({"prompt":[1,2,3]})", 1, ""}, row{R"({"prompt":[[1,2],[3]]})", 2, "prompt"},
        row{R"({"prompt":[[1,2]]})", 1, ""}, row{R"({"prompt":[]})", 1, ""},
        row{R"({"n":0})", 1, ""}, row{R"({"n":-7})", 1, ""}, row{R"({"n":null})", 1, ""},
        row{R"({"n":99999999999999999999})", all, "n"},
        row{R"({"n":4294967295,"prompt":["x","y"]})", all, "n"}}) {
    CAPTURE(body);
    CHECK(completion(body).choices == choices);
    CHECK(completion(body).single_use == single_use);
  }
}

TEST_CASE("a prompt that is one list of ids is told as it is") {
  using ids = std::vector<token_id>;
  for (const auto& [body, expected] :
       {std::pair{
          std::string{R"({"model":"m","prompt":[1, 2,4294967295],"n":2})"}, ids{1, 2, 4294967295}},
        {R"({"prompt":[]})", {}},
        {R"({"prompt":[[1,2]]})", {}},
        {R"({"prompt":"1,2"})", {}},
        {R"({"prompt":["a"]})", {}},
        {R"({"prompt":[1,-2]})", {}},
        {R"({"prompt":[1,2.5]})", {}},
        {R"({"prompt":[1,4294967296]})", {}},
        {R"({"prompt":[1,null]})", {}},
        {R"({"prompt":[7],"prompt":[8,9]})", {8, 9}}}) {
    CAPTURE(body);
    CHECK(prompt_ids(body, completion(body)) == expected);
  }
  std::string with_ids = R"({"messages":[{"role":"user","content":"x"}],"prompt":[1,2]})";
  CHECK(prompt_ids(with_ids, chat(with_ids)).empty());
}

TEST_CASE("a request's priority is read") {
  for (const auto& [body, expected] :
       {std::pair{R"({"prompt":"x","priority":-3})", std::optional<std::int32_t>{-3}},
        {R"({"prompt":"x","priority":null})", std::nullopt},
        {R"({"prompt":"x"})", std::nullopt},
        {R"({"prompt":"x","priority":99999999999})", 2147483647}}) {
    CAPTURE(body);
    CHECK(completion(body).priority == expected);
  }
}

TEST_CASE("a prompt's tokens are counted or guessed") {
  using row = std::tuple<endpoint, std::string_view, std::uint32_t>;
  for (
    auto [kind, body, tokens] :
    {row{endpoint::completions, R"({"prompt":[1,2,3]})", 3},
     row{endpoint::completions, R"({"prompt":[[1,2],[3]]})", 3},
     row{endpoint::completions, R"({"prompt":"12345678"})", 2},
     row{endpoint::completions, R"({"prompt":"123456789"})", 3},
     row{endpoint::completions, R"({"prompt":["1234","12345678"]})", 3},
     row{endpoint::completions, R"({"messages":[{"content":"12345678"}]})", 0},
     row{endpoint::chat, R"({"messages":[{"role":"user","content":"12345678"}]})", 2},
     row{
       endpoint::chat,
       R"({"messages":[{"content":"1234"},{"content":null},{"cont\u0065nt":"1234"}]})", 2},
     row{
       endpoint::chat,
       R"({"messages":[{"content":[{"type":"text","text":"1234"},"1234",{"text":"1234","type":"text"}]}]})",
       3},
     row{
       endpoint::chat,
       R"({"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:12345678"}}]}]})",
       0}}) {
    CAPTURE(body);
    CHECK(accepted(kind, body).prompt_tokens == tokens);
  }
  std::string ids = R"({"prompt":[0)";
  for (int i = 1; i < 100000; ++i)
    ids += "," + std::to_string(i);
  CHECK(completion(ids + "]}").prompt_tokens == 100000);
}

TEST_CASE("what does not carry over to another engine is named") {
  using row = std::pair<std::string_view, std::string_view>; // fields, the first that does not
  for (
    auto [body, name] :
    {row{R"({"seed":1})", "seed"},
     row{R"({"seed":1,"temperature":0.1})", "seed"},
     row{R"({"seed":0,"temperature":null})", "seed"},
     row{R"({"seed":1,"temperature":0})", ""},
     row{R"({"seed":1,"temperature":0.0})", ""},
     row{R"({"temperature":0.7})", ""},
     row{R"({"seed":99999999999999999999})", "seed"},
     row{R"({"seed":null})", ""},
     row{R"({"frequency_penalty":0.1})", "frequency_penalty"},
     row{R"({"frequency_penalty":-1})", "frequency_penalty"},
     row{R"({"frequency_penalty":0.0,"presence_penalty":-0})", ""},
     row{R"({"presence_penalty":1e-3})", "presence_penalty"},
     row{R"({"response_format":{"type":"text"}})", ""},
     row{R"({"response_format":{"type":"text","x":1}})", ""},
     row{R"({"response_format":{"type":"json_object"}})", "response_format"},
     row{R"({"response_format":{"json_schema":{"type":"text"}}})", "response_format"},
     row{R"({"response_format":{"type":"text","type":"json_object"}})", "response_format"},
     row{R"({"response_format":"x"})", "response_format"},
     row{R"({"response_format":null})", ""},
     row{R"({"structured_outputs":{"regex":"a+"}})", "structured_outputs"},
     row{R"({"structured_outputs":{ }})", ""},
     row{R"({"guided_json":{"a":1}})", "guided_*"},
     row{R"({"guided_regex":null})", ""},
     row{R"({"guide\u0064_choice":["a"]})", "guided_*"},
     row{R"({"regex":"a"})", "regex"},
     row{R"({"ebnf":"a"})", "ebnf"},
     row{R"({"json_schema":"{}"})", "json_schema"},
     row{R"({"tools":[{"type":"function"}],"tool_choice":"none"})", "tools"},
     row{R"({"tools":[],"functions":[]})", ""},
     row{R"({"functions":[{}]})", "functions"},
     row{R"({"n":2})", "n"},
     row{R"({"n":1})", ""},
     row{R"({"prompt_embeds":"x"})", "prompt_embeds"},
     row{R"({"messages":[{"content":[{"type":"text","text":"a"}]}]})", ""},
     row{
       R"({"messages":[{"content":[{"type":"text","text":"a"},{"type":"image_url"}]}]})",
       "messages"},
     row{R"({"messages":[{"content":[{"image_url":{}}]}]})", "messages"},
     row{R"({"best_of":2})", "best_of"},
     row{R"({"best_of":1})", ""},
     row{R"({"echo":true})", "echo"},
     row{R"({"echo":false,"suffix":""})", ""},
     row{R"({"suffix":"x"})", "suffix"},
     row{R"({"use_beam_search":true})", "use_beam_search"},
     row{R"({"prompt_logprobs":0})", "prompt_logprobs"},
     row{R"({"logits_processors":["x"]})", "logits_processors"},
     row{R"({"custom_logit_processor":"x"})", "custom_logit_processor"},
     row{R"({"custom_logit_processor":null})", ""},
     row{R"({"bad_words":["x"]})", "bad_words"},
     row{R"({"temperature":0,"bad_words":["x y"]})", "bad_words"},
     row{R"({"bad_words":[]})", ""},
     row{R"({"thinking_token_budget":0})", "thinking_token_budget"},
     row{R"({"thinking_token_budget":-1})", ""},
     row{R"({"repetition_detection":{"max_pattern_size":3}})", "repetition_detection"},
     row{R"({"include_reasoning":false})", "include_reasoning"},
     row{R"({"include_reasoning":"false"})", "include_reasoning"},
     row{R"({"include_reasoning":true})", ""},
     row{R"({"logprobs":true,"logprob_token_ids":[1]})", "logprob_token_ids"},
     row{
       R"({"return_tokens_as_token_ids":true,"logprobs":true,"top_logprobs":1})",
       "return_tokens_as_token_ids"},
     row{R"({"return_tokens_as_token_ids":true,"logprobs":true,"top_logprobs":0})", ""},
     row{R"({"return_tokens_as_token_ids":true})", ""},
     row{R"({"kv_transfer_params":{"a":1}})", "kv_transfer_params"},
     row{R"({"kv_transfer_params":1,"n":3,"presence_penalty":1,"seed":4})", "seed"},
     row{
       R"({"logit_bias":{"5":1},"repetition_penalty":1.2,"bad_words":null,"top_k":4,"top_p":0.5,)"
       R"("min_p":0.1,"stop_token_ids":[3],"ignore_eos":true,"chat_template_kwargs":{"a":1},)"
       R"("reasoning_effort":"low","priority":3,"cache_salt":"x","logprobs":null})",
       ""}}) {
    CAPTURE(body);
    CHECK(chat(body).single_use == name);
  }
}

TEST_CASE("logprobs have a form for each endpoint") {
  using row = std::tuple<endpoint, std::string_view, bool, std::uint32_t>;
  for (auto [kind, body, wanted, top] :
       {row{endpoint::chat, R"({"logprobs":true})", true, 0},
        row{endpoint::chat, R"({"logprobs":true,"top_logprobs":-1})", true, all},
        row{endpoint::chat, R"({"logprobs":false,"top_logprobs":2})", false, 2},
        row{endpoint::completions, R"({"logprobs":0})", true, 0},
        row{endpoint::completions, R"({"logprobs":5})", true, 5},
        row{endpoint::completions, R"({"logprobs":null,"top_logprobs":true})", false, 0}}) {
    CAPTURE(body);
    CHECK(accepted(kind, body).logprobs == wanted);
    CHECK(accepted(kind, body).top_logprobs == top);
  }
}

TEST_CASE("the first engine gets the client's bytes") {
  constexpr std::string_view asked = R"("return_token_ids":true)";
  for (
    std::string_view body :
    {"{}", " {\t}\r\n", R"({"a":1})", R"(  { "a" : [ {"b" : 1.50e+3} ] , "a":2 } )", "{\n}\n",
     R"({"messages":[{"role":"user","content":"\u0068i","x_extra":{"\u0061":1e0}}],"stream":true})",
     R"({"x":{"kv_transfer_params":1,"bootstrap_host":"h"},"big":123456789012345678901234567890})"}) {
    CAPTURE(body);
    CHECK(first(endpoint::chat, body, false) == body);
    bool empty = body.find(':') == std::string_view::npos;
    auto longer = first(endpoint::chat, body, true);
    CHECK(nlohmann::json::parse(longer)["return_token_ids"] == true);
    auto at = longer.rfind(empty ? asked : "," + std::string{asked});
    REQUIRE(at != std::string::npos);
    CHECK(longer.erase(at, asked.size() + !empty) == body);
  }
  CHECK(first(endpoint::chat, "{\"a\":1 }\n", true) == "{\"a\":1,\"return_token_ids\":true }\n");
  CHECK(first(endpoint::chat, " { } ", true) == R"( {"return_token_ids":true } )");
  std::string_view given = R"({"return_token_ids":true})";
  CHECK(first(endpoint::chat, given, true) == given);
  CHECK(
    first(endpoint::chat, R"({"return_token_ids":false})", true)
    == R"({"return_token_ids":false,"return_token_ids":true})");
}

TEST_CASE("what makes an engine connect somewhere is cut out") {
  using row = std::pair<std::string_view, std::string_view>;
  for (
    auto [body, kept] :
    {row{R"({"kv_transfer_params":{"remote_host":"h"}})", "{}"},
     row{R"({"kv_transfer_params":{"remote_host":"h"},"a":1})", R"({"a":1})"},
     row{R"({"a":1,"kv_transfer_params":[1,2]})", R"({"a":1})"},
     row{R"({"a":1,"kv_transfer_params":null,"b":2})", R"({"a":1,"b":2})"},
     row{
       R"({ "a" : 1 , "bootstrap_host" : "h" , "bootstrap_room":7,"bootstrap_port":1, "b" : 2 })",
       R"({ "a" : 1, "b" : 2 })"},
     row{
       R"({"bootstrap_host":"h","a":1,"ec_transfer_params":{},"b":2,"bootstrap_room":7})",
       R"({"a":1,"b":2})"},
     row{R"({"kv_tr\u0061nsfer_params":1,"b\u006fotstrap_host":"h"})", "{}"},
     row{
       R"({"kv_transfer_params":1,"kv_transfer_params":2,"a":{"kv_transfer_params":3}})",
       R"({"a":{"kv_transfer_params":3}})"},
     row{" { \"kv_transfer_params\" : 1 }\n", " { }\n"}}) {
    CAPTURE(body);
    CHECK(first(endpoint::chat, body, false) == kept);
    auto with_ids = nlohmann::json::parse(kept);
    with_ids["return_token_ids"] = true;
    CHECK(nlohmann::json::parse(first(endpoint::chat, body, true)) == with_ids);
  }
}

TEST_CASE("wherever fields are cut, the others stay as they were") {
  std::mt19937 random{11};
  constexpr std::string_view values[]{
    "1", R"("a, \"}")", "[ 1,{} ]", R"({"kv_transfer_params" : 1})", " null "};
  constexpr std::string_view gaps[]{"", " ", "\n\t"};
  auto any = [&](auto& of) { return of[random() % std::size(of)]; };
  for (int i = 0; i < 600; ++i) {
    std::string body = "{" + std::string{any(gaps)};
    nlohmann::json expected = nlohmann::json::object();
    auto count = random() % 6;
    for (std::size_t k = 0; k < count; ++k) {
      auto name = random() % 2 == 0 ? "bootstrap_" + std::to_string(k) : "x" + std::to_string(k);
      auto value = std::string{any(values)};
      body += "\"" + name + "\"" + std::string{any(gaps)} + ":" + value + std::string{any(gaps)};
      body += k + 1 < count ? "," + std::string{any(gaps)} : "";
      if (name[0] == 'x')
        expected[name] = nlohmann::json::parse(value);
    }
    body += "}" + std::string{any(gaps)};
    CAPTURE(body);
    REQUIRE(nlohmann::json::parse(first(endpoint::chat, body, false)) == expected);
    expected["return_token_ids"] = true;
    REQUIRE(nlohmann::json::parse(first(endpoint::chat, body, true)) == expected);
  }
}

TEST_CASE("another engine goes on with prompt and output as ids") {
  using row = std::tuple<endpoint, std::string_view, std::uint32_t, std::string>;
  for (
    const auto& [kind, body, delivered, expected] :
    {row{endpoint::completions, R"({"prompt":"x"})", 20, "{" + added("") + "}"},
     row{
       endpoint::completions, R"({"model":"tiny","prompt":[1,2],"stream":true,"temperature":0.0})",
       3, R"({"model":"tiny","temperature":0.0,)" + added(R"("max_tokens":13,)") + "}"},
     row{
       endpoint::completions,
       R"({"logprobs":2,"n":1,"max_tokens":10,"min_tokens":5,"return_token_ids":false,"best_of":1})",
       2, R"({"logprobs":2,"best_of":1,)" + added(R"("max_tokens":8,"min_tokens":3,)") + "}"},
     row{
       endpoint::completions, R"({"max_tokens":10,"min_tokens":5})", 5,
       "{" + added(R"("max_tokens":5,)") + "}"},
     row{
       endpoint::completions, R"({"max_tokens":10,"max_tokens":20})", 12,
       "{" + added(R"("max_tokens":8,)") + "}"},
     row{endpoint::completions, R"({"max_tokens":3})", 5, "{" + added(R"("max_tokens":0,)") + "}"},
     row{
       endpoint::completions,
       " {\n \"x\" : { \"prompt\": [\"\\u0061\", 1.0] } ,\n \"prompt\":\"p\"\n}\n", 16,
       " {\n \"x\" : { \"prompt\": [\"\\u0061\", 1.0] }," + added("") + "\n}\n"},
     row{
       endpoint::completions, R"({"truncate_prompt_tokens":7,"truncation_side":"left","tools":[]})",
       16, R"({"tools":[],)" + added("") + "}"},
     row{
       endpoint::completions, R"({"kv_transfer_params":{},"bootstrap_host":"h"})", 16,
       "{" + added("") + "}"},
     row{
       endpoint::completions, R"({"pro\u006dpt":"x","m\u0061x_tokens":4})", 1,
       "{" + added(R"("max_tokens":3,)") + "}"},
     row{
       endpoint::chat,
       R"({"messages":[{"role":"user","content":"hi"}],"model":"tiny","stop":["a"],"stream":true,)"
       R"("stream_options":{"include_usage":true,"x":1},"user":"\u0075","logit_bias":{"7":-100}})",
       4,
       R"({"model":"tiny","stop":["a"],"stream_options":{"include_usage":true,"x":1},"user":"\u0075",)"
       R"("logit_bias":{"7":-100},)"
         + added("") + "}"},
     row{
       endpoint::chat,
       R"({"logprobs":true,"top_logprobs":3,"max_tokens":9,"max_completion_tokens":12,"tools":[],)"
       R"("tool_choice":"auto","chat_template":"x","chat_template_kwargs":{},"documents":[],)"
       R"("add_generation_prompt":true,"continue_final_message":false,"parallel_tool_calls":true})",
       4, "{" + added(R"("max_tokens":8,"logprobs":3,)") + "}"},
     row{endpoint::chat, R"({"logprobs":true})", 4, "{" + added(R"("logprobs":0,)") + "}"},
     row{
       endpoint::chat, R"({"logprobs":true,"top_logprobs":-1})", 4,
       "{" + added(R"("logprobs":-1,)") + "}"},
     row{endpoint::chat, R"({"logprobs":false,"top_logprobs":0})", 4, "{" + added("") + "}"}}) {
    CAPTURE(body);
    auto made = next(kind, body, delivered);
    CHECK(made == expected);
    CHECK(nlohmann::json::accept(made));
  }
}

TEST_CASE("a chat without a limit may go on as far as the model reaches") {
  using row = std::tuple<endpoint, std::string_view, std::uint32_t, std::string>;
  for (const auto& [kind, body, context, limit] :
       {row{endpoint::chat, "{}", 4096, R"("max_tokens":4092,)"}, row{endpoint::chat, "{}", 0, ""},
        row{endpoint::chat, "{}", 5, R"("max_tokens":1,)"}, row{endpoint::chat, "{}", 4, ""},
        row{endpoint::chat, R"({"max_tokens":7})", 4096, R"("max_tokens":5,)"},
        row{endpoint::completions, "{}", 4096, R"("max_tokens":14,)"}})
    CHECK(next(kind, body, 2, context) == "{" + added(limit) + "}");
}

TEST_CASE("an engine goes on from very many ids") {
  std::vector<token_id> ids(100000);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<token_id>(i * 40000);
  std::string_view body = R"({"prompt":"x"})";
  auto made = nlohmann::json::parse(continuation_body(body, completion(body), ids, 1, 0));
  CHECK(made["prompt"].get<std::vector<token_id>>() == ids);
  made = nlohmann::json::parse(continuation_body(body, completion(body), {}, 0, 0));
  CHECK(made["prompt"] == nlohmann::json::array());
}

} // namespace llumnix::relay
