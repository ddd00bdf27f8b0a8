#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/migration/request_selection.hpp"
#include "runtime/scheduling/filters.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// How the sources and destinations of a policy are put together: see pairing.hpp.
enum class move_pairing : std::uint8_t {
  balance,
  balance_in_units,
  round_robin,
  mitigation,
  consolidation,
  defrag,
  balanced, ///< defrag, of pairs that one request brings closer
  balanced_in_units,
  halving,
};

/// One rescheduling policy: who gives, who takes, who to whom, and which requests.
struct move_policy {
  std::string name;
  std::vector<filter> sources;      ///< in order
  std::vector<filter> destinations; ///< in order
  move_pairing pairing = move_pairing::round_robin;
  std::optional<std::size_t> load; ///< slot of the metric it pairs by; none: it looks at no load
  /// Pairs whose source is not heavier by at least this, as plain subtraction, are left; 0 or less:
  /// none are.
  float least_difference = 0;
  /// Of pairing `balanced`: what a destination stays lighter than with one request more.
  std::optional<float> destination_limit;
  /// Filters of instances that make the policy needless: while any passes, it plans nothing. Empty:
  /// none does.
  std::vector<filter> needless;
  request_selection selection;
};

/// The policies of a cycle, in order, and the columns they look at.
struct move_policies {
  std::vector<metric_column> metrics; ///< of the candidate table that plans are made from
  std::vector<move_policy> policies;
};

/// Makes the policies that the config names (spec/rescheduling.md 2); of the scheduler's it is the
/// limits of time per output token, the failover domain and staleness that matter. With
/// `adaptive_pd` both bin-packing policies are among them, named or not. Fails with
/// `invalid_argument` and every problem at once: unknown policies, metrics, scope, rule or order,
/// with those that are known, numbers that are none, and lite mode, which knows no loads to move.
result<move_policies>
make_move_policies(const rescheduler_config& config, const scheduler_config& scheduler);

} // namespace llumnix
