#include "runtime/migration/move_limits.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace llumnix {

namespace {

/// What a difference of load counts.
enum class unit : std::uint8_t {
  other, ///< what a move takes of it cannot be told
  share_of_kv,
  requests,
  tokens,
};

constexpr std::array units{
  std::pair<std::string_view, unit>{"kv_cache_usage_ratio_projected", unit::share_of_kv},
  std::pair<std::string_view, unit>{"decode_batch_size", unit::requests},
  std::pair<std::string_view, unit>{"num_waiting_requests", unit::requests},
  std::pair<std::string_view, unit>{"num_requests", unit::requests},
  std::pair<std::string_view, unit>{"all_prefills_tokens_num", unit::tokens},
  std::pair<std::string_view, unit>{"cache_aware_all_prefills_tokens_num", unit::tokens},
  std::pair<std::string_view, unit>{"all_decodes_tokens_num", unit::tokens},
  std::pair<std::string_view, unit>{"miss_waiting_tokens", unit::tokens},
};

unit unit_of(const planned_move& move) {
  if (move.gathers)
    return unit::other;
  auto found = std::ranges::find(units, move.metric, &decltype(units)::value_type::first);
  return found == units.end() ? unit::other : found->second;
}

double kv_tokens(const instance_view& x) {
  return x.has_status ? static_cast<double>(x.status.num_total_gpu_tokens) : 0;
}

double difference(const planned_move& move) {
  return static_cast<double>(move.from_load) - static_cast<double>(move.to_load);
}

/// Tokens that make both sides equally full.
double
tokens_to_balance(const planned_move& move, const instance_view& from, const instance_view& to) {
  auto source = kv_tokens(from);
  auto destination = kv_tokens(to);
  if (source <= 0 || destination <= 0)
    return 0;
  return std::max(0.0, difference(move) / (1 / source + 1 / destination));
}

/// Cuts what is taken to the tokens that balance. Whether that is worth it.
bool fit_tokens(request_selection& wanted, double balance, double capacity, double tokens_min) {
  balance = std::floor(balance);
  if (balance < tokens_min)
    return false;
  wanted.balance = balance;
  if (wanted.rule == selection_rule::tokens)
    wanted.value = std::min(wanted.value, balance);
  else if (wanted.rule == selection_rule::kv_ratio)
    wanted.value = std::min(wanted.value, balance / capacity);
  return wanted.rule != selection_rule::tokens || wanted.value >= tokens_min;
}

/// Cuts what is taken to the requests that balance. Whether there is one. Tokens are counted on,
/// as the ones that balance: whichever is spent first ends it.
bool fit_requests(request_selection& wanted, double balance, double capacity) {
  balance = std::floor(balance);
  if (balance < 1)
    return false;
  if (wanted.rule == selection_rule::requests) {
    bool all = std::trunc(wanted.value) == -1;
    wanted.value = all ? balance : std::min(wanted.value, balance);
    return true;
  }
  auto share = wanted.rule == selection_rule::kv_ratio;
  auto tokens = std::floor(share ? wanted.value * capacity : wanted.value);
  if (tokens >= 1) // else nothing is taken anyway
    wanted = {selection_rule::requests, wanted.order, balance, tokens};
  return true;
}

/// Cuts what is taken to what balances, where that can be told. Whether the move is worth it.
bool fit(
  planned_move& move, const instance_view& from, const instance_view& to, double tokens_min) {
  auto half = difference(move) / 2;
  switch (unit_of(move)) {
    case unit::share_of_kv:
      return fit_tokens(
        move.selection, tokens_to_balance(move, from, to), kv_tokens(from), tokens_min);
    case unit::tokens: return fit_tokens(move.selection, half, kv_tokens(from), tokens_min);
    case unit::requests: return fit_requests(move.selection, half, kv_tokens(from));
    case unit::other: break;
  }
  return true;
}

/// From one node to another; none within a node.
std::optional<std::pair<std::string, std::string>>
link_of(const instance_view* from, const instance_view* to) {
  if (!from || !to || from->life.node == to->life.node)
    return std::nullopt;
  return std::pair{from->life.node, to->life.node};
}

} // namespace

std::vector<planned_move> moves_to_order(
  std::vector<planned_move> plan, const cluster_view& view, const move_pairs& under_way,
  double tokens_min) {
  std::vector<planned_move> ordered;
  std::map<instance_id, std::int32_t> in_slots;
  std::map<instance_id, std::int32_t> out_slots;
  std::set<std::pair<std::string, std::string>> links;
  for (const auto& [from, to] : under_way)
    if (auto link = link_of(view.find(from), view.find(to)))
      links.insert(std::move(*link));
  for (auto& move : plan) {
    const auto* from = view.find(move.from);
    const auto* to = view.find(move.to);
    if (!from || !to || under_way.contains({move.from, move.to}))
      continue;
    auto link = link_of(from, to);
    if (link && links.contains(*link))
      continue;
    auto out = out_slots.try_emplace(move.from, from->status.num_available_migrate_out_slots).first;
    auto in = in_slots.try_emplace(move.to, to->status.num_available_migrate_in_slots).first;
    if (out->second <= 0 || in->second <= 0)
      continue;
    if (!fit(move, *from, *to, tokens_min))
      continue;
    --out->second;
    --in->second;
    if (link)
      links.insert(std::move(*link));
    ordered.push_back(std::move(move));
  }
  return ordered;
}

} // namespace llumnix
