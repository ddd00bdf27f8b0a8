#include "net/event_stream.hpp"

#include <algorithm>
#include <cstddef>
#include <experimental/simd>

namespace llumnix::net {

namespace {

/// Where the first line of `bytes` ends, at CR or LF; their number if it does not.
std::size_t find_line_end(std::string_view bytes) {
  namespace simd = std::experimental;
  using block = simd::native_simd<char>;
  std::size_t at = 0;
  for (; bytes.size() - at >= block::size(); at += block::size()) {
    block next{bytes.data() + at, simd::element_aligned};
    auto ends = next == '\n' || next == '\r';
    if (simd::any_of(ends))
      return at + static_cast<std::size_t>(simd::find_first_set(ends));
  }
  while (at < bytes.size() && bytes[at] != '\n' && bytes[at] != '\r')
    ++at;
  return at;
}

} // namespace

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
    auto end = find_line_end(bytes);
    event_bytes_
      += std::min(end + 1, bytes.size()); // with the line's end, or lines without anything had none
    if (event_bytes_ > max_bytes_)
      return {
        errc::too_long,
        "an event of the stream is larger than " + std::to_string(max_bytes_) + " bytes"};
    auto line = bytes.substr(0, end);
    if (end == bytes.size() || !line_.empty())
      line = line_ += line;
    if (end == bytes.size())
      break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(line, on_event);
    line_.clear();
  }
  return {};
}

void event_stream::end_line(
  std::string_view line, const std::function<void(const stream_event&)>& on_event) {
  if (first_line_ && line.starts_with("\xef\xbb\xbf")) // a byte order mark
    line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    if (has_data_) {
      event_bytes_ = 0;
      on_event(event_);
    }
    event_.type = "message";
    event_.data.clear();
    has_data_ = false;
  } else if (auto colon = line.find(':'); colon != 0) {
    auto value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
    if (value.starts_with(' '))
      value.remove_prefix(1);
    take_field(line.substr(0, colon), value);
  }
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
