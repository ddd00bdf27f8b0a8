#pragma once

#include "config/cluster_config.hpp"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Options that read their values themselves, so that a wrong one is answered with a sentence that
/// says what is allowed.
namespace llumnix {

/// An option whose value is a whole number from `least` to `most`, which `T` can hold.
template <class T>
CLI::Option* add_count_option(
  CLI::App& app, const std::string& name, T& value, const std::string& meaning, std::uint64_t least,
  std::uint64_t most);

/// An option whose value is a number from `least` to `most`.
CLI::Option* add_number_option(
  CLI::App& app, const std::string& name, double& value, const std::string& meaning, double least,
  double most);

/// An option whose value is one of some words; each stands for a `T`.
template <class T>
CLI::Option* add_choice_option(
  CLI::App& app, const std::string& name, T& value, const std::string& meaning,
  std::vector<std::pair<std::string_view, T>> choices);

/// An option whose value is a duration like 250ms or 10s.
CLI::Option* add_duration_option(
  CLI::App& app, const std::string& name, milliseconds& value, const std::string& meaning);

/// An option whose value is HOST:PORT.
CLI::Option* add_address_option(
  CLI::App& app, const std::string& name, std::string& value, const std::string& meaning);

/// `--engine-key`, what `gateway.engine_key` is.
CLI::Option* add_engine_key_option(CLI::App& app, std::string& key);

/// An option whose values are separated by commas, with blanks around them or not; none is empty.
CLI::Option* add_list_option(
  CLI::App& app, const std::string& name, std::vector<std::string>& values,
  const std::string& meaning);

/// What is wrong with a text that should be HOST:PORT; empty if nothing is.
std::string wrong_address(const std::string& text);

// What the templates above are made of: the value of a text, or CLI::ValidationError.
std::uint64_t read_count(
  const std::string& name, const std::string& text, std::uint64_t least, std::uint64_t most);
/// From 1 on, or -1, which stands for all.
std::int64_t read_count_or_all(const std::string& name, const std::string& text, std::int64_t most);
std::size_t read_choice(
  const std::string& name, const std::string& text, const std::vector<std::string_view>& words);

template <class T>
CLI::Option* add_count_option(
  CLI::App& app, const std::string& name, T& value, const std::string& meaning, std::uint64_t least,
  std::uint64_t most) {
  auto read = [name, &value, least, most](const std::string& text) {
    value = static_cast<T>(read_count(name, text, least, most));
  };
  return app.add_option_function<std::string>(name, read, meaning)->type_name("N");
}

template <class T>
CLI::Option* add_choice_option(
  CLI::App& app, const std::string& name, T& value, const std::string& meaning,
  std::vector<std::pair<std::string_view, T>> choices) {
  auto read = [name, &value, choices = std::move(choices)](const std::string& text) {
    std::vector<std::string_view> words;
    for (auto& [word, stands_for] : choices)
      words.push_back(word);
    value = choices[read_choice(name, text, words)].second;
  };
  return app.add_option_function<std::string>(name, read, meaning)->type_name("NAME");
}

} // namespace llumnix
