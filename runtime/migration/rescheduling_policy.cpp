#include "runtime/migration/rescheduling_policy.hpp"

#include "runtime/base/assert.hpp"
#include "runtime/migration/pairing.hpp"
#include "runtime/migration/request_moved.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

namespace llumnix {

namespace {

using row = candidate_table::row;

/// Sweeps the filters of a cycle, policy after policy, over one table.
class cycle {
public:
  cycle(const candidate_table& table, unix_ms now, plan_detail detail)
    : table_{table}, now_{now}, detail_{detail} {
    // Those that are lost fail before any policy looks.
    screen(std::array<filter, 1>{state_filter{}}, table_, {}, now_, screened_);
  }

  void run(const move_policy& policy) {
    if (detail_ == plan_detail::reports)
      describe(policy);
    if (needless(policy))
      return;
    auto sources = survivors_of(policy.sources, move_side::source);
    auto destinations = survivors_of(policy.destinations, move_side::destination);
    for (auto pair : pairs_of(policy, sources, destinations))
      add(policy, pair);
  }

  move_plan plan;

private:
  policy_report& report() { return plan.reports.back(); }

  std::span<const float> values(const move_policy& policy) const {
    return policy.load ? std::span<const float>{table_.values(*policy.load)}
                       : std::span<const float>{};
  }

  /// Whether an instance can take part on that side at all.
  bool able(row at, move_side side) const {
    // Only of those that reported (and did not end) does the table know when.
    if (table_.written()[at] == std::numeric_limits<unix_ms>::max())
      return false;
    return side == move_side::source ? table_.states()[at] != instance_state::lost
                                     : table_.states()[at] == instance_state::ready;
  }

  /// Whether there is an instance that does better than the policy could.
  bool needless(const move_policy& policy) {
    if (policy.needless.empty())
      return false;
    screen(policy.needless, table_, {}, now_, screened_, failure_marks::kept);
    for (row at = 0; at < table_.size(); ++at)
      if (able(at, move_side::destination) && screened_.rejected[at] == 0) {
        if (detail_ == plan_detail::reports)
          report().needless_with = table_.ids()[at];
        return true;
      }
    return false;
  }

  std::vector<row> survivors_of(const std::vector<filter>& filters, move_side side) {
    screen(filters, table_, {}, now_, screened_, failure_marks::kept);
    std::vector<row> left;
    for (row at = 0; at < table_.size(); ++at) {
      bool takes_part = able(at, side);
      if (takes_part && screened_.rejected[at] == 0)
        left.push_back(at);
      else if (detail_ == plan_detail::reports)
        explain(at, side, takes_part, filters);
    }
    if (detail_ == plan_detail::reports)
      for (auto at : left)
        (side == move_side::source ? report().sources : report().destinations)
          .push_back(table_.ids()[at]);
    return left;
  }

  void explain(row at, move_side side, bool takes_part, const std::vector<filter>& filters) {
    auto& dropped = report().dropped;
    if (!takes_part)
      dropped.push_back({.instance = table_.ids()[at], .side = side, .metric = {}});
    for (std::size_t i = 0; i < filters.size(); ++i) {
      if ((screened_.rejected[at] >> i & 1u) == 0)
        continue;
      auto& drop = dropped.emplace_back();
      drop.instance = table_.ids()[at];
      drop.side = side;
      drop.filter = kind_of(filters[i]);
      if (auto* load = std::get_if<metric_filter>(&filters[i])) {
        drop.metric = table_.metrics()[load->slot].metric->name;
        drop.value = table_.values(load->slot)[at];
        drop.threshold = load->threshold;
      }
    }
  }

  void describe(const move_policy& policy) {
    auto& into = plan.reports.emplace_back();
    into.policy = policy.name;
    into.considered = table_.ids();
    std::set<std::size_t> slots;
    for (auto* side : {&policy.sources, &policy.destinations})
      for (auto& which : *side)
        if (auto* load = std::get_if<metric_filter>(&which))
          slots.insert(load->slot);
    if (policy.load)
      slots.insert(*policy.load);
    for (row at = 0; at < table_.size(); ++at) {
      auto& candidate = into.candidates.emplace_back();
      candidate.instance = table_.ids()[at];
      for (auto slot : slots)
        candidate.metrics.emplace_back(
          table_.metrics()[slot].metric->name, table_.values(slot)[at]);
    }
  }

  std::vector<row_pair>
  pairs_of(const move_policy& policy, row_span sources, row_span destinations) const {
    load_column load{values(policy)};
    if (policy.load)
      load.light = table_.metrics()[*policy.load].metric->direction;
    std::optional<row_pair> single;
    switch (policy.pairing) {
      case move_pairing::balance: return balance_pairs(sources, destinations, load);
      case move_pairing::balance_in_units:
        return balance_pairs_in_units(sources, destinations, load, table_.locations());
      case move_pairing::round_robin: return round_robin_pairs(sources, destinations);
      case move_pairing::mitigation: single = mitigation_pair(sources, destinations, load); break;
      case move_pairing::consolidation:
        single = consolidation_pair(sources, destinations, load, table_.reserved());
        break;
      case move_pairing::defrag:
      case move_pairing::balanced: return defrag_pairs(sources, destinations, load);
      case move_pairing::balanced_in_units:
        return defrag_pairs_in_units(sources, destinations, load, table_.locations());
      case move_pairing::halving: return halving_pairs(sources, destinations);
    }
    return single ? std::vector{*single} : std::vector<row_pair>{};
  }

  /// Why a pair is not worth a request, if it is not.
  std::optional<pair_left_out::cause> against(const move_policy& policy, row_pair pair) const {
    using enum pair_left_out::cause;
    if (
      policy.pairing != move_pairing::balanced
      && policy.pairing != move_pairing::balanced_in_units)
      return std::nullopt;
    auto& source = table_.view(pair.from);
    auto moved = request_to_move(source, policy.selection);
    if (!moved)
      return no_request;
    auto& metric = *table_.metrics()[*policy.load].metric;
    auto load = values(policy);
    pair_loads after{
      table_.value_if(metric, pair.from, without_request(source, *moved)),
      table_.value_if(metric, pair.to, with_request(table_.view(pair.to), *moved))};
    switch (gain_of_move(
      metric.direction, {load[pair.from], load[pair.to]}, after, policy.destination_limit)) {
      case move_gain::none: return no_gain;
      case move_gain::fills_destination: return fills_destination;
      case move_gain::worth: break;
    }
    return std::nullopt;
  }

  void add(const move_policy& policy, row_pair pair) {
    auto load = values(policy);
    if (auto why = against(policy, pair))
      return leave(pair, *why);
    if (
      policy.least_difference > 0 && !load.empty()
      && load[pair.from] - load[pair.to] < policy.least_difference)
      return leave(pair, pair_left_out::cause::small_difference);
    if (planned_.contains({pair.to, pair.from}))
      return leave(pair, pair_left_out::cause::reverse_planned);
    planned_.emplace(pair.from, pair.to);
    auto& move = plan.moves.emplace_back();
    move.from = table_.ids()[pair.from];
    move.to = table_.ids()[pair.to];
    move.policy = policy.name;
    move.selection = policy.selection;
    move.gathers = policy.pairing == move_pairing::halving;
    if (policy.load) {
      move.metric = table_.metrics()[*policy.load].metric->name;
      move.from_load = load[pair.from];
      move.to_load = load[pair.to];
    }
  }

  void leave(row_pair pair, pair_left_out::cause why) {
    if (detail_ == plan_detail::reports)
      report().left_out.push_back({table_.ids()[pair.from], table_.ids()[pair.to], why});
  }

  const candidate_table& table_;
  unix_ms now_;
  plan_detail detail_;
  screening screened_;
  std::set<std::pair<row, row>> planned_;
};

} // namespace

std::string_view to_string(move_side side) {
  return side == move_side::source ? "source" : "destination";
}

std::string_view to_string(pair_left_out::cause why) {
  using enum pair_left_out::cause;
  switch (why) {
    case small_difference: return "small_difference";
    case reverse_planned: return "reverse_planned";
    case no_request: return "no_request";
    case no_gain: return "no_gain";
    case fills_destination: return "fills_destination";
  }
  return "unknown";
}

move_plan
plan_moves(const move_policies& policies, candidate_table& table, unix_ms now, plan_detail detail) {
  LLUMNIX_ASSERT(table.metrics() == policies.metrics);
  table.prepare({.now = now});
  cycle once{table, now, detail};
  for (auto& policy : policies.policies)
    once.run(policy);
  return std::move(once.plan);
}

} // namespace llumnix
