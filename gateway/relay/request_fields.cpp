#include "gateway/relay/request_fields.hpp"

#include <spdlog/fmt/fmt.h>

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
  if (value != "true" && value != "false")
    wrong_type(path, "a boolean");
  return value == "true";
}

std::optional<std::int64_t> request_fields::integer(field_name name) {
  auto value = find(name);
  if (value.empty())
    return std::nullopt;
  auto number = is_number(value) ? to_integer(value) : std::nullopt;
  if (!number)
    wrong_type(name.text(), "an integer");
  return number;
}

double request_fields::number(field_name name, double otherwise) {
  auto value = find(name);
  if (!value.empty() && !is_number(value))
    wrong_type(name.text(), "a number");
  return find(name).empty() ? otherwise : to_double(value);
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
