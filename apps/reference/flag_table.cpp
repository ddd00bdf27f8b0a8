#include "apps/reference/flag_table.hpp"

#include "config/notation.hpp"

#include <charconv>
#include <cmath>
#include <limits>

namespace llumnix {

namespace {

template <class T, class... Form>
std::optional<T> all_of(std::string_view text, Form... form) {
  T value{};
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, form...);
  if (failure != std::errc{} || end != text.data() + text.size())
    return {};
  return value;
}

/// Takes a sign off; true for a minus.
bool take_sign(std::string_view& text) {
  bool minus = text.starts_with('-');
  if (minus || text.starts_with('+'))
    text.remove_prefix(1);
  return minus;
}

/// Takes the prefix of a base off: 0x, 0o, 0b, and a lone 0 in front of further digits.
int take_base(std::string_view& text) {
  if (text.size() < 2 || text.front() != '0')
    return 10;
  auto letter = text[1] | 0x20; // lower case
  int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  text.remove_prefix(base == 0 ? 1 : 2);
  return base == 0 ? 8 : base;
}

std::optional<std::int64_t> whole_in(std::string_view text) {
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  bool minus = take_sign(text);
  auto base = take_base(text);
  auto size = all_of<std::uint64_t>(text, base); // takes no sign, so a second one is refused
  if (!size || *size > most + (minus ? 1 : 0))
    return {};
  return static_cast<std::int64_t>(minus ? 0 - *size : *size);
}

std::optional<double> number_in(std::string_view text) {
  bool minus = take_sign(text);
  if (text.starts_with('-'))
    return {};
  auto value = all_of<double>(text);
  if (!value || std::isnan(*value))
    return {};
  return minus ? -*value : *value;
}

std::optional<bool> truth_in(std::string_view text) {
  for (auto word : {"1", "t", "T", "TRUE", "true", "True"})
    if (text == word)
      return true;
  for (auto word : {"0", "f", "F", "FALSE", "false", "False"})
    if (text == word)
      return false;
  return {};
}

template <class T>
std::optional<flag_value> as_value(std::optional<T> read) {
  return read ? std::optional<flag_value>{*std::move(read)} : std::nullopt;
}

} // namespace

const reference_flag* find_flag(flag_table table, std::string_view name) {
  auto found = std::ranges::find(table, name, &reference_flag::name);
  return found == table.end() ? nullptr : &*found;
}

std::string dashed(std::string_view name) {
  return "--" + std::string{name};
}

std::optional<flag_value> read_flag(flag_form form, std::string_view text) {
  switch (form) {
    case flag_form::text: return std::string{text};
    case flag_form::whole: return as_value(whole_in(text));
    case flag_form::number: return as_value(number_in(text));
    case flag_form::toggle: return as_value(truth_in(text));
    case flag_form::duration:
      if (milliseconds value{}; parse_go_duration(text, value))
        return format_duration(value);
      return {};
  }
  return {};
}

std::string to_text(const flag_value& value) {
  struct writer {
    std::string operator()(bool truth) const { return truth ? "true" : "false"; }
    std::string operator()(std::int64_t whole) const { return std::to_string(whole); }
    std::string operator()(double number) const { return format_number(number); }
    std::string operator()(const std::string& text) const { return text; }
  };
  return std::visit(writer{}, value);
}

std::string shown_value(std::string_view text) {
  constexpr std::size_t most = 60;
  if (text.empty())
    return "an empty value";
  if (text.size() <= most)
    return std::string{text};
  auto end = most - 3;
  while (end > 0 && (text[end] & 0xC0) == 0x80) // whole characters of UTF-8
    --end;
  return std::string{text.substr(0, end)} + "...";
}

std::string wrong_form(flag_form form, std::string_view text) {
  auto shown = shown_value(text);
  switch (form) {
    case flag_form::text: return shown + " is no text";
    case flag_form::whole: return shown + " is no whole number";
    case flag_form::number: return shown + " is no number";
    case flag_form::toggle: return shown + " is neither true nor false";
    case flag_form::duration: return shown + " is no duration; write it like 250ms, 10s or 1m30s";
  }
  return shown;
}

bool parse_go_duration(std::string_view text, milliseconds& value) {
  using unit = std::pair<std::string_view, double>; // in milliseconds
  constexpr unit units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"\u00b5s", 1e-3}, {"\u03bcs", 1e-3},
                            {"ms", 1},    {"s", 1e3},   {"m", 6e4},        {"h", 3.6e6}};
  if (text.starts_with('+'))
    text.remove_prefix(1);
  if (text == "0") {
    value = milliseconds{0};
    return true;
  }
  double sum = 0;
  bool any = false;
  while (!text.empty()) {
    auto digits = std::min(text.find_first_not_of("0123456789."), text.size());
    auto count = all_of<double>(text.substr(0, digits));
    text.remove_prefix(digits);
    auto letters = std::min(text.find_first_of("0123456789."), text.size());
    auto found = std::ranges::find(units, text.substr(0, letters), &unit::first);
    if (!count || found == std::end(units))
      return false;
    text.remove_prefix(letters);
    sum += *count * found->second;
    any = true;
  }
  constexpr double most = 1e15;
  if (!any || sum > most)
    return false;
  constexpr double rounding = 1e-9; // 0.1s is not a little more than 100 ms
  value = milliseconds{static_cast<milliseconds::rep>(std::ceil(sum * (1 - rounding)))};
  return true;
}

} // namespace llumnix
