#include "gateway/openai/forgive.hpp"

#include "gateway/openai/json_text.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>

namespace llumnix::openai {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD"; // U+FFFD
constexpr std::string_view largest = "1.7976931348623157e308";
constexpr std::string_view number_bytes = "0123456789+-.eE";

bool out_of_range(std::string_view literal, auto value) {
  auto read = std::from_chars(literal.data(), literal.data() + literal.size(), value);
  return read.ec == std::errc::result_out_of_range;
}

bool is_integer(std::string_view literal) {
  return literal.find_first_not_of("0123456789", literal.front() == '-') == literal.npos;
}

/// The code unit that an escape "\uXXXX" at the start of `text` stands for; 0 if it is none.
unsigned escaped_unit(std::string_view text) {
  unsigned unit = 0;
  if (text.size() < 6 || !text.starts_with("\\u"))
    return 0;
  auto read = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return read.ptr == text.data() + 6 ? unit : 0;
}

bool leads(unsigned unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}
bool trails(unsigned unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

/// One pass over a text: what is good is copied in runs, what is not is replaced.
class forgiving_copy {
public:
  explicit forgiving_copy(std::string_view text) : text_{text} {}

  void run() {
    while (at_ < text_.size()) {
      auto byte = text_[at_];
      if (byte == '"')
        pass_string();
      else if (byte == '-' || (byte >= '0' && byte <= '9'))
        pass_number();
      else
        ++at_;
    }
    if (changed_)
      out_.append(text_, clean_);
  }
  bool changed() const { return changed_; }
  std::string& out() { return out_; }

private:
  std::string_view rest() const { return text_.substr(at_); }

  /// Writes `instead` for the next `size` bytes.
  void replace(std::size_t size, std::string_view instead) {
    out_.append(text_, clean_, at_ - clean_).append(instead);
    clean_ = at_ += size;
    changed_ = true;
  }

  void pass_string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"';)
      if (text_[at_] == '\\')
        pass_escape();
      else if (auto size = utf8_sequence(rest()); size > 0)
        at_ += size;
      else
        replace(1, replacement);
    ++at_;
  }

  void pass_escape() {
    auto unit = escaped_unit(rest());
    if (leads(unit) && trails(escaped_unit(text_.substr(at_ + 6))))
      at_ += 12;
    else if (leads(unit) || trails(unit))
      replace(6, "\\ufffd");
    else if (auto next = rest().substr(1); !next.empty() && utf8_sequence(next) == 1)
      at_ += 2;
    else
      ++at_;
  }

  void pass_number() {
    auto end = std::min(text_.find_first_not_of(number_bytes, at_), text_.size());
    auto literal = text_.substr(at_, end - at_);
    bool negative = literal.front() == '-';
    bool whole = is_integer(literal);
    if (whole && literal.size() < 19) // fits for sure
      at_ = end;
    else if (
      out_of_range(literal, double{}) && literal.find("e-") == literal.npos
      && literal.find("E-") == literal.npos)
      replace(literal.size(), negative ? "-" + std::string{largest} : std::string{largest});
    else if (
      whole
      && (negative ? out_of_range(literal, std::int64_t{}) : out_of_range(literal, std::uint64_t{})))
      replace(literal.size(), std::string{literal} + "e0");
    else
      at_ = end;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t clean_ = 0; ///< start of the run not yet copied
  bool changed_ = false;
  std::string out_;
};

} // namespace

bool forgive(std::string& text) {
  forgiving_copy copy{text};
  copy.run();
  if (copy.changed())
    text.swap(copy.out());
  return copy.changed();
}

} // namespace llumnix::openai
