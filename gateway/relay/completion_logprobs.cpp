#include "gateway/relay/completion_logprobs.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/event_text.hpp"
#include "gateway/relay/object_writer.hpp"

namespace llumnix::relay {
namespace {

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

void append_offsets(std::string& out, json_cursor& at, std::uint64_t text_offset) {
  at.enter_array();
  out += '[';
  for (bool first = true; at.next_element(); first = false) {
    if (!first)
      out += ',';
    auto value = at.skip();
    if (auto offset = to_count(value))
      openai::append_number(out, *offset + text_offset);
    else
      append_event_text(out, value);
  }
  out += ']';
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

void append_moved_logprobs(std::string& out, json_cursor& at, std::uint64_t text_offset) {
  if (at.peek() != '{')
    return append_event_text(out, at.skip());
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    object.name(at.key());
    if (at.key() == "text_offset" && at.peek() == '[')
      append_offsets(out, at, text_offset);
    else
      append_event_text(out, at.skip());
  }
  object.close();
}

void append_chat_logprobs(std::string& out, json_cursor& at, std::uint32_t top) {
  auto told = read_columns(at);
  if (!told.tokens.starts_with('[') || !told.logprobs.starts_with('[')) {
    out += "null";
    return;
  }
  json_cursor tokens{told.tokens};
  json_cursor logprobs{told.logprobs};
  json_cursor alternatives{told.alternatives.starts_with('[') ? told.alternatives : "[]"};
  tokens.enter_array();
  logprobs.enter_array();
  alternatives.enter_array();
  std::string text;
  out += R"({"content":[)";
  for (bool first = true; tokens.next_element() && logprobs.next_element(); first = false) {
    if (tokens.peek() != '"')
      break;
    if (!first)
      out += ',';
    text.clear();
    append_unescaped(text, inside_quotes(tokens.skip()));
    object_writer object{out};
    append_token(object, out, text, logprobs.skip());
    if (text.starts_with("token_id:"))
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
