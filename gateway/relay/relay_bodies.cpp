#include "gateway/openai/json_text.hpp"
#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/relay_request.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

namespace llumnix::relay {
namespace {

/// Copies the object that `body` is without the members that `drop` picks by their names; of what
/// is left every byte stays. The last of it, from where a member could be added, is returned.
template <class Drop>
std::string_view copy_members(std::string& out, std::string_view body, Drop drop) {
  json_cursor at{body, json_cursor::read_before{}};
  at.enter_object();
  auto from = at.offset(); // nothing behind it is copied
  out += body.substr(0, from);
  for (bool first = true, kept = false; at.next_member(); first = false) {
    auto begin = kept || first ? from : at.member_offset(); // with the comma before it
    at.skip();
    from = at.offset();
    if (drop(at.key()))
      continue;
    out += body.substr(begin, from - begin);
    kept = true;
  }
  return body.substr(from);
}

/// Begins another member of the object that `out` ends in.
void add_member(std::string& out, std::string_view name) {
  if (!out.ends_with('{'))
    out += ',';
  openai::append_quoted(out, name);
  out += ':';
}

template <std::size_t Count>
bool among(const std::array<std::string_view, Count>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Said anew, or over with: the ids of the prompt are what truncation left of it.
constexpr auto replaced = std::to_array<std::string_view>(
  {"stream", "n", "prompt", "max_tokens", "min_tokens", "return_token_ids",
   "truncate_prompt_tokens", "truncation_side"});

/// What only a chat has, or means otherwise than a completion does.
constexpr auto of_chats = std::to_array<std::string_view>(
  {"messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
   "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
   "documents", "max_completion_tokens", "logprobs", "top_logprobs", "return_tokens_as_token_ids"});

constexpr std::string_view showing_stops = "include_stop_str_in_output";

void add_ids(std::string& out, std::span<const token_id> ids) {
  out += '[';
  for (auto id : ids) {
    openai::append_number(out, std::uint64_t{id});
    out += ',';
  }
  if (ids.empty())
    out += ']';
  else
    out.back() = ']';
}

/// Output tokens left; none where only the engine's own default can say it.
std::optional<std::uint32_t> tokens_left(
  const relay_request& request, std::uint32_t delivered, std::size_t prompt,
  std::uint32_t context_tokens) {
  if (request.max_tokens)
    return *request.max_tokens - std::min(*request.max_tokens, delivered);
  bool completion = request.kind == openai::endpoint::completions;
  if (completion && delivered < default_max_tokens)
    return default_max_tokens - delivered;
  if (!completion && prompt < context_tokens) // a chat would get the few of a completion's default
    return context_tokens - static_cast<std::uint32_t>(prompt);
  return std::nullopt;
}

/// What is left to do, as the last members of the object that `out` ends in.
void add_limits(
  std::string& out, const relay_request& request, std::uint32_t delivered, std::size_t prompt,
  std::uint32_t context_tokens) {
  if (auto left = tokens_left(request, delivered, prompt, context_tokens)) {
    add_member(out, "max_tokens");
    openai::append_number(out, std::uint64_t{*left});
  }
  if (request.min_tokens > delivered) {
    add_member(out, "min_tokens");
    openai::append_number(out, std::uint64_t{request.min_tokens - delivered});
  }
}

void add_logprobs(std::string& out, const relay_request& request) {
  if (request.kind != openai::endpoint::chat || !request.logprobs)
    return;
  constexpr auto all = std::numeric_limits<std::uint32_t>::max();
  add_member(out, "logprobs");
  openai::append_number(
    out, request.top_logprobs == all ? std::int64_t{-1} : std::int64_t{request.top_logprobs});
}

/// Of /inference/v1/generate, where the limits stand among the sampling parameters.
std::string tokens_body(
  std::string_view body, const relay_request& request, std::span<const token_id> ids,
  std::uint32_t delivered, std::uint32_t context_tokens) {
  std::string out;
  out.reserve(body.size() + 8 * ids.size() + 128);
  auto rest = copy_members(out, body, [](std::string_view name) {
    return connects(name) || name == "token_ids" || name == "token_offsets"
           || name == "sampling_params";
  });
  add_member(out, "sampling_params");
  auto given = last_member(body, "sampling_params");
  auto sampling_rest = copy_members(out, given.empty() ? "{}" : given, [](std::string_view name) {
    return name == "max_tokens" || name == "min_tokens";
  });
  add_limits(out, request, delivered, ids.size(), context_tokens);
  out += sampling_rest;
  add_member(out, "token_ids");
  add_ids(out, ids);
  out += rest;
  return out;
}

} // namespace

engine_body first_body(std::string_view body, const relay_request& request, bool ask_ids) {
  const auto& layout = request.layout;
  const auto& cuts = layout.cuts();
  bool asks = ask_ids && !request.wants_token_ids;
  auto changed = cuts.empty() ? body.size() : cuts.front().begin;
  engine_body made{asks ? std::min(changed, layout.insertion()) : changed, {}};
  auto from = made.kept;
  auto copy_to = [&](std::size_t end) {
    if (asks && end >= layout.insertion()) {
      made.rest += body.substr(from, layout.insertion() - from);
      made.rest += layout.empty() ? R"("return_token_ids":true)" : R"(,"return_token_ids":true)";
      from = layout.insertion();
      asks = false;
    }
    made.rest += body.substr(from, end - from);
  };
  for (const auto& cut : cuts) {
    copy_to(cut.begin);
    from = cut.end;
  }
  copy_to(body.size());
  return made;
}

std::string continuation_body(
  std::string_view body, const relay_request& request, std::span<const token_id> ids,
  std::uint32_t delivered, std::uint32_t context_tokens, bool show_stops) {
  if (request.kind == openai::endpoint::tokens)
    return tokens_body(body, request, ids, delivered, context_tokens);
  std::string out;
  out.reserve(body.size() + 8 * ids.size() + 128);
  bool chat = request.kind == openai::endpoint::chat;
  auto rest = copy_members(out, body, [&](std::string_view name) {
    return connects(name) || among(replaced, name) || (chat && among(of_chats, name))
           || (show_stops && name == showing_stops);
  });
  add_limits(out, request, delivered, ids.size(), context_tokens);
  add_logprobs(out, request);
  if (show_stops) {
    add_member(out, showing_stops);
    out += "true";
  }
  add_member(out, "stream");
  out += "true";
  add_member(out, "return_token_ids");
  out += "true";
  add_member(out, "prompt");
  add_ids(out, ids);
  out += rest;
  return out;
}

} // namespace llumnix::relay
