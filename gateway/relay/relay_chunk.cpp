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

result<const chunk_facts*> chunk_reader::read(std::string_view data, bool hide_usage) {
  if (event_.capacity() > kept_capacity)
    *this = chunk_reader{};
  event_ = data;
  cuts_.clear();
  clear(facts_); // but for the choices, whose buffers are used again
  if (trimmed(data) == "[DONE]") {
    facts_.choices.clear();
    facts_.kind = chunk_facts::type::done;
    return &facts_;
  }
  json_cursor at{event_};
  event_parser{at, facts_, cuts_, hide_usage}.read();
  if (!at.failed()) {
    if (hide_usage)
      cut_out();
    return &facts_;
  }
  event_.clear();
  cuts_.clear();
  return error{
    errc::bad_message, fmt::format("byte {} of an event: {}", at.offset(), at.problem())};
}

void chunk_reader::cut_out() {
  if (facts_.kind != chunk_facts::type::tokens)
    cuts_.clear();
  for (auto at = cuts_.rbegin(); at != cuts_.rend(); ++at)
    event_.erase(at->begin, at->end - at->begin);
  cuts_.clear();
}

void chunk_reader::append_as_sent(std::string& out, const relay_request& request) const {
  std::string_view event{event_};
  out += "data: ";
  std::size_t from = 0;
  if (!request.wants_token_ids)
    for (const auto& left_out : cuts_) {
      append_event_text(out, event.substr(from, left_out.begin - from));
      from = left_out.end;
    }
  append_event_text(out, event.substr(from));
  out += "\n\n";
}

} // namespace llumnix::relay
