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
  std::vector<metric_of> metrics; ///< of selector `metric`: compared in this order
};

/// One role of a policy. A new policy is new rows here.
struct policy_row {
  std::string_view policy;
  infer_type role;
  std::vector<filter_use> filters; ///< in order, `failover` after those that find failures
  selector_use pick;
};

using enum infer_type;

const std::vector<policy_row>& policy_rows() {
  static const std::vector<filter_use> healthy{
    "state", "excluded", "schedulability", "staleness", "failover"};
  static const auto healthy_below = [](metric_of load) {
    return std::vector<filter_use>{"state",     "excluded",       "schedulability",
                                   "staleness", {"metric", load}, "failover"};
  };
  static const std::vector<policy_row> rows{
    {"load-balance", neutral, healthy_below(neutral_load), {"metric", {neutral_load}}},
    {"load-balance", prefill, healthy_below(prefill_load), {"metric", {prefill_load}}},
    {"load-balance", decode, healthy_below(decode_load), {"metric", {decode_load}}},
    {"flood", neutral, healthy, {"fixed-preference", {}}},
    {"flood", prefill, healthy, {"fixed-preference", {}}},
    {"flood", decode, healthy, {"fixed-preference", {}}},
    {"round-robin", neutral, healthy, {"round-robin", {}}},
    {"round-robin", prefill, healthy, {"round-robin", {}}},
    {"round-robin", decode, healthy, {"round-robin", {}}},
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

void check(const scheduler_config& config, problems& found) {
  std::string known;
  for (auto& row : policy_rows())
    if (row.role == neutral)
      known.append(known.empty() ? "" : ", ").append(row.policy);
  if (std::ranges::find(policy_rows(), config.policy, &policy_row::policy) == policy_rows().end())
    found.add("scheduler.policy: unknown policy \"" + config.policy + "\"; known: " + known);
  auto metric = [&](const char* knob, const std::string& name) {
    if (!find_load_metric(name))
      found.add(
        std::string{"scheduler."} + knob + ": unknown metric \"" + name
        + "\"; known: " + known_load_metrics());
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
    best_metric best{{}, config_.dispatch_top_k, config_.seed};
    for (auto metric : use.metrics)
      best.slots.push_back(slot(metric(config_).name));
    return best;
  }

  /// The slot of a metric; each metric has one, however often it is used.
  std::size_t slot(const std::string& name) {
    auto* metric = find_load_metric(name);
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
    if (row.policy == config.policy)
      made.roles[static_cast<std::size_t>(row.role)] = compose.compose(row);
  return made;
}

} // namespace llumnix
