#include "gateway/relay/asking.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

// Token ids in and out: vLLM's /inference/v1/generate.

namespace llumnix::relay {
namespace {

using nlohmann::json;
using openai::endpoint;
using verdict = relay_stream::verdict;

std::variant<relay_request, openai::api_error> read(std::string_view body) {
  return request_reader{}.read(endpoint::tokens, body);
}

relay_request accepted(std::string_view body) {
  auto outcome = read(body);
  if (auto* failure = std::get_if<openai::api_error>(&outcome))
    FAIL(failure->message << " in " << body);
  return std::get<relay_request>(outcome);
}

/// A body with these sampling parameters, and more fields.
std::string with(std::string_view sampling, std::string_view more = {}) {
  return R"({"token_ids":[7,8,9],"stream":true,"sampling_params":{)" + std::string{sampling} + "}"
         + std::string{more} + "}";
}

/// An engine whose next token is a function of all before it: of 0 to 25 the letters are the text.
struct toy_engine {
  bool text = false;
  std::uint32_t tokens_per_event = 1;
  std::uint32_t ends_after = 1000; ///< output tokens of the whole run
  std::size_t held_back = 0;       ///< letters at the end of the text, which a stop string may be

  static token_id next(const std::vector<token_id>& all) {
    std::uint64_t x = 1469598103934665603ull;
    for (auto id : all)
      x = (x ^ id) * 1099511628211ull;
    return static_cast<token_id>((x >> 20) % 26);
  }

  /// In vLLM 0.32's form, without `data: `, of a run from `ids` (prompt and `kept` of the output).
  std::vector<std::string> run(
    std::vector<token_id> ids, std::uint32_t kept, std::uint32_t max_tokens, std::string id,
    bool prompt_told) const {
    auto prompt = ids;
    std::vector<std::string> events;
    std::uint32_t told = 0;
    std::string letters;
    for (bool ends = false; !ends;) {
      json fresh = json::array();
      json logprobs = json::array();
      while (!ends && fresh.size() < tokens_per_event) {
        ids.push_back(next(ids));
        fresh.push_back(ids.back());
        letters += static_cast<char>('a' + ids.back());
        logprobs.push_back({{"token_id", ids.back()}, {"logprob", -0.5}, {"top_logprobs", {}}});
        ends = ++told >= max_tokens || kept + told >= ends_after;
      }
      json choice{
        {"index", 0},
        {"finish_reason", nullptr},
        {"stop_reason", nullptr},
        {"token_ids", fresh},
        {"routed_experts", nullptr},
        {"sampling_mask", nullptr},
        {"weight_versions", nullptr},
        {"logprobs", {{"content", logprobs}}}};
      if (ends)
        choice["finish_reason"] = kept + told >= ends_after ? "stop" : "length";
      if (text) {
        auto length = ends ? letters.size() : letters.size() - std::min(letters.size(), held_back);
        choice["text"] = letters.substr(0, length);
        letters.erase(0, length);
      }
      json event{
        {"request_id", id},
        {"usage", nullptr},
        {"output_mode", text ? "text" : "tokens"},
        {"choices", {choice}}};
      if (events.empty() && prompt_told)
        event["prompt_token_ids"] = prompt;
      events.push_back(event.dump());
    }
    events.push_back(json{
      {"request_id", id},
      {"usage",
       {{"prompt_tokens", prompt.size()},
        {"total_tokens", prompt.size() + told},
        {"completion_tokens", told}}},
      {"output_mode", text ? "text" : "tokens"},
      {"choices",
       json::array()}}.dump());
    events.push_back("[DONE]");
    return events;
  }
};

/// What a client makes of its events.
struct client_view {
  std::vector<token_id> ids, named; ///< told, and by the log-probabilities
  std::string text, id;
  std::vector<std::string> finish;
  json usage;
  int prompts = 0;
  bool done = false, one_id = true;
  friend bool operator==(const client_view&, const client_view&) = default;

  explicit client_view(const std::string& events) {
    for (std::size_t from = 0; from < events.size();) {
      auto end = events.find("\n\n", from);
      REQUIRE(events.compare(from, 6, "data: ") == 0);
      REQUIRE_FALSE(done);
      auto data = events.substr(from + 6, end - from - 6);
      from = end + 2;
      if (data == "[DONE]") {
        done = true;
        continue;
      }
      auto event = json::parse(data);
      one_id &= id.empty() || event["request_id"] == id;
      id = event["request_id"];
      prompts += event.contains("prompt_token_ids");
      if (!event["usage"].is_null())
        usage = event["usage"];
      for (const auto& choice : event["choices"]) {
        text += choice.value("text", "");
        for (const auto& each : choice["token_ids"])
          ids.push_back(each);
        if (!choice["logprobs"].is_null())
          for (const auto& each : choice["logprobs"]["content"])
            named.push_back(each["token_id"]);
        if (!choice["finish_reason"].is_null())
          finish.push_back(choice["finish_reason"]);
      }
    }
  }
};

verdict feed(
  relay_stream& stream, chunk_reader& reader, const std::vector<std::string>& events,
  std::size_t cut, std::string& out) {
  auto last = verdict::go_on;
  for (std::size_t i = 0; i < std::min(cut, events.size()) && last == verdict::go_on; ++i)
    last = stream.on_event(reader, events[i], out);
  return last;
}

} // namespace

TEST_CASE("of a request with token ids the sampling parameters are read where they stand") {
  auto body = R"({"token_ids":[5,6,7],"model":"t","stream":true,"priority":-2,)"
              R"("stream_options":{"include_usage":true},"max_tokens":1,"sampling_params":)"
              R"({"max_tokens":9,"min_tokens":3,"logprobs":2,"temperature":0.0,"seed":4}})";
  auto request = accepted(body);
  CHECK(request.kind == endpoint::tokens);
  CHECK(request.model == "t");
  CHECK(request.stream);
  CHECK(request.include_usage);
  CHECK(request.max_tokens == 9);
  CHECK(request.min_tokens == 3);
  CHECK(request.logprobs);
  CHECK(request.greedy);
  CHECK(request.wants_token_ids);
  CHECK(request.without_text);
  CHECK(request.prompt_tokens == 3);
  CHECK(request.priority == -2);
  CHECK(request.single_use.empty());
  CHECK(prompt_ids(body, request) == std::vector<token_id>{5, 6, 7});
  CHECK_FALSE(accepted(with("")).max_tokens.has_value());
  CHECK_FALSE(limit_of(accepted(with(""))).has_value()); // as far as the context reaches
  accepted("{}");                                        // the engine says what it thinks of it
}

TEST_CASE("of a request with token ids what does not carry over is named") {
  using row = std::tuple<std::string_view, std::string_view, std::string_view>;
  for (auto [sampling, more, name] :
       {row{"", "", ""},
        row{R"("seed":1)", "", "seed"},
        row{R"("seed":1,"temperature":0)", "", ""},
        row{"", R"(,"seed":1,"n":3,"echo":true)", ""}, // not where they count
        row{R"("presence_penalty":0.1)", "", "presence_penalty"},
        row{R"("frequency_penalty":0.1)", "", "frequency_penalty"},
        row{R"("repetition_penalty":1.1,"logit_bias":{"1":2},"bad_words":[])", "", ""},
        row{R"("bad_words":["a"])", "", "bad_words"},
        row{R"("structured_outputs":{"regex":"a"})", "", "structured_outputs"},
        row{R"("n":2)", "", "n"},
        row{R"("n":1)", "", ""},
        row{R"("prompt_logprobs":0)", "", "prompt_logprobs"},
        row{R"("thinking_token_budget":5)", "", "thinking_token_budget"},
        row{R"("repetition_detection":{"min_count":2})", "", "repetition_detection"},
        row{R"("trace_decode_token_ids":[1])", "", "trace_decode_token_ids"},
        row{"", R"(,"features":{"mm_hashes":{}})", "features"},
        row{"", R"(,"content_parts":[{"type":"image_url"}])", "content_parts"},
        row{"", R"(,"features":null,"content_parts":[])", ""},
        row{"", R"(,"kv_transfer_params":{"a":1})", "kv_transfer_params"},
        row{R"("stop":["ab"])", "", "stop"},
        row{R"("stop":"a","temperature":1)", "", "stop"},
        row{R"("stop":["ab"],"temperature":0)", "", ""},
        row{R"("stop":[])", "", ""},
        row{R"("stop":["ab"])", R"(,"output_mode":"text")", ""}}) {
    CAPTURE(sampling);
    CAPTURE(more);
    CHECK(accepted(with(sampling, more)).single_use == name);
  }
}

TEST_CASE("fields of a request with token ids of a wrong type are refused by name") {
  struct row {
    std::string body;
    std::string_view param, expected;
  };
  const std::string ids = "token_ids";
  for (const auto& [body, param, expected] :
       {row{R"({"token_ids":"a"})", ids, "an array of token ids"},
        row{R"({"token_ids":7})", ids, "an array of token ids"},
        row{R"({"token_ids":[]})", ids, "an array of token ids"},
        row{R"({"token_ids":[[1],[2]]})", ids, "an array of token ids"},
        row{R"({"token_ids":["1"]})", ids, "an array of token ids"},
        row{R"({"sampling_params":[]})", "sampling_params", "an object"},
        row{with(R"("stop":1)"), "sampling_params.stop", "a string or an array of strings"},
        row{with(R"("extra_args":1)"), "sampling_params.extra_args", "an object"}}) {
    CAPTURE(body);
    auto outcome = read(body);
    REQUIRE(std::holds_alternative<openai::api_error>(outcome));
    auto name = std::string{param};
    CHECK(
      std::get<openai::api_error>(outcome)
      == openai::api_error{
        400, "invalid_type", "'" + name + "' must be " + std::string{expected} + ".", name});
  }
}

TEST_CASE(
  "a client does not say what an engine connects to, not among its extra arguments either") {
  for (std::string_view name :
       {"kv_transfer_params", "ec_transfer_params", "k\\u0076_transfer_params"}) {
    auto outcome = read(with(R"("extra_args":{"a":1,")" + std::string{name} + R"(":{"b":1}})"));
    REQUIRE(std::holds_alternative<openai::api_error>(outcome));
    CHECK(std::get<openai::api_error>(outcome).code == "invalid_value");
    CHECK(std::get<openai::api_error>(outcome).param.starts_with("sampling_params.extra_args."));
  }
  accepted(with(R"("extra_args":{"a":{"kv_transfer_params":1}})"));
  auto body = with("", R"(,"kv_transfer_params":{"a":1},"x":2)");
  auto made = first_body(body, accepted(body), true);
  CHECK(body.substr(0, made.kept) + made.rest == with("", R"(,"x":2)"));
}

TEST_CASE("the engine that begins with token ids gets the client's bytes") {
  auto body = with(R"( "max_tokens" : 5.0 )", R"(,"x":{"y":[1.50]}})").substr(0);
  body.pop_back();
  auto asked = ask_for(body, accepted(body), {}, {.address = "e:1", .token_ids = true});
  REQUIRE(asked);
  CHECK(asked->body.kept == body.size());
  CHECK(asked->body.rest.empty());
  CHECK_FALSE(asked->hides_ids);
  CHECK_FALSE(asked->hides_usage);
}

TEST_CASE("another engine goes on with token ids, and what is left of the limits") {
  struct row {
    std::string body;
    std::uint32_t delivered, context;
    std::string expected;
  };
  for (
    const auto& [body, delivered, context, expected] : {
      row{
        R"({"token_ids":[7],"x":1e2,"sampling_params":{"max_tokens":9,"y":"\u0061"},"stream":true})",
        2, 100,
        R"({"x":1e2,"stream":true,"sampling_params":{"y":"\u0061","max_tokens":7},"token_ids":[7,1,2]})"},
      row{
        R"({"sampling_params":{"min_tokens":5,"max_tokens":9},"token_ids":[7]})", 2, 100,
        R"({"sampling_params":{"max_tokens":7,"min_tokens":3},"token_ids":[7,1,2]})"},
      row{
        R"({"token_ids":[7],"sampling_params":{"min_tokens":2,"max_tokens":9}})", 2, 100,
        R"({"sampling_params":{"max_tokens":7},"token_ids":[7,1,2]})"},
      row{
        R"({"token_ids":[7],"sampling_params":{ }})", 2, 100,
        R"({"sampling_params":{"max_tokens":97 },"token_ids":[7,1,2]})"},
      row{
        R"({"token_ids":[7],"sampling_params":{},"token_offsets":[[0,1]],"ec_transfer_params":{}})",
        2, 100, R"({"sampling_params":{"max_tokens":97},"token_ids":[7,1,2]})"},
      row{
        R"({"token_ids":[7],"sampling_params":{"a":1},"sampling_params":{"max_tokens":4}})", 2, 100,
        R"({"sampling_params":{"max_tokens":2},"token_ids":[7,1,2]})"},
    }) {
    CAPTURE(body);
    resumption from{resumption::from::ids, {7, 1, 2}, {}, delivered};
    auto asked = ask_for(
      body, accepted(body), from, {.address = "e:1", .token_ids = true, .context_tokens = context});
    REQUIRE(asked);
    CHECK(asked->body.kept == 0);
    CHECK(asked->body.rest == expected);
    CHECK_FALSE(asked->hides_ids);
  }
  resumption from{resumption::from::ids, {7}, {}, 1};
  CHECK_FALSE(cannot_go_on(accepted(with("")), from, {.address = "e:1"}).empty());
  CHECK(cannot_go_on(accepted(with("")), from, {.address = "e:1", .context_tokens = 9}).empty());
  CHECK(cannot_go_on(accepted(with(R"("max_tokens":3)")), from, {.address = "e:1"}).empty());
}

TEST_CASE("chunks of token ids are chunks where they were asked for, and nowhere else") {
  using row = std::tuple<std::string_view, bool, bool>; // good for tokens, for the others
  for (auto [event, tokens, others] :
       {row{R"({"request_id":"a","choices":[{"index":0,"token_ids":[5]}]})", true, false},
        row{R"({"request_id":"a","choices":[{"index":0,"token_ids":[5],"text":"x"}]})", true, true},
        row{R"({"choices":[{"index":0,"finish_reason":"stop","token_ids":null}]})", true, false},
        row{R"({"choices":[{"index":0,"delta":{"content":"x"}}]})", false, true},
        row{R"({"choices":[{"token_ids":[5]}]})", false, false},
        row{R"({"choices":[{"index":0,"token_ids":[-5]}]})", false, false},
        row{R"({"request_id":"a","choices":[],"usage":{"completion_tokens":3}})", true, true}}) {
    CAPTURE(event);
    chunk_reader reader;
    CHECK(reader.read(event, false, true).has_value() == tokens);
    CHECK(reader.read(event).has_value() == others);
  }
  chunk_reader reader;
  auto facts = reader.read(
    R"({"request_id":"r","id":"i","choices":[{"index":0,"token_ids":[5,6]}]})", false, true);
  REQUIRE(facts);
  CHECK((*facts)->id == "r");
  CHECK((*facts)->choices.at(0).ids == std::vector<token_id>{5, 6});
}

TEST_CASE("a stream of token ids cut anywhere and gone on with elsewhere is the unbroken one") {
  chunk_reader reader;
  constexpr std::uint32_t max_tokens = 12;
  for (bool text : {false, true})
    for (std::string_view stop : {"", R"("stop":["QQ"],)"})
      for (std::uint32_t per_event : {1u, 3u})
        for (std::uint32_t ends_after : {1000u, 7u})
          for (bool prompt_told : {false, true}) {
            toy_engine engine{text, per_event, ends_after, stop.empty() ? 0u : 1u};
            auto body = with(
              std::string{stop} + R"("max_tokens":12,"temperature":0)",
              std::string{R"(,"stream_options":{})"} + (text ? R"(,"output_mode":"text")" : ""));
            auto request = accepted(body);
            auto whole = engine.run({7, 8, 9}, 0, max_tokens, "generate-tokens-r", prompt_told);
            relay_stream unbroken{request};
            std::string all;
            REQUIRE(feed(unbroken, reader, whole, whole.size(), all) == verdict::complete);
            client_view expected{all};
            REQUIRE(expected.named == expected.ids);
            for (std::size_t cut = 0; cut < whole.size(); ++cut)
              for (std::size_t second : {std::size_t{1000}, std::size_t{0}, std::size_t{2}}) {
                CAPTURE(text);
                CAPTURE(stop);
                CAPTURE(per_event);
                CAPTURE(cut);
                CAPTURE(second);
                relay_stream stream{request};
                std::string out;
                auto last = feed(stream, reader, whole, cut, out);
                for (auto limit : {second, std::size_t{1000}}) { // the second engine dies too
                  REQUIRE(last == verdict::go_on);
                  if (stream.begun())
                    stream.set_prompt(prompt_ids(body, request));
                  auto next = stream.resume();
                  REQUIRE(next);
                  auto ids = next->where == resumption::from::ids ? next->ids
                                                                  : std::vector<token_id>{7, 8, 9};
                  CHECK(ids.size() == 3 + next->kept);
                  last = feed(
                    stream, reader,
                    engine.run(
                      ids, next->kept, max_tokens - next->kept, "generate-tokens-r-1", prompt_told),
                    limit, out);
                  if (last != verdict::go_on)
                    break;
                }
                CHECK(last == verdict::complete);
                auto seen = client_view{out};
                if (cut == 0)
                  seen.id = expected.id;
                CHECK((seen == expected));
              }
          }
}

TEST_CASE("of tokens delivered all are kept, but where unseen stop strings make it begin anew") {
  chunk_reader reader;
  toy_engine engine;
  for (std::string_view stop : {"", R"("stop":"Q",)"}) {
    auto body = with(std::string{stop} + R"("max_tokens":12,"temperature":0)");
    auto request = accepted(body);
    relay_stream stream{request};
    std::string out;
    feed(stream, reader, engine.run({7, 8, 9}, 0, 12, "r", false), 5, out);
    CHECK(stream.output_tokens() == 5);
    CHECK(stream.prompt_tokens() == 3);
    stream.set_prompt({7, 8, 9});
    auto next = stream.resume();
    REQUIRE(next);
    CHECK(next->kept == (stop.empty() ? 5 : 0));
  }
}

TEST_CASE("what an engine that goes on says of the weights is not known of the whole") {
  auto request = accepted(with(R"("max_tokens":9)"));
  relay_stream stream{request};
  chunk_reader reader;
  std::string out;
  stream.on_event(reader, R"({"request_id":"a","choices":[{"index":0,"token_ids":[5]}]})", out);
  stream.set_prompt({7, 8, 9});
  REQUIRE(stream.resume());
  out.clear();
  stream.on_event(
    reader,
    R"({"request_id":"b","x":1.50,"mm_placeholders":null,"choices":[{"index":0,"finish_reason":"stop","token_ids":[6],"sampling_mask":[[1]],"weight_versions":[{"version":"1"}]}]})",
    out);
  CHECK(
    out
    == "data: "
       R"({"request_id":"a","x":1.50,"choices":[{"index":0,"finish_reason":"stop","token_ids":[6],"sampling_mask":[[1]],"weight_versions":null}]})"
       "\n\n");
}

} // namespace llumnix::relay
