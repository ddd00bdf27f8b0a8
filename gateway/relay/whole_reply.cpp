#include "gateway/relay/whole_reply.hpp"

#include "gateway/relay/json_cursor.hpp"

#include <string>

namespace llumnix::relay {

namespace {

bool any_aborted(json_cursor& at) {
  bool aborted = false;
  at.enter_array();
  while (at.next_element()) {
    if (at.peek() != '{') {
      at.skip();
      continue;
    }
    at.enter_object();
    while (at.next_member()) {
      bool reason = at.key() == "finish_reason";
      aborted |= at.skip() == "\"abort\"" && reason;
    }
  }
  return aborted;
}

openai::usage read_usage(json_cursor& at) {
  openai::usage counts;
  at.enter_object();
  while (at.next_member()) {
    auto* count = at.key() == "prompt_tokens"       ? &counts.prompt_tokens
                  : at.key() == "completion_tokens" ? &counts.completion_tokens
                                                    : nullptr;
    auto value = at.skip();
    if (count)
      *count = to_count(value).value_or(0);
  }
  return counts;
}

} // namespace

result<whole_reply> read_whole_reply(std::string_view body) {
  json_cursor at{body};
  whole_reply reply;
  bool aborted = false;
  at.enter_object();
  while (at.next_member()) {
    bool is_usage = at.key() == "usage";
    bool is_choices = at.key() == "choices";
    if (is_choices && at.peek() == '[')
      aborted = any_aborted(at);
    else if (is_usage && at.peek() == '{')
      reply.usage = read_usage(at);
    else
      at.skip();
  }
  if (!at.finished())
    return error{
      errc::bad_message, "the engine's reply is no JSON object: " + std::string{at.problem()}};
  if (aborted)
    return error{errc::disconnected, "the engine gave the request up"};
  return reply;
}

} // namespace llumnix::relay
