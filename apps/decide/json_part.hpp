#pragma once

#include "config/load_config.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Reading a JSON document strictly: whatever nobody asked for is a problem, and each problem says
/// where it stands.
namespace llumnix {

/// A value within a document. Made while its parent is being looked at, and no longer valid after.
class json_part {
public:
  /// The document itself. The first problem found in any part of it ends in `problem`.
  json_part(const nlohmann::json& value, std::optional<config_problem>& problem)
    : value_{value}, problem_{problem} {}
  json_part(const nlohmann::json& value, const json_part& parent, std::string_view name)
    : value_{value}, problem_{parent.problem_}, parent_{&parent}, name_{name} {}
  json_part(const nlohmann::json& value, const json_part& parent, std::size_t index)
    : value_{value}, problem_{parent.problem_}, parent_{&parent}, index_{index} {}

  const nlohmann::json& value() const { return value_; }
  /// "instances[0].status"; empty for the document.
  std::string path() const;
  /// Keeps the problem if it is the document's first. `message` says what is wrong with the value
  /// as the end of a sentence about it.
  void fail(std::string message) const;
  /// The same, of something within this value.
  void fail_within(std::string_view name, std::string message) const;
  bool failed() const { return problem_.has_value(); }

private:
  const nlohmann::json& value_;
  std::optional<config_problem>& problem_;
  const json_part* parent_ = nullptr;
  std::string_view name_; ///< empty: an item of a list
  std::size_t index_ = 0;
};

/// The object a part is. `close` comes last and reports every name that nobody read.
class json_object {
public:
  explicit json_object(const json_part& at);

  /// Reads the value of that name, if there is one, by the `read_part` for its type.
  template <class T>
  bool read(std::string_view name, T& into);
  /// The same; there must be one.
  template <class T>
  void need(std::string_view name, T& into) {
    if (!read(name, into))
      at_.fail_within(name, "is missing");
  }
  /// The value of that name, or null; whoever asks reads it.
  const nlohmann::json* find(std::string_view name);
  /// Reads the value by a function of one's own: `how(const json_part&)`.
  template <class Read>
  bool read_by(std::string_view name, Read how) {
    auto* value = find(name);
    if (value != nullptr)
      how(json_part{*value, at_, name});
    return value != nullptr;
  }
  void close() const;

private:
  const json_part& at_;
  std::vector<std::string_view> known_;
};

/// A whole number from `low` to `high`, or nothing and a problem.
std::optional<std::int64_t> read_whole(const json_part& at, std::int64_t low, std::int64_t high);

void read_part(const json_part& at, bool& into);
void read_part(const json_part& at, std::string& into);
void read_part(const json_part& at, std::int32_t& into);
void read_part(const json_part& at, std::uint32_t& into);
void read_part(const json_part& at, std::int64_t& into);
void read_part(const json_part& at, std::uint64_t& into);
/// A number, or "inf" or "-inf".
void read_part(const json_part& at, double& into);
/// A number that is not infinite.
void read_finite(const json_part& at, double& into);
/// One of some words: its index, or nothing and a problem.
std::optional<std::size_t>
read_word(const json_part& at, std::initializer_list<std::string_view> words);

/// "; did you mean NAME?", or nothing if no name is near.
std::string suggestion(std::string_view wanted, const std::vector<std::string_view>& known);
/// A text as part of a message: quoted and not too long.
std::string in_quotes(std::string_view text);

/// Calls `item(const json_part&)` for each item of a list.
template <class Item>
void read_items(const json_part& at, Item item) {
  if (!at.value().is_array())
    return at.fail("is not a list");
  for (std::size_t i = 0; i < at.value().size() && !at.failed(); ++i)
    item(json_part{at.value()[i], at, i});
}

/// Calls `member(name, const json_part&)` for each member of an object.
template <class Member>
void read_members(const json_part& at, Member member) {
  if (!at.value().is_object())
    return at.fail("is not an object");
  for (auto& [name, value] : at.value().items())
    if (!at.failed())
      member(name, json_part{value, at, name});
}

/// Two values side by side, `[x, y]`: calls `first` and `second`, each with its part.
template <class First, class Second>
void read_pair(const json_part& at, First first, Second second) {
  if (!at.value().is_array() || at.value().size() != 2)
    return at.fail("is not a pair like [1, 2]");
  first(json_part{at.value()[0], at, std::size_t{0}});
  second(json_part{at.value()[1], at, std::size_t{1}});
}

template <class X, class Y>
void read_part(const json_part& at, std::pair<X, Y>& into) {
  read_pair(
    at, [&](const json_part& x) { read_part(x, into.first); },
    [&](const json_part& y) { read_part(y, into.second); });
}

template <class T>
void read_part(const json_part& at, std::vector<T>& into) {
  into.clear();
  read_items(at, [&](const json_part& item) { read_part(item, into.emplace_back()); });
}

template <class T>
void read_part(const json_part& at, std::optional<T>& into) {
  read_part(at, into.emplace());
}

template <class T>
bool json_object::read(std::string_view name, T& into) {
  return read_by(name, [&](const json_part& at) { read_part(at, into); });
}

} // namespace llumnix
