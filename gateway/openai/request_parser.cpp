#include "gateway/openai/request_parser.hpp"

#include "gateway/openai/forgive.hpp"
#include "gateway/openai/json_fields.hpp"
#include "gateway/openai/prompt_fields.hpp"
#include "runtime/serving/byte_tokenizer.hpp"

#include <spdlog/fmt/fmt.h>

#include <charconv>
#include <limits>

namespace llumnix::openai {
namespace {

constexpr std::int64_t max_count = std::numeric_limits<std::int32_t>::max(); // of tokens
constexpr std::size_t max_stops = 4;
constexpr std::size_t max_stop_bytes = 1024; // each is held back and searched for with every token
constexpr std::size_t kept_capacity = 4 * 1024 * 1024; // of the parser, between two bodies
constexpr double no_bound = std::numeric_limits<double>::max();

void read_stops(json_fields& body, generation_request& request) {
  auto value = body.find("stop");
  if (!value)
    return;
  if (value->is_string()) {
    request.stop.emplace_back(std::string_view{*value});
  } else if (value->is_array()) {
    for (auto element : simdjson::dom::array{*value}) {
      if (!element.is_string()) {
        body.wrong_type("stop", "a string or an array of strings");
        return;
      }
      request.stop.emplace_back(std::string_view{element});
      if (request.stop.size() > max_stops)
        break;
    }
  } else {
    body.wrong_type("stop", "a string or an array of strings");
  }
  if (request.stop.size() > max_stops)
    body.fail("stop", "invalid_value", fmt::format("'stop' holds at most {} strings.", max_stops));
  for (const auto& text : request.stop)
    if (text.empty())
      body.fail("stop", "invalid_value", "'stop' must not hold an empty string.");
    else if (text.size() > max_stop_bytes)
      body.fail(
        "stop", "invalid_value",
        fmt::format("A 'stop' string holds at most {} bytes.", max_stop_bytes));
}

/// Of all biases only the one of end-of-sequence changes what an engine does here; the rest is
/// checked.
void read_logit_bias(json_fields& body, generation_request& request) {
  auto biases = body.object("logit_bias");
  if (!biases)
    return;
  for (auto field : *biases) {
    token_id id = 0;
    auto end = field.key.data() + field.key.size();
    auto read = std::from_chars(field.key.data(), end, id);
    double bias = 0;
    if (read.ec != std::errc{} || read.ptr != end || field.key.empty())
      body.fail(
        "logit_bias", "invalid_value",
        fmt::format("'{}' in 'logit_bias' is no token id.", field.key));
    else if (!field.value.is_number() || field.value.get(bias) != simdjson::SUCCESS)
      body.wrong_type("logit_bias", "a map from token ids to numbers");
    else if (bias < -100 || bias > 100)
      body.fail("logit_bias", "invalid_value", "Biases in 'logit_bias' must be from -100 to 100.");
    else if (id == byte_tokenizer::eos)
      request.sampling.eos = bias <= -100  ? eos_rule::forbid
                             : bias >= 100 ? eos_rule::force
                                           : eos_rule::free;
  }
}

void read_logprobs(json_fields& body, generation_request& request) {
  auto& sampling = request.sampling;
  if (request.kind == endpoint::completions) {
    if (auto top = body.integer("logprobs", 0, 20)) {
      sampling.logprobs = true;
      sampling.top_logprobs = static_cast<std::uint32_t>(*top);
    }
    return;
  }
  sampling.logprobs = body.boolean("logprobs", false);
  sampling.top_logprobs
    = static_cast<std::uint32_t>(body.integer("top_logprobs", 0, 20).value_or(0));
  if (sampling.top_logprobs > 0 && !sampling.logprobs)
    body.fail("top_logprobs", "invalid_value", "'top_logprobs' needs 'logprobs' to be true.");
}

void read_lengths(json_fields& body, generation_request& request) {
  for (auto name : {"max_tokens", "max_completion_tokens"}) // the later wins
    if (auto limit = body.integer(name, 1, max_count)) {
      request.sampling.max_tokens = static_cast<std::uint32_t>(*limit);
      request.limited = true;
    }
  if (!request.limited && request.kind == endpoint::chat)
    request.sampling.max_tokens = static_cast<std::uint32_t>(max_count);
  request.sampling.min_tokens
    = static_cast<std::uint32_t>(body.integer("min_tokens", 0, max_count).value_or(0));
  if (request.sampling.min_tokens > request.sampling.max_tokens)
    body.fail(
      "min_tokens", "invalid_value",
      fmt::format("'min_tokens' must not exceed 'max_tokens' ({}).", request.sampling.max_tokens));
}

void read_seed(json_fields& body, generation_request& request) {
  auto value = body.find("seed");
  if (!value)
    return;
  request.seeded = true;
  if (value->is_uint64())
    request.sampling.seed = std::uint64_t{*value};
  else if (auto seed = as_integer(*value))
    request.sampling.seed = static_cast<std::uint64_t>(*seed);
  else if (is_whole(*value))
    body.fail("seed", "invalid_value", "'seed' must be an integer of 64 bits.");
  else
    body.wrong_type("seed", "an integer");
}

/// Each of them travels with the request to its instance: a client has use for a few.
void read_stop_token_ids(json_fields& body, simdjson::dom::array ids, sampling_params& sampling) {
  constexpr std::size_t most = 64;
  if (ids.size() > most)
    body.fail(
      "stop_token_ids", "invalid_value",
      fmt::format("At most {} 'stop_token_ids' are allowed.", most));
  else
    sampling.stop_token_ids = read_token_ids(body, "stop_token_ids", ids);
}

void read_sampling(json_fields& body, generation_request& request) {
  auto& sampling = request.sampling;
  sampling.temperature = body.number("temperature", 0, 2).value_or(1);
  if (body.number("top_p", 0, 1) == 0.0)
    body.fail("top_p", "invalid_value", "'top_p' must be above 0.");
  // Checked, and without effect on the tokens of the engines there are (spec/modeled_engine.md 1).
  body.number("presence_penalty", -2, 2);
  body.number("frequency_penalty", -2, 2);
  if (body.number("repetition_penalty", 0, no_bound) == 0.0)
    body.fail("repetition_penalty", "invalid_value", "'repetition_penalty' must be above 0.");
  body.integer("top_k", -1, max_count);
  body.number("min_p", 0, 1);
  body.text("user");
  sampling.ignore_eos = body.boolean("ignore_eos", false);
  request.include_stop = body.boolean("include_stop_str_in_output", false);
  if (auto ids = body.array("stop_token_ids"))
    read_stop_token_ids(body, *ids, sampling);
  read_seed(body, request);
  read_lengths(body, request);
  read_logprobs(body, request);
  read_logit_bias(body, request);
  read_stops(body, request);
}

void read_stream_options(json_fields& body, generation_request& request) {
  request.stream = body.boolean("stream", false);
  auto options = body.object("stream_options");
  if (!options)
    return;
  if (!request.stream)
    body.fail("stream_options", "invalid_value", "'stream_options' needs 'stream' to be true.");
  json_fields fields{*options, "stream_options.", body.failure()};
  request.include_usage = fields.boolean("include_usage", false);
  request.continuous_usage
    = fields.boolean("continuous_usage_stats", false) && request.include_usage;
}

void read_choices(json_fields& body, generation_request& request, std::uint32_t max_choices) {
  request.n = static_cast<std::uint32_t>(body.integer("n", 1, max_choices).value_or(1));
  if (request.kind == endpoint::chat)
    return;
  if (auto best = body.integer("best_of", 1, max_count); best && *best != request.n)
    body.fail("best_of", "unsupported_parameter", "'best_of' other than 'n' is not supported.");
  if (request.prompts.size() * request.n > max_choices)
    body.fail(
      "prompt", "invalid_value", fmt::format("Prompts times 'n' must not exceed {}.", max_choices));
}

void read_completion(json_fields& body, generation_request& request) {
  request.echo = body.boolean("echo", false);
  if (auto suffix = body.find("suffix");
      suffix && !(suffix->is_string() && std::string_view{*suffix}.empty()))
    body.fail("suffix", "unsupported_parameter", "'suffix' is not supported.");
  if (request.echo && request.sampling.logprobs)
    body.fail(
      "echo", "unsupported_parameter",
      "'echo' with 'logprobs' is not supported: there are none of the prompt.");
}

api_error bad_json(simdjson::error_code code) {
  return {
    400,
    "invalid_json",
    fmt::format("The body is not valid JSON: {}", simdjson::error_message(code)),
    {}};
}

/// What may be due to something that is forgiven.
bool worth_forgiving(simdjson::error_code code) {
  return code == simdjson::UTF8_ERROR || code == simdjson::STRING_ERROR
         || code == simdjson::NUMBER_ERROR;
}

std::variant<generation_request, api_error>
read_request(endpoint kind, simdjson::dom::object object, std::uint32_t max_choices) {
  std::optional<api_error> failure;
  json_fields fields{object, {}, failure};
  generation_request request;
  request.kind = kind;
  if (auto model = fields.text("model"))
    request.model = std::move(*model);
  else
    fields.fail("model", "missing_required_parameter", "'model' is required.");
  if (kind == endpoint::chat)
    read_messages(fields, request);
  else
    read_prompts(fields, request);
  read_choices(fields, request, max_choices);
  read_sampling(fields, request);
  read_stream_options(fields, request);
  if (kind == endpoint::completions)
    read_completion(fields, request);
  if (failure)
    return std::move(*failure);
  return request;
}

} // namespace

struct request_parser::state {
  simdjson::error_code read(std::string& body, simdjson::dom::element& root) {
    body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
    return parser.parse(body.data(), body.size(), false).get(root);
  }
  /// The same for what simdjson is stricter about than others; the body stays as it is.
  simdjson::error_code read_forgiving(std::string& body, simdjson::dom::element& root) {
    auto code = read(body, root);
    if (!worth_forgiving(code))
      return code;
    auto forgiven = body;
    return forgive(forgiven) ? read(forgiven, root) : code;
  }
  std::variant<generation_request, api_error> parse(endpoint kind, std::string& body) {
    simdjson::dom::element root;
    if (auto code = read_forgiving(body, root))
      return bad_json(code);
    if (!root.is_object())
      return api_error{400, "invalid_type", "The body must be a JSON object.", {}};
    return read_request(kind, simdjson::dom::object{root}, max_choices);
  }

  simdjson::dom::parser parser;
  std::uint32_t max_choices;
};

request_parser::request_parser(std::uint32_t max_choices) : state_{std::make_unique<state>()} {
  state_->max_choices = max_choices;
}

request_parser::~request_parser() = default;

std::variant<generation_request, api_error>
request_parser::parse(endpoint kind, std::string& body) {
  auto parsed = state_->parse(kind, body);
  if (state_->parser.capacity() > kept_capacity)
    state_->parser = simdjson::dom::parser{};
  return parsed;
}

} // namespace llumnix::openai
