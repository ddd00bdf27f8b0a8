#pragma once

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/event_text.hpp"

#include <string>
#include <string_view>
#include <utility>

namespace llumnix::relay {

/// Writes a JSON object into the data of a server-sent event, member by member.
class object_writer {
public:
  explicit object_writer(std::string& out) : out_{out} { out_ += '{'; }
  /// Begins a member; its value is the caller's to append.
  void name(std::string_view name) {
    if (!std::exchange(first_, false))
      out_ += ',';
    openai::append_quoted(out_, name);
    out_ += ':';
  }
  /// `value` is JSON.
  void add(std::string_view key, std::string_view value) {
    name(key);
    append_event_text(out_, value);
  }
  void close() { out_ += '}'; }

private:
  std::string& out_;
  bool first_ = true;
};

} // namespace llumnix::relay
