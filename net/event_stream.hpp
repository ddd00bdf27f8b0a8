#pragma once

#include "runtime/base/result.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace llumnix::net {

/// One server-sent event.
struct stream_event {
  std::string type = "message"; ///< of the `event` field
  std::string data;             ///< the `data` lines, joined by line feeds
  std::string id; ///< the last id the stream has set, this event's or an earlier one's
};

/// Reads server-sent events from a stream in pieces of any size, as the HTML standard describes
/// them: lines end with CR, LF or both, comments and unknown fields are skipped, an event without
/// data is none, and one the stream ends in the middle of is dropped.
class event_stream {
public:
  /// `max_event_bytes` bounds what one event may take, with all comments since the one before: many
  /// keep-alives, but not without end.
  explicit event_stream(std::size_t max_event_bytes = 1024 * 1024) : max_bytes_{max_event_bytes} {}

  /// Calls `on_event` for each event completed by `bytes`. Fails with `too_long` if one exceeds the
  /// limit; the stream is of no use after that.
  result<void>
  feed(std::string_view bytes, const std::function<void(const stream_event&)>& on_event);

private:
  void end_line(std::string_view line, const std::function<void(const stream_event&)>& on_event);
  void take_field(std::string_view name, std::string_view value);

  std::size_t max_bytes_;
  std::size_t event_bytes_ = 0;
  std::string line_; ///< what came of a line that has not ended
  stream_event event_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool first_line_ = true;
};

} // namespace llumnix::net
