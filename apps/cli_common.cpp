#include "apps/cli_common.hpp"

#include "apps/cli_options.hpp"
#include "apps/exit_codes.hpp"
#include "config/near_name.hpp"
#include "runtime/base/log.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>

namespace llumnix {

namespace {

constexpr std::string_view log_levels[] = {"debug", "info", "warn", "error", "off"};

/// Options that belong to the program's plan but not to this build: a near name would mislead.
struct planned_option {
  std::string_view command;
  std::string_view name;
  std::string_view message;
};
constexpr planned_option planned_options[] = {
  {"up", "--demo",
   "this build has no demo; start a cluster with `llumnix up`, then try `llumnix load --verify`"},
};

/// The innermost command that was named.
const CLI::App& named_command(const CLI::App& app) {
  auto named = app.get_subcommands();
  return named.empty() ? app : *named.front();
}

std::string unknown_argument(const CLI::App& command, const std::string& argument) {
  if (!argument.starts_with('-'))
    return "unexpected argument " + argument;
  auto name = argument.substr(0, argument.find('='));
  for (auto& each : planned_options)
    if (each.command == command.get_name() && each.name == name)
      return name + ": " + std::string{each.message};
  std::vector<std::string> names;
  for (auto* option : command.get_options())
    for (auto& known : option->get_lnames())
      if (!option->get_group().empty())
        names.push_back("--" + known);
  std::vector<std::string_view> views(names.begin(), names.end());
  auto near = nearest_name(name, views);
  return "unknown option " + name
         + (near.empty() ? "" : "; did you mean " + std::string{near} + "?");
}

/// CLI11's own sentence where it is one, else ours.
std::string sentence_of(const CLI::App& command, const CLI::ParseError& failure) {
  std::string sentence = failure.what();
  auto option = sentence.substr(0, sentence.find(':'));
  if (failure.get_name() == "ArgumentMismatch") {
    if (sentence.find("At Most") != std::string::npos)
      return option + " is given more than once";
    if (auto* known = command.get_option_no_throw(option); known != nullptr)
      return option + " wants a value: " + option + " " + known->get_type_name();
  }
  constexpr std::string_view of_a_flag = "Could not convert: "; // nothing else is read by CLI11
  if (failure.get_name() == "ConversionError" && sentence.starts_with(of_a_flag)) {
    auto name = sentence.substr(of_a_flag.size());
    return name.substr(0, name.find(' ')) + " takes no value";
  }
  return sentence;
}

} // namespace

void add_config_options(CLI::App& app, config_options& options) {
  app.add_option("--config", options.file, "JSON file with knobs; comments are allowed")
    ->type_name("FILE");
  app.add_option("--set", options.settings, "one knob, as in engine.speed=4; may be repeated")
    ->type_name("KNOB=VALUE")
    ->allow_extra_args(false);
}

std::vector<config_problem> load_options(const config_options& options, cluster_config& config) {
  std::vector<config_problem> problems;
  if (!options.file.empty())
    problems = load_file(options.file, config);
  for (auto& setting : options.settings)
    std::ranges::move(apply_setting(setting, config), std::back_inserter(problems));
  return problems;
}

int report_problems(const std::vector<config_problem>& problems) {
  for (auto& each : problems)
    std::fprintf(stderr, "llumnix: %s: %s\n", each.path.c_str(), each.message.c_str());
  return exit_code::usage;
}

void explain_listener(const reference_listener& listener, std::vector<config_problem>& problems) {
  for (auto& each : problems)
    if (each.path == listener.knob && each.message.find("off loopback") != std::string::npos)
      each = {
        "--host", fmt::format(
                    "{} is off loopback, where everybody may use it; give --host 127.0.0.1, or set "
                    "a key {}, or allow it with --set {}=true",
                    listener.address, listener.key, listener.allowed_with)};
}

void add_log_options(CLI::App& app, log_options& options) {
  std::vector<std::pair<std::string_view, std::string>> levels;
  for (auto level : log_levels)
    levels.emplace_back(level, level);
  add_choice_option(
    app, "--log-level", options.level, "least level of log lines on stderr: debug to error, or off",
    std::move(levels))
    ->type_name("LEVEL")
    ->default_str(options.level);
  app.add_flag("--log-json", options.json, "write log lines as JSON objects");
}

void configure_log(const log_options& options, const std::string& node) {
  auto at = std::ranges::find(log_levels, options.level) - std::begin(log_levels);
  log::configure({static_cast<log::level>(at), options.json, node});
}

int write_out(const std::string& text) {
  // The buffer may hide from the first call what only the second meets.
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0)
    return exit_code::done;
  std::fprintf(stderr, "llumnix: the output cannot be written: %s\n", std::strerror(errno));
  return exit_code::failed;
}

std::string dialable(std::string_view address) {
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(address, host, port))
    return std::string{address};
  if (host == "0.0.0.0")
    return "127.0.0.1:" + std::to_string(port);
  if (host == "::")
    return "[::1]:" + std::to_string(port);
  return std::string{address};
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& failure) {
  auto& command = named_command(app);
  auto left = command.remaining();
  if (&command != &app)
    std::ranges::copy(app.remaining(), std::back_inserter(left));
  // An unknown option often takes its value along, and may hide a required one: name it first.
  auto option = std::ranges::find_if(left, [](auto& each) { return each.starts_with('-'); });
  if (option != left.end())
    return unknown_argument(command, *option);
  return left.empty() ? sentence_of(command, failure) : unknown_argument(command, left.front());
}

std::string unknown_command_message(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (auto* each : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(each->get_name());
  std::vector<std::string_view> views(names.begin(), names.end());
  auto near = nearest_name(word, views);
  return "no such command: " + word
         + (near.empty() ? "" : "; did you mean " + std::string{near} + "?");
}

} // namespace llumnix
