#include "runtime/scheduling/policy_registry.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <initializer_list>

namespace llumnix {

namespace {

/// A metric and its limit, as config names them.
struct metric_limit {
  std::string name;
  double threshold = 0;
};

/// A parameter of a filter or selector: which metric, taken from config.
using metric_of = metric_limit (*)(const scheduler_config&);

metric_limit neutral_load(const scheduler_config& config) {
  return {config.neutral_load_metric, config.neutral_load_threshold};
}
metric_limit prefill_load(const scheduler_config& config) {
  return {config.prefill_load_metric, config.prefill_load_threshold};
}
metric_limit decode_load(const scheduler_config& config) {
  return {config.decode_load_metric, config.decode_load_threshold};
}

struct filter_use {
  filter_use(const char* name, metric_of metric = nullptr) : name{name}, metric{metric} {}
  std::string_view name;
  metric_of metric; ///< of filter `metric`
};

struct selector_use {
  std::string_view name;
  std::vector<metric_of> metrics;      ///< of selector `metric`: compared in this order
  tie_rule ties = tie_rule::lowest_id; ///< of selector `metric`
};

/// The least load; of equals the one whose turn it is, or idle ones with a high id would starve.
selector_use in_turn(metric_of load) {
  return {"metric", {load}, tie_rule::in_turn};
}

/// One role of a policy in one mode. A new policy is new rows here.
struct policy_row {
  std::string_view policy;
  scheduling_mode mode;
  infer_type role;
  std::vector<filter_use> filters; ///< in order, `failover` after those that find failures
  selector_use pick;
};

using enum infer_type;
using enum scheduling_mode;

scheduling_mode mode_of(const scheduler_config& config) {
  return config.full_mode ? full : lite;
}

const std::vector<policy_row>& policy_rows() {
  static const std::vector<filter_use> healthy{
    "state", "excluded", "schedulability", "staleness", "failover"};
  static const auto healthy_below = [](metric_of load) {
    return std::vector<filter_use>{"state",     "excluded",       "schedulability",
                                   "staleness", {"metric", load}, "failover"};
  };
  // Lite mode knows of no failover domains (spec/scheduling.md 7.2); health is what our own checks
  // of the engines said.
  static const std::vector<filter_use> checked{"state", "excluded", "schedulability", "staleness"};
  static const auto checked_below = [](metric_of load) {
    return std::vector<filter_use>{
      "state", "excluded", "schedulability", "staleness", {"metric", load}};
  };
  static const std::vector<policy_row> rows{
    {"load-balance", full, neutral, healthy_below(neutral_load), {"metric", {neutral_load}}},
    {"load-balance", full, prefill, healthy_below(prefill_load), {"metric", {prefill_load}}},
    {"load-balance", full, decode, healthy_below(decode_load), {"metric", {decode_load}}},
    {"flood", full, neutral, healthy, {"fixed-preference", {}}},
    {"flood", full, prefill, healthy, {"fixed-preference", {}}},
    {"flood", full, decode, healthy, {"fixed-preference", {}}},
    {"round-robin", full, neutral, healthy, {"round-robin", {}}},
    {"round-robin", full, prefill, healthy, {"round-robin", {}}},
    {"round-robin", full, decode, healthy, {"round-robin", {}}},
    {"load-balance", lite, neutral, checked_below(neutral_load), in_turn(neutral_load)},
    {"load-balance", lite, prefill, checked_below(prefill_load), in_turn(prefill_load)},
    {"load-balance", lite, decode, checked_below(decode_load), in_turn(decode_load)},
    {"flood", lite, neutral, checked, {"fixed-preference", {}}},
    {"flood", lite, prefill, checked, {"fixed-preference", {}}},
    {"flood", lite, decode, checked, {"fixed-preference", {}}},
    {"round-robin", lite, neutral, checked, {"round-robin", {}}},
    {"round-robin", lite, prefill, checked, {"round-robin", {}}},
    {"round-robin", lite, decode, checked, {"round-robin", {}}},
  };
  return rows;
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
  std::string names;
  for (auto& row : policy_rows())
    if (row.mode == mode && row.role == neutral)
      names.append(names.empty() ? "" : ", ").append(row.policy);
  return names;
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
  bool known = std::ranges::any_of(policy_rows(), [&](const policy_row& row) {
    return row.policy == config.policy && row.mode == mode;
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
  if (auto domain = parse_failover_domain(config.failover_domain); !domain)
    found.add("scheduler.failover_domain: " + domain.error().context);
  if (config.dispatch_top_k == 0)
    found.add("scheduler.dispatch_top_k: 0 is below 1");
}

/// Turns rows into filters and selectors; `config` has been checked.
class composer {
public:
  explicit composer(const scheduler_config& config) : config_{config} {}

  role_policy compose(const policy_row& row) {
    into_ = {};
    for (auto& use : row.filters)
      into_.filters.push_back(make(use));
    into_.pick = make(row.pick);
    return std::move(into_);
  }

private:
  filter make(const filter_use& use) {
    if (use.name == state_filter::name)
      return state_filter{};
    if (use.name == excluded_filter::name)
      return excluded_filter{};
    if (use.name == schedulability_filter::name)
      return schedulability_filter{};
    if (use.name == staleness_filter::name)
      return staleness_filter{config_.instance_staleness_s};
    if (use.name == metric_filter::name) {
      auto limit = use.metric(config_);
      return metric_filter{slot(limit.name), static_cast<float>(limit.threshold)};
    }
    LLUMNIX_ASSERT(use.name == failover_filter::name);
    return failover_filter{*parse_failover_domain(config_.failover_domain)};
  }

  selector make(const selector_use& use) {
    if (use.name == fixed_preference::name)
      return fixed_preference{};
    if (use.name == next_in_order::name)
      return next_in_order{};
    LLUMNIX_ASSERT(use.name == best_metric::name);
    best_metric best{{}, config_.dispatch_top_k, config_.seed, use.ties};
    for (auto metric : use.metrics)
      best.slots.push_back(slot(metric(config_).name));
    return best;
  }

  /// The slot of a metric; each metric has one, however often it is used. Metrics that lite mode
  /// does not have stand for `num_tokens` there (spec/scheduling.md 1.2).
  std::size_t slot(const std::string& name) {
    auto* metric = find_load_metric(name, mode_of(config_));
    if (!metric && !config_.full_mode)
      metric = find_load_metric("num_tokens", lite);
    LLUMNIX_ASSERT(metric != nullptr);
    auto& metrics = into_.metrics;
    auto found = std::ranges::find(metrics, metric);
    if (found == metrics.end())
      found = metrics.insert(found, metric);
    return static_cast<std::size_t>(found - metrics.begin());
  }

  const scheduler_config& config_;
  role_policy into_;
};

} // namespace

result<placement_policy> make_policy(const scheduler_config& config) {
  problems found;
  check(config, found);
  if (!found.none())
    return std::move(found).to_error();
  placement_policy made{.name = config.policy, .roles = {}};
  composer compose{config};
  for (auto& row : policy_rows())
    if (row.policy == config.policy && row.mode == mode_of(config))
      made.roles[static_cast<std::size_t>(row.role)] = compose.compose(row);
  return made;
}

} // namespace llumnix
