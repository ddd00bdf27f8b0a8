#include "runtime/scheduling/policy_registry.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

std::vector<std::string> filters_of(const role_policy& role) {
  std::vector<std::string> names;
  for (auto& which : role.filters)
    names.emplace_back(filter_name(kind_of(which)));
  return names;
}

const role_policy& role_of(const placement_policy& policy, infer_type role) {
  return *policy.roles[static_cast<std::size_t>(role)];
}

scheduler_config with_policy(std::string name) {
  scheduler_config config;
  config.policy = std::move(name);
  return config;
}

} // namespace

TEST_CASE("load-balance filters and selects by each role's own metric") {
  auto config = with_policy("load-balance");
  config.neutral_load_metric = "num_requests";
  config.neutral_load_threshold = 0.7; // not a float: rounded once, before comparing
  config.dispatch_top_k = 4;
  config.seed = 9;
  config.instance_staleness_s = 7;
  config.failover_domain = "node-unit";
  auto made = make_policy(config);
  REQUIRE(made.has_value());
  CHECK(made->name == "load-balance");
  struct row {
    infer_type role;
    const char* metric;
    float threshold;
  };
  for (auto [role, metric, threshold] :
       {row{infer_type::neutral, "num_requests", 0.7f},
        row{infer_type::prefill, "all_prefills_tokens_num", 2048},
        row{infer_type::decode, "kv_cache_usage_ratio_projected", 1}}) {
    CAPTURE(to_string(role));
    auto& rule = role_of(*made, role);
    CHECK(
      filters_of(rule)
      == std::vector<std::string>{
        "state", "excluded", "schedulability", "staleness", "metric", "failover"});
    REQUIRE(rule.metrics.size() == 1);
    CHECK(rule.metrics[0].metric->name == metric);
    CHECK(std::get<staleness_filter>(rule.filters[3]).limit_s == 7);
    CHECK(std::get<metric_filter>(rule.filters[4]).threshold == threshold);
    CHECK(std::get<failover_filter>(rule.filters[5]).domain == failover_domain::node_unit);
    auto& best = std::get<best_metric>(rule.pick);
    CHECK(best.slots == std::vector<std::size_t>{0});
    CHECK(best.top_k == 4);
    CHECK(best.seed == 9);
  }
}

TEST_CASE("flood and round-robin are other rows over the same filters, without load") {
  for (auto [policy, selector] :
       {std::pair{"flood", "fixed-preference"}, std::pair{"round-robin", "round-robin"}}) {
    CAPTURE(policy);
    auto made = make_policy(with_policy(policy));
    REQUIRE(made.has_value());
    for (auto& known : made->roles) {
      auto& rule = *known;
      CHECK(
        filters_of(rule)
        == std::vector<std::string>{
          "state", "excluded", "schedulability", "staleness", "failover"});
      CHECK(rule.metrics.empty());
      CHECK(name_of(rule.pick) == selector);
    }
  }
}

TEST_CASE("in lite mode the rows are others: own checks and own account, no failover") {
  struct row {
    const char* policy;
    const char* selector;
    bool by_load;
  };
  for (auto [policy, selector, by_load] :
       {row{"load-balance", "metric", true}, row{"round-robin", "round-robin", false},
        row{"flood", "fixed-preference", false}}) {
    CAPTURE(policy);
    auto config = with_policy(policy);
    config.full_mode = false;
    config.instance_staleness_s = 7;
    auto made = make_policy(config);
    REQUIRE(made.has_value());
    CHECK(made->name == policy);
    for (auto& known : made->roles) {
      auto& rule = *known;
      std::vector<std::string> filters{"state", "excluded", "schedulability", "staleness"};
      if (by_load)
        filters.push_back("metric");
      CHECK(filters_of(rule) == filters);
      CHECK(std::get<staleness_filter>(rule.filters[3]).limit_s == 7);
      CHECK(name_of(rule.pick) == selector);
      CHECK(rule.metrics.size() == (by_load ? 1 : 0));
      if (auto* best = std::get_if<best_metric>(&rule.pick))
        CHECK(best->ties == tie_rule::in_turn);
    }
  }
}

TEST_CASE("in lite mode load is counted in requests or tokens; other metrics stand for tokens") {
  for (auto [named, used] :
       {std::pair{"num_requests", "num_requests"}, std::pair{"num_tokens", "num_tokens"},
        std::pair{"all_prefills_tokens_num", "num_tokens"},
        std::pair{"kv_cache_usage_ratio_projected", "num_tokens"}}) {
    CAPTURE(named);
    auto config = with_policy("load-balance");
    config.full_mode = false;
    config.neutral_load_metric = named;
    config.neutral_load_threshold = 77;
    auto made = make_policy(config);
    REQUIRE(made.has_value());
    auto& rule = role_of(*made, infer_type::neutral);
    REQUIRE(rule.metrics.size() == 1);
    CHECK(rule.metrics[0].metric->name == used);
    CHECK(rule.metrics[0].metric->mode == scheduling_mode::lite);
    CHECK(std::get<metric_filter>(rule.filters[4]).threshold == 77);
  }
}

TEST_CASE("what one mode lacks is refused with the mode") {
  auto config = with_policy("slo");
  config.full_mode = false;
  config.neutral_load_metric = "load";
  auto made = make_policy(config);
  REQUIRE_FALSE(made.has_value());
  CHECK(
    made.error().context
    == "scheduler.policy: unknown policy \"slo\"; known in lite mode (scheduler.full_mode=false): "
       "load-balance, flood, round-robin, cache-aware; scheduler.neutral_load_metric: unknown "
       "metric "
       "\"load\"; known in lite mode (scheduler.full_mode=false): num_requests, "
       "num_tokens, num_requests_ahead, num_tokens_ahead, cache_aware_num_tokens, adapter_miss");
  config = with_policy("load-balance");
  config.neutral_load_metric = "num_tokens";
  made = make_policy(config);
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().context.starts_with(
    "scheduler.neutral_load_metric: metric \"num_tokens\" wants lite mode "
    "(scheduler.full_mode=false); known: kv_cache_usage_ratio_projected, "));
}

// Mends weakness 16 of spec/scheduling.md.
TEST_CASE("names nothing knows are refused, with those that are known") {
  constexpr auto metrics
    = "known: kv_cache_usage_ratio_projected, decode_batch_size, num_waiting_requests, "
      "all_prefills_tokens_num, kv_cache_hit_len, cache_aware_all_prefills_tokens_num, "
      "num_requests, all_decodes_tokens_num, predicted_ttft, predicted_tpot, hit_tokens, "
      "hit_ratio, miss_tokens, predicted_progress, remaining_steps, remaining_steps_defrag, "
      "kv_blocks_ratio, adaptive_decode, miss_waiting_tokens, freeness";
  constexpr auto policies = "known: load-balance, flood, slo, round-robin, cache-aware";
  struct row {
    void (*spoil)(scheduler_config&);
    std::string expected;
  };
  const row rows[]{
    {[](auto& c) { c.policy = "adaptive-pd"; }, // the name of rows, not of a policy
     std::string{"scheduler.policy: unknown policy \"adaptive-pd\"; "} + policies},
    {[](auto& c) { c.neutral_load_metric = "load"; },
     std::string{"scheduler.neutral_load_metric: unknown metric \"load\"; "} + metrics},
    {[](auto& c) { c.prefill_load_metric = "num_requests "; },
     std::string{"scheduler.prefill_load_metric: unknown metric \"num_requests \"; "} + metrics},
    {[](auto& c) { c.cache_aware = true, c.prefill_cache_locality_metric = "near"; },
     std::string{"scheduler.prefill_cache_locality_metric: unknown metric \"near\"; "} + metrics},
    {[](auto& c) { c.adaptive_pd = true; }, "scheduler.adaptive_pd: wants scheduler.policy=slo"},
    {[](auto& c) { c.decode_load_metric = ""; },
     std::string{"scheduler.decode_load_metric: unknown metric \"\"; "} + metrics},
    {[](auto& c) { c.failover_domain = "rack"; },
     "scheduler.failover_domain: unknown failover domain \"rack\"; known: instance, node, "
     "instance-unit, node-unit"},
    {[](auto& c) { c.dispatch_top_k = 0; }, "scheduler.dispatch_top_k: 0 is below 1"},
    {[](auto& c) { c.power_of_two = true, c.dispatch_top_k = 2; },
     "scheduler.power_of_two: wants scheduler.dispatch_top_k=1"},
    {[](auto& c) { c.power_of_two = true, c.hysteresis = 0.1; },
     "scheduler.hysteresis: wants scheduler.dispatch_top_k=1 and scheduler.power_of_two=false"},
    {[](auto& c) { c.dispatch_top_k = 0, c.policy = "x"; },
     std::string{"scheduler.policy: unknown policy \"x\"; "} + policies
       + "; scheduler.dispatch_top_k: 0 is below 1"},
  };
  for (auto& [spoil, expected] : rows)
    for (auto policy : {"load-balance", "flood"}) { // also where the policy would not use it
      auto config = with_policy(policy);
      spoil(config);
      auto made = make_policy(config);
      REQUIRE_FALSE(made.has_value());
      CHECK(made.error().code == errc::invalid_argument);
      CHECK(made.error().context == expected);
    }
}

TEST_CASE("cache-aware is load-balance with prefixes first, by either name") {
  auto named = with_policy("cache-aware"), switched = with_policy("load-balance");
  switched.cache_aware = true;
  for (auto& config : {named, switched}) {
    CHECK(is_cache_aware(config));
    auto made = make_policy(config);
    REQUIRE(made.has_value());
    for (auto role : {infer_type::neutral, infer_type::prefill}) {
      auto& rule = role_of(*made, role);
      CHECK(rule.metrics[0].metric->name == "all_prefills_tokens_num");
      CHECK(rule.metrics[1].metric->name == "cache_aware_all_prefills_tokens_num");
      CHECK_FALSE(rule.metrics[0].of_decision);
      CHECK(rule.metrics[1].of_decision);
      CHECK(std::get<best_metric>(rule.pick).slots == std::vector<std::size_t>{1, 0});
      CHECK(std::get<metric_filter>(rule.filters[4]).slot == 0); // locality is never filtered on
    }
    CHECK(role_of(*made, infer_type::decode).metrics.size() == 1);
  }
}

TEST_CASE("in lite mode prefixes have a measure of their own") {
  auto named = with_policy("cache-aware"), switched = with_policy("load-balance");
  switched.cache_aware = true;
  for (auto* config : {&named, &switched}) {
    config->full_mode = false;
    CHECK(is_cache_aware(*config));
    auto made = make_policy(*config);
    REQUIRE(made.has_value());
    auto& rule = role_of(*made, infer_type::neutral);
    REQUIRE(rule.metrics.size() == 2);
    CHECK(rule.metrics[0].metric->name == "num_tokens");
    CHECK(rule.metrics[1].metric->name == "cache_aware_num_tokens");
    CHECK(std::get<best_metric>(rule.pick).slots == std::vector<std::size_t>{1, 0});
    CHECK(std::get<best_metric>(rule.pick).ties == tie_rule::in_turn);
  }
}

TEST_CASE("in lite mode LoRAs and priorities are terms of load-balance, where they are wanted") {
  auto config = with_policy("load-balance");
  config.lora_affinity = true;
  config.priority_aware = true;
  auto full = make_policy(config);
  config.full_mode = false;
  auto lite = make_policy(config);
  REQUIRE(full.has_value());
  REQUIRE(lite.has_value());
  auto ranked = [](const placement_policy& policy, infer_type role) {
    std::vector<std::string_view> names;
    auto& rule = role_of(policy, role);
    for (auto slot : std::get<best_metric>(rule.pick).slots)
      names.push_back(rule.metrics[slot].metric->name);
    return names;
  };
  using names = std::vector<std::string_view>;
  CHECK(ranked(*full, infer_type::neutral) == names{"all_prefills_tokens_num"});
  CHECK(ranked(*full, infer_type::decode) == names{"kv_cache_usage_ratio_projected"});
  for (auto role : {infer_type::neutral, infer_type::prefill, infer_type::decode})
    CHECK(ranked(*lite, role) == names{"adapter_miss", "num_tokens_ahead"});
  config.neutral_load_metric = "num_requests";
  CHECK(
    ranked(*make_policy(config), infer_type::neutral)
    == names{"adapter_miss", "num_requests_ahead"});
}

TEST_CASE("slo is strict, and knows no neutral role") {
  auto config = with_policy("slo");
  config.tpot_slo_ms = 50;
  config.tpot_slo_threshold = 0.6;
  auto made = make_policy(config);
  REQUIRE(made.has_value());
  CHECK_FALSE(made->roles[0].has_value());
  auto& limit = std::get<metric_filter>(role_of(*made, infer_type::decode).filters[4]);
  CHECK(limit.strict);
  CHECK(limit.threshold == 30.000002f); // float by float, as the reference multiplies
}
