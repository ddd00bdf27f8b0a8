#include "apps/child_process.hpp"
#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/preflight.hpp"
#include "apps/supervisor.hpp"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace llumnix {

namespace {

struct up_options {
  static constexpr std::uint32_t usual_engines = 4;
  std::uint32_t engines = 0; ///< 0: not given
  std::uint32_t prefill = 0; ///< 0: not given
  std::uint32_t decode = 0;  ///< 0: not given
  std::string http, admin, redis, model, policy, engine_key;
  std::vector<std::string> engine; ///< "modeled", or URLs of engines behind HTTP
  std::string scheduling;          ///< full, lite; empty: what suits the engines

  bool apart() const { return prefill > 0 || decode > 0; }
  bool remote() const { return !engine.empty() && !modeled(); }
  bool modeled() const { return std::ranges::find(engine, "modeled") != engine.end(); }
  milliseconds run_for{0};
  milliseconds drain{10000};
  bool json = false;
  config_options config;
  log_options log{.level = "warn", .json = false};
};

/// The options that are knobs, as the settings that every node gets too.
config_options with_own_settings(const up_options& options) {
  auto all = options.config;
  auto set = [&](const char* knob, const std::string& value) {
    if (!value.empty())
      all.settings.push_back(knob + value);
  };
  set("http.listen=", options.http);
  set("admin.listen=", options.admin);
  set("gateway.model=", options.model);
  set("scheduler.policy=", options.policy);
  set("gateway.engine_key=", options.engine_key);
  if (options.remote()) {
    std::string urls;
    for (const auto& url : options.engine)
      urls += (urls.empty() ? "" : ",") + url;
    set("gateway.engines=", urls);
  }
  if (options.scheduling == "lite")
    all.settings.push_back("scheduler.full_mode=false");
  if (options.redis == "off" || options.redis == "spawn")
    all.settings.push_back("redis.address=");
  else
    set("redis.address=", options.redis);
  return all;
}

std::vector<std::string> node_arguments(const memory_file& settings, const log_options& log) {
  std::vector<std::string> arguments{"--config", settings.path(), "--log-level", log.level};
  if (log.json)
    arguments.emplace_back("--log-json");
  return arguments;
}

/// Prefill and decode apart: some engines for each, and none for both.
void check_apart(
  const up_options& options, const cluster_config& config, std::vector<config_problem>& problems) {
  if (options.apart() && options.engines > 0)
    problems.push_back(
      {"--engines", "starts engines that prefill and decode, beside --prefill and --decode they "
                    "would stay idle; leave it out"});
  if ((options.prefill == 0) != (options.decode == 0))
    problems.push_back(
      {options.prefill == 0 ? "--prefill" : "--decode",
       "is missing; prefill and decode apart want engines for each"});
  if (!options.apart() && config.gateway.serving_mode != "neutral")
    problems.push_back(
      {"gateway.serving_mode", "is " + config.gateway.serving_mode
                                 + "; say how many engines there are for each stage, as "
                                   "in --prefill 2 --decode 2"});
}

/// What only makes sense for engines of our own.
void refuse_beside_remote(const up_options& options, std::vector<config_problem>& problems) {
  if (options.apart())
    problems.push_back(
      {options.prefill > 0 ? "--prefill" : "--decode",
       "starts simulated engines, and there are engines behind HTTP to be used; leave it out"});
  if (options.engines > 0)
    problems.push_back(
      {"--engines", "starts simulated engines, and there are engines behind HTTP to be used; leave "
                    "out one of the two"});
  if (!options.model.empty())
    problems.push_back(
      {"--model", "names what simulated engines serve; engines behind HTTP tell it themselves in "
                  "/v1/models, so leave it out"});
}

int up(const up_options& options) {
  cluster_config config;
  auto problems = load_options(with_own_settings(options), config);
  bool remote = has_http_engines(config); // by an option, a setting or the file
  if (remote && options.scheduling.empty())
    config.scheduler.full_mode = false;
  if (options.apart() && config.gateway.serving_mode == "neutral")
    config.gateway.serving_mode = "pd_batch";
  if (remote)
    refuse_beside_remote(options, problems);
  else
    check_apart(options, config, problems);
  if (options.modeled() && options.engine.size() > 1)
    problems.push_back({"--engine", "is either modeled or URLs, not both; leave out one of them"});
  std::ranges::move(check(config), std::back_inserter(problems));
  check_parts(config, problems);
  check_served(config, problems);
  if (config.admin.listen.empty())
    problems.push_back({"admin.listen", "is empty; `up` watches its cluster through it"});
  if (options.redis == "spawn" && find_program("redis-server").empty())
    problems.push_back(
      {"--redis spawn", "there is no redis-server on PATH; install it, or use --redis off"});
  if (problems.empty())
    check_machine(config, !remote, problems);
  if (!problems.empty())
    return report_problems(problems);
  auto settings = memory_file::make(to_json_with_secrets(config));
  if (!settings) {
    std::fprintf(stderr, "llumnix up: %s\n", settings.error().context.c_str());
    return exit_code::failed;
  }
  auto arguments = node_arguments(*settings, options.log);
  up_plan plan{
    .engines = remote || options.apart() ? 0
               : options.engines == 0    ? up_options::usual_engines
                                         : options.engines,
    .prefill = options.prefill,
    .decode = options.decode,
    .remote_engines = static_cast<std::uint32_t>(config.gateway.engines.size()),
    .finds_engines = has_discovery(config.discovery),
    .reschedules = !remote && config.scheduler.full_mode,
    .http = config.http.listen,
    .admin = config.admin.listen,
    .admin_key = config.admin.key,
    .http_key = config.http.key,
    .model = remote ? "" : config.gateway.model,
    .spawn_redis = options.redis == "spawn",
    .redis = config.redis.address,
    .settings = std::move(*settings),
    .node_arguments = std::move(arguments),
    .drain = options.drain,
    .run_for = {},
    .limits = {}};
  if (options.run_for > milliseconds{0})
    plan.run_for = options.run_for;
  auto report = options.json ? make_json_report() : make_human_report();
  return supervisor{std::move(plan), *report}.run();
}

} // namespace

void add_up_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<up_options>();
  auto* command = app.add_subcommand("up", "a whole cluster on this machine, one process per node");
  add_count_option(
    *command, "--engines", options->engines, "simulated engines, each in a process of its own", 1,
    256)
    ->default_str(std::to_string(up_options::usual_engines));
  add_count_option(
    *command, "--prefill", options->prefill,
    "with --decode: simulated engines that compute prompts only", 1, 256);
  add_count_option(
    *command, "--decode", options->decode,
    "with --prefill: simulated engines that take requests over after that", 1, 256);
  add_list_option(
    *command, "--engine", options->engine,
    "what runs the model: modeled, or the URLs of vLLM, SGLang or other OpenAI-compatible servers")
    ->type_name("modeled|URL,...")
    ->default_str("modeled");
  add_engine_key_option(*command, options->engine_key);
  add_choice_option<std::string>(
    *command, "--scheduling", options->scheduling,
    "loads as engines report them (full), or as the gateway counts them itself (lite)",
    {{"full", "full"}, {"lite", "lite"}})
    ->type_name("full|lite")
    ->default_str("full, and lite in front of URLs");
  add_address_option(*command, "--http", options->http, "public HTTP address")
    ->default_str("127.0.0.1:8089");
  add_address_option(*command, "--admin", options->admin, "operators' HTTP address")
    ->default_str("127.0.0.1:8090");
  auto is_redis = [](const std::string& text) {
    std::string host;
    std::uint16_t port = 0;
    return text == "off" || text == "spawn" || split_address(text, host, port)
             ? ""
             : text + " is neither off, spawn nor HOST:PORT";
  };
  command
    ->add_option(
      "--redis", options->redis, "the mirror of the cluster's state; spawn: a server of its own")
    ->check(CLI::Validator{is_redis, ""})
    ->type_name("off|spawn|HOST:PORT")
    ->default_str("off");
  command->add_option("--model", options->model, "model name clients use")
    ->type_name("NAME")
    ->default_str("modeled");
  command->add_option("--policy", options->policy, "placement policy")
    ->type_name("NAME")
    ->default_str("load-balance");
  add_duration_option(*command, "--for", options->run_for, "stop after this long");
  add_duration_option(
    *command, "--drain", options->drain, "at a stop, running requests get this long");
  command->add_flag(
    "--json", options->json, "print events, one JSON object per line, and nothing else");
  add_config_options(*command, options->config);
  add_log_options(*command, options->log);
  command->footer("Two fast engines and a Redis, for a minute:\n"
                  "  llumnix up --engines 2 --redis spawn --set engine.speed=10 --for 1m\n"
                  "Prefill and decode apart:\n"
                  "  llumnix up --prefill 2 --decode 2\n"
                  "In front of two vLLM servers that run already:\n"
                  "  llumnix up --engine http://127.0.0.1:8001,http://127.0.0.1:8002\n");
  command->callback([options, &chosen] { chosen = [options] { return up(*options); }; });
}

} // namespace llumnix
