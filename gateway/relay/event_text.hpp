#pragma once

#include <string>
#include <string_view>

namespace llumnix::relay {

/// Appends JSON text as (part of) the data of a server-sent event. Its line breaks, which JSON has
/// only between its tokens, become those of the event's data.
inline void append_event_text(std::string& out, std::string_view json) {
  constexpr auto none = std::string_view::npos;
  if (json.find('\n') == none && json.find('\r') == none) {
    out += json;
    return;
  }
  for (char byte : json)
    if (byte == '\n' || byte == '\r')
      out += "\ndata: ";
    else
      out += byte;
}

} // namespace llumnix::relay
