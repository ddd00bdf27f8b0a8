#include "gateway/openai/prompt_fields.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <limits>

namespace llumnix::openai {
namespace {

constexpr std::array<std::string_view, 5> roles{"system", "developer", "user", "assistant", "tool"};

/// The text parts of a message's content, joined.
std::string join_parts(json_fields& message, simdjson::dom::array parts) {
  std::string text;
  std::size_t index = 0;
  for (auto part : parts) {
    auto name = fmt::format("content[{}]", index++);
    if (!part.is_object()) {
      message.wrong_type(name, "an object");
      return {};
    }
    json_fields fields{simdjson::dom::object{part}, message.path(name + "."), message.failure()};
    auto type = fields.text("type");
    if (!type)
      fields.fail(
        "type", "missing_required_parameter",
        fmt::format("'{}' is required.", fields.path("type")));
    else if (*type != "text")
      fields.fail(
        "type", "unsupported_parameter",
        fmt::format("Content of type '{}' is not supported, only 'text'.", *type));
    auto more = fields.text("text");
    if (!more)
      fields.fail(
        "text", "missing_required_parameter",
        fmt::format("'{}' is required.", fields.path("text")));
    if (message.failed())
      return {};
    text += *more;
  }
  return text;
}

chat_message read_message(json_fields& fields) {
  chat_message message;
  auto role = fields.text("role");
  if (!role)
    fields.fail(
      "role", "missing_required_parameter", fmt::format("'{}' is required.", fields.path("role")));
  else if (std::find(roles.begin(), roles.end(), *role) == roles.end())
    fields.fail(
      "role", "invalid_value",
      fmt::format("'{}' is no role; use system, developer, user, assistant or tool.", *role));
  else
    message.role = std::move(*role);
  if (auto content = fields.find("content")) {
    if (content->is_string())
      message.content = std::string_view{*content};
    else if (content->is_array())
      message.content = join_parts(fields, simdjson::dom::array{*content});
    else
      fields.wrong_type("content", "a string, null or an array of text parts");
  }
  return message;
}

/// One element of an array of prompts.
void add_prompt(json_fields& body, generation_request& request, simdjson::dom::element value) {
  if (value.is_string())
    request.prompts.emplace_back(std::string{std::string_view{value}});
  else if (value.is_array())
    request.prompts.emplace_back(read_token_ids(body, "prompt", simdjson::dom::array{value}));
  else
    body.wrong_type(
      "prompt",
      "a string, an array of token ids, or an array of strings or of arrays of token ids");
}

bool empty(const prompt& value) {
  return std::visit([](const auto& x) { return x.empty(); }, value);
}

} // namespace

void read_messages(json_fields& body, generation_request& request) {
  auto messages = body.array("messages");
  if (!messages) {
    body.fail("messages", "missing_required_parameter", "'messages' is required.");
    return;
  }
  std::size_t index = 0;
  for (auto element : *messages) {
    auto name = fmt::format("messages[{}]", index++);
    if (!element.is_object()) {
      body.wrong_type(name, "an object");
      return;
    }
    json_fields fields{simdjson::dom::object{element}, name + ".", body.failure()};
    request.messages.push_back(read_message(fields));
    if (body.failed())
      return;
  }
  if (request.messages.empty())
    body.fail("messages", "invalid_value", "'messages' must hold at least one message.");
}

void read_prompts(json_fields& body, generation_request& request) {
  auto value = body.find("prompt");
  if (!value) {
    body.fail("prompt", "missing_required_parameter", "'prompt' is required.");
    return;
  }
  if (!value->is_array()) {
    if (value->is_string())
      add_prompt(body, request, *value);
    else
      body.wrong_type("prompt", "a string or an array");
  } else if (simdjson::dom::array array = *value;
             array.begin() != array.end() && (*array.begin()).is_number()) {
    add_prompt(body, request, *value);
  } else {
    constexpr std::size_t most = 1024; // `n` and the configured limit bound it further
    if (array.size() > most)
      return body.fail(
        "prompt", "invalid_value", fmt::format("At most {} prompts are allowed.", most));
    auto strings = array.begin() != array.end() && (*array.begin()).is_string();
    for (auto element : array) {
      if (element.is_string() != strings)
        body.wrong_type("prompt", "an array of one kind: strings, or arrays of token ids");
      else
        add_prompt(body, request, element);
      if (body.failed())
        return;
    }
  }
  if (request.prompts.empty() || std::any_of(request.prompts.begin(), request.prompts.end(), empty))
    body.fail("prompt", "invalid_value", "'prompt' must not be empty.");
}

std::vector<token_id>
read_token_ids(json_fields& body, std::string_view name, simdjson::dom::array values) {
  std::vector<token_id> ids;
  ids.reserve(values.size());
  for (auto value : values) {
    auto id = as_integer(value);
    if (!id && !is_whole(value))
      body.wrong_type(name, "an array of token ids");
    else if (!id)
      body.fail(name, "invalid_value", "A number of that size is no token id.");
    else if (*id < 0 || *id > std::numeric_limits<token_id>::max())
      body.fail(name, "invalid_value", fmt::format("{} is no token id.", *id));
    if (body.failed())
      return {};
    ids.push_back(static_cast<token_id>(*id));
  }
  return ids;
}

} // namespace llumnix::openai
