#include "apps/reference/scheduler_rules.hpp"

#include "config/near_name.hpp"
#include "config/notation.hpp"

#include <limits>

namespace llumnix {

namespace {

using names = std::span<const std::string_view>;

constexpr std::string_view usage = "kv_cache_usage_ratio_projected";
constexpr std::string_view prefills = "all_prefills_tokens_num";
constexpr std::string_view tokens = "num_tokens";

constexpr std::string_view lite_policies[] = {"load-balance"};
constexpr std::string_view full_policies[] = {"load-balance", "flood", "slo"};
constexpr std::string_view lite_dispatch_metrics[] = {"num_requests", tokens};
constexpr std::string_view full_dispatch_metrics[] = {
  usage, "decode_batch_size", "num_waiting_requests", prefills, "kv_cache_hit_len",
  "cache_aware_all_prefills_tokens_num", "num_requests", "all_decodes_tokens_num",
  // Names that the reference does not have, and so takes for mistakes:
  "hit_tokens", "hit_ratio", "miss_tokens", "predicted_progress", "remaining_steps",
  "remaining_steps_defrag", "kv_blocks_ratio", "adaptive_decode", "miss_waiting_tokens",
  "freeness"};
/// spec/scheduling.md 5, what an instance carries into a request, and spec/rescheduling.md 7.
constexpr std::string_view metrics[] = {
  usage,
  "decode_batch_size",
  "num_waiting_requests",
  prefills,
  "kv_cache_hit_len",
  "cache_aware_all_prefills_tokens_num",
  "num_requests",
  tokens,
  "all_decodes_tokens_num",
  "predicted_ttft",
  "predicted_tpot",
  "hit_tokens",
  "hit_ratio",
  "miss_tokens",
  "predicted_progress",
  "remaining_steps",
  "remaining_steps_defrag",
  "kv_blocks_ratio",
  "adaptive_decode",
  "miss_waiting_tokens",
  "freeness"};
constexpr std::string_view kv_backends[] = {"mooncake", "v6d"};
constexpr std::string_view hash_algorithms[] = {"sha256_cbor", "sha256_hex", "xxhash"};
constexpr std::string_view failover_domains[] = {"instance", "node", "instance-unit", "node-unit"};
constexpr std::string_view engine_sources[] = {"redis", "etcd", "endpoints"};
constexpr std::string_view moving_policies[]
  = {"decode_load",      "neutral_load",          "prefill_failover",        "decode_failover",
     "neutral_failover", "binpacking_mitigation", "binpacking_consolidation"};
constexpr std::string_view select_rules[] = {"NUM_REQ", "TOKEN", "RATIO"};
constexpr std::string_view select_orders[] = {"LCR", "FCR", "LR", "SR", "FCW", "FCWSR"};
constexpr std::string_view scopes[] = {"cluster", "unit"};

/// A flag whose value has to be one of a few.
struct choice {
  std::string_view flag;
  names known;
};
constexpr choice choices[] = {
  {"llm-backend-discovery", engine_sources},
  {"dispatch-prefill-cache-locality-metric", metrics},
  {"kvs-backend", kv_backends},
  {"kvs-hash-algo", hash_algorithms},
  {"failover-domain", failover_domains},
  {"rescheduling-decode-load-metric", metrics},
  {"rescheduling-prefill-load-metric", metrics},
  {"rescheduling-neutral-load-metric", metrics},
  {"rescheduling-req-select-rule", select_rules}, // each migration by another would fail
  {"rescheduling-load-balance-scope", scopes},
};

/// A flag that is good between two bounds only.
struct range {
  std::string_view flag;
  std::int64_t least, most;
};
constexpr std::int64_t any_count = std::numeric_limits<std::uint32_t>::max();
constexpr range ranges[] = {
  {"port", 0, 65535},
  {"discovery-redis-port", 0, 65535},
  {"cms-redis-port", 0, 65535},
  {"kvs-metadata-service-http-server-port", 0, 65535},
  {"dispatch-top-k", 1, any_count}, // with less the reference breaks at each request
  {"instance-staleness-seconds", 0, any_count},
  {"request-local-account-staleness-seconds", 0, any_count},
};

/// What cannot be had in lite mode.
constexpr std::string_view full_mode_only[] = {
  "enable-cache-aware-scheduling", "enable-predictor-enhanced-scheduling", "enable-adaptive-pd",
  "enable-rescheduling", "enable-instance-status-local-account"};

/// Load metrics of dispatch, and what takes the place of one that does not do.
struct dispatch_metric {
  std::string_view flag, instead;
};
constexpr dispatch_metric dispatch_metrics[] = {
  {"dispatch-neutral-load-metric", usage},
  {"dispatch-prefill-load-metric", prefills},
  {"dispatch-decode-load-metric", usage}};

bool is_one_of(std::string_view value, names known) {
  return std::ranges::find(known, value) != known.end();
}

/// "flod is none of load-balance, flood, slo; did you mean flood?"
std::string none_of(std::string_view value, names known) {
  auto message = shown_value(value) + " is none of ";
  for (auto each : known)
    message += (each == known.front() ? "" : ", ") + std::string{each};
  constexpr std::size_t name_size_max = 64; // to look for a name near a long text takes its time
  auto near = value.size() <= name_size_max ? nearest_name(value, known) : std::string_view{};
  if (!near.empty())
    message += "; did you mean " + std::string{near} + "?";
  return message;
}

/// ", and num_request is no metric; did you mean num_requests?"
std::string no_metric(std::string_view value) {
  constexpr std::size_t name_size_max = 64;
  auto near = value.size() <= name_size_max ? nearest_name(value, metrics) : std::string_view{};
  return ", because there is no metric of that name"
         + (near.empty() ? std::string{} : "; did you mean " + std::string{near} + "?");
}

/// One pass over the rules.
class rules {
public:
  explicit rules(scheduler_flags_read& flags) : flags_{flags}, values_{flags.values} {}

  void apply() {
    choose_policy();
    if (!full_mode_)
      drop_what_lite_mode_lacks();
    if (values_.toggle("enable-adaptive-pd") && values_.text("scheduling-policy") != "slo")
      warn( // the reference starts, too, and its plans look at the flag whatever the policy
        "enable-adaptive-pd",
        "wants --scheduling-policy=slo; without it placement passes over it, and only plans of "
        "--rescheduling-policies pack instances");
    for (const auto& each : dispatch_metrics)
      coerce_metric(each);
    if (values_.text("kvs-backend") == "v6d" && values_.text("kvs-hash-algo") != "xxhash")
      replace("kvs-hash-algo", std::string{"xxhash"}, "is what a v6d store has");
    for (const auto& each : choices)
      if (const auto& value = values_.text(each.flag); !is_one_of(value, each.known))
        wrong(each.flag, none_of(value, each.known));
    check_moving_policies();
    for (const auto& each : ranges)
      check_range(each);
    if (const auto& order = values_.text("rescheduling-req-select-order");
        !is_one_of(order, select_orders))
      warn(
        "rescheduling-req-select-order",
        shown_value(order) + " is none of LCR, FCR, LR, SR, FCW, FCWSR: engines take it as FCR");
  }

private:
  void wrong(std::string_view flag, std::string message) {
    flags_.problems.push_back({std::string{flag}, std::move(message)});
  }
  void warn(std::string_view flag, std::string_view message) {
    flags_.warnings.push_back(dashed(flag) + ": " + std::string{message});
  }
  void replace(std::string_view flag, flag_value value, std::string_view why) {
    auto text = to_text(value);
    if (values_.text(flag) != find_flag(scheduler_flags(), flag)->preset)
      warn(
        flag, shown_value(values_.text(flag)) + " becomes " + text + ", which " + std::string{why});
    values_.set(flag, std::move(value));
  }

  void choose_policy() {
    const auto& policy = values_.text("scheduling-policy");
    names known = full_mode_ ? names{full_policies} : names{lite_policies};
    if (is_one_of(policy, known))
      return;
    auto message = none_of(policy, known);
    if (!full_mode_ && is_one_of(policy, full_policies))
      message = policy + " wants --enable-full-mode-scheduling; without it there is load-balance";
    wrong("scheduling-policy", message);
  }

  void drop_what_lite_mode_lacks() {
    for (auto flag : full_mode_only) {
      bool preset = find_flag(scheduler_flags(), flag)->preset == "true";
      if (values_.toggle(flag) && !preset)
        warn(flag, "is turned off: there is none in lite mode");
      values_.set(flag, false);
    }
  }

  void coerce_metric(const dispatch_metric& which) {
    names known = full_mode_ ? names{full_dispatch_metrics} : names{lite_dispatch_metrics};
    const auto& name = values_.text(which.flag);
    if (is_one_of(name, known))
      return;
    auto why = (full_mode_ ? "the scheduler can place by" : "lite mode can place by")
               + (is_one_of(name, metrics) || name.empty() ? std::string{} : no_metric(name));
    replace(which.flag, std::string{full_mode_ ? which.instead : tokens}, why);
  }

  void check_moving_policies() {
    constexpr std::ptrdiff_t most = 64; // each costs a look at every instance
    constexpr auto flag = "rescheduling-policies";
    const auto& list = values_.text(flag);
    if (std::ranges::count(list, ',') >= most)
      return wrong(flag, "are more than " + std::to_string(most));
    for (const auto& name : split_list(list))
      if (!is_one_of(name, moving_policies))
        return wrong(flag, none_of(name, moving_policies));
  }

  void check_range(const range& bounds) {
    auto value = values_.whole(bounds.flag);
    if (value < bounds.least)
      wrong(bounds.flag, std::to_string(value) + " is below " + std::to_string(bounds.least));
    else if (value > bounds.most)
      wrong(bounds.flag, std::to_string(value) + " is above " + std::to_string(bounds.most));
  }

  scheduler_flags_read& flags_;
  scheduler_flag_values& values_;
  bool full_mode_ = values_.toggle("enable-full-mode-scheduling");
};

} // namespace

void apply_scheduler_rules(scheduler_flags_read& flags) {
  rules{flags}.apply();
}

std::vector<std::string> split_list(std::string_view list) {
  std::vector<std::string> items;
  for (std::size_t begin = 0; begin <= list.size();) {
    auto end = std::min(list.find(',', begin), list.size());
    items.emplace_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return items;
}

} // namespace llumnix
