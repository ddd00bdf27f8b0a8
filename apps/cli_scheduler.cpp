#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/node_announcement.hpp"
#include "apps/node_setup.hpp"
#include "apps/preflight.hpp"
#include "apps/reference/flag_options.hpp"
#include "apps/reference/scheduler_setup.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <memory>
#include <sys/prctl.h>

namespace llumnix {

namespace {

struct scheduler_options {
  std::vector<std::string> flags; ///< of the reference, NAME=VALUE
  std::string admin;
  config_options config;
  log_options log;
  int ready_fd = -1;
};

int run_scheduler(const scheduler_options& options) {
  ::prctl(PR_SET_NAME, "llumnix");
  cluster_config config;
  const auto given = as_given(options.flags);
  auto effects = set_up_scheduler(given, config);
  if (const char* seed = std::getenv("GO_HASH_SEED")) // the reference's and its engines'
    config.scheduler.kv_hash_seed = seed;
  auto problems = std::move(effects.problems);
  auto by_flags = config.scheduler;
  std::ranges::move(load_options(options.config, config), std::back_inserter(problems));
  if (!options.admin.empty())
    config.admin.listen = options.admin;
  std::ranges::move(check(config), std::back_inserter(problems));
  check_parts(config, problems);
  explain_listener(
    {"scheduler.http", config.scheduler.http,
     "that gateways send as their --service-token with --set scheduler.http_key=KEY",
     "scheduler.http_insecure"},
    problems);
  name_scheduler_flags(given, problems);
  if (!problems.empty())
    return report_problems(problems);
  auto wanted = options.log;
  if (effects.debug && wanted.level == log_options{}.level)
    wanted.level = "debug";
  configure_log(wanted, config.node.name);
  for (const auto& warning : effects.warnings)
    log::scheduler.warn("flag", "{}", warning);
  for (const auto& warning :
       overruled_flags(read_scheduler_flags(given).values, by_flags, config.scheduler))
    log::scheduler.warn("flag", "{}", warning);
  for (const auto& note : effects.notes)
    log::scheduler.info("flag", "{}", note);
  node_run_options run;
  run.on_ready = [fd = options.ready_fd](const node_ready& ready) {
    log::scheduler.info(
      "serving", "http://{}/schedule (operators: http://{})", ready.scheduler, ready.admin);
    announce(fd, ready);
  };
  return run_node(config, run);
}

} // namespace

void add_scheduler_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<scheduler_options>();
  auto* command = app.add_subcommand(
    "scheduler", "a scheduler with the flags of the reference's, for gateways of other makes");
  add_address_option(*command, "--admin", options->admin, "operators' HTTP address")
    ->default_str("127.0.0.1:8090");
  add_config_options(*command, options->config);
  add_log_options(*command, options->log);
  add_count_option(
    *command, "--ready-fd", options->ready_fd, "", 0, std::numeric_limits<int>::max())
    ->group("");
  add_flag_options(*command, scheduler_flags(), options->flags);
  command->footer(
    "By the statuses that llumlets keep in a Redis:\n"
    "  llumnix scheduler --host 127.0.0.1 --cms-redis-host 10.0.0.5 --cms-redis-port 6379\n"
    "By what gateways report of two engines, in lite mode:\n"
    "  llumnix scheduler --host 127.0.0.1 --enable-full-mode-scheduling=false \\\n"
    "    --llm-backend-discovery endpoints --llm-backend-endpoints 10.0.0.6:8000,10.0.0.7:8000\n"
    "Flags are written as Go does: -flag=value, --flag value, a lone --toggle; --set and --config "
    "win over them.\n");
  command->callback([options, &chosen] { chosen = [options] { return run_scheduler(*options); }; });
}

} // namespace llumnix
