#include "apps/decide/scene_setup.hpp"

#include "apps/decide/json_part.hpp"
#include "apps/reference/scheduler_setup.hpp"
#include "config/knob_value.hpp"
#include "config/knobs.hpp"
#include "runtime/scheduling/policy_registry.hpp"

#include <algorithm>
#include <iterator>

namespace llumnix {

namespace {

constexpr std::string_view flags_path = "config.flags.";
constexpr std::string_view settings_path = "config.set.";

config_problem about_flag(const config_problem& wrong) {
  return {std::string{flags_path} + wrong.path, wrong.message};
}

std::optional<config_problem>
read_flags(const scene& of, scheduler_flags_read& read, scene_setup& into) {
  read = read_scheduler_flags(of.config.flags);
  if (!read.problems.empty())
    return about_flag(read.problems.front());
  into.flags = read.values.to_json();
  into.scheduler = scheduler_config_of(read.values);
  into.rescheduler = rescheduler_config_of(read.values);
  into.warnings = std::move(read.warnings);
  std::ranges::move(missing_parts(read.values), std::back_inserter(into.warnings));
  return std::nullopt;
}

std::string no_such_knob(std::string_view path) {
  constexpr std::size_t longest = 100; // of names that are worth a comparison
  auto near = path.size() > longest ? std::string_view{} : nearest_path(path);
  return "no such knob" + (near.empty() ? "" : "; did you mean " + std::string{near} + "?");
}

/// Knobs by path, over what the flags came to.
std::optional<config_problem> read_settings(const scene& of, scene_setup& into) {
  cluster_config config;
  config.scheduler = into.scheduler;
  for (auto& [path, value] : of.config.settings.items()) {
    auto* which = find_knob(path);
    auto wrong = which == nullptr ? no_such_knob(path) : read_json(*which, value, config);
    if (!wrong.empty())
      return config_problem{std::string{settings_path} + path, wrong};
  }
  if (of.config.settings.empty())
    return std::nullopt;
  for (auto& problem : check(config))
    if (of.config.settings.contains(problem.path))
      return config_problem{std::string{settings_path} + problem.path, problem.message};
  into.scheduler = config.scheduler;
  return std::nullopt;
}

/// Our own policies have rules of their own: "scheduler.policy: unknown policy ...; ...".
std::optional<config_problem> check_policy(const scene& of, const scene_setup& made) {
  auto policy = make_policy(made.scheduler);
  if (policy)
    return std::nullopt;
  auto text = policy.error().context;
  auto colon = text.find(": ");
  auto path = text.substr(0, colon);
  bool is_setting = of.config.settings.contains(path);
  return config_problem{
    is_setting ? std::string{settings_path} + path : "config",
    is_setting ? text.substr(colon + 2) : text};
}

step_model fit(const std::vector<std::pair<double, double>>& samples, std::size_t warmup) {
  step_model model{warmup};
  for (auto& [tokens, ms] : samples)
    model.add(tokens, ms);
  model.fit();
  return model;
}

} // namespace

std::variant<scene_setup, config_problem> set_up(const scene& of) {
  scene_setup made;
  scheduler_flags_read flags;
  if (auto problem = read_flags(of, flags, made))
    return *problem;
  auto by_flags = made.scheduler;
  if (auto problem = read_settings(of, made))
    return *problem;
  std::ranges::move(
    overruled_flags(flags.values, by_flags, made.scheduler), std::back_inserter(made.warnings));
  if (auto refused = refused_numbers(flags.values, made.scheduler); !refused.empty())
    return about_flag(refused.front());
  auto& scheduler = made.scheduler;
  if (of.seed)
    scheduler.seed = *of.seed;
  if (of.config.hash_seed)
    scheduler.kv_hash_seed = *of.config.hash_seed;
  if (auto problem = check_policy(of, made))
    return *problem;
  if (of.config.ttft)
    made.profile.ttft = interpolation_table{*of.config.ttft};
  if (of.config.tpot)
    made.profile.tpot = interpolation_table{*of.config.tpot};
  made.step_model = of.config.step_model;
  if (of.config.step_samples)
    made.step_model = fit(*of.config.step_samples, scheduler.predictor_warmup_samples).fitted();
  return made;
}

} // namespace llumnix
