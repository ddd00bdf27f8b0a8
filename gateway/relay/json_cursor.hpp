#pragma once

#include "gateway/relay/json_values.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

/// Reads a JSON text strictly, in one pass and without a tree, and tells where its values lie, so
/// that they can be cut out, replaced and passed on as they were written.
///
/// What is no JSON or no UTF-8 is refused at any depth, also in values passed over. What a tree of
/// ours could not hold is none of its business: numbers of any size and escapes of half a surrogate
/// pair are JSON, and pass. Nesting is bounded. After a failure every call says that there is
/// nothing more.
///
///     json_cursor at{text};
///     if (at.enter_object())
///       while (at.next_member())
///         ... at.key() ... at.skip() ...
///     if (!at.finished())
///       ... at.problem() ...
class json_cursor {
public:
  static constexpr std::size_t depth_max = 1024;

  /// `text` must outlive the cursor.
  explicit json_cursor(std::string_view text);
  /// The same for what a cursor has read before: it is not looked through for its encoding again.
  struct read_before {};
  json_cursor(std::string_view text, read_before)
    : begin_{text.data()}, at_{begin_}, end_{begin_ + text.size()} {}

  /// The byte the next value begins with: one of `{["-0123456789tfn`, or anything else where no
  /// value comes.
  char peek();
  /// Enters the object or array that comes next; a failure if something else does.
  bool enter_object() { return enter('{'); }
  bool enter_array() { return enter('['); }
  /// Goes on to the next member of the object entered last: its value is next, and must be read or
  /// skipped. False after the last member, and outside of the object then.
  bool next_member();
  /// The same for the elements of an array.
  bool next_element();
  /// Of the member that `next_member` found last, unescaped.
  std::string_view key() const { return key_; }
  /// The byte at which that member begins: its key's quotation mark.
  std::size_t member_offset() const { return member_offset_; }
  /// Passes over the next value, and returns its text.
  std::string_view skip();
  /// The next value as a number of digits only, up to `max`, which is below 2^60. A failure if it
  /// is something else.
  std::uint64_t read_unsigned(std::uint64_t max);

  /// Whether the whole text was read, without a failure.
  bool finished();
  bool failed() const { return problem_ != nullptr; }
  /// The caller found something wrong with what it read.
  void fail(const char* problem);
  /// What was wrong, e.g. "not valid JSON"; empty without a failure.
  std::string_view problem() const { return failed() ? problem_ : std::string_view{}; }
  /// The byte that reading has come to, or stopped at.
  std::size_t offset() const { return static_cast<std::size_t>(at_ - begin_); }

private:
  char byte() const { return at_ < end_ ? *at_ : '\0'; }
  void pass_space();
  bool enter(char opening);
  bool next(char closing);
  void pass_colon();
  void pass_container();
  void pass_scalar();
  void pass_string();
  void pass_plain();
  void pass_escape();
  void pass_number();
  void pass_digits();
  void pass_word(std::string_view word);

  const char* begin_;
  const char* at_;
  const char* end_;
  const char* problem_ = nullptr;
  std::size_t member_offset_ = 0;
  bool fresh_ = false; ///< an object or array was entered, and none of it was read
  std::string_view key_;
  std::string unescaped_;
};

/// The value of a member of an object that a cursor has read before, the last if there are several;
/// empty where there is none, or null.
std::string_view last_member(std::string_view object, std::string_view name);

/// The numbers of an array that a cursor has read before, `expected` of them; none if it is no
/// array of numbers of 32 bits.
std::vector<std::uint32_t> read_numbers(std::string_view array, std::size_t expected = 0);

} // namespace llumnix::relay
