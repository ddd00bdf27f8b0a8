#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/preflight.hpp"

#include <memory>

namespace llumnix {

namespace {

struct options_of_config {
  config_options config;
  bool schema = false;
  bool json = false;
};

int print_config(const options_of_config& options) {
  cluster_config config;
  auto problems = load_options(options.config, config);
  std::ranges::move(check(config), std::back_inserter(problems));
  check_parts(config, problems);
  if (!problems.empty())
    return report_problems(problems);
  auto text = options.schema ? config_schema() + "\n"
              : options.json ? to_json(config) + "\n"
                             : describe(config);
  return write_out(text);
}

} // namespace

void add_config_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<options_of_config>();
  auto* command
    = app.add_subcommand("config", "the effective configuration, its defaults and what it means");
  add_config_options(*command, options->config);
  auto* json = command->add_flag("--json", options->json, "as a document that --config takes");
  command->add_flag("--schema", options->schema, "a JSON schema of --config files")->excludes(json);
  command->footer("What an engine at four times the speed is configured to:\n"
                  "  llumnix config --set engine.speed=4\n");
  command->callback([options, &chosen] { chosen = [options] { return print_config(*options); }; });
}

} // namespace llumnix
