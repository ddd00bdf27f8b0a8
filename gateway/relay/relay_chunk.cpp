#include "gateway/relay/relay_chunk.hpp"

#include "gateway/relay/event_parser.hpp"
#include "gateway/relay/event_text.hpp"
#include "gateway/relay/json_cursor.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llumnix::relay {
namespace {

constexpr std::size_t kept_capacity = 1024 * 1024; // of the buffers, between two events

void clear(chunk_facts& facts) {
  facts.kind = chunk_facts::type::tokens;
  facts.prompt_ids.reset();
  facts.id.clear();
  facts.usage.reset();
  facts.error_status = 500;
  facts.error_message.clear();
}

std::string_view trimmed(std::string_view text) {
  auto first = std::min(text.find_first_not_of(' '), text.size());
  return text.substr(first, text.find_last_not_of(' ') + 1 - first);
}

} // namespace

result<const chunk_facts*> chunk_reader::read(std::string_view data, bool hide_usage, bool tokens) {
  if (event_.capacity() > kept_capacity)
    *this = chunk_reader{};
  event_ = data;
  parts_.ids.clear();
  parts_.usages.clear();
  clear(facts_); // but for the choices, whose buffers are used again
  if (trimmed(data) == "[DONE]") {
    facts_.choices.clear();
    facts_.kind = chunk_facts::type::done;
    return &facts_;
  }
  json_cursor at{event_};
  event_parser{at, facts_, parts_, tokens}.read();
  if (!at.failed()) {
    if (hide_usage)
      cut_usage();
    return &facts_;
  }
  event_.clear();
  parts_.ids.clear();
  return error{
    errc::bad_message, fmt::format("byte {} of an event: {}", at.offset(), at.problem())};
}

void chunk_reader::cut_usage() {
  if (facts_.kind != chunk_facts::type::tokens)
    return;
  for (auto cut = parts_.usages.rbegin(); cut != parts_.usages.rend(); ++cut) {
    auto length = cut->end - cut->begin;
    event_.erase(cut->begin, length);
    for (auto& ids : parts_.ids)
      if (ids.begin >= cut->end)
        ids = {ids.begin - length, ids.end - length};
  }
}

void chunk_reader::append_as_sent(std::string& out, bool hide_ids) const {
  std::string_view event{event_};
  out += "data: ";
  std::size_t from = 0;
  if (hide_ids)
    for (const auto& ids : parts_.ids) {
      append_event_text(out, event.substr(from, ids.begin - from));
      out += "null";
      from = ids.end;
    }
  append_event_text(out, event.substr(from));
  out += "\n\n";
}

} // namespace llumnix::relay
