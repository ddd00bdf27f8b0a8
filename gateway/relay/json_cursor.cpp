#include "gateway/relay/json_cursor.hpp"

#include "gateway/openai/json_text.hpp"

#include <array>
#include <cstddef>
#include <experimental/simd>
#include <limits>
#include <simdjson.h>
#include <utility>

namespace llumnix::relay {
namespace {

constexpr auto not_json = "not valid JSON";

/// Bytes of a string that need a closer look.
constexpr bool is_special(unsigned char byte) {
  return byte < 0x20 || byte == '"' || byte == '\\';
}

bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

/// Which kind each of the containers around a place is.
class nesting {
public:
  std::size_t depth() const { return depth_; }
  void push(bool object) {
    auto& word = words_[depth_ / 64];
    auto bit = std::uint64_t{1} << depth_ % 64;
    word = object ? word | bit : word & ~bit;
    ++depth_;
  }
  void pop() { --depth_; }
  bool in_object() const { return words_[(depth_ - 1) / 64] >> (depth_ - 1) % 64 & 1; }

private:
  std::array<std::uint64_t, json_cursor::depth_max / 64> words_{};
  std::size_t depth_ = 0;
};

} // namespace

json_cursor::json_cursor(std::string_view text) : json_cursor{text, read_before{}} {
  if (simdjson::validate_utf8(text))
    return;
  while (auto length = openai::utf8_sequence({at_, static_cast<std::size_t>(end_ - at_)}))
    at_ += length;
  fail("not valid UTF-8");
}

void json_cursor::fail(const char* problem) {
  if (!problem_)
    problem_ = problem;
  end_ = at_; // nothing more is read
}

void json_cursor::pass_space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t'))
    ++at_;
}

char json_cursor::peek() {
  pass_space();
  return byte();
}

bool json_cursor::finished() {
  pass_space();
  if (at_ < end_)
    fail(not_json);
  return !failed();
}

bool json_cursor::enter(char opening) {
  if (peek() != opening) {
    fail(not_json);
    return false;
  }
  ++at_;
  fresh_ = true;
  return true;
}

/// Whether another member or element comes, and up to it.
bool json_cursor::next(char closing) {
  if (failed())
    return false;
  bool first = std::exchange(fresh_, false);
  pass_space();
  if (byte() == closing) {
    ++at_;
    return false;
  }
  if (!first) {
    if (byte() != ',') {
      fail(not_json);
      return false;
    }
    ++at_;
    pass_space();
  }
  return true;
}

bool json_cursor::next_element() {
  return next(']');
}

bool json_cursor::next_member() {
  if (!next('}'))
    return false;
  auto from = at_;
  member_offset_ = offset();
  pass_string();
  if (failed())
    return false;
  key_ = inside_quotes({from, static_cast<std::size_t>(at_ - from)});
  pass_colon();
  if (key_.find('\\') != std::string_view::npos) {
    unescaped_.clear();
    append_unescaped(unescaped_, key_);
    key_ = unescaped_;
  }
  return !failed();
}

void json_cursor::pass_colon() {
  pass_space();
  if (byte() != ':')
    return fail(not_json);
  ++at_;
}

std::string_view json_cursor::skip() {
  auto opening = peek();
  auto from = at_;
  if (opening == '{' || opening == '[')
    pass_container();
  else
    pass_scalar();
  if (failed())
    return {};
  return {from, static_cast<std::size_t>(at_ - from)};
}

void json_cursor::pass_container() {
  nesting around;
  do {
    auto opening = peek();
    if (opening == '{' || opening == '[') {
      if (around.depth() == depth_max)
        return fail("nested too deeply");
      around.push(opening == '{');
      ++at_;
      fresh_ = true;
    } else {
      pass_scalar();
    }
    // Out of what ends here, and up to the next value.
    while (around.depth() > 0 && !next(around.in_object() ? '}' : ']') && !failed())
      around.pop();
    if (around.depth() > 0 && around.in_object() && !failed()) {
      pass_string();
      pass_colon();
    }
  } while (around.depth() > 0 && !failed());
}

void json_cursor::pass_scalar() {
  switch (byte()) {
    case '"': return pass_string();
    case 't': return pass_word("true");
    case 'f': return pass_word("false");
    case 'n': return pass_word("null");
    default: return pass_number();
  }
}

void json_cursor::pass_word(std::string_view word) {
  if (!std::string_view{at_, static_cast<std::size_t>(end_ - at_)}.starts_with(word))
    return fail(not_json);
  at_ += word.size();
}

void json_cursor::pass_string() {
  if (byte() != '"')
    return fail(not_json);
  ++at_;
  while (true) {
    pass_plain();
    if (byte() == '"') {
      ++at_;
      return;
    }
    if (byte() != '\\')
      return fail(not_json); // a control character, or the end
    pass_escape();
    if (failed())
      return;
  }
}

void json_cursor::pass_plain() {
  namespace simd = std::experimental;
  using byte_t = unsigned char;
  using block = simd::native_simd<byte_t>;
  constexpr auto size = static_cast<std::ptrdiff_t>(block::size());
  for (; end_ - at_ >= size; at_ += size) {
    block bytes{reinterpret_cast<const byte_t*>(at_), simd::element_aligned};
    auto special = bytes < byte_t{0x20} || bytes == byte_t{'"'} || bytes == byte_t{'\\'};
    if (simd::any_of(special)) {
      at_ += simd::find_first_set(special);
      return;
    }
  }
  while (at_ < end_ && !is_special(static_cast<unsigned char>(*at_)))
    ++at_;
}

void json_cursor::pass_escape() {
  ++at_;
  auto what = byte();
  if (std::string_view{"\"\\/bfnrtu"}.find(what) == std::string_view::npos)
    return fail(not_json);
  ++at_;
  if (what == 'u')
    for (int digit = 0; digit < 4; ++digit, ++at_)
      if (hex_digit(byte()) == 16)
        return fail(not_json);
}

void json_cursor::pass_number() {
  if (byte() == '-')
    ++at_;
  if (byte() == '0')
    ++at_;
  else
    pass_digits();
  if (byte() == '.') {
    ++at_;
    pass_digits();
  }
  if (byte() == 'e' || byte() == 'E') {
    ++at_;
    if (byte() == '+' || byte() == '-')
      ++at_;
    pass_digits();
  }
}

/// At least one.
void json_cursor::pass_digits() {
  if (!is_digit(byte()))
    fail(not_json);
  while (is_digit(byte()))
    ++at_;
}

std::uint64_t json_cursor::read_unsigned(std::uint64_t max) {
  peek();
  auto from = at_;
  std::uint64_t value = 0;
  for (; is_digit(byte()) && value <= max; ++at_)
    value = value * 10 + static_cast<std::uint64_t>(*at_ - '0');
  bool zero_first = at_ - from > 1 && *from == '0';
  if (at_ == from || zero_first || value > max)
    fail("not a number from 0 on, or too large a one");
  return value;
}

std::string_view last_member(std::string_view object, std::string_view name) {
  std::string_view found;
  json_cursor at{object, json_cursor::read_before{}};
  at.enter_object();
  while (at.next_member()) {
    auto value = at.skip();
    if (at.key() == name)
      found = value == "null" ? std::string_view{} : value;
  }
  return found;
}

std::vector<std::uint32_t> read_numbers(std::string_view array, std::size_t expected) {
  std::vector<std::uint32_t> numbers;
  json_cursor at{array, json_cursor::read_before{}};
  if (array.empty() || !at.enter_array())
    return numbers;
  numbers.reserve(expected);
  constexpr auto most = std::numeric_limits<std::uint32_t>::max();
  while (at.next_element())
    numbers.push_back(static_cast<std::uint32_t>(at.read_unsigned(most)));
  return at.failed() ? std::vector<std::uint32_t>{} : numbers;
}

} // namespace llumnix::relay
