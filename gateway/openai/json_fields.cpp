#include "gateway/openai/json_fields.hpp"

#include <spdlog/fmt/fmt.h>

#include <cmath>

namespace llumnix::openai {
namespace {

/// A number as its reader sees it: 5, 5.0 or 1e+20.
std::string in_words(simdjson::dom::element number) {
  if (number.is_int64())
    return fmt::format("{}", std::int64_t{number});
  if (number.is_uint64())
    return fmt::format("{}", std::uint64_t{number});
  return fmt::format("{}", double{number});
}

} // namespace

json_fields::json_fields(
  simdjson::dom::object object, std::string path, std::optional<api_error>& failure)
  : path_{std::move(path)}, failure_{failure} {
  for (auto field : object)
    fields_.emplace_back(field.key, field.value);
}

std::optional<simdjson::dom::element> json_fields::find(std::string_view name) const {
  if (failure_)
    return std::nullopt;
  for (auto field = fields_.rbegin(); field != fields_.rend(); ++field)
    if (field->first == name)
      return field->second.is_null() ? std::nullopt : std::optional{field->second};
  return std::nullopt;
}

void json_fields::fail(std::string_view name, std::string code, std::string message) {
  if (!failure_)
    failure_ = api_error{400, std::move(code), std::move(message), path(name)};
}

void json_fields::wrong_type(std::string_view name, std::string_view expected) {
  fail(name, "invalid_type", fmt::format("'{}' must be {}.", path(name), expected));
}

bool json_fields::boolean(std::string_view name, bool otherwise) {
  auto value = find(name);
  if (value && !value->is_bool())
    wrong_type(name, "a boolean");
  return value && value->is_bool() ? bool{*value} : otherwise;
}

std::optional<std::string> json_fields::text(std::string_view name) {
  auto value = find(name);
  if (!value)
    return std::nullopt;
  if (!value->is_string()) {
    wrong_type(name, "a string");
    return std::nullopt;
  }
  return std::string{std::string_view{*value}};
}

std::optional<std::int64_t>
json_fields::integer(std::string_view name, std::int64_t low, std::int64_t high) {
  auto value = find(name);
  if (!value)
    return std::nullopt;
  auto number = as_integer(*value);
  if (!number && !is_whole(*value))
    wrong_type(name, "an integer");
  else if (!number || *number < low || *number > high)
    fail(
      name, "invalid_value",
      fmt::format("'{}' must be from {} to {}, not {}.", path(name), low, high, in_words(*value)));
  return failed() ? std::nullopt : number;
}

std::optional<double> json_fields::number(std::string_view name, double low, double high) {
  auto value = find(name);
  if (!value)
    return std::nullopt;
  double number = 0;
  if (!value->is_number() || value->get(number) != simdjson::SUCCESS)
    wrong_type(name, "a number");
  else if (number < low || number > high)
    fail(
      name, "invalid_value",
      fmt::format("'{}' must be from {} to {}, not {}.", path(name), low, high, number));
  return failed() ? std::nullopt : std::optional{number};
}

std::optional<simdjson::dom::array> json_fields::array(std::string_view name) {
  auto value = find(name);
  if (value && !value->is_array())
    wrong_type(name, "an array");
  return value && value->is_array() ? std::optional{simdjson::dom::array{*value}} : std::nullopt;
}

std::optional<simdjson::dom::object> json_fields::object(std::string_view name) {
  auto value = find(name);
  if (value && !value->is_object())
    wrong_type(name, "an object");
  return value && value->is_object() ? std::optional{simdjson::dom::object{*value}} : std::nullopt;
}

std::optional<std::int64_t> as_integer(simdjson::dom::element value) {
  if (value.is_int64())
    return std::int64_t{value};
  if (!value.is_double())
    return std::nullopt; // beyond 63 bits, too
  double number = value;
  constexpr double exact = 9007199254740992.0; // 2^53: above it a double is no longer one integer
  if (std::trunc(number) != number || std::abs(number) > exact)
    return std::nullopt;
  return static_cast<std::int64_t>(number);
}

bool is_whole(simdjson::dom::element value) {
  if (!value.is_double())
    return value.is_number();
  double number = value;
  return std::trunc(number) == number;
}

} // namespace llumnix::openai
