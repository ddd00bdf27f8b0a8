#pragma once

#include "runtime/migration/move_policies.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// A move to make: `from` lets go of requests as `selection` says, to `to`.
struct planned_move {
  instance_id from;
  instance_id to;
  std::string policy;
  request_selection selection;
  std::string metric;  ///< loads were compared by; empty where none were
  float from_load = 0; ///< of the metric
  float to_load = 0;
  bool gathers = false; ///< empties the source, and is not to make both sides equal
};

enum class move_side : std::uint8_t { source, destination };
/// "source", "destination".
std::string_view to_string(move_side side);

/// One instance a filter rejected on one side of a policy.
struct dropped_from_move {
  instance_id instance;
  move_side side = move_side::source;
  filter_kind filter = filter_kind::state;
  std::string metric; ///< of filters on load
  float value = 0;
  float threshold = 0;
};

/// A pair that did not become a move.
struct pair_left_out {
  enum class cause : std::uint8_t {
    small_difference,  ///< of load
    reverse_planned,   ///< the plan moves requests the other way
    no_request,        ///< the source has none that may move
    no_gain,           ///< one request would not bring the loads closer
    fills_destination, ///< one request more, and it would not be below its limit
  };
  instance_id from;
  instance_id to;
  cause why = cause::small_difference;
};
/// "small_difference", "reverse_planned", "no_request", "no_gain", "fills_destination".
std::string_view to_string(pair_left_out::cause why);

/// Everything one policy saw in a cycle: what `llumnix decide` shows.
struct policy_report {
  std::string policy;
  std::vector<instance_id> considered; ///< all instances, ascending
  std::vector<instance_id> sources;    ///< those no filter rejected, ascending
  std::vector<instance_id> destinations;
  std::vector<dropped_from_move> dropped; ///< sources first, then by instance, then by filter
  struct valued {
    instance_id instance;
    std::vector<std::pair<std::string, float>> metrics; ///< of the policy
  };
  std::vector<valued> candidates; ///< ascending
  std::vector<pair_left_out> left_out;
  instance_id needless_with; ///< an instance for whose sake nothing is planned; empty: none
};

enum class plan_detail : std::uint8_t { moves, reports };

/// The moves of one cycle, in the order of the policies that want them.
struct move_plan {
  std::vector<planned_move> moves;
  std::vector<policy_report> reports; ///< one per policy; only if asked for
};

/// Plans one cycle over all instances, of whatever role (spec/rescheduling.md 1.1). The table has
/// the columns of the policies; it is prepared here, without a request. Whoever needs failover in
/// the eyes of one policy does so for all that follow; a move back the way another goes is dropped.
///
/// Beyond the reference: an instance that is not `ready` takes nothing. A draining one may give. A
/// lost one fails its domain, but cannot be asked to give, nor can a stopped one; and one that has
/// not reported yet does neither. All these are reported as rejected by filter `state`.
move_plan plan_moves(
  const move_policies& policies, candidate_table& table, unix_ms now,
  plan_detail detail = plan_detail::moves);

} // namespace llumnix
