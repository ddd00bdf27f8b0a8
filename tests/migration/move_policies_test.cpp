#include "runtime/migration/move_policies.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

using names = std::vector<std::string>;

move_policies made(const rescheduler_config& config, const scheduler_config& scheduler = {}) {
  auto policies = make_move_policies(config, scheduler);
  REQUIRE(policies);
  return *policies;
}

rescheduler_config only(std::string policy) {
  rescheduler_config config;
  config.policies = {std::move(policy)};
  return config;
}

/// The filters of a list as people read them: "infer_type staleness metric(0.5)".
std::string in_words(const std::vector<filter>& filters) {
  std::string text;
  for (auto& which : filters) {
    text.append(text.empty() ? "" : " ").append(filter_name(kind_of(which)));
    if (auto* role = std::get_if<role_filter>(&which))
      text.append("=").append(to_string(role->role));
    if (auto* reserved = std::get_if<attribute_filter>(&which))
      text.append("=").append(to_string(reserved->reserved));
    if (auto* load = std::get_if<metric_filter>(&which))
      text.append("@").append(std::to_string(load->slot));
  }
  return text;
}

float threshold_of(const filter& which) {
  return std::get<metric_filter>(which).threshold;
}

} // namespace

TEST_CASE("policies stand in the order of the config, with bin-packing added for adaptive roles") {
  struct row {
    names configured;
    bool adaptive;
    names expected;
  };
  names usual{
    "decode_load", "neutral_load", "prefill_failover", "decode_failover", "neutral_failover"};
  const auto mitigation = "binpacking_mitigation", consolidation = "binpacking_consolidation";
  for (auto& [configured, adaptive, expected] : std::vector<row>{
         {rescheduler_config{}.policies, false, usual},
         {{}, false, {}},
         {{"neutral_load", "decode_load", "neutral_load"},
          false,
          {"neutral_load", "decode_load", "neutral_load"}},
         {{"decode_load"}, true, {"decode_load", consolidation, mitigation}},
         {{mitigation}, true, {mitigation, consolidation}},
         {{consolidation}, true, {consolidation, mitigation}},
         {{mitigation, consolidation}, true, {mitigation, consolidation}}}) {
    rescheduler_config config;
    config.policies = configured;
    scheduler_config scheduler;
    scheduler.adaptive_pd = adaptive;
    names found;
    for (auto& policy : made(config, scheduler).policies)
      found.push_back(policy.name);
    CHECK(found == expected);
  }
}

TEST_CASE("each policy is the row of the reference's table") {
  struct row {
    const char* policy;
    const char* sources;
    const char* destinations;
    move_pairing pairing;
    request_selection selection;
  };
  constexpr request_selection configured{
    selection_rule::tokens, selection_order::shortest_running, 1024};
  constexpr request_selection all{selection_rule::requests, selection_order::longest_running, -1};
  constexpr request_selection latest{selection_rule::requests, selection_order::latest_running, 1};
  for (auto& [name, sources, destinations, pairing, selection] :
       {row{
          "decode_load", "infer_type=decode schedulability staleness not_metric@0 failover",
          "infer_type=decode schedulability staleness metric@0 failover", move_pairing::balance,
          configured},
        row{
          "neutral_load", "infer_type=neutral schedulability staleness not_metric@0 failover",
          "infer_type=neutral schedulability staleness metric@0 failover", move_pairing::balance,
          configured},
        row{
          "prefill_failover", "infer_type=prefill failover_source",
          "infer_type=prefill schedulability staleness failover", move_pairing::round_robin, all},
        row{
          "decode_failover", "infer_type=decode failover_source",
          "infer_type=decode schedulability staleness failover", move_pairing::round_robin, all},
        row{
          "neutral_failover", "infer_type=neutral failover_source",
          "infer_type=neutral schedulability staleness failover", move_pairing::round_robin, all},
        row{
          "binpacking_mitigation",
          "attribute=prefill schedulability staleness not_metric@0 failover",
          "attribute=prefill schedulability staleness metric@0 failover", move_pairing::mitigation,
          latest},
        row{
          "binpacking_consolidation",
          "attribute=prefill schedulability staleness attribute=decode metric@0 not_metric@1 "
          "failover",
          "attribute=prefill schedulability staleness metric@0 not_metric@1 failover",
          move_pairing::consolidation, latest}}) {
    CAPTURE(name);
    auto policy = made(only(name)).policies.at(0);
    CHECK(in_words(policy.sources) == sources);
    CHECK(in_words(policy.destinations) == destinations);
    CHECK(policy.pairing == pairing);
    CHECK(policy.selection == selection);
  }
}

TEST_CASE("limits are floats, and products of floats") {
  auto packing = made(only("binpacking_mitigation")).policies.at(0);
  CHECK(threshold_of(packing.sources.at(3)) == 47.5f);
  CHECK(threshold_of(packing.destinations.at(3)) == 42.5f);
  packing = made(only("binpacking_consolidation")).policies.at(0);
  CHECK(threshold_of(packing.sources.at(4)) == 30.000002f);
  CHECK(threshold_of(packing.sources.at(5)) == 0.1f);

  auto config = only("decode_load");
  config.decode_load_threshold = 0.7;
  config.load_balance_threshold = 0.3;
  auto load = made(config).policies.at(0);
  CHECK(threshold_of(load.sources.at(3)) == 0.7f);
  CHECK(load.least_difference == 0.3f);
  config.decode_load_threshold = 1e300;
  CHECK(
    threshold_of(made(config).policies.at(0).sources.at(3))
    == std::numeric_limits<float>::infinity());
}

TEST_CASE("load tells no sources from destinations without a threshold or within units") {
  struct row {
    double threshold;
    const char* scope;
    bool divides;
    move_pairing pairing;
  };
  for (auto [threshold, scope, divides, pairing] :
       {row{0.5, "cluster", true, move_pairing::balance},
        row{0, "cluster", false, move_pairing::balance},
        row{-1, "cluster", false, move_pairing::balance},
        row{1e-60, "cluster", false, move_pairing::balance}, // 0 as a float
        row{0.5, "unit", false, move_pairing::balance_in_units}}) {
    CAPTURE(threshold);
    CAPTURE(scope);
    auto config = only("neutral_load");
    config.neutral_load_threshold = threshold;
    config.load_balance_scope = scope;
    auto policy = made(config).policies.at(0);
    CHECK(policy.sources.size() == (divides ? 5 : 4));
    CHECK(policy.destinations.size() == policy.sources.size());
    CHECK(policy.pairing == pairing);
    CHECK(policy.load == 0);
  }
}

TEST_CASE("metrics have a column each, however many policies look at them") {
  scheduler_config scheduler;
  scheduler.adaptive_pd = true;
  auto config = only("decode_load");
  config.policies.push_back("neutral_load");
  config.neutral_load_metric = "decode_batch_size";
  names found;
  for (auto& column : made(config, scheduler).metrics) {
    found.emplace_back(column.metric->name);
    CHECK(column.of_decision == (column.metric->name == "predicted_tpot"));
  }
  CHECK(found == names{"kv_cache_usage_ratio_projected", "decode_batch_size", "predicted_tpot"});
}

TEST_CASE("everything wrong with a config is told at once") {
  rescheduler_config config;
  config.policies = {"decode_load", "", "decode-load"};
  config.decode_load_metric = "kv";
  config.prefill_load_metric = "num_tokens"; // of lite mode
  config.neutral_load_metric = "load";
  config.select_rule = "REQ";
  config.select_order = "sr";
  config.load_balance_scope = "node";
  config.load_balance_threshold = std::numeric_limits<double>::quiet_NaN();
  config.select_value = std::numeric_limits<double>::infinity();
  scheduler_config scheduler;
  scheduler.full_mode = false;
  scheduler.failover_domain = "rack";
  auto policies = make_move_policies(config, scheduler);
  REQUIRE_FALSE(policies);
  CHECK(policies.error().code == errc::invalid_argument);
  auto& text = policies.error().context;
  for (auto* part :
       {"scheduler.full_mode: ", "rescheduler.policies: unknown policy \"\"; known: decode_load, ",
        "rescheduler.policies: unknown policy \"decode-load\"; ",
        "rescheduler.decode_load_metric: unknown metric \"kv\"; known: kv_cache_usage_ratio_pro",
        "rescheduler.prefill_load_metric: unknown metric \"num_tokens\"; ",
        "rescheduler.neutral_load_metric: unknown metric \"load\"; ",
        "rescheduler.select_rule: unknown rule \"REQ\"; known: NUM_REQ, TOKEN, RATIO",
        "rescheduler.select_order: unknown order \"sr\"; known: LCR, FCR, LR, SR, FCW, FCWSR, LPSR",
        "rescheduler.load_balance_scope: unknown scope \"node\"; known: cluster, unit",
        "rescheduler.load_balance_threshold: is not a number",
        "rescheduler.select_value: is not a finite number",
        "scheduler.failover_domain: unknown failover domain \"rack\"; "}) {
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("each policy of the first Llumnix is the row of its table") {
  struct row {
    const char* policy;
    const char* sources;
    const char* destinations;
    const char* needless;
    move_pairing pairing;
    selection_order order;
    std::optional<float> limit;
  };
  using enum selection_order;
  for (auto& [name, sources, destinations, needless, pairing, order, limit] : {
         row{
           "decode_balanced", "infer_type=decode schedulability staleness not_metric@0 failover",
           "infer_type=decode schedulability staleness metric@0 failover", "",
           move_pairing::balanced, longest_running, 1.0f},
         row{
           "neutral_balanced", "infer_type=neutral schedulability staleness not_metric@0 failover",
           "infer_type=neutral schedulability staleness metric@0 failover", "",
           move_pairing::balanced, longest_running, 1.0f},
         row{
           "decode_steps", "infer_type=decode schedulability staleness not_metric@0 failover",
           "infer_type=decode schedulability staleness metric@0 failover", "",
           move_pairing::balanced, low_priority_shortest, 3.0f},
         row{
           "neutral_steps", "infer_type=neutral schedulability staleness not_metric@0 failover",
           "infer_type=neutral schedulability staleness metric@0 failover", "",
           move_pairing::balanced, low_priority_shortest, 3.0f},
         row{
           "return_decode", "infer_type=prefill schedulability staleness not_metric@0 failover",
           "infer_type=decode schedulability staleness metric@0 failover", "",
           move_pairing::defrag, longest_running, {}},
         row{
           "aggregate_prefill",
           "infer_type=prefill schedulability staleness not_metric@0 metric@0 failover",
           "infer_type=prefill schedulability staleness not_metric@0 metric@0 failover",
           "infer_type=decode schedulability staleness metric@0 failover", move_pairing::halving,
           longest_running, {}},
         row{
           "ease_decode", "infer_type=decode schedulability staleness not_metric@0 failover",
           "infer_type=prefill schedulability staleness metric@1 failover", "",
           move_pairing::defrag, longest_running, {}}}) {
    CAPTURE(name);
    auto config = only(name);
    config.select_order = "LR";
    auto policy = made(config).policies.at(0);
    CHECK(in_words(policy.sources) == sources);
    CHECK(in_words(policy.destinations) == destinations);
    CHECK(in_words(policy.needless) == needless);
    CHECK(policy.pairing == pairing);
    CHECK(policy.selection == request_selection{selection_rule::requests, order, 1});
    CHECK(policy.destination_limit == limit);
    CHECK(policy.least_difference == 0);
  }
  auto config = only("decode_balanced");
  config.load_balance_scope = "unit";
  auto policy = made(config).policies.at(0);
  CHECK(policy.pairing == move_pairing::balanced_in_units);
  CHECK(policy.destination_limit == std::nullopt);
}
