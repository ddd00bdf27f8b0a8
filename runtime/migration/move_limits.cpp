#include "runtime/migration/move_limits.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace llumnix {

namespace {

/// The one metric by which the tokens of a move can be told from a difference of load.
constexpr std::string_view share_of_kv = "kv_cache_usage_ratio_projected";

double kv_tokens(const instance_view& x) {
  return x.has_status ? static_cast<double>(x.status.num_total_gpu_tokens) : 0;
}

/// Tokens that make both sides equally full.
double
tokens_to_balance(const planned_move& move, const instance_view& from, const instance_view& to) {
  auto source = kv_tokens(from);
  auto destination = kv_tokens(to);
  if (source <= 0 || destination <= 0)
    return 0;
  auto difference = static_cast<double>(move.from_load) - static_cast<double>(move.to_load);
  return std::max(0.0, difference / (1 / source + 1 / destination));
}

} // namespace

std::vector<planned_move> moves_to_order(
  std::vector<planned_move> plan, const cluster_view& view, const move_pairs& under_way,
  double tokens_min) {
  std::vector<planned_move> ordered;
  std::map<instance_id, std::int32_t> in_slots;
  std::map<instance_id, std::int32_t> out_slots;
  for (auto& move : plan) {
    const auto* from = view.find(move.from);
    const auto* to = view.find(move.to);
    if (!from || !to || under_way.contains({move.from, move.to}))
      continue;
    auto out = out_slots.try_emplace(move.from, from->status.num_available_migrate_out_slots).first;
    auto in = in_slots.try_emplace(move.to, to->status.num_available_migrate_in_slots).first;
    if (out->second <= 0 || in->second <= 0)
      continue;
    if (move.metric == share_of_kv && move.selection.rule == selection_rule::tokens) {
      move.selection.value
        = std::min(move.selection.value, std::floor(tokens_to_balance(move, *from, *to)));
      if (move.selection.value < tokens_min)
        continue;
    }
    --out->second;
    --in->second;
    ordered.push_back(std::move(move));
  }
  return ordered;
}

} // namespace llumnix
