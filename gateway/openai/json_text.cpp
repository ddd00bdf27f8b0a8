#include "gateway/openai/json_text.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace llumnix::openai {
namespace {

/// Bytes that may stand in a JSON string as they are, without a closer look.
constexpr auto plain = [] {
  std::array<bool, 256> table{};
  for (int i = 0x20; i < 0x80; ++i)
    table[static_cast<std::size_t>(i)] = i != '"' && i != '\\';
  return table;
}();

void append_control(std::string& out, unsigned char byte) {
  constexpr std::string_view hex = "0123456789abcdef";
  switch (byte) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    case '\b': out += "\\b"; return;
    case '\f': out += "\\f"; return;
    default: break;
  }
  out += "\\u00";
  out += hex[byte >> 4];
  out += hex[byte & 15];
}

template <class Integer>
void append_integer(std::string& out, Integer value) {
  std::array<char, 24> digits;
  auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

} // namespace

std::size_t utf8_sequence(std::string_view text) {
  auto at
    = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  auto continues = [&](std::size_t i) { return (at(i) & 0xC0) == 0x80; };
  if (text.empty())
    return 0;
  if (at(0) < 0x80)
    return 1;
  if (at(0) >= 0xC2 && at(0) <= 0xDF)
    return continues(1) ? 2 : 0;
  if ((at(0) & 0xF0) == 0xE0) { // neither overlong nor a surrogate
    bool fits = !(at(0) == 0xE0 && at(1) < 0xA0) && !(at(0) == 0xED && at(1) > 0x9F);
    return fits && continues(1) && continues(2) ? 3 : 0;
  }
  if (at(0) >= 0xF0 && at(0) <= 0xF4) { // neither overlong nor above U+10FFFF
    bool fits = !(at(0) == 0xF0 && at(1) < 0x90) && !(at(0) == 0xF4 && at(1) > 0x8F);
    return fits && continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

void append_escaped(std::string& out, std::string_view text) {
  std::size_t clean = 0; // start of the run not yet copied
  for (std::size_t i = 0; i < text.size();) {
    auto byte = static_cast<unsigned char>(text[i]);
    if (plain[byte]) {
      ++i;
      continue;
    }
    if (auto length = byte < 0x80 ? 0 : utf8_sequence(text.substr(i)); length != 0) {
      i += length;
      continue;
    }
    out.append(text, clean, i - clean);
    if (byte < 0x80)
      append_control(out, byte);
    else
      out += "\xEF\xBF\xBD";
    clean = ++i;
  }
  out.append(text, clean);
}

void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  append_escaped(out, text);
  out += '"';
}

void append_number(std::string& out, std::uint64_t value) {
  append_integer(out, value);
}
void append_number(std::string& out, std::int64_t value) {
  append_integer(out, value);
}

void append_logprob(std::string& out, float value) {
  if (!std::isfinite(value)) {
    out += "-9999.0";
    return;
  }
  std::array<char, 40> digits;
  auto exact = value == 0 ? 0.0 : static_cast<double>(value); // no "-0"
  auto end = std::to_chars(digits.data(), digits.data() + digits.size(), exact).ptr;
  std::string_view text{digits.data(), static_cast<std::size_t>(end - digits.data())};
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos)
    out += ".0";
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (char byte : text)
    count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return count;
}

} // namespace llumnix::openai
