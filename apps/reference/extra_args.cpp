#include "apps/reference/extra_args.hpp"

#include <algorithm>

namespace llumnix {

namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  auto first = std::min(text.find_first_not_of(blanks), text.size());
  text.remove_prefix(first);
  return text.substr(0, text.find_last_not_of(blanks) + 1);
}

/// Splits at commas outside of quotes and brackets.
std::vector<std::string_view> items_of(std::string_view text) {
  std::vector<std::string_view> items;
  std::size_t begin = 0;
  char quote = 0;
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\\')
      ++i; // whatever follows stands for itself
    else if (quote != 0)
      quote = c == quote ? '\0' : quote;
    else if (depth == 0 && (c == '"' || c == '\''))
      quote = c;
    else if (c == '[')
      ++depth;
    else if (c == ']')
      depth = std::max(0, depth - 1);
    else if (c == ',' && depth == 0) {
      items.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  items.push_back(text.substr(std::min(begin, text.size())));
  return items;
}

std::string_view without_quotes(std::string_view value) {
  bool quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'')
                && value.back() == value.front();
  return quoted ? value.substr(1, value.size() - 2) : value;
}

} // namespace

extra_args read_extra_args(std::string_view text) {
  extra_args found;
  for (auto item : items_of(text)) {
    item = trimmed(item);
    if (item.empty())
      continue;
    auto equals = item.find('=');
    if (equals == item.npos) {
      found.warnings.push_back(shown_value(item) + " has no '=': passed over");
      continue;
    }
    auto name = trimmed(item.substr(0, equals));
    auto value = trimmed(without_quotes(item.substr(equals + 1)));
    if (name.empty()) {
      found.warnings.push_back(shown_value(item) + " names no flag: passed over");
      continue;
    }
    found.flags.emplace_back(name, value);
  }
  return found;
}

std::vector<std::string> put_extra_args_on_top(flag_table table, given_flags& given) {
  auto text = given.find("extra-args");
  if (text == given.end())
    return {};
  auto extra = read_extra_args(text->second);
  for (auto& [name, value] : extra.flags) {
    const auto* flag = find_flag(table, name);
    if (!flag || name == "extra-args")
      extra.warnings.push_back("there is no flag " + shown_value(name) + ": passed over");
    else if (!read_flag(flag->form, value))
      extra.warnings.push_back(name + ": " + wrong_form(flag->form, value) + ": passed over");
    else
      given[name] = value;
  }
  return std::move(extra.warnings);
}

} // namespace llumnix
