#include "config/knob_value.hpp"

#include "config/json_text.hpp"
#include "config/load_config.hpp"
#include "config/notation.hpp"

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <type_traits>

namespace llumnix {

namespace {

constexpr std::string_view hidden = "***";

/// A value as part of a message: short, and nothing of a secret.
std::string shown(const knob& which, std::string_view text) {
  if (which.secret)
    return "the value";
  if (text.empty())
    return "an empty value";
  return text.size() <= 60 ? std::string{text} : std::string{text.substr(0, 57)} + "...";
}

template <class T>
bool parse_number(std::string_view text, T& value) {
  T parsed{};
  auto last = text.data() + text.size();
  auto read = std::from_chars(text.data(), last, parsed);
  if (text.empty() || read.ec != std::errc{} || read.ptr != last)
    return false;
  value = parsed;
  return true;
}

std::string read(const knob&, std::string_view text, bool& value) {
  if (text != "true" && text != "false")
    return " is neither true nor false";
  value = text == "true";
  return {};
}

template <class T>
requires std::is_unsigned_v<T> std::string
read(const knob& which, std::string_view text, T& value) {
  if (which.form == knob_form::bytes) {
    std::size_t size = 0;
    if (!parse_size(text, size) || size > std::numeric_limits<T>::max())
      return " is no size; write it like 65536, 64KiB or 2GiB";
    value = static_cast<T>(size);
    return {};
  }
  if (parse_number(text, value))
    return {};
  return " is no whole number from 0 to " + std::to_string(std::numeric_limits<T>::max());
}

std::string read(const knob&, std::string_view text, double& value) {
  double parsed = 0;
  if (!parse_number(text, parsed) || !std::isfinite(parsed))
    return " is no number";
  value = parsed;
  return {};
}

std::string read(const knob&, std::string_view text, milliseconds& value) {
  return parse_duration(text, value) ? "" : " is no duration; write it like 250ms, 10s or 2m";
}

std::string read(const knob& which, std::string_view text, std::string& value) {
  if (which.secret && text == hidden)
    return " is the placeholder of a secret, not a secret";
  if (!is_utf8(text))
    return " is not written in UTF-8";
  value = text;
  return {};
}

std::string read(const knob&, std::string_view text, std::vector<std::string>& value) {
  if (!is_utf8(text))
    return " is not written in UTF-8";
  std::vector<std::string> items;
  while (!text.empty()) {
    auto comma = text.find(',');
    items.emplace_back(text.substr(0, comma));
    if (items.back().empty() || comma == text.size() - 1)
      return " has an empty item; write a list like a,b";
    text = comma == text.npos ? std::string_view{} : text.substr(comma + 1);
  }
  value = std::move(items);
  return {};
}

/// What is wrong with the kind of a JSON value, before its text is looked at; empty if nothing is.
std::string wrong_kind(const knob& which, const nlohmann::json& value, const knob_field& field) {
  return std::visit(
    [&](auto* member) -> std::string {
      using type = std::remove_pointer_t<decltype(member)>;
      if constexpr (std::is_same_v<type, bool>)
        return value.is_boolean() ? "" : " is neither true nor false";
      else if constexpr (std::is_unsigned_v<type>)
        return value.is_number_integer() || (which.form == knob_form::bytes && value.is_string())
                 ? ""
               : which.form == knob_form::bytes ? " is no size; write it like 65536 or \"64KiB\""
                                                : " is no whole number";
      else if constexpr (std::is_same_v<type, double>)
        return value.is_number() ? "" : " is no number";
      else if constexpr (std::is_same_v<type, milliseconds>)
        return value.is_string() ? ""
                                 : " is no duration; write it like \"250ms\", \"10s\" or \"2m\"";
      else
        return value.is_string() ? "" : " is no string";
    },
    field);
}

std::string read_list(const nlohmann::json& value, std::vector<std::string>& list) {
  std::vector<std::string> items;
  if (!value.is_array())
    return " is no list of strings; write it like [\"a\", \"b\"]";
  for (auto& item : value) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty())
      return " is no list of strings that are not empty";
    items.push_back(item);
  }
  list = std::move(items);
  return {};
}

} // namespace

std::string read_text(const knob& which, std::string_view text, cluster_config& config) {
  auto wrong
    = std::visit([&](auto* member) { return read(which, text, *member); }, which.field(config));
  return wrong.empty() ? wrong : shown(which, text) + wrong;
}

std::string read_json(const knob& which, const nlohmann::json& value, cluster_config& config) {
  auto field = which.field(config);
  auto text = value.is_string() ? value.get<std::string>() : value.dump();
  if (auto* list = std::get_if<std::vector<std::string>*>(&field)) {
    auto wrong = read_list(value, **list);
    return wrong.empty() ? wrong : shown(which, text) + wrong;
  }
  auto wrong = wrong_kind(which, value, field);
  return wrong.empty() ? read_text(which, text, config) : shown(which, text) + wrong;
}

nlohmann::ordered_json write_json(const knob& which, const cluster_config& config, secrets how) {
  auto copy = config;
  return std::visit(
    [&](auto* member) -> nlohmann::ordered_json {
      using type = std::remove_pointer_t<decltype(member)>;
      if constexpr (std::is_same_v<type, milliseconds>)
        return format_duration(*member);
      else if constexpr (std::is_unsigned_v<type> && !std::is_same_v<type, bool>)
        if (which.form == knob_form::bytes && *member % 1024 == 0 && *member != 0)
          return format_size(*member);
        else
          return *member;
      else if constexpr (std::is_same_v<type, std::string>)
        return which.secret && how == secrets::hidden && !member->empty() ? std::string{hidden}
                                                                          : *member;
      else
        return *member;
    },
    which.field(copy));
}

std::string write_text(const knob& which, const cluster_config& config) {
  auto value = write_json(which, config);
  if (value.is_string())
    return value.get<std::string>();
  if (value.is_number_float())
    return format_number(value.get<double>());
  if (!value.is_array())
    return value.dump();
  std::string list;
  for (auto& item : value)
    list += (list.empty() ? "" : ",") + item.get<std::string>();
  return list;
}

} // namespace llumnix
