#include "gateway/relay/completion_logprobs.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/event_text.hpp"
#include "gateway/relay/object_writer.hpp"

namespace llumnix::relay {
namespace {

const std::string by_id = "token_id:";

/// The arrays of a completion's log-probabilities, as JSON.
struct columns {
  std::string_view tokens;
  std::string_view logprobs;
  std::string_view alternatives;

  std::string_view* find(std::string_view name) {
    return name == "tokens"           ? &tokens
           : name == "token_logprobs" ? &logprobs
           : name == "top_logprobs"   ? &alternatives
                                      : nullptr;
  }
};

columns read_columns(json_cursor& at) {
  columns found;
  if (at.peek() != '{') {
    at.skip();
    return found;
  }
  at.enter_object();
  while (at.next_member()) {
    auto value = at.skip();
    if (auto* column = found.find(at.key()))
      *column = value;
  }
  return found;
}

/// Passes over the first `count` elements of the array entered last.
void skip_elements(json_cursor& at, std::size_t count) {
  while (count-- > 0 && at.next_element())
    at.skip();
}

void append_bytes(std::string& out, std::string_view text) {
  out += '[';
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i > 0)
      out += ',';
    openai::append_number(out, std::uint64_t{static_cast<unsigned char>(text[i])});
  }
  out += ']';
}

/// What is said of a token, taken or not. vLLM has no number where a completion has null, but the
/// least.
void append_token(
  object_writer& object, std::string& out, std::string_view text, std::string_view logprob) {
  object.name("token");
  openai::append_quoted(out, text);
  object.add("logprob", logprob == "null" ? "-9999.0" : logprob);
  object.name("bytes");
}

/// The first `top` of the alternatives at a token, of which `told` is the object.
void append_alternatives(std::string& out, std::string_view told, std::uint32_t top) {
  json_cursor at{told};
  out += '[';
  if (told.starts_with('{') && at.enter_object())
    for (std::uint32_t count = 0; count < top && at.next_member(); ++count) {
      if (count > 0)
        out += ',';
      object_writer object{out};
      append_token(object, out, at.key(), at.skip());
      append_bytes(out, at.key());
      object.close();
    }
  out += ']';
}

} // namespace

void append_column(std::string& out, json_cursor& at, std::uint64_t grow, std::size_t skip) {
  at.enter_array();
  skip_elements(at, skip);
  out += '[';
  for (bool first = true; at.next_element(); first = false) {
    if (!first)
      out += ',';
    auto value = at.skip();
    auto number = grow > 0 ? to_count(value) : std::nullopt;
    if (number)
      openai::append_number(out, *number + grow);
    else
      append_event_text(out, value);
  }
  out += ']';
}

void append_moved_logprobs(
  std::string& out, json_cursor& at, std::uint64_t text_offset, std::size_t skip) {
  if (at.peek() != '{')
    return append_event_text(out, at.skip());
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    object.name(at.key());
    if (at.peek() == '[')
      append_column(out, at, at.key() == "text_offset" ? text_offset : 0, skip);
    else
      append_event_text(out, at.skip());
  }
  object.close();
}

void append_chat_logprobs(
  std::string& out, json_cursor& at, std::uint32_t top, std::size_t skip,
  std::span<const token_id> ids) {
  auto told = read_columns(at);
  if (!told.tokens.starts_with('[') || !told.logprobs.starts_with('[')) {
    out += "null";
    return;
  }
  json_cursor tokens{told.tokens};
  json_cursor logprobs{told.logprobs};
  json_cursor alternatives{told.alternatives.starts_with('[') ? told.alternatives : "[]"};
  for (auto* column : {&tokens, &logprobs, &alternatives}) {
    column->enter_array();
    skip_elements(*column, skip);
  }
  std::string text;
  std::string name;
  out += R"({"content":[)";
  for (bool first = true; tokens.next_element() && logprobs.next_element(); first = false) {
    if (tokens.peek() != '"')
      break;
    if (!first)
      out += ',';
    text.clear();
    append_unescaped(text, inside_quotes(tokens.skip()));
    object_writer object{out};
    bool goes_by_id = text.starts_with(by_id);
    name = text;
    if (skip < ids.size() && !goes_by_id)
      name = by_id + std::to_string(ids[skip]);
    ++skip;
    append_token(object, out, name, logprobs.skip());
    if (goes_by_id)
      out += "null";
    else
      append_bytes(out, text);
    object.name("top_logprobs");
    append_alternatives(out, alternatives.next_element() ? alternatives.skip() : "", top);
    object.close();
  }
  out += "]}";
}

} // namespace llumnix::relay
