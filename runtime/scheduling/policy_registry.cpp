#include "runtime/scheduling/policy_registry.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <initializer_list>

namespace llumnix {

namespace {

/// `load-balance` that looks at prefixes first: the same as `scheduler.cache_aware` with it.
constexpr std::string_view cache_aware = "cache-aware";
constexpr std::string_view load_balance = "load-balance";
/// Policy `slo` with `adaptive_pd`.
constexpr std::string_view adaptive_pd = "adaptive-pd";

constexpr std::size_t sessions_max = 100'000; ///< of each role

/// A metric and its limit, as config names them.
struct metric_limit {
  const load_metric* metric = nullptr; ///< null: there is none by that name
  float threshold = 0;
  time_goal goal = time_goal::none; ///< what `threshold` is a share of
};

/// A parameter of a filter or selector: which metric and limit, taken from config.
using metric_of = metric_limit (*)(const scheduler_config&);

scheduling_mode mode_of(const scheduler_config& config) {
  return config.full_mode ? scheduling_mode::full : scheduling_mode::lite;
}

/// Metrics that lite mode does not have stand for `num_tokens` there (spec/scheduling.md 1.2).
metric_limit limit_of(const scheduler_config& config, const std::string& name, double threshold) {
  auto* metric = find_load_metric(name, mode_of(config));
  if (!metric && !config.full_mode)
    metric = find_load_metric("num_tokens", scheduling_mode::lite);
  return {metric, to_float(threshold)};
}

/// Where priorities count, what goes before a request takes the place of all there is.
metric_limit by_priority(const scheduler_config& config, metric_limit load) {
  if (config.priority_aware && !config.full_mode && load.metric)
    load.metric = find_load_metric(
      load.metric->name == "num_requests" ? "num_requests_ahead" : "num_tokens_ahead",
      scheduling_mode::lite);
  return load;
}

metric_limit neutral_load(const scheduler_config& config) {
  return by_priority(
    config, limit_of(config, config.neutral_load_metric, config.neutral_load_threshold));
}
metric_limit prefill_load(const scheduler_config& config) {
  return by_priority(
    config, limit_of(config, config.prefill_load_metric, config.prefill_load_threshold));
}
metric_limit decode_load(const scheduler_config& config) {
  return by_priority(
    config, limit_of(config, config.decode_load_metric, config.decode_load_threshold));
}

/// Only cache-aware placement looks at locality, and only to rank. Lite mode has a measure of its
/// own.
metric_limit locality(const scheduler_config& config) {
  if (!is_cache_aware(config))
    return {};
  if (!config.full_mode)
    return {find_load_metric("cache_aware_num_tokens", scheduling_mode::lite), 0};
  return limit_of(config, config.prefill_cache_locality_metric, 0);
}

/// Those that have the request's LoRA active come before all others. Only engines behind HTTP tell.
metric_limit adapter(const scheduler_config& config) {
  if (!config.lora_affinity)
    return {};
  return {find_load_metric("adapter_miss", scheduling_mode::lite), 0};
}

time_goals goals_of(const scheduler_config& config) {
  return {
    to_float(config.ttft_slo_ms), to_float(config.tpot_slo_ms), to_float(config.ttft_slo_threshold),
    to_float(config.tpot_slo_threshold)};
}

metric_limit
limit_of(const scheduler_config& config, const load_metric* predicted, time_goal goal) {
  return {predicted, goals_of(config).limit_ms(goal, {}), goal};
}

metric_limit ttft(const scheduler_config& config) {
  return limit_of(config, find_load_metric("predicted_ttft"), time_goal::ttft);
}
metric_limit tpot(const scheduler_config& config) {
  return limit_of(config, find_load_metric("predicted_tpot"), time_goal::tpot);
}
/// A decode must not wait behind prefills for longer than a token may take.
metric_limit backlog(const scheduler_config& config) {
  return limit_of(config, &backlog_ttft(), time_goal::tpot);
}
metric_limit no_decodes(const scheduler_config&) {
  return {find_load_metric("decode_batch_size"), 0.1f};
}

struct filter_use {
  filter_use(filter_kind kind, metric_of metric = nullptr, bool strict = false)
    : kind{kind}, metric{metric}, strict{strict} {}
  filter_use(filter_kind kind, infer_type role) : kind{kind}, role{role} {}
  filter_kind kind;
  metric_of metric = nullptr;            ///< of filter `metric`
  bool strict = false;                   ///< of filter `metric`: no pass does without it
  infer_type role = infer_type::neutral; ///< of filter `attribute`: reserved for it
};
using filter_uses = std::vector<filter_use>;

struct selector_use {
  std::string_view name;
  std::vector<metric_of> metrics = {}; ///< compared in this order; those without a name are left
  tie_rule ties = tie_rule::lowest_id; ///< of selector `metric`
};

/// One role of a policy in one mode. A new policy is new rows here (docs/policies.md).
struct policy_row {
  std::string_view policy;
  scheduling_mode mode;
  infer_type role;
  filter_uses filters; ///< in order, `failover` after those that find failures
  selector_use pick;
};

using enum infer_type;
using enum scheduling_mode;

const filter_use state{filter_kind::state};
const filter_use excluded{filter_kind::excluded};
const filter_use schedulability{filter_kind::schedulability};
const filter_use staleness{filter_kind::staleness};
const filter_use failover{filter_kind::failover};

/// Keeps those below the limit, unless that leaves nobody.
filter_use below(metric_of load) {
  return {filter_kind::metric, load};
}
/// Keeps those below the limit, or nobody.
filter_use strictly_below(metric_of load) {
  return {filter_kind::metric, load, true};
}
filter_use not_reserved_for(infer_type role) {
  return {filter_kind::attribute, role};
}

/// The health filters with others before the failover domains.
filter_uses healthy(const filter_uses& others = {}) {
  filter_uses all{state, excluded, schedulability, staleness};
  all.insert(all.end(), others.begin(), others.end());
  all.push_back(failover);
  return all;
}

/// Lite mode knows of no failover domains (spec/scheduling.md 7.2); health is what our own checks
/// of the engines said.
filter_uses checked(const filter_uses& others = {}) {
  auto all = healthy(others);
  all.pop_back();
  return all;
}

/// The least of each in turn.
selector_use least(std::vector<metric_of> metrics) {
  return {best_metric::name, std::move(metrics)};
}

/// The same; of equals the one whose turn it is, or idle ones with a high id would starve.
selector_use least_in_turn(std::vector<metric_of> metrics) {
  return {best_metric::name, std::move(metrics), tie_rule::in_turn};
}

const std::vector<policy_row>& policy_rows() {
  static const selector_use fixed{fixed_preference::name};
  static const selector_use circle{next_in_order::name};
  static const std::vector<policy_row> rows{
    {"load-balance", full, neutral, healthy({below(neutral_load)}),
     least({locality, neutral_load})},
    {"load-balance", full, prefill, healthy({below(prefill_load)}),
     least({locality, prefill_load})},
    {"load-balance", full, decode, healthy({below(decode_load)}), least({decode_load})},
    {"flood", full, neutral, healthy(), fixed},
    {"flood", full, prefill, healthy(), fixed},
    {"flood", full, decode, healthy(), fixed},
    {"slo", full, prefill, healthy({strictly_below(ttft)}), least({ttft})},
    {"slo", full, decode, healthy({strictly_below(tpot)}), least({tpot})},
    {adaptive_pd,
     full,
     prefill,
     healthy({not_reserved_for(decode), below(ttft), strictly_below(no_decodes)}),
     {slo_prefill::name, {ttft}}},
    {adaptive_pd,
     full,
     decode,
     healthy({not_reserved_for(prefill), below(backlog), below(tpot)}),
     {slo_decode::name, {tpot, backlog}}},
    {"round-robin", full, neutral, healthy(), circle},
    {"round-robin", full, prefill, healthy(), circle},
    {"round-robin", full, decode, healthy(), circle},
    {"load-balance", lite, neutral, checked({below(neutral_load)}),
     least_in_turn({adapter, locality, neutral_load})},
    {"load-balance", lite, prefill, checked({below(prefill_load)}),
     least_in_turn({adapter, locality, prefill_load})},
    {"load-balance", lite, decode, checked({below(decode_load)}),
     least_in_turn({adapter, decode_load})},
    {"flood", lite, neutral, checked(), fixed},
    {"flood", lite, prefill, checked(), fixed},
    {"flood", lite, decode, checked(), fixed},
    {"round-robin", lite, neutral, checked(), circle},
    {"round-robin", lite, prefill, checked(), circle},
    {"round-robin", lite, decode, checked(), circle},
  };
  return rows;
}

/// The rows that a config asks for stand under this name.
std::string_view rows_of(const scheduler_config& config) {
  if (config.policy == cache_aware)
    return load_balance;
  bool adaptive = config.adaptive_pd && config.policy == "slo" && config.full_mode;
  return adaptive ? adaptive_pd : std::string_view{config.policy};
}

/// Everything wrong with a config, as one error.
class problems {
public:
  void add(std::string what) { text_.append(text_.empty() ? "" : "; ").append(what); }
  bool none() const { return text_.empty(); }
  error to_error() && { return {errc::invalid_argument, std::move(text_)}; }

private:
  std::string text_;
};

/// The policies of a mode, for messages: "a, b, c".
std::string known_policies(scheduling_mode mode) {
  std::vector<std::string_view> known;
  for (auto& row : policy_rows())
    if (row.mode == mode && row.policy != adaptive_pd && !std::ranges::count(known, row.policy))
      known.push_back(row.policy);
  std::string names;
  for (auto name : known)
    names.append(name).append(", ");
  return names.append(cache_aware);
}

std::string in_lite_mode(scheduling_mode mode) {
  return mode == lite ? " in lite mode (scheduler.full_mode=false)" : "";
}

/// What is wrong with the name of a metric; empty if nothing is. Those of full mode may be named in
/// lite mode too.
std::string wrong_metric(const std::string& name, scheduling_mode mode) {
  if (find_load_metric(name, mode) || (mode == lite && find_load_metric(name, full)))
    return {};
  if (find_load_metric(name, lite))
    return "metric \"" + name
           + "\" wants lite mode (scheduler.full_mode=false); known: " + known_load_metrics(mode);
  return "unknown metric \"" + name + "\"; known" + in_lite_mode(mode) + ": "
         + known_load_metrics(mode);
}

void check(const scheduler_config& config, problems& found) {
  auto mode = mode_of(config);
  bool known = config.policy != adaptive_pd
               && std::ranges::any_of(policy_rows(), [&](const policy_row& row) {
                    return row.policy == rows_of(config) && row.mode == mode;
                  });
  if (!known)
    found.add(
      "scheduler.policy: unknown policy \"" + config.policy + "\"; known" + in_lite_mode(mode)
      + ": " + known_policies(mode));
  auto metric = [&](const char* knob, const std::string& name) {
    if (auto wrong = wrong_metric(name, mode); !wrong.empty())
      found.add(std::string{"scheduler."} + knob + ": " + wrong);
  };
  metric("neutral_load_metric", config.neutral_load_metric);
  metric("prefill_load_metric", config.prefill_load_metric);
  metric("decode_load_metric", config.decode_load_metric);
  if (is_cache_aware(config) && config.full_mode)
    metric("prefill_cache_locality_metric", config.prefill_cache_locality_metric);
  if (config.adaptive_pd && config.policy != "slo")
    found.add("scheduler.adaptive_pd: wants scheduler.policy=slo");
  if (auto domain = parse_failover_domain(config.failover_domain); !domain)
    found.add("scheduler.failover_domain: " + domain.error().context);
  if (config.dispatch_top_k == 0)
    found.add("scheduler.dispatch_top_k: 0 is below 1");
  if (config.power_of_two && config.dispatch_top_k > 1)
    found.add("scheduler.power_of_two: wants scheduler.dispatch_top_k=1");
  if (config.hysteresis > 0 && (config.power_of_two || config.dispatch_top_k > 1))
    found.add(
      "scheduler.hysteresis: wants scheduler.dispatch_top_k=1 and scheduler.power_of_two=false");
}

/// Turns rows into filters and selectors; `config` has been checked.
class composer {
public:
  explicit composer(const scheduler_config& config) : config_{config} {}

  role_policy compose(const policy_row& row) {
    into_ = {};
    into_.any_role = row.policy == adaptive_pd;
    progress_ = config_.predict_progress && config_.full_mode && row.role == prefill;
    for (auto& use : row.filters)
      into_.filters.push_back(make(use));
    into_.pick = make(row.pick);
    into_.sessions_max = config_.session_affinity ? sessions_max : 0;
    return std::move(into_);
  }

private:
  filter make(const filter_use& use) {
    switch (use.kind) {
      case filter_kind::state: return state_filter{};
      case filter_kind::excluded: return excluded_filter{};
      case filter_kind::schedulability: return schedulability_filter{};
      case filter_kind::staleness: return staleness_filter{config_.instance_staleness_s};
      case filter_kind::attribute: return attribute_filter{use.role};
      case filter_kind::failover:
        return failover_filter{*parse_failover_domain(config_.failover_domain)};
      default: break;
    }
    LLUMNIX_ASSERT(use.kind == filter_kind::metric);
    auto limit = use.metric(config_);
    if (limit.goal != time_goal::none)
      into_.goals = goals_of(config_);
    return metric_filter{
      .slot = slot(limit), .threshold = limit.threshold, .strict = use.strict, .goal = limit.goal};
  }

  selector make(const selector_use& use) {
    std::vector<std::size_t> slots;
    for (auto metric : use.metrics)
      if (auto limit = metric(config_); limit.metric)
        slots.push_back(slot(limit));
    if (use.name == fixed_preference::name)
      return fixed_preference{};
    if (use.name == next_in_order::name)
      return next_in_order{};
    if (use.name == slo_prefill::name)
      return slo_prefill{slots.at(0)};
    if (use.name == slo_decode::name)
      return slo_decode{slots.at(0), slots.at(1), tpot(config_).threshold};
    LLUMNIX_ASSERT(use.name == best_metric::name && !slots.empty());
    return best_metric{
      .slots = std::move(slots),
      .top_k = config_.dispatch_top_k,
      .seed = config_.seed,
      .ties = use.ties,
      .power_of_two = config_.power_of_two,
      .hysteresis = to_float(config_.hysteresis)};
  }

  /// The slot of a metric; each metric has one, however often it is used.
  std::size_t slot(const metric_limit& use) {
    LLUMNIX_ASSERT(use.metric != nullptr);
    metric_column column{use.metric, use.metric->of_decision || progress_};
    auto& metrics = into_.metrics;
    auto found = std::ranges::find(metrics, column);
    if (found == metrics.end())
      found = metrics.insert(found, column);
    return static_cast<std::size_t>(found - metrics.begin());
  }

  const scheduler_config& config_;
  role_policy into_;
  bool progress_ = false; ///< values depend on the time: work is done meanwhile
};

} // namespace

/// The product of two floats, as the reference compares: 50 x 0.60 is 30.000002.
float time_goals::limit_ms(time_goal goal, const placement_wishes& wishes) const {
  LLUMNIX_ASSERT(goal != time_goal::none);
  return goal == time_goal::ttft ? wishes.ttft_slo_ms.value_or(ttft_ms) * ttft_share
                                 : wishes.tpot_slo_ms.value_or(tpot_ms) * tpot_share;
}

result<placement_policy> make_policy(const scheduler_config& config) {
  problems found;
  check(config, found);
  if (!found.none())
    return std::move(found).to_error();
  placement_policy made{.name = config.policy, .roles = {}};
  composer compose{config};
  for (auto& row : policy_rows())
    if (row.policy == rows_of(config) && row.mode == mode_of(config))
      made.roles[static_cast<std::size_t>(row.role)] = compose.compose(row);
  return made;
}

} // namespace llumnix
