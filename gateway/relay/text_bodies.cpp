#include "gateway/relay/text_bodies.hpp"

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/relay_stream.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

namespace llumnix::relay {
namespace {

/// What a prompt is made of beside texts, or would be made of differently with a longer one.
constexpr auto obstacles = std::to_array<std::string_view>(
  {"truncate_prompt_tokens", "input_ids", "input_embeds", "stop_regex", "session_params"});

bool among(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The values that a continuation changes, as sent; empty for what was not said, or null.
struct changed_fields {
  std::string_view prompt;
  std::string_view messages;
  std::string_view newer_limit; ///< `max_completion_tokens`
  std::string_view obstacle;    ///< the name of a field
};

changed_fields find_fields(std::string_view body) {
  changed_fields found;
  json_cursor at{body, json_cursor::read_before{}};
  at.enter_object();
  while (at.next_member()) {
    auto value = at.skip();
    if (value == "null")
      value = {};
    auto name = at.key();
    if (name == "prompt")
      found.prompt = value;
    else if (name == "messages")
      found.messages = value;
    else if (name == "max_completion_tokens")
      found.newer_limit = value;
    else if (name == "continue_final_message" && value == "true")
      found.obstacle = "continue_final_message";
    else if (name == "add_generation_prompt" && value == "false")
      found.obstacle = "add_generation_prompt";
    else if (auto hit = std::find(obstacles.begin(), obstacles.end(), name);
             hit != obstacles.end() && !value.empty())
      found.obstacle = *hit;
  }
  return found;
}

/// Writes an object that is another one with some members changed.
class changed_object {
public:
  /// Begins with the members of `object` that `drop` does not pick by their names, as they are.
  template <class Drop>
  changed_object(std::string_view object, std::size_t more, Drop drop) {
    out_.reserve(object.size() + more);
    out_ += '{';
    json_cursor at{object, json_cursor::read_before{}};
    at.enter_object();
    while (at.next_member()) {
      auto begin = at.member_offset();
      at.skip();
      if (drop(at.key()))
        continue;
      separate();
      out_ += object.substr(begin, at.offset() - begin);
    }
  }
  /// Adds a member; its value is appended to what is returned.
  std::string& name(std::string_view name) {
    separate();
    openai::append_quoted(out_, name);
    out_ += ':';
    return out_;
  }
  void add(std::string_view key, std::string_view value) { name(key) += value; }
  void add(std::string_view key, std::uint64_t value) { openai::append_number(name(key), value); }
  std::string close() && {
    out_ += '}';
    return std::move(out_);
  }

private:
  void separate() {
    if (out_.size() > 1)
      out_ += ',';
  }
  std::string out_;
};

/// A chat's messages, and one more of the assistant.
void append_messages(std::string& out, std::string_view messages, std::string_view text) {
  out += messages.substr(0, messages.rfind(']'));
  out += R"(,{"role":"assistant","content":)";
  openai::append_quoted(out, text);
  out += "}]";
}

/// A completion's prompt, and more of it.
void append_prompt(std::string& out, std::string_view prompt, std::string_view text) {
  out += prompt.substr(0, prompt.size() - 1);
  openai::append_escaped(out, text);
  out += '"';
}

/// The client's `stream_options` of that body, which also ask for the usage on each chunk.
std::string counting_options(std::string_view body) {
  auto given = last_member(body, "stream_options");
  changed_object made{
    given.starts_with('{') ? given : "{}", 64, [](std::string_view name) {
      return among(name, {"include_usage", "continuous_usage_stats"});
    }};
  made.add("include_usage", "true");
  made.add("continuous_usage_stats", "true");
  return std::move(made).close();
}

error unsupported(std::string_view why) {
  return {
    errc::unsupported, "the engine told no token ids, so no other can go on: " + std::string{why}};
}

} // namespace

std::string counted_body(std::string_view first) {
  changed_object made{
    first, 128, [](std::string_view name) { return name == "stream_options"; }};
  made.add("stream_options", counting_options(first));
  return std::move(made).close();
}

result<std::string> text_continuation_body(
  std::string_view body, const relay_request& request, std::string_view text,
  std::uint32_t delivered, bool counted) {
  auto fields = find_fields(body);
  bool chat = request.kind == openai::endpoint::chat;
  if (!fields.obstacle.empty())
    return unsupported("the request has '" + std::string{fields.obstacle} + "'");
  if (chat ? !fields.messages.starts_with('[') : !fields.prompt.starts_with('"'))
    return unsupported("its prompt is no text");
  auto limit = limit_of(request);
  auto limit_name = chat && !fields.newer_limit.empty() ? "max_completion_tokens" : "max_tokens";
  auto replaced = [&](std::string_view name) {
    return connects(name) || name == (chat ? "messages" : "prompt") || name == "min_tokens"
           || (limit && among(name, {"max_tokens", "max_completion_tokens"}))
           || (chat && among(name, {"continue_final_message", "add_generation_prompt"}))
           || (counted && name == "stream_options");
  };
  changed_object made{body, 2 * text.size() + 256, replaced};
  if (limit)
    made.add(limit_name, std::uint64_t{*limit - std::min(*limit, delivered)});
  if (request.min_tokens > delivered)
    made.add("min_tokens", std::uint64_t{request.min_tokens - delivered});
  if (counted)
    made.add("stream_options", counting_options(body));
  if (!chat) {
    append_prompt(made.name("prompt"), fields.prompt, text);
  } else if (text.empty()) { // asked once more
    made.add("messages", fields.messages);
  } else {
    append_messages(made.name("messages"), fields.messages, text);
    made.add("continue_final_message", "true");
    made.add("add_generation_prompt", "false");
  }
  return std::move(made).close();
}

} // namespace llumnix::relay
