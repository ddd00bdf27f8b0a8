#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/node_announcement.hpp"
#include "apps/node_setup.hpp"
#include "apps/preflight.hpp"
#include "apps/reference/flag_options.hpp"
#include "apps/reference/gateway_flags.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <sys/prctl.h>

namespace llumnix {

namespace {

struct gateway_options {
  std::vector<std::string> flags; ///< of the reference, NAME=VALUE
  std::string admin;
  config_options config;
  log_options log;
  milliseconds drain{10000};
  int ready_fd = -1;
};

int run_gateway(const gateway_options& options) {
  ::prctl(PR_SET_NAME, "llumnix");
  cluster_config config;
  set_reference_defaults(config);
  auto problems = load_options(options.config, config);
  auto effects = apply_reference_flags(as_given(options.flags), config);
  std::ranges::move(effects.problems, std::back_inserter(problems));
  if (!options.admin.empty())
    config.admin.listen = options.admin;
  std::ranges::move(check(config), std::back_inserter(problems));
  check_parts(config, problems);
  explain_listener(
    {"http.listen", config.http.listen, "clients must send with --set http.key=KEY",
     "http.insecure"},
    problems);
  name_flags(as_given(options.flags), problems);
  if (!problems.empty())
    return report_problems(problems);
  auto wanted = options.log;
  if (effects.debug && wanted.level == log_options{}.level)
    wanted.level = "debug";
  configure_log(wanted, config.node.name);
  for (const auto& note : effects.notes)
    log::gateway.info("flag", "{}", note);
  node_run_options run{.drain = options.drain, .on_ready = {}};
  run.on_ready = [fd = options.ready_fd](const node_ready& ready) {
    log::gateway.info("serving", "http://{} (operators: http://{})", ready.http, ready.admin);
    announce(fd, ready);
  };
  return run_node(config, run);
}

} // namespace

void add_gateway_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<gateway_options>();
  auto* command = app.add_subcommand(
    "gateway", "a gateway with the flags of the reference's, in front of engines behind HTTP");
  add_address_option(*command, "--admin", options->admin, "operators' HTTP address")
    ->default_str("127.0.0.1:8090");
  add_duration_option(
    *command, "--drain", options->drain, "running requests get this long after SIGTERM");
  add_config_options(*command, options->config);
  add_log_options(*command, options->log);
  add_count_option(
    *command, "--ready-fd", options->ready_fd, "", 0, std::numeric_limits<int>::max())
    ->group("");
  add_flag_options(*command, gateway_flags(), options->flags);
  command->footer(
    "In front of two vLLM servers:\n"
    "  llumnix gateway --host 127.0.0.1 --port 8089 --llm-backend-discovery endpoints \\\n"
    "    --llm-backend-endpoints 127.0.0.1:8001,127.0.0.1:8002\n"
    "In front of those that discovery sidecars write to a Redis:\n"
    "  llumnix gateway --host 127.0.0.1 --discovery-redis-host 10.0.0.5 \\\n"
    "    --discovery-redis-password \"$PASSWORD\"\n"
    "Flags are written as Go does: -flag=value, --flag value, a lone --toggle.\n");
  command->callback([options, &chosen] { chosen = [options] { return run_gateway(*options); }; });
}

} // namespace llumnix
