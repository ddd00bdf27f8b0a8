#include "net/event_stream.hpp"

#include <algorithm>

namespace llumnix::net {

result<void> event_stream::feed(
  std::string_view bytes, const std::function<void(const stream_event&)>& on_event) {
  while (!bytes.empty()) {
    if (after_cr_) { // the line has ended already; a LF right behind belongs to its end
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    auto end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    event_bytes_ += end;
    if (event_bytes_ > max_bytes_)
      return {
        errc::too_long,
        "an event of the stream is larger than " + std::to_string(max_bytes_) + " bytes"};
    line_ += bytes.substr(0, end);
    if (end == bytes.size())
      break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  return {};
}

void event_stream::end_line(const std::function<void(const stream_event&)>& on_event) {
  std::string_view line{line_};
  if (first_line_ && line.starts_with("\xef\xbb\xbf")) // a byte order mark
    line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    event_bytes_ = 0;
    if (has_data_)
      on_event(event_);
    event_.type = "message";
    event_.data.clear();
    has_data_ = false;
  } else if (auto colon = line.find(':'); colon != 0) {
    auto value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
    if (value.starts_with(' '))
      value.remove_prefix(1);
    take_field(line.substr(0, colon), value);
  } else if (!has_data_) {
    event_bytes_ = 0; // a comment between events: keep-alives may go on for ever
  }
  line_.clear();
}

void event_stream::take_field(std::string_view name, std::string_view value) {
  if (name == "data") {
    if (has_data_)
      event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (name == "event") {
    event_.type = value.empty() ? "message" : value;
  } else if (name == "id" && value.find('\0') == std::string_view::npos) {
    event_.id = value;
  }
}

} // namespace llumnix::net
