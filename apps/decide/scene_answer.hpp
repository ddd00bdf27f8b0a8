#pragma once

#include "apps/decide/scene.hpp"
#include "config/load_config.hpp"
#include "runtime/migration/autoscaling_policy.hpp"
#include "runtime/migration/rescheduling_policy.hpp"
#include "runtime/scheduling/adaptive_pd.hpp"
#include "runtime/scheduling/decision.hpp"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

/// What `llumnix decide` says to a scene: one struct for each question (spec/surface.md 5).
namespace llumnix {

/// To `place`.
struct placed_answer {
  bool placed = false;
  std::vector<std::pair<infer_type, instance_id>> placement; ///< empty when refused
  std::vector<stage_report> stages;                          ///< one per role tried
};

/// To `plan`. The reports are one per policy.
using planned_answer = move_plan;

/// To `choose`.
struct chosen_answer {
  bool refused = false; ///< for want of a slot
  std::vector<std::string> requests;
};

/// To `metrics`, by instance in ascending order.
struct computed_answer {
  struct load {
    instance_id instance;
    std::vector<std::pair<std::string, float>> metrics;
    inflight_load account;
  };
  std::vector<load> instances;
};

/// To `predict`: those lists that were asked for, in their order.
struct predicted_answer {
  using times = std::vector<std::optional<double>>; ///< ms
  std::optional<times> prefill, decode, step;
  std::optional<step_coefficients> step_model;
};

/// To `keys`.
struct keyed_answer {
  std::vector<std::string> keys;
};

/// To `config`: the effective flags.
struct configured_answer {
  nlohmann::json flags;
};

/// What is said to a scene that cannot be answered.
using scene_error = config_problem;

struct scene_answer {
  std::optional<std::string> name; ///< the scene's
  std::variant<
    scene_error, placed_answer, planned_answer, chosen_answer, computed_answer, predicted_answer,
    reservations, keyed_answer, scaling_decision, configured_answer>
    what;
  std::string reason;                ///< a sentence; empty for an error, whose message it is
  std::vector<std::string> warnings; ///< of flags that were passed over or replaced
};

/// The JSON form. Numbers read back to the very value that was compared.
nlohmann::ordered_json write_answer(const scene_answer& answer);

/// An error is one, a refusal is an answer.
bool is_error(const scene_answer& answer);
bool is_refusal(const scene_answer& answer);

} // namespace llumnix
