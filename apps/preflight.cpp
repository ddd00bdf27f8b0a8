#include "apps/preflight.hpp"

#include "net/http_server.hpp"
#include "runtime/base/log.hpp"
#include "runtime/engine/kv_pool.hpp"
#include "runtime/engine/modeled_setup.hpp"
#include "runtime/migration/move_policies.hpp"
#include "runtime/scheduling/policy_registry.hpp"
#include "runtime/scheduling/profile_file.hpp"

#include <algorithm>
#include <iterator>

namespace llumnix {

namespace {

/// Between the problems of one section: each begins with the path of its knob.
constexpr std::string_view next_problem = "; scheduler.";

/// Adds "KNOB: what is wrong", unless that knob is told of already.
void add(std::string_view sentence, std::vector<config_problem>& problems) {
  auto colon = std::min(sentence.find(": "), sentence.size());
  std::string path{sentence.substr(0, colon)};
  auto same = [&](const config_problem& each) {
    return each.path == path || each.path.ends_with(": " + path); // after the name of a file
  };
  if (std::ranges::none_of(problems, same))
    problems.push_back({path, std::string{sentence.substr(std::min(colon + 2, sentence.size()))}});
}

/// Adds each of the problems that come as one text.
void add_each(std::string_view sentences, std::vector<config_problem>& problems) {
  for (auto end = sentences.find(next_problem); end != sentences.npos;
       end = sentences.find(next_problem)) {
    add(sentences.substr(0, end), problems);
    sentences.remove_prefix(end + 2);
  }
  add(sentences, problems);
}

void check_address(
  const char* knob, const char* option, const std::string& address,
  std::vector<config_problem>& problems) {
  net::http_server_options options;
  options.listen = address;
  if (auto opened = net::http_server::make(options); !opened)
    problems.push_back(
      {knob,
       opened.error().context + "; choose another with " + std::string{option} + " HOST:PORT"});
}

/// Warnings are left to the caller, as a start reads the files to check them and once more for use.
result<latency_profile>
read_profiles(const scheduler_config& config, std::vector<std::string>& warnings) {
  latency_profile made;
  std::string problems;
  auto read = [&](const char* knob, const std::string& path, auto file, interpolation_table& into) {
    if (path.empty())
      return;
    result<profile_table> found = file(path);
    if (!found) {
      problems += (problems.empty() ? "" : "; ") + std::string{knob} + ": " + found.error().context;
      return;
    }
    std::ranges::move(found->warnings, std::back_inserter(warnings));
    into = std::move(found->table);
  };
  read("scheduler.ttft_profile", config.ttft_profile, read_ttft_profile, made.ttft);
  read("scheduler.tpot_profile", config.tpot_profile, read_tpot_profile, made.tpot);
  if (!problems.empty())
    return {errc::invalid_argument, std::move(problems)};
  return made;
}

} // namespace

void check_parts(const cluster_config& config, std::vector<config_problem>& problems) {
  if (auto policy = make_policy(config.scheduler); !policy)
    add_each(policy.error().context, problems);
  if (config.scheduler.full_mode) // else nothing is moved by plan
    if (auto moves = make_move_policies(config.rescheduler, config.scheduler); !moves)
      add(moves.error().context, problems);
  std::vector<std::string> told_by_whoever_starts;
  if (auto profiles = read_profiles(config.scheduler, told_by_whoever_starts); !profiles)
    add_each(profiles.error().context, problems);
  if (auto engine = make_modeled_setup(config.engine); !engine)
    add(engine.error().context, problems);
}

result<latency_profile> read_profiles(const scheduler_config& config) {
  std::vector<std::string> warnings;
  auto made = read_profiles(config, warnings);
  for (auto& warning : warnings)
    log::scheduler.warn("profile", "{}", warning);
  return made;
}

void check_served(const cluster_config& config, std::vector<config_problem>& problems) {
  auto policy = make_policy(config.scheduler);
  auto mode = parse_serving_mode(config.gateway.serving_mode);
  if (!policy || mode != serving_mode::neutral || !config.scheduler.http.empty())
    return; // gateways of other makes may ask for prefill and decode apart
  if (policy->roles[static_cast<std::size_t>(infer_type::neutral)])
    return;
  problems.push_back(
    {"scheduler.policy",
     config.scheduler.policy
       + " places no requests for engines that prefill and decode; start some for each stage, as "
         "in --prefill 2 --decode 2, or choose another policy"});
}

std::vector<config_problem> idle_knobs(const scheduler_config& config) {
  bool by_order = config.policy == "flood" || config.policy == "round-robin";
  if (!by_order && !config.adaptive_pd)
    return {};
  std::vector<config_problem> idle;
  auto policy = config.policy + (by_order ? "" : " with scheduler.adaptive_pd");
  auto add = [&](const char* path, const char* instead) {
    idle.push_back(
      {path, "is not looked at by policy " + policy + "; set scheduler.policy=" + instead});
  };
  for (auto [path, wanted] :
       {std::pair{"scheduler.dispatch_top_k", config.dispatch_top_k > 1},
        {"scheduler.power_of_two", config.power_of_two},
        {"scheduler.hysteresis", config.hysteresis > 0}})
    if (wanted)
      add(path, "load-balance");
  if (by_order && config.cache_aware)
    add("scheduler.cache_aware", "cache-aware");
  return idle;
}

void check_machine(
  const cluster_config& config, bool modeled, std::vector<config_problem>& problems) {
  if (auto setup = make_modeled_setup(config.engine); modeled && setup)
    if (auto pool = kv_pool::make(setup->blocks, setup->block_tokens, setup->kv_bytes_per_token);
        !pool)
      add(pool.error().context, problems);
  check_address("http.listen", "--http", config.http.listen, problems);
  check_address("admin.listen", "--admin", config.admin.listen, problems);
}

} // namespace llumnix
