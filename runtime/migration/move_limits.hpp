#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/migration/rescheduling_policy.hpp"

#include <set>
#include <utility>
#include <vector>

namespace llumnix {

/// Pairs of source and destination.
using move_pairs = std::set<std::pair<instance_id, instance_id>>;

/// What of a plan is ordered now (spec/migration.md 2 and 10): pairs with a move under way are left
/// until it has ended, and so are others over the same link, from one node to another, so that
/// `migration.per_link` bounds what leaves over it however many instances the nodes have; so are
/// destinations and sources without a free slot, those that moves before it take included.
///
/// A move by load takes no more than makes both sides equal, so that none turns a difference round
/// and goes back for it. By KV use and by metrics that count tokens these are tokens
/// (`request_selection::balance`), and none at all where they are less than `tokens_min`: what the
/// move costs would be more than it brings. By metrics that count requests it is half of the
/// difference, by whatever rule: one of tokens becomes NUM_REQ with those tokens as `balance`. By
/// other metrics it is not known, and the selection stays as it is.
///
/// Keeps the order of the plan.
std::vector<planned_move> moves_to_order(
  std::vector<planned_move> plan, const cluster_view& view, const move_pairs& under_way,
  double tokens_min = 64);

} // namespace llumnix
