#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace llumnix {

/// What the chosen command does once the whole command line is known to be right; returns the exit
/// code. It runs on the main thread, before any other thread exists.
using command_action = std::function<int()>;

/// Each of these adds one subcommand to `app`. When the user names it, and its options are right,
/// it stores what to do in `chosen`; it does nothing else while the command line is being read.
void add_up_command(CLI::App& app, command_action& chosen);
void add_serve_command(CLI::App& app, command_action& chosen);
void add_gateway_command(CLI::App& app, command_action& chosen);
void add_scheduler_command(CLI::App& app, command_action& chosen);
void add_status_command(CLI::App& app, command_action& chosen);
void add_actors_command(CLI::App& app, command_action& chosen);
void add_requests_command(CLI::App& app, command_action& chosen);
void add_profile_command(CLI::App& app, command_action& chosen);
void add_why_command(CLI::App& app, command_action& chosen);
void add_migrate_command(CLI::App& app, command_action& chosen);
void add_drain_command(CLI::App& app, command_action& chosen);
void add_undrain_command(CLI::App& app, command_action& chosen);
void add_load_command(CLI::App& app, command_action& chosen);
void add_decide_command(CLI::App& app, command_action& chosen);
void add_config_command(CLI::App& app, command_action& chosen);

} // namespace llumnix
