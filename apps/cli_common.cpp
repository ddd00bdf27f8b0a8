#include "apps/cli_common.hpp"

#include "apps/exit_codes.hpp"
#include "config/near_name.hpp"
#include "config/notation.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <cstdio>
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
  {"up", "--prefill", "this build has no prefill and decode instances; use --engines N"},
  {"up", "--decode", "this build has no prefill and decode instances; use --engines N"},
  {"up", "--engine", "this build runs modeled engines only; their number is --engines N"},
  {"up", "--scheduling", "this build has full scheduling only; leave the option out"},
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

void add_log_options(CLI::App& app, log_options& options) {
  app.add_option("--log-level", options.level, "least level of log lines on stderr")
    ->check(CLI::IsMember(std::vector<std::string>(std::begin(log_levels), std::end(log_levels))))
    ->type_name("LEVEL")
    ->capture_default_str();
  app.add_flag("--log-json", options.json, "write log lines as JSON objects");
}

void configure_log(const log_options& options, const std::string& node) {
  auto at = std::ranges::find(log_levels, options.level) - std::begin(log_levels);
  log::configure({static_cast<log::level>(at), options.json, node});
}

CLI::Option* add_duration_option(
  CLI::App& app, const std::string& name, milliseconds& value, const std::string& meaning) {
  auto read = [name, &value](const std::string& text) {
    if (!parse_duration(text, value))
      throw CLI::ValidationError{name, text + " is no duration; write it like 250ms, 10s or 2m"};
  };
  auto* option = app.add_option_function<std::string>(name, read, meaning)->type_name("DURATION");
  return value == milliseconds{0} ? option : option->default_str(format_duration(value));
}

CLI::Option* add_address_option(
  CLI::App& app, const std::string& name, std::string& value, const std::string& meaning) {
  auto is_address = [](const std::string& text) {
    std::string host;
    std::uint16_t port = 0;
    return split_address(text, host, port) ? "" : text + " is no address; write HOST:PORT";
  };
  return app.add_option(name, value, meaning)
    ->check(CLI::Validator{is_address, ""})
    ->type_name("HOST:PORT");
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
  return left.empty() ? failure.what() : unknown_argument(command, left.front());
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
