#pragma once

#include "config/load_config.hpp"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>
#include <string_view>
#include <vector>

/// Options that several commands share, and how they end in a configuration.
namespace llumnix {

struct config_options {
  std::string file;                  ///< of --config; empty: none
  std::vector<std::string> settings; ///< of --set, in order
};
void add_config_options(CLI::App& app, config_options& options);

/// Fills `config` from the file, then from the settings; the checks come later, once all options
/// are in.
std::vector<config_problem> load_options(const config_options& options, cluster_config& config);

/// Writes one line per problem to stderr and returns the exit code for a wrong configuration.
int report_problems(const std::vector<config_problem>& problems);

/// Where gateways and clients come in under one of the reference's commands.
struct reference_listener {
  std::string_view knob;         ///< of its address
  std::string address;           ///< that was given
  std::string_view key;          ///< whose it is and how it is set, behind "a key "
  std::string_view allowed_with; ///< the knob that does without
};
/// The reference listens everywhere unless told otherwise; here that has to be meant. What was
/// found wrong with `listener` for being off loopback is told in flags of the reference.
void explain_listener(const reference_listener& listener, std::vector<config_problem>& problems);

struct log_options {
  std::string level = "info";
  bool json = false;
};
void add_log_options(CLI::App& app, log_options& options);
/// Sets up this process's log; `node` stands in every line.
void configure_log(const log_options& options, const std::string& node);

/// Writes a text to stdout, all of it. Returns the exit code: `done`, or `failed` after a line on
/// stderr says what went wrong.
int write_out(const std::string& text);

/// The address to dial for one that is listened on: a wildcard host becomes loopback.
std::string dialable(std::string_view address);

/// What to tell someone whose command line is wrong: one sentence, with the nearest name if one is
/// near.
std::string usage_message(const CLI::App& app, const CLI::ParseError& failure);

/// The same for a word that is no command.
std::string unknown_command_message(const CLI::App& app, const std::string& word);

} // namespace llumnix
