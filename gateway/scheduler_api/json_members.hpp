#pragma once

#include "gateway/relay/json_cursor.hpp"

#include <charconv>
#include <cstdint>
#include <string>
#include <system_error>

/// How the scheduler's HTTP API is read on both of its ends: a null changes nothing, as in the
/// reference; any other value of the wrong type is a failure.
namespace llumnix::scheduler_api {

inline constexpr auto wrong_type = "a value of the wrong type";

/// Passes over a null.
inline bool skip_null(relay::json_cursor& at) {
  return at.peek() == 'n' && !at.skip().empty();
}

/// Reads a string.
inline void read(relay::json_cursor& at, std::string& into) {
  if (skip_null(at))
    return;
  auto text = at.skip();
  if (text.empty() || text.front() != '"')
    return at.fail(wrong_type);
  into.clear();
  relay::append_unescaped(into, relay::inside_quotes(text));
}

/// Reads a number that `into` can hold.
template <class Number>
void read_number(relay::json_cursor& at, Number& into) {
  if (skip_null(at))
    return;
  auto text = at.skip();
  Number value{};
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || problem != std::errc{} || end != text.data() + text.size())
    return at.fail(wrong_type);
  into = value;
}

inline void read(relay::json_cursor& at, std::int64_t& into) {
  read_number(at, into);
}

inline void read(relay::json_cursor& at, std::uint64_t& into) {
  read_number(at, into);
}

/// The members of an object. `member(name)` reads the value, or returns false for one that nobody
/// wants.
template <class Member>
void read_object(relay::json_cursor& at, Member member) {
  if (skip_null(at) || !at.enter_object())
    return;
  while (at.next_member())
    if (!member(at.key()))
      at.skip();
}

} // namespace llumnix::scheduler_api
