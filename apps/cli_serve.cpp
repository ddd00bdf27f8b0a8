#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/node_announcement.hpp"
#include "apps/node_setup.hpp"
#include "apps/preflight.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <sys/prctl.h>

namespace llumnix {

namespace {

struct serve_options {
  std::string name, listen, http, admin, engine_key;
  std::vector<std::string> roles, seeds, engines;
  bool insecure_cluster = false;
  config_options config;
  log_options log;
  milliseconds drain{10000};
  std::uint64_t incarnation = 0;
  int ready_fd = -1;
};

bool has_role(const cluster_config& config, std::string_view role) {
  return std::ranges::find(config.node.roles, role) != config.node.roles.end();
}

/// Options win over --set, and --set over the file.
void override_config(const serve_options& options, cluster_config& config) {
  auto text = [](const std::string& given, std::string& knob) {
    if (!given.empty())
      knob = given;
  };
  text(options.name, config.node.name);
  text(options.listen, config.node.listen);
  text(options.http, config.http.listen);
  text(options.admin, config.admin.listen);
  text(options.engine_key, config.gateway.engine_key);
  if (!options.roles.empty())
    config.node.roles = options.roles;
  if (!options.seeds.empty())
    config.node.seeds = options.seeds;
  if (!options.engines.empty())
    config.gateway.engines = options.engines;
  if (!options.engines.empty() && has_role(config, "gateway"))
    config.scheduler.full_mode = false;
  if (options.insecure_cluster)
    config.node.insecure_cluster = true;
  if (options.incarnation != 0)
    config.node.incarnation = options.incarnation;
}

/// A scheduler needs engines where it has an API for gateways of other makes.
bool has_use_for_engines(const cluster_config& config) {
  return has_role(config, "gateway")
         || (has_role(config, "scheduler") && !config.scheduler.http.empty());
}

int serve(const serve_options& options) {
  ::prctl(PR_SET_NAME, "llumnix"); // started as /proc/self/exe, it would be "exe" to ps and top
  cluster_config config;
  auto problems = load_options(options.config, config);
  override_config(options, config);
  if (!options.engines.empty() && !has_use_for_engines(config))
    problems.push_back({"--engine", "is for role gateway, which --roles does not name; add it"});
  else
    std::ranges::move(check(config), std::back_inserter(problems));
  check_parts(config, problems);
  if (config.node.roles.empty())
    problems.push_back({"node.roles", "is empty; say what the node does, as in --roles llumlet"});
  if (!problems.empty())
    return report_problems(problems);
  configure_log(options.log, config.node.name);
  if (has_role(config, "gateway") && !has_role(config, "cms") && config.node.seeds.empty())
    log::node.warn(
      "no-cms",
      "--roles has gateway without cms, which tells it where engines are, and there are no --seeds "
      "to find one by: requests are refused until a node with role cms joins this one");
  node_run_options run{.drain = options.drain, .on_ready = {}};
  run.on_ready = [fd = options.ready_fd](const node_ready& ready) { announce(fd, ready); };
  return run_node(config, run);
}

} // namespace

void add_serve_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<serve_options>();
  auto* command = app.add_subcommand("serve", "one node of a cluster, in the foreground");
  command->add_option("--name", options->name, "what the node is called")->type_name("NAME");
  command
    ->add_option(
      "--roles", options->roles,
      "what it does: gateway, scheduler, rescheduler, cms, console, llumlet")
    ->delimiter(',')
    ->allow_extra_args(false)
    ->type_name("ROLE,...");
  add_address_option(*command, "--listen", options->listen, "where other nodes connect");
  command->add_option("--seeds", options->seeds, "nodes to join through; they may start later")
    ->delimiter(',')
    ->allow_extra_args(false)
    ->type_name("HOST:PORT,...");
  add_list_option(
    *command, "--engine", options->engines,
    "with role gateway: URLs of vLLM, SGLang or other OpenAI-compatible servers that run the "
    "model; scheduling is lite then")
    ->type_name("URL,...");
  add_engine_key_option(*command, options->engine_key);
  add_address_option(*command, "--http", options->http, "public HTTP address, with role gateway");
  add_address_option(*command, "--admin", options->admin, "operators' HTTP address");
  command->add_flag(
    "--insecure-cluster", options->insecure_cluster, "let --listen be off loopback without TLS");
  add_duration_option(
    *command, "--drain", options->drain,
    "after SIGTERM, running requests get this long to end, or to move to another node's engine");
  add_config_options(*command, options->config);
  add_log_options(*command, options->log);
  add_count_option(
    *command, "--incarnation", options->incarnation, "", 0,
    std::numeric_limits<std::uint64_t>::max())
    ->group("");
  add_count_option(
    *command, "--ready-fd", options->ready_fd, "", 0, std::numeric_limits<int>::max())
    ->group("");
  command->footer(
    "A head and one engine, in two terminals:\n"
    "  llumnix serve --name head --roles gateway,scheduler,cms,console --listen 127.0.0.1:7000\n"
    "  llumnix serve --name engine-0 --roles llumlet --listen 127.0.0.1:0 "
    "--seeds 127.0.0.1:7000 --admin 127.0.0.1:0\n"
    "A gateway in front of two vLLM servers that run already:\n"
    "  llumnix serve --roles gateway,cms,console --engine "
    "http://127.0.0.1:8001,http://127.0.0.1:8002\n");
  command->callback([options, &chosen] { chosen = [options] { return serve(*options); }; });
}

} // namespace llumnix
