#include "gateway/relay/json_values.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace llumnix::relay {
namespace {

/// The four digits of a \u escape.
unsigned code_unit(std::string_view digits) {
  unsigned value = 0;
  for (char digit : digits.substr(0, 4))
    value = value << 4 | hex_digit(digit);
  return value;
}

void append_utf8(std::string& out, unsigned character) {
  auto put = [&](unsigned byte) { out += static_cast<char>(byte); };
  auto more = [&](int shift) { put(0x80 | (character >> shift & 0x3F)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | character >> 6);
    more(0);
  } else if (character < 0x10000) {
    put(0xE0 | character >> 12);
    more(6);
    more(0);
  } else {
    put(0xF0 | character >> 18);
    more(12);
    more(6);
    more(0);
  }
}

/// What an escape stands for, taken off the front of `rest`, which begins behind the backslash.
void append_escape(std::string& out, std::string_view& rest) {
  constexpr std::string_view letters = "bfnrt";
  constexpr std::string_view meanings = "\b\f\n\r\t";
  char what = rest.front();
  rest.remove_prefix(1);
  if (what != 'u') {
    auto at = letters.find(what);
    out += at == std::string_view::npos ? what : meanings[at];
    return;
  }
  auto character = code_unit(rest);
  rest.remove_prefix(4);
  if (character >= 0xD800 && character < 0xDC00 && rest.starts_with("\\u")) {
    auto low = code_unit(rest.substr(2));
    if (low >= 0xDC00 && low < 0xE000) {
      character = 0x10000 + ((character - 0xD800) << 10 | (low - 0xDC00));
      rest.remove_prefix(6);
    }
  }
  bool half = character >= 0xD800 && character < 0xE000;
  append_utf8(out, half ? 0xFFFD : character);
}

} // namespace

void append_unescaped(std::string& out, std::string_view inside) {
  while (true) {
    auto backslash = std::min(inside.find('\\'), inside.size());
    out += inside.substr(0, backslash);
    if (backslash == inside.size())
      return;
    inside.remove_prefix(backslash + 1);
    append_escape(out, inside);
  }
}

std::optional<std::int64_t> to_integer(std::string_view number) {
  using limits = std::numeric_limits<std::int64_t>;
  auto nearest = number.front() == '-' ? limits::min() : limits::max();
  if (number.find_first_of(".eE") != std::string_view::npos) {
    auto value = to_double(number);
    if (std::isfinite(value) && std::trunc(value) != value)
      return std::nullopt;
    constexpr double exact = 9007199254740992.0; // 2^53: above it a double is no longer one integer
    return std::abs(value) > exact ? nearest : static_cast<std::int64_t>(value);
  }
  std::int64_t value = 0;
  auto read = std::from_chars(number.data(), number.data() + number.size(), value);
  return read.ec == std::errc{} ? value : nearest;
}

std::optional<std::uint64_t> to_count(std::string_view value) {
  std::uint64_t count = 0;
  auto end = value.data() + value.size();
  auto read = std::from_chars(value.data(), end, count);
  return read.ec == std::errc{} && read.ptr == end ? std::optional{count} : std::nullopt;
}

double to_double(std::string_view number) {
  double value = 0;
  auto read = std::from_chars(number.data(), number.data() + number.size(), value);
  if (read.ec == std::errc::result_out_of_range)
    return number.front() == '-' ? -std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::infinity();
  return value;
}

} // namespace llumnix::relay
