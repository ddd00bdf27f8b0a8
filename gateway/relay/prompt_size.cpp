#include "gateway/relay/prompt_size.hpp"

#include "gateway/relay/json_cursor.hpp"

#include <algorithm>
#include <limits>

namespace llumnix::relay {
namespace {

/// The next value, if it is a text.
void add_text(prompt_size& size, json_cursor& at) {
  bool text = at.peek() == '"';
  auto value = at.skip();
  if (text && !at.failed())
    size.text_bytes += inside_quotes(value).size();
}

/// A part of a message's content: a text by itself, or an object with its type.
void add_part(prompt_size& size, json_cursor& at) {
  if (at.peek() != '{')
    return add_text(size, at);
  bool is_text = false;
  at.enter_object();
  while (at.next_member())
    if (at.key() == "type")
      is_text = at.skip() == R"("text")";
    else if (at.key() == "text")
      add_text(size, at);
    else
      at.skip();
  size.only_text = size.only_text && is_text;
}

void add_content(prompt_size& size, json_cursor& at) {
  if (at.peek() != '[')
    return add_text(size, at);
  at.enter_array();
  while (at.next_element())
    add_part(size, at);
}

void add_message(prompt_size& size, json_cursor& at) {
  at.enter_object();
  while (at.next_member())
    if (at.key() == "content")
      add_content(size, at);
    else
      at.skip();
}

/// One of several prompts, or one id of the only one.
void add_prompt(prompt_size& size, json_cursor& at) {
  if (at.peek() == '"') {
    add_text(size, at);
    ++size.prompts;
  } else if (at.peek() == '[') {
    for (at.enter_array(); at.next_element(); at.skip())
      ++size.ids;
    ++size.prompts;
  } else {
    at.skip();
    ++size.ids;
  }
}

} // namespace

std::uint32_t prompt_size::tokens() const {
  auto sum = ids + (text_bytes + 3) / 4;
  return static_cast<std::uint32_t>(
    std::min<std::size_t>(sum, std::numeric_limits<std::uint32_t>::max()));
}

prompt_size measure_messages(json_cursor& at) {
  prompt_size size;
  if (at.peek() != '[') {
    at.skip();
    return size;
  }
  at.enter_array();
  while (at.next_element())
    if (at.peek() == '{')
      add_message(size, at);
    else
      at.skip();
  return size;
}

prompt_size measure_prompt(json_cursor& at) {
  prompt_size size;
  if (at.peek() != '[') {
    add_text(size, at);
    return size;
  }
  at.enter_array();
  while (at.next_element())
    add_prompt(size, at);
  return size;
}

} // namespace llumnix::relay
