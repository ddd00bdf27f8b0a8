#include "gateway/relay/whole_reply.hpp"

#include "gateway/relay/json_cursor.hpp"

#include <charconv>
#include <cstdint>
#include <string>

namespace llumnix::relay {

namespace {

/// How the choices of a reply came to their ends.
struct choices_check {
  std::uint32_t ended = 0;
  std::string_view reason; ///< of the last
  bool unended = false;
  bool aborted = false;
};

void check_choice(json_cursor& at, choices_check& found) {
  std::string_view reason;
  at.enter_object();
  while (at.next_member()) {
    bool is_reason = at.key() == "finish_reason";
    auto value = at.skip();
    if (is_reason)
      reason = value;
  }
  found.aborted |= reason == "\"abort\"";
  bool says = reason.size() > 2 && reason.front() == '"'; // a string with something in it
  found.ended += says;
  found.unended |= !says;
  if (says)
    found.reason = reason.substr(1, reason.size() - 2);
}

choices_check check_choices(json_cursor& at) {
  choices_check found;
  at.enter_array();
  while (at.next_element())
    if (at.peek() == '{') {
      check_choice(at, found);
    } else {
      at.skip();
      found.unended = true;
    }
  return found;
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

/// A time in ms; nothing where it is none that a request could take.
std::optional<nanoseconds> to_time(std::string_view value) {
  double ms = -1;
  auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), ms);
  if (problem != std::errc{} || end != value.data() + value.size() || !(ms >= 0 && ms <= 1e9))
    return std::nullopt;
  return nanoseconds{static_cast<std::int64_t>(ms * 1e6)};
}

std::optional<nanoseconds> read_first_token(json_cursor& at) {
  std::optional<nanoseconds> told;
  at.enter_object();
  while (at.next_member()) {
    bool is_first_token = at.key() == "time_to_first_token_ms";
    auto value = at.skip();
    if (is_first_token)
      told = to_time(value);
  }
  return told;
}

} // namespace

result<whole_reply> read_whole_reply(std::string_view body) {
  json_cursor at{body};
  whole_reply reply;
  choices_check choices;
  at.enter_object();
  while (at.next_member()) {
    bool is_usage = at.key() == "usage";
    bool is_choices = at.key() == "choices";
    bool is_metrics = at.key() == "metrics";
    if (is_choices && at.peek() == '[')
      choices = check_choices(at);
    else if (is_usage && at.peek() == '{')
      reply.usage = read_usage(at);
    else if (is_metrics && at.peek() == '{')
      reply.first_token = read_first_token(at);
    else
      at.skip();
  }
  if (!at.finished())
    return error{
      errc::bad_message, "the engine's reply is no JSON object: " + std::string{at.problem()}};
  if (choices.aborted)
    return error{errc::disconnected, "the engine gave the request up"};
  if (choices.ended == 0)
    return error{errc::bad_message, "the engine's reply holds no answer"};
  if (choices.unended)
    return error{errc::bad_message, "the engine's reply ends before its output"};
  reply.choices = choices.ended;
  reply.finish_reason = choices.reason;
  return reply;
}

} // namespace llumnix::relay
