#pragma once

#include "config/load_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/scheduling/selectors.hpp"

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// The goals that limits on predicted times are a share of.
struct time_goals {
  float ttft_ms = 0; ///< of config
  float tpot_ms = 0; ///< of config
  float ttft_share = 0;
  float tpot_share = 0;

  /// The limit in ms, by the request's own goal if it has one. `goal` is not `none`.
  float limit_ms(time_goal goal, const placement_wishes& wishes) const;
};

/// How one role is chosen: who may take the request, and who of them does.
struct role_policy {
  std::vector<metric_column> metrics; ///< used by the filters and the selector, by slot
  std::vector<filter> filters;        ///< in order
  selector pick;
  /// Instances of every role are candidates (adaptive PD: a role is what load makes of one).
  bool any_role = false;
  /// Where limits are on predicted times.
  std::optional<time_goals> goals;
  std::size_t sessions_max = 0; ///< remembered for `scheduler.session_affinity`; 0: it is off
};

/// A policy made from config: the value a dispatcher decides by.
struct placement_policy {
  std::string name;
  /// By infer_type; a policy that knows no such role refuses its requests.
  std::array<std::optional<role_policy>, 3> roles;
};

/// Makes the policy the config names out of its rows in the registry, those of full or of lite
/// mode. Fails with `invalid_argument` and every problem at once: an unknown policy, metric or
/// failover domain, with those that are known, a `dispatch_top_k` of 0, or two ways of spreading or
/// keeping choices at once. In lite mode a metric other than `num_requests` and `num_tokens`
/// becomes `num_tokens`, with its threshold (spec/scheduling.md 1.2).
result<placement_policy> make_policy(const scheduler_config& config);

} // namespace llumnix
