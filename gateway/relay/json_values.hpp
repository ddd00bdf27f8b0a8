#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llumnix::relay {

/// The value of a hexadecimal digit, or 16.
constexpr unsigned hex_digit(char byte) {
  if (byte >= '0' && byte <= '9')
    return static_cast<unsigned>(byte - '0');
  auto small = byte | 0x20;
  return small >= 'a' && small <= 'f' ? static_cast<unsigned>(small - 'a' + 10) : 16;
}

/// What stands between the quotation marks of a JSON string's text.
inline std::string_view inside_quotes(std::string_view string) {
  return string.substr(1, string.size() - 2);
}

/// Appends what a valid JSON string stands for; `inside` without its quotation marks. Half a
/// surrogate pair becomes U+FFFD.
void append_unescaped(std::string& out, std::string_view inside);

/// Whether a JSON value is a number.
inline bool is_number(std::string_view value) {
  return value.front() == '-' || (value.front() >= '0' && value.front() <= '9');
}

/// The value of a valid JSON number if it is an integer, 5.0 and 1e3 included; beyond 64 bits the
/// nearest that they hold.
std::optional<std::int64_t> to_integer(std::string_view number);

/// The value of what is written with digits only, if 64 bits hold it.
std::optional<std::uint64_t> to_count(std::string_view value);

/// The value of a valid JSON number; where a double cannot hold it, an infinity.
double to_double(std::string_view number);

} // namespace llumnix::relay
