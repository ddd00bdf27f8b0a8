#include "apps/decide/json_part.hpp"

#include "config/near_name.hpp"

#include <algorithm>
#include <cmath>

namespace llumnix {

namespace {

template <class T>
void read_into(const json_part& at, T& into) {
  using limits = std::numeric_limits<T>;
  if (auto whole = read_whole(at, limits::min(), limits::max()))
    into = static_cast<T>(*whole);
}

} // namespace

std::string json_part::path() const {
  if (parent_ == nullptr)
    return {};
  auto path = parent_->path();
  if (name_.empty() && parent_->value_.is_array())
    return path + "[" + std::to_string(index_) + "]";
  return path + (path.empty() ? "" : ".") + std::string{name_};
}

void json_part::fail(std::string message) const {
  if (!problem_)
    problem_ = config_problem{path(), std::move(message)};
}

void json_part::fail_within(std::string_view name, std::string message) const {
  json_part{value_, *this, name}.fail(std::move(message));
}

json_object::json_object(const json_part& at) : at_{at} {
  if (!at.value().is_object())
    at.fail("is not an object");
}

const nlohmann::json* json_object::find(std::string_view name) {
  known_.push_back(name);
  if (at_.failed() || !at_.value().is_object())
    return nullptr;
  auto found = at_.value().find(name);
  return found == at_.value().end() ? nullptr : &*found;
}

void json_object::close() const {
  if (at_.failed() || !at_.value().is_object())
    return;
  for (auto& [name, value] : at_.value().items())
    if (std::ranges::find(known_, name) == known_.end())
      return at_.fail_within(name, "nothing knows this name" + suggestion(name, known_));
}

namespace {

/// What may be wrong with a number that is whole for people.
std::string how_to_write(const nlohmann::json& value) {
  return value.is_number_float() ? ", written without exponent and fraction" : "";
}

} // namespace

std::optional<std::int64_t> read_whole(const json_part& at, std::int64_t low, std::int64_t high) {
  auto& value = at.value();
  bool fits = value.is_number_unsigned()
                ? std::cmp_less_equal(value.get<std::uint64_t>(), high)
                    && std::cmp_less_equal(low, value.get<std::uint64_t>())
                : value.is_number_integer() && low <= value.get<std::int64_t>()
                    && value.get<std::int64_t>() <= high;
  if (fits)
    return value.get<std::int64_t>();
  at.fail(
    "is not a whole number from " + std::to_string(low) + " to " + std::to_string(high)
    + how_to_write(value));
  return std::nullopt;
}

void read_part(const json_part& at, bool& into) {
  if (!at.value().is_boolean())
    return at.fail("is neither true nor false");
  into = at.value().get<bool>();
}

void read_part(const json_part& at, std::string& into) {
  if (!at.value().is_string())
    return at.fail("is not a text in quotes");
  into = at.value().get_ref<const std::string&>();
}

void read_part(const json_part& at, std::int32_t& into) {
  read_into(at, into);
}

void read_part(const json_part& at, std::uint32_t& into) {
  read_into(at, into);
}

void read_part(const json_part& at, std::int64_t& into) {
  read_into(at, into);
}

void read_part(const json_part& at, std::uint64_t& into) {
  if (!at.value().is_number_unsigned())
    return at.fail(
      "is not a whole number from 0 to "
      + std::to_string(std::numeric_limits<std::uint64_t>::max()) + how_to_write(at.value()));
  into = at.value().get<std::uint64_t>();
}

void read_part(const json_part& at, double& into) {
  constexpr auto infinity = std::numeric_limits<double>::infinity();
  auto& value = at.value();
  if (value.is_number())
    into = value.get<double>();
  else if (value == "inf")
    into = infinity;
  else if (value == "-inf")
    into = -infinity;
  else
    at.fail("is not a number, nor \"inf\" or \"-inf\"");
}

void read_finite(const json_part& at, double& into) {
  if (!at.value().is_number())
    return at.fail("is not a number");
  into = at.value().get<double>();
}

std::optional<std::size_t>
read_word(const json_part& at, std::initializer_list<std::string_view> words) {
  std::string list;
  for (auto word : words)
    list.append(list.empty() ? "" : ", ").append(word.empty() ? "\"\"" : word);
  if (!at.value().is_string()) {
    at.fail("is not one of the texts " + list);
    return std::nullopt;
  }
  auto& text = at.value().get_ref<const std::string&>();
  auto found = std::ranges::find(words, text);
  if (found != words.end())
    return static_cast<std::size_t>(found - words.begin());
  at.fail(in_quotes(text) + " is none of " + list + suggestion(text, words));
  return std::nullopt;
}

std::string suggestion(std::string_view wanted, const std::vector<std::string_view>& known) {
  constexpr std::size_t longest = 100; // of names that are worth a comparison
  auto near = wanted.size() > longest ? std::string_view{} : nearest_name(wanted, known);
  return near.empty() ? "" : "; did you mean " + std::string{near} + "?";
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 60;
  if (text.size() <= longest)
    return '"' + std::string{text} + '"';
  auto end = longest - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end; // a character is shown whole or not at all
  return '"' + std::string{text.substr(0, end)} + "...\"";
}

} // namespace llumnix
