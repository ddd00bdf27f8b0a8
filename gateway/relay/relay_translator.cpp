#include "gateway/openai/json_text.hpp"
#include "gateway/relay/completion_logprobs.hpp"
#include "gateway/relay/event_text.hpp"
#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/object_writer.hpp"
#include "gateway/relay/relay_chunk.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace llumnix::relay {
namespace {

/// Cached tokens of a prompt that also holds output are at most those of the prompt.
void append_prompt_details(std::string& out, json_cursor& at, const openai::usage& counts) {
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    auto value = at.skip();
    object.name(at.key());
    auto tokens = at.key() == "cached_tokens" ? to_count(value) : std::nullopt;
    if (tokens)
      openai::append_number(out, std::min(*tokens, counts.prompt_tokens));
    else
      append_event_text(out, value);
  }
  object.close();
}

void append_counts(std::string& out, json_cursor& at, const openai::usage& counts) {
  if (at.peek() != '{')
    return append_event_text(out, at.skip());
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    auto key = at.key();
    object.name(key);
    if (key == "prompt_tokens_details" && at.peek() == '{') {
      append_prompt_details(out, at, counts);
      continue;
    }
    auto value = at.skip();
    if (key == "prompt_tokens")
      openai::append_number(out, counts.prompt_tokens);
    else if (key == "completion_tokens")
      openai::append_number(out, counts.completion_tokens);
    else if (key == "total_tokens")
      openai::append_number(out, counts.prompt_tokens + counts.completion_tokens);
    else
      append_event_text(out, value);
  }
  object.close();
}

} // namespace

translator::translator(const relay_request& request, std::string_view first)
  : kind_{request.kind},
    wants_token_ids_{request.wants_token_ids},
    top_logprobs_{request.top_logprobs},
    tokens_as_ids_{request.tokens_as_ids} {
  json_cursor at{first};
  at.enter_object();
  while (at.next_member()) {
    auto* kept = at.key() == id_name()              ? &id_
                 : at.key() == "created"            ? &created_
                 : at.key() == "model"              ? &model_
                 : at.key() == "system_fingerprint" ? &fingerprint_
                                                    : nullptr;
    auto value = at.skip();
    if (kept && value != "null")
      *kept = value;
  }
}

void translator::append(
  std::string& out, const chunk_reader& from, std::string_view text, const openai::usage& counts,
  std::uint64_t text_offset, std::size_t repeated, std::string_view stop) const {
  out += "data: ";
  json_cursor at{from.event()};
  if (at.peek() != '{') { // [DONE]
    append_event_text(out, from.event());
    out += "\n\n";
    return;
  }
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    auto key = at.key();
    if (key == "choices" && at.peek() == '[') {
      object.name(key);
      append_choices(out, at, from, text, text_offset, repeated, stop);
    } else if (key == "usage") {
      object.name(key);
      append_counts(out, at, counts);
    } else if (auto value = at.skip(); !is_of_the_prompt(key)) {
      object.add(key, as_first(key, value));
    }
  }
  object.close();
  out += "\n\n";
}

void translator::append_usage(std::string& out, const openai::usage& counts) const {
  bool chat = kind_ == openai::endpoint::chat;
  out += "data: ";
  object_writer object{out};
  for (auto [key, value] :
       {std::pair<std::string_view, std::string_view>{id_name(), id_},
        {"object", chat ? R"("chat.completion.chunk")" : R"("text_completion")"},
        {"created", created_},
        {"model", model_},
        {"choices", "[]"}})
    if (!value.empty())
      object.add(key, value);
  object.name("usage");
  object_writer told{out};
  for (auto [key, tokens] :
       {std::pair<std::string_view, std::uint64_t>{"prompt_tokens", counts.prompt_tokens},
        {"total_tokens", counts.prompt_tokens + counts.completion_tokens},
        {"completion_tokens", counts.completion_tokens}}) {
    told.name(key);
    openai::append_number(out, tokens);
  }
  told.close();
  object.close();
  out += "\n\n";
}

/// Said before, and now only true of this engine's prompt.
bool translator::is_of_the_prompt(std::string_view key) const {
  return key == "prompt_token_ids"
         || (kind_ == openai::endpoint::tokens && key == "mm_placeholders");
}

/// What the first event said of the whole reply, or else what this one says.
std::string_view translator::as_first(std::string_view key, std::string_view value) const {
  std::string_view first;
  if (key == "object" && kind_ == openai::endpoint::chat)
    first = R"("chat.completion.chunk")";
  else if (key == id_name())
    first = id_;
  else if (key == "created")
    first = created_;
  else if (key == "model")
    first = model_;
  else if (key == "system_fingerprint")
    first = fingerprint_;
  return first.empty() ? value : first;
}

void translator::append_choices(
  std::string& out, json_cursor& at, const chunk_reader& from, std::string_view text,
  std::uint64_t text_offset, std::size_t repeated, std::string_view stop) const {
  at.enter_array();
  out += '[';
  const auto& known = from.facts().choices; // fewer where an event has its choices twice
  const chunk_choice nothing;
  for (std::size_t i = 0; at.next_element(); ++i) {
    if (i > 0)
      out += ',';
    append_choice(
      out, at, i < known.size() ? known[i] : nothing, i == 0 ? text : std::string_view{},
      text_offset, repeated, i == 0 ? stop : std::string_view{});
  }
  out += ']';
}

void translator::append_choice(
  std::string& out, json_cursor& at, const chunk_choice& facts, std::string_view text,
  std::uint64_t text_offset, std::size_t repeated, std::string_view stop) const {
  bool chat = kind_ == openai::endpoint::chat;
  bool tokens = kind_ == openai::endpoint::tokens;
  object_writer object{out};
  at.enter_object();
  while (at.next_member()) {
    auto key = at.key();
    if (key == "logprobs" && repeated != all) {
      object.name(key);
      if (chat)
        append_chat_logprobs(
          out, at, top_logprobs_, repeated,
          tokens_as_ids_ ? std::span{facts.ids} : std::span<const token_id>{});
      else
        append_moved_logprobs(out, at, text_offset, repeated);
      continue;
    }
    bool tokens_told = key == "token_ids" && wants_token_ids_;
    if (
      (tokens_told || (tokens && key == "sampling_mask")) && repeated != all && at.peek() == '[') {
      object.name(key);
      append_column(out, at, 0, repeated);
      continue;
    }
    auto value = at.skip();
    if (!stop.empty() && (key == "finish_reason" || key == "stop_reason")) {
      object.name(key);
      openai::append_quoted(out, key == "stop_reason" ? stop : "stop");
      continue;
    }
    if (chat && key == "stop_reason" && facts.finish_reason.empty())
      continue; // of a chat it is told with the end
    if (key == "text" || key == "delta") {
      object.name(chat ? "delta" : "text");
      out += chat ? R"({"content":)" : "";
      openai::append_quoted(out, text);
      out += chat ? "}" : "";
    } else if (key == "logprobs") {
      object.add(key, "null");
    } else if (key == "token_ids") {
      object.add(key, wants_token_ids_ && repeated != all ? value : tokens ? "[]" : "null");
    } else if (tokens && (key == "sampling_mask" || key == "weight_versions")) {
      object.add(key, "null"); // of tokens told before; what spans count begins anew
    } else if (key == "prompt_token_ids") {
      if (!chat) // said before, and now only true of this engine's prompt
        object.add(key, "null");
    } else {
      object.add(key, value);
    }
  }
  object.close();
}

} // namespace llumnix::relay
