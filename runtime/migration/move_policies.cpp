#include "runtime/migration/move_policies.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

/// What policies are made from.
struct settings {
  const rescheduler_config& moving;
  const scheduler_config& placing;
};

/// A metric and its limit, as config names them.
struct metric_limit {
  const load_metric* metric = nullptr;
  float threshold = 0;
  bool divides = true; ///< false: sources and destinations are not told apart by it
};

/// A parameter of a row: which metric and limit, taken from config.
using metric_of = metric_limit (*)(const settings&);

bool in_units(const settings& from) {
  return from.moving.load_balance_scope == "unit";
}

/// Within units, or without a threshold, everybody may give and take, and pairing alone decides.
metric_limit balanced(const settings& from, const std::string& name, double threshold) {
  auto limit = to_float(threshold);
  return {find_load_metric(name), limit, limit > 0 && !in_units(from)};
}
metric_limit decode_load(const settings& from) {
  return balanced(from, from.moving.decode_load_metric, from.moving.decode_load_threshold);
}
metric_limit neutral_load(const settings& from) {
  return balanced(from, from.moving.neutral_load_metric, from.moving.neutral_load_threshold);
}

/// The product of two floats, as the reference compares: 50 x 0.60 is 30.000002.
metric_limit tpot_share(const settings& from, double share) {
  return {find_load_metric("predicted_tpot"), to_float(from.placing.tpot_slo_ms) * to_float(share)};
}
metric_limit tpot_ceil(const settings& from) {
  return tpot_share(from, from.placing.tpot_migrate_out_ceil);
}
metric_limit tpot_dispatch(const settings& from) {
  return tpot_share(from, from.placing.tpot_slo_threshold);
}
metric_limit tpot_floor(const settings& from) {
  return tpot_share(from, from.placing.tpot_migrate_out_floor);
}
metric_limit any_decodes(const settings&) {
  return {find_load_metric("decode_batch_size"), 0.1f};
}

/// Remaining steps below which the first Llumnix moved requests away.
metric_limit few_steps(const settings&) {
  return {find_load_metric("remaining_steps_defrag"), 3};
}
/// A decode batch above 128 is busy (spec/rescheduling.md 7.1).
metric_limit full_batch(const settings&) {
  return {find_load_metric("decode_batch_size"), 128.5f};
}
metric_limit batch_to_fill(const settings&) {
  return {find_load_metric("adaptive_decode")};
}
metric_limit any_requests(const settings&) {
  return {find_load_metric("num_requests"), 0.1f};
}

struct filter_use {
  filter_use(filter_kind kind) : kind{kind} {}
  filter_use(filter_kind kind, metric_of metric) : kind{kind}, metric{metric} {}
  filter_use(filter_kind kind, infer_type role) : kind{kind}, role{role} {}
  filter_kind kind;
  metric_of metric = nullptr;            ///< of filters on load
  infer_type role = infer_type::neutral; ///< of filters `infer_type` and `attribute`
};
using filter_uses = std::vector<filter_use>;

using selection_of = request_selection (*)(const settings&);

/// A policy. A new one is a new row here.
struct policy_row {
  std::string_view name;
  filter_uses sources;
  filter_uses destinations; ///< ready ones, beside these
  move_pairing pairing;
  metric_of load; ///< null: pairs are made without
  selection_of selection;
  filter_uses needless_with{}; ///< an instance that passes these; empty: it is always needed
};

using enum infer_type;

const filter_use schedulability{filter_kind::schedulability};
const filter_use staleness{filter_kind::staleness};
const filter_use failover{filter_kind::failover};
const filter_use failing{filter_kind::failover_source};

filter_use of_role(infer_type role) {
  return {filter_kind::infer_type, role};
}
filter_use not_reserved_for(infer_type role) {
  return {filter_kind::attribute, role};
}
filter_use below(metric_of load) {
  return {filter_kind::metric, load};
}
filter_use not_below(metric_of load) {
  return {filter_kind::not_metric, load};
}

/// Candidates whose health is good, and that of their failover domains.
filter_uses healthy(const filter_use& candidates, std::initializer_list<filter_use> others = {}) {
  filter_uses all{candidates, schedulability, staleness};
  all.insert(all.end(), others.begin(), others.end());
  all.push_back(failover);
  return all;
}

request_selection configured(const settings& from) {
  return {
    *parse_selection_rule(from.moving.select_rule),
    *parse_selection_order(from.moving.select_order), from.moving.select_value};
}
request_selection everything(const settings&) {
  return {selection_rule::requests, selection_order::longest_running, -1};
}
request_selection the_latest(const settings&) {
  return {selection_rule::requests, selection_order::latest_running, 1};
}

request_selection one_as_configured(const settings& from) {
  return {selection_rule::requests, configured(from).order, 1};
}
request_selection one_of_low_priority(const settings&) {
  return {selection_rule::requests, selection_order::low_priority_shortest, 1};
}

policy_row load_row(std::string_view name, infer_type role, metric_of load) {
  return {
    name,
    healthy(of_role(role), {not_below(load)}),
    healthy(of_role(role), {below(load)}),
    move_pairing::balance,
    load,
    configured};
}

/// The same with the balanced pairing of the first Llumnix.
policy_row
balanced_row(std::string_view name, infer_type role, metric_of load, selection_of selection) {
  auto row = load_row(name, role, load);
  row.pairing = move_pairing::balanced;
  row.selection = selection;
  return row;
}

policy_row failover_row(std::string_view name, infer_type role) {
  return {
    name,      {of_role(role), failing}, healthy(of_role(role)), move_pairing::round_robin, nullptr,
    everything};
}

constexpr std::string_view mitigation = "binpacking_mitigation";
constexpr std::string_view consolidation = "binpacking_consolidation";

const std::vector<policy_row>& policy_rows() {
  static const std::vector<policy_row> rows{
    load_row("decode_load", decode, decode_load),
    load_row("neutral_load", neutral, neutral_load),
    failover_row("prefill_failover", prefill),
    failover_row("decode_failover", decode),
    failover_row("neutral_failover", neutral),
    {mitigation, healthy(not_reserved_for(prefill), {not_below(tpot_ceil)}),
     healthy(not_reserved_for(prefill), {below(tpot_dispatch)}), move_pairing::mitigation,
     tpot_ceil, the_latest},
    {consolidation,
     healthy(
       not_reserved_for(prefill),
       {not_reserved_for(decode), below(tpot_floor), not_below(any_decodes)}),
     healthy(not_reserved_for(prefill), {below(tpot_dispatch), not_below(any_decodes)}),
     move_pairing::consolidation, tpot_floor, the_latest},
    // Those of the first Llumnix (spec/rescheduling.md 7.3, 9).
    balanced_row("decode_balanced", decode, decode_load, one_as_configured),
    balanced_row("neutral_balanced", neutral, neutral_load, one_as_configured),
    balanced_row("decode_steps", decode, few_steps, one_of_low_priority),
    balanced_row("neutral_steps", neutral, few_steps, one_of_low_priority),
    {"return_decode", healthy(of_role(prefill), {not_below(any_decodes)}),
     healthy(of_role(decode), {below(full_batch)}), move_pairing::defrag, batch_to_fill,
     one_as_configured},
    {"aggregate_prefill",
     healthy(of_role(prefill), {not_below(any_decodes), below(full_batch)}),
     healthy(of_role(prefill), {not_below(any_decodes), below(full_batch)}), move_pairing::halving,
     any_decodes, one_as_configured, healthy(of_role(decode), {below(full_batch)})},
    {"ease_decode", healthy(of_role(decode), {not_below(full_batch)}),
     healthy(of_role(prefill), {below(any_requests)}), move_pairing::defrag, batch_to_fill,
     one_as_configured},
  };
  return rows;
}

const policy_row* find_policy(std::string_view name) {
  auto found = std::ranges::find(policy_rows(), name, &policy_row::name);
  return found == policy_rows().end() ? nullptr : &*found;
}

std::string known_policies() {
  std::string names;
  for (auto& row : policy_rows())
    names.append(names.empty() ? "" : ", ").append(row.name);
  return names;
}

/// Everything wrong with a config, as one error.
class problems {
public:
  void add(std::string_view knob, const std::string& what) {
    text_.append(text_.empty() ? "" : "; ").append(knob).append(": ").append(what);
  }
  void unknown(
    std::string_view knob, std::string_view kind, const std::string& name,
    const std::string& known) {
    add(knob, "unknown " + std::string{kind} + " \"" + name + "\"; known: " + known);
  }
  bool none() const { return text_.empty(); }
  error to_error() && { return {errc::invalid_argument, std::move(text_)}; }

private:
  std::string text_;
};

void check_names(const settings& from, problems& found) {
  auto& moving = from.moving;
  for (auto& name : moving.policies)
    if (!find_policy(name))
      found.unknown("rescheduler.policies", "policy", name, known_policies());
  using knob = std::pair<const char*, const std::string&>;
  for (auto [name, value] :
       {knob{"rescheduler.decode_load_metric", moving.decode_load_metric},
        knob{"rescheduler.prefill_load_metric", moving.prefill_load_metric},
        knob{"rescheduler.neutral_load_metric", moving.neutral_load_metric}})
    if (!find_load_metric(value))
      found.unknown(name, "metric", value, known_load_metrics());
  if (!parse_selection_rule(moving.select_rule))
    found.unknown("rescheduler.select_rule", "rule", moving.select_rule, known_selection_rules());
  if (!parse_selection_order(moving.select_order))
    found.unknown(
      "rescheduler.select_order", "order", moving.select_order, known_selection_orders());
  if (!in_units(from) && moving.load_balance_scope != "cluster")
    found.unknown(
      "rescheduler.load_balance_scope", "scope", moving.load_balance_scope, "cluster, unit");
}

void check_numbers(const settings& from, problems& found) {
  using knob = std::pair<const char*, double>;
  for (auto [name, value] :
       {knob{"rescheduler.decode_load_threshold", from.moving.decode_load_threshold},
        knob{"rescheduler.neutral_load_threshold", from.moving.neutral_load_threshold},
        knob{"rescheduler.load_balance_threshold", from.moving.load_balance_threshold},
        knob{"scheduler.tpot_slo_ms", from.placing.tpot_slo_ms},
        knob{"scheduler.tpot_slo_threshold", from.placing.tpot_slo_threshold},
        knob{"scheduler.tpot_migrate_out_ceil", from.placing.tpot_migrate_out_ceil},
        knob{"scheduler.tpot_migrate_out_floor", from.placing.tpot_migrate_out_floor}})
    if (std::isnan(value))
      found.add(name, "is not a number");
  if (!std::isfinite(from.moving.select_value))
    found.add("rescheduler.select_value", "is not a finite number");
}

void check(const settings& from, problems& found) {
  if (!from.placing.full_mode)
    found.add("scheduler.full_mode", "lite mode (false) knows no loads to move by");
  check_names(from, found);
  check_numbers(from, found);
  if (auto domain = parse_failover_domain(from.placing.failover_domain); !domain)
    found.add("scheduler.failover_domain", domain.error().context);
}

/// Turns rows into policies; the config has been checked.
class composer {
public:
  explicit composer(const settings& from) : from_{from} {}

  void add(const policy_row& row) {
    auto& into = made.policies.emplace_back();
    into.name = row.name;
    into.sources = filters(row.sources);
    into.destinations = filters(row.destinations);
    into.pairing = row.pairing;
    if (row.load)
      into.load = slot(row.load(from_).metric);
    if (row.pairing == move_pairing::balance) {
      into.least_difference = to_float(from_.moving.load_balance_threshold);
      if (in_units(from_))
        into.pairing = move_pairing::balance_in_units;
    }
    if (row.pairing == move_pairing::balanced) {
      if (auto limit = row.load(from_); limit.divides)
        into.destination_limit = limit.threshold;
      if (in_units(from_))
        into.pairing = move_pairing::balanced_in_units;
    }
    into.needless = filters(row.needless_with);
    into.selection = row.selection(from_);
  }

  move_policies made;

private:
  std::vector<filter> filters(const filter_uses& uses) {
    std::vector<filter> all;
    for (auto& use : uses)
      if (!use.metric || use.metric(from_).divides)
        all.push_back(make(use));
    return all;
  }

  filter make(const filter_use& use) {
    auto& placing = from_.placing;
    switch (use.kind) {
      case filter_kind::schedulability: return schedulability_filter{};
      case filter_kind::staleness: return staleness_filter{placing.instance_staleness_s};
      case filter_kind::attribute: return attribute_filter{use.role};
      case filter_kind::infer_type: return role_filter{use.role};
      case filter_kind::failover:
        return failover_filter{*parse_failover_domain(placing.failover_domain)};
      case filter_kind::failover_source:
        return failover_source_filter{
          *parse_failover_domain(placing.failover_domain), placing.instance_staleness_s};
      default: break;
    }
    LLUMNIX_ASSERT(use.metric != nullptr);
    auto limit = use.metric(from_);
    return metric_filter{
      .slot = slot(limit.metric),
      .threshold = limit.threshold,
      .strict = true,
      .inverted = use.kind == filter_kind::not_metric};
  }

  /// The slot of a metric; each has one, however often it is used.
  std::size_t slot(const load_metric* metric) {
    LLUMNIX_ASSERT(metric != nullptr);
    metric_column column{metric, metric->of_decision};
    auto found = std::ranges::find(made.metrics, column);
    if (found == made.metrics.end())
      found = made.metrics.insert(found, column);
    return static_cast<std::size_t>(found - made.metrics.begin());
  }

  const settings& from_;
};

} // namespace

result<move_policies>
make_move_policies(const rescheduler_config& config, const scheduler_config& scheduler) {
  settings from{config, scheduler};
  problems found;
  check(from, found);
  if (!found.none())
    return std::move(found).to_error();
  auto names = config.policies;
  if (scheduler.adaptive_pd)
    for (auto name : {consolidation, mitigation})
      if (std::ranges::find(names, name) == names.end())
        names.emplace_back(name);
  composer compose{from};
  for (auto& name : names)
    compose.add(*find_policy(name));
  return std::move(compose.made);
}

} // namespace llumnix
