#include "gateway/relay/relay_request.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/request_fields.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix::relay {
namespace {

constexpr auto most = std::numeric_limits<std::uint32_t>::max();

/// From 0 to what 32 bits hold.
std::uint32_t clamped(std::int64_t value) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(value, 0, most));
}

void read_stream(request_fields& body, relay_request& request) {
  request.stream = body.boolean("stream");
  auto options = body.of_type("stream_options", '{', "an object");
  if (options.empty())
    return;
  request.include_usage
    = body.boolean("stream_options.include_usage", last_member(options, "include_usage"), true);
  request.continuous_usage = body.boolean(
                               "stream_options.continuous_usage_stats",
                               last_member(options, "continuous_usage_stats"), false)
                             && request.include_usage;
}

std::vector<std::string> stop_strings(request_fields& body) {
  std::vector<std::string> all;
  auto take = [&](std::string_view value) {
    if (!value.starts_with('"'))
      return body.wrong_type("stop", "a string or an array of strings");
    append_unescaped(all.emplace_back(), inside_quotes(value));
  };
  auto stop = body.find("stop");
  if (stop.starts_with('[')) {
    json_cursor at{stop, json_cursor::read_before{}};
    at.enter_array();
    while (at.next_element())
      take(at.skip());
  } else if (!stop.empty()) {
    take(stop);
  }
  return all;
}

void read_stops(request_fields& body, relay_request& request) {
  request.stops = stop_strings(body);
  std::size_t longest = 0;
  for (const auto& stop : request.stops)
    longest = std::max(longest, openai::count_characters(stop));
  bool shown = body.boolean("include_stop_str_in_output");
  request.stop_reach = longest == 0 ? 0 : clamped(static_cast<std::int64_t>(longest - 1));
  request.held_back = shown ? 0 : request.stop_reach;
  request.unseen_stops = request.without_text && longest > 0;
  request.may_show_stops
    = request.kind != openai::endpoint::tokens && !body.holds_something("stop_token_ids")
      && body.boolean("skip_special_tokens", body.find("skip_special_tokens"), true);
}

void read_lengths(request_fields& body, relay_request& request) {
  auto limit = body.integer("max_tokens");
  if (request.kind == openai::endpoint::chat) // engines ignore it in a completion
    if (auto newer = body.integer("max_completion_tokens"))
      limit = newer;
  if (limit && *limit > 0)
    request.max_tokens = clamped(*limit);
  request.min_tokens = clamped(body.integer("min_tokens").value_or(0));
}

void read_logprobs(request_fields& body, relay_request& request) {
  bool chat = request.kind == openai::endpoint::chat;
  auto top = chat ? body.integer("top_logprobs") : body.integer("logprobs");
  request.logprobs = chat ? body.boolean("logprobs") : top.has_value();
  request.tokens_as_ids = body.boolean("return_tokens_as_token_ids");
  if (top)
    request.top_logprobs = *top < 0 ? most : clamped(*top);
}

field_name prompt_of(openai::endpoint kind) {
  switch (kind) {
    case openai::endpoint::chat: return "messages";
    case openai::endpoint::completions: return "prompt";
    case openai::endpoint::tokens: break;
  }
  return "token_ids";
}

void check_prompt(request_fields& body, openai::endpoint kind) {
  if (kind == openai::endpoint::chat)
    return;
  const auto& size = body.size();
  bool ids = size.prompts == 0 && size.text_bytes == 0;
  if (kind == openai::endpoint::tokens && body.has("token_ids") && !(ids && size.ids > 0))
    body.wrong_type("token_ids", "an array of token ids");
  auto prompt = body.find("prompt");
  if (!prompt.empty() && !prompt.starts_with('"') && !prompt.starts_with('['))
    body.wrong_type("prompt", "a string or an array");
}

/// Whether the output is to have a form; "text" is none.
bool has_format(std::string_view format) {
  if (format.starts_with('{'))
    return last_member(format, "type") != R"("text")";
  return !format.empty();
}

/// What the engine passes on to whatever moves KV blocks for it: there, too, a client is not to
/// make it connect somewhere.
void check_extra(request_fields& sampling) {
  auto extra = sampling.of_type("extra_args", '{', "an object");
  json_cursor at{extra.empty() ? "{}" : extra, json_cursor::read_before{}};
  at.enter_object();
  for (; at.next_member(); at.skip())
    if (connects(at.key()) && !sampling.failure())
      sampling.failure() = openai::api_error{
        400, "invalid_value", "It is not for clients to say what an engine connects to.",
        "sampling_params.extra_args." + std::string{at.key()}};
}

/// The first that applies, in the order in which they are told of.
std::string_view
find_single_use(request_fields& top, request_fields& body, const relay_request& request) {
  const auto& size = top.size();
  bool tokens = request.kind == openai::endpoint::tokens;
  auto above = [&](field_name name, std::int64_t least) {
    return body.integer(name).value_or(least) > least;
  };
  bool chat = request.kind == openai::endpoint::chat;
  bool named_alternatives = chat && request.tokens_as_ids
                            && request.logprobs && request.top_logprobs > 0;
  bool sampled = body.number("temperature", 1) > 0;
  using row = std::pair<bool, std::string_view>;
  const row rows[]{
    {body.integer("seed") && sampled, "seed"},
    {body.number("frequency_penalty", 0) != 0, "frequency_penalty"},
    {body.number("presence_penalty", 0) != 0, "presence_penalty"},
    {has_format(body.find("response_format")), "response_format"},
    {body.holds_something("structured_outputs"), "structured_outputs"},
    {body.guided(), "guided_*"},
    {body.has("regex"), "regex"}, // these three are SGLang's
    {body.has("ebnf"), "ebnf"},
    {body.has("json_schema"), "json_schema"},
    {body.holds_something("tools"), "tools"},
    {body.holds_something("functions"), "functions"},
    {above("n", 1), "n"},
    {size.prompts > 1, "prompt"},
    {body.has("prompt_embeds"), "prompt_embeds"},
    {!size.only_text, "messages"}, // an image is more than the ids of its place
    {above("best_of", 1), "best_of"},
    {body.boolean("echo"), "echo"},
    {body.holds_something("suffix"), "suffix"},
    {body.boolean("use_beam_search"), "use_beam_search"},
    {body.has("prompt_logprobs"), "prompt_logprobs"},
    {body.holds_something("logits_processors"), "logits_processors"},
    {body.holds_something("custom_logit_processor"), "custom_logit_processor"}, // SGLang's
    {body.holds_something("bad_words"), "bad_words"}, // looked for in the output of one request
    {above("thinking_token_budget", -1), "thinking_token_budget"},
    {body.holds_something("repetition_detection"), "repetition_detection"},
    {chat && body.has("include_reasoning") && !body.boolean("include_reasoning"),
     "include_reasoning"}, // its engine tells no ids, and which tokens it left out
    {body.has("logprob_token_ids"), "logprob_token_ids"},
    {named_alternatives, "return_tokens_as_token_ids"},
    {tokens && top.holds_something("features"), "features"}, // images and the like
    {tokens && top.holds_something("content_parts"), "content_parts"},
    {tokens && body.has("trace_decode_token_ids"), "trace_decode_token_ids"}, // counted from now on
    {request.unseen_stops && !request.greedy, "stop"},
    {top.has("kv_transfer_params"), "kv_transfer_params"},
  };
  auto found
    = std::find_if(std::begin(rows), std::end(rows), [](const row& each) { return each.first; });
  return found == std::end(rows) ? std::string_view{} : found->second;
}

std::uint32_t count_choices(request_fields& body, const prompt_size& size) {
  auto n = std::max(clamped(body.integer("n").value_or(1)), 1u);
  auto prompts = std::clamp<std::uint64_t>(size.prompts, 1, most);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(n * prompts, most));
}

} // namespace

std::variant<relay_request, openai::api_error>
request_reader::read(openai::endpoint kind, std::string_view body) {
  request_fields fields{body, prompt_of(kind)};
  if (kind != openai::endpoint::tokens)
    return read(kind, body, fields, fields);
  auto given = fields.of_type("sampling_params", '{', "an object");
  request_fields sampling{given.empty() ? "{}" : given, prompt_of(kind), "sampling_params."};
  return read(kind, body, fields, sampling);
}

/// `sampling`: where the sampling parameters stand.
std::variant<relay_request, openai::api_error> request_reader::read(
  openai::endpoint kind, std::string_view body, request_fields& fields, request_fields& sampling) {
  relay_request request;
  request.kind = kind;
  bool tokens = kind == openai::endpoint::tokens;
  request.without_text = tokens && fields.find("output_mode") != R"("text")";
  if (auto model = fields.of_type("model", '"', "a string"); !model.empty())
    append_unescaped(request.model, inside_quotes(model));
  request.wants_token_ids = fields.boolean("return_token_ids") || tokens;
  read_stream(fields, request);
  read_stops(sampling, request);
  read_lengths(sampling, request);
  read_logprobs(sampling, request);
  request.greedy = sampling.has("temperature") && sampling.number("temperature", 1) == 0;
  if (tokens)
    check_extra(sampling);
  check_prompt(fields, kind);
  if (auto priority = fields.integer("priority"))
    request.priority = static_cast<std::int32_t>(std::clamp<std::int64_t>(
      *priority, std::numeric_limits<std::int32_t>::min(),
      std::numeric_limits<std::int32_t>::max()));
  const auto& size = fields.size();
  request.prompt_tokens = size.tokens();
  request.choices = count_choices(sampling, size);
  request.single_use = find_single_use(fields, sampling, request);
  for (auto* each : {&fields, &sampling})
    if (request.single_use.empty())
      request.single_use = each->not_understood();
  for (auto* each : {&fields, &sampling})
    if (each->failure())
      return std::move(*each->failure());
  request.layout = fields.layout();
  if (kind != openai::endpoint::chat && size.prompts == 0 && size.ids > 0) {
    auto prompt = fields.find(prompt_of(kind));
    auto begin = static_cast<std::size_t>(prompt.data() - body.data());
    request.ids = {begin, begin + prompt.size()};
  }
  return request;
}

std::vector<token_id> prompt_ids(std::string_view body, const relay_request& request) {
  return read_numbers(
    body.substr(request.ids.begin, request.ids.end - request.ids.begin), request.prompt_tokens);
}

} // namespace llumnix::relay
