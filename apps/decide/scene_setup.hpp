#pragma once

#include "apps/decide/scene.hpp"
#include "config/cluster_config.hpp"
#include "config/load_config.hpp"
#include "runtime/scheduling/latency_profile.hpp"
#include "runtime/scheduling/step_model.hpp"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace llumnix {

/// What the knobs of a scene come to, as at a start of the program (spec/scheduling.md 1.1, 1.2).
struct scene_setup {
  nlohmann::json flags; ///< the effective ones, passwords among them
  scheduler_config scheduler;
  rescheduler_config rescheduler;
  latency_profile profile; ///< of the scene; files that flags name are not read
  std::optional<step_coefficients> step_model;
  std::vector<std::string> warnings;
};

/// Verifies and coerces flags, puts our own knobs on top, and fits the step model. The first
/// problem, with its path in the scene, if something is wrong. Nothing outside the scene is looked
/// at, neither files nor this process's environment.
std::variant<scene_setup, config_problem> set_up(const scene& of);

} // namespace llumnix
