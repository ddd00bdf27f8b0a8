#include "gateway/relay/request_fields.hpp"

#include "gateway/relay/json_values.hpp"

#include <spdlog/fmt/fmt.h>

#include <initializer_list>
#include <string>
#include <utility>

namespace llumnix::relay {
namespace {

bool is_empty_container(std::string_view value) {
  json_cursor at{value, json_cursor::read_before{}};
  if (at.peek() == '{')
    return at.enter_object() && !at.next_member();
  return at.peek() == '[' && at.enter_array() && !at.next_element();
}

/// The text of a JSON string that needs no unescaping, without blanks around it; of anything else
/// its own.
std::string_view plain_text(std::string_view value) {
  if (!value.starts_with('"'))
    return value;
  constexpr std::string_view blanks = " \t";
  auto text = inside_quotes(value);
  auto begin = std::min(text.find_first_not_of(blanks), text.size());
  return text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
}

bool is_any_of(std::string_view text, std::initializer_list<std::string_view> words) {
  auto same = [](char x, char y) { return (x >= 'A' && x <= 'Z' ? x | 0x20 : x) == y; };
  return std::ranges::any_of(
    words, [&](std::string_view word) { return std::ranges::equal(text, word, same); });
}

/// As pydantic reads it, by which vLLM and SGLang take requests.
std::optional<bool> read_boolean(std::string_view value) {
  auto text = plain_text(value);
  if (is_any_of(text, {"true", "t", "yes", "y", "on", "1", "1.0"}))
    return true;
  if (is_any_of(text, {"false", "f", "no", "n", "off", "0", "0.0"}))
    return false;
  return std::nullopt;
}

/// The text of a number that is given as one, as a string or as a boolean, as pydantic takes it.
std::optional<std::string_view> read_number(std::string_view value) {
  if (value == "true" || value == "false")
    return value == "true" ? "1" : "0";
  auto text = plain_text(value);
  json_cursor at{text};
  bool whole = !text.empty() && is_number(text) && !at.skip().empty() && at.finished();
  return whole ? std::optional{text} : std::nullopt;
}

} // namespace

request_fields::request_fields(std::string_view body, field_name prompt, std::string_view within)
  : body_{body}, prompt_{prompt}, within_{within} {
  json_cursor at{body};
  bool object = at.peek() == '{';
  if (object && at.enter_object()) {
    layout_.begin(at.offset());
    while (at.next_member())
      take(at);
    layout_.end();
  } else {
    at.skip();
  }
  if (!at.finished())
    failure_ = openai::api_error{
      400,
      "invalid_json",
      fmt::format("The body is {}, at byte {}.", at.problem(), at.offset()),
      {}};
  else if (!object)
    failure_ = openai::api_error{400, "invalid_type", "The body must be a JSON object.", {}};
}

void request_fields::take(json_cursor& at) {
  auto index = known_field(at.key());
  bool guided = at.key().starts_with("guided_");
  bool kept = !connects(at.key());
  auto begin = at.member_offset();
  auto value = index == prompt_.index ? measure(at) : at.skip();
  layout_.add({begin, at.offset()}, kept);
  if (value == "null")
    value = {};
  if (index < values_.size())
    values_[index] = value;
  guided_ |= guided && !value.empty();
}

std::string_view request_fields::measure(json_cursor& at) {
  at.peek();
  auto begin = at.offset();
  size_ = prompt_ == field_name{"messages"} ? measure_messages(at) : measure_prompt(at);
  return body_.substr(begin, at.offset() - begin);
}

std::string_view request_fields::find(field_name name) const {
  return failure_ ? std::string_view{} : values_[name.index];
}

bool request_fields::holds_something(field_name name) const {
  auto value = find(name);
  return !value.empty() && value != "false" && value != R"("")" && !is_empty_container(value);
}

bool request_fields::boolean(std::string_view path, std::string_view value, bool otherwise) {
  if (value.empty())
    return otherwise;
  auto read = read_boolean(value);
  if (!read)
    leave_to_engine(path);
  return read.value_or(otherwise);
}

std::optional<std::int64_t> request_fields::integer(field_name name) {
  auto value = find(name);
  if (value.empty())
    return std::nullopt;
  auto text = read_number(value);
  auto number = text ? to_integer(*text) : std::nullopt;
  if (!number)
    leave_to_engine(name.text());
  return number;
}

double request_fields::number(field_name name, double otherwise) {
  auto value = find(name);
  if (value.empty())
    return otherwise;
  auto text = read_number(value);
  if (!text)
    leave_to_engine(name.text());
  return text ? to_double(*text) : otherwise;
}

void request_fields::leave_to_engine(std::string_view path) {
  if (not_understood_.empty())
    not_understood_ = path;
}

std::string_view request_fields::of_type(field_name name, char opening, std::string_view expected) {
  auto value = find(name);
  if (!value.empty() && value.front() != opening)
    wrong_type(name.text(), expected);
  return find(name);
}

void request_fields::wrong_type(std::string_view path, std::string_view expected) {
  if (failure_)
    return;
  auto name = std::string{within_} + std::string{path};
  failure_
    = openai::api_error{400, "invalid_type", fmt::format("'{}' must be {}.", name, expected), name};
}

} // namespace llumnix::relay
