#include "apps/cli_options.hpp"

#include "config/load_config.hpp"
#include "config/near_name.hpp"
#include "config/notation.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>

namespace llumnix {

namespace {

/// Whether all of `text` is a number of that type.
template <class T>
bool parse(const std::string& text, T& value) {
  auto last = text.data() + text.size();
  auto read = std::from_chars(text.data(), last, value);
  return !text.empty() && read.ec == std::errc{} && read.ptr == last;
}

/// A value as the beginning of a sentence.
std::string shown(const std::string& text) {
  return text.empty() ? "an empty value" : text;
}

std::string_view trimmed(std::string_view text) {
  auto begin = std::min(text.find_first_not_of(" \t"), text.size());
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

} // namespace

std::uint64_t read_count(
  const std::string& name, const std::string& text, std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  if (!parse(text, value) || value < least || value > most)
    throw CLI::ValidationError{
      name, fmt::format("{} is no whole number from {} to {}", shown(text), least, most)};
  return value;
}

std::int64_t
read_count_or_all(const std::string& name, const std::string& text, std::int64_t most) {
  std::int64_t value = 0;
  if (!parse(text, value) || value < -1 || value == 0 || value > most)
    throw CLI::ValidationError{
      name, fmt::format(
              "{} is no whole number from 1 to {}, and not -1, which stands for all", shown(text),
              most)};
  return value;
}

std::size_t read_choice(
  const std::string& name, const std::string& text, const std::vector<std::string_view>& words) {
  auto found = std::ranges::find(words, text);
  if (found != words.end())
    return static_cast<std::size_t>(found - words.begin());
  auto message = shown(text) + " is none of";
  for (auto& word : words)
    message += (&word == &words.front() ? " " : ", ") + std::string{word};
  if (auto near = nearest_name(text, words); !near.empty())
    message += "; did you mean " + std::string{near} + "?";
  throw CLI::ValidationError{name, message};
}

CLI::Option* add_list_option(
  CLI::App& app, const std::string& name, std::vector<std::string>& values,
  const std::string& meaning) {
  auto read = [name, &values](const std::vector<std::string>& given) {
    values.clear();
    for (const auto& text : given)
      for (std::size_t from = 0, end = 0; end != std::string::npos; from = end + 1) {
        end = text.find(',', from);
        auto value = trimmed(std::string_view{text}.substr(from, end - from));
        if (value.empty())
          throw CLI::ValidationError{
            name, text.empty() ? "is empty" : text + " has an empty value beside a comma"};
        values.emplace_back(value);
      }
  };
  return app.add_option_function<std::vector<std::string>>(name, read, meaning)
    ->allow_extra_args(false);
}

CLI::Option* add_number_option(
  CLI::App& app, const std::string& name, double& value, const std::string& meaning, double least,
  double most) {
  auto read = [name, &value, least, most](const std::string& text) {
    double number = 0;
    if (!parse(text, number) || !(number >= least && number <= most)) // nor one that is none
      throw CLI::ValidationError{
        name, fmt::format("{} is no number from {} to {}", shown(text), least, most)};
    value = number;
  };
  return app.add_option_function<std::string>(name, read, meaning)->type_name("NUMBER");
}

CLI::Option* add_duration_option(
  CLI::App& app, const std::string& name, milliseconds& value, const std::string& meaning) {
  auto read = [name, &value](const std::string& text) {
    if (!parse_duration(text, value))
      throw CLI::ValidationError{
        name, shown(text) + " is no duration; write it like 250ms, 10s or 2m"};
  };
  auto* option = app.add_option_function<std::string>(name, read, meaning)->type_name("DURATION");
  return value == milliseconds{0} ? option : option->default_str(format_duration(value));
}

std::string wrong_address(const std::string& text) {
  std::string host;
  std::uint16_t port = 0;
  if (split_address(text, host, port))
    return {};
  auto colon = text.rfind(':');
  std::uint64_t number = 0;
  bool too_high = colon != std::string::npos && parse(text.substr(colon + 1), number);
  return shown(text) + " is no address; write HOST:PORT"
         + (too_high ? ", the port up to 65535" : "");
}

CLI::Option* add_engine_key_option(CLI::App& app, std::string& key) {
  return app
    .add_option(
      "--engine-key", key,
      "bearer key that those servers want (vLLM's --api-key); other users of this machine do not "
      "see one in a --config file")
    ->type_name("KEY");
}

CLI::Option* add_address_option(
  CLI::App& app, const std::string& name, std::string& value, const std::string& meaning) {
  return app.add_option(name, value, meaning)
    ->check(CLI::Validator{wrong_address, ""})
    ->type_name("HOST:PORT");
}

} // namespace llumnix
