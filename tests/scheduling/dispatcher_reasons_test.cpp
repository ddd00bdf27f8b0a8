#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

dispatcher make(double threshold = 100) {
  scheduler_config config;
  config.neutral_load_threshold = threshold;
  auto made = dispatcher::make(config);
  REQUIRE(made.has_value());
  return std::move(*made);
}

std::string padded(int i) {
  return "i" + std::to_string(1'000 + i);
}

} // namespace

TEST_CASE("a placement explains itself by the numbers that were compared") {
  auto d = make();
  join(d, "a", 120), join(d, "b", 40), join(d, "c", 30), join(d, "d", 10), join(d, "e", 20);
  auto unfit = idle_status("d", noon + 1);
  unfit.schedulable = false;
  d.update(unfit, noon);
  d.set_state("e", instance_state::draining);
  auto [instance, reasons, decode, decode_reasons]
    = d.place(query_for("r", 500, {"c"}), noon, true);
  CHECK(instance == "b");
  CHECK(reasons.policy == "load-balance");
  CHECK(reasons.view_version == d.view().version());
  CHECK(reasons.pass == 1);
  CHECK(reasons.considered == 5);
  using drop = std::tuple<std::string_view, int, int, instance_id, float, float>;
  std::vector<drop> drops;
  for (auto& x : reasons.drops)
    drops.emplace_back(filter_name(x.filter), x.pass, x.count, x.first, x.value, x.threshold);
  CHECK(
    drops
    == std::vector<drop>{
      {"state", 1, 1, "e", 0, 0},
      {"excluded", 1, 1, "c", 0, 0},
      {"schedulability", 1, 1, "d", 0, 0},
      {"metric", 1, 1, "a", 120, 100},
      {"failover", 1, 1, "d", 0, 0}});
  CHECK(metric_name(reasons.drops[3].metric) == "all_prefills_tokens_num");
  CHECK(reasons.ranked_by_count == 1);
  CHECK(metric_name(reasons.ranked_by[0]) == "all_prefills_tokens_num");
  REQUIRE(reasons.ranking.size() == 1);
  CHECK(reasons.ranking[0].instance == "b");
  CHECK(reasons.ranking[0].values[0] == 40);
  CHECK(sentence(reasons, instance) == "b chosen: the only one left of 5 candidates");
}

TEST_CASE("each pass tells whom it dropped, and the sentence why there was another") {
  auto d = make();
  join(d, "a", 120), join(d, "b", 110);
  auto passes_of = [](const placement_reasons& reasons) {
    std::string text;
    for (auto& x : reasons.drops)
      text += std::string{filter_name(x.filter)} + std::to_string(x.pass) + x.first
              + std::to_string(x.count) + " ";
    return text;
  };
  auto overloaded = d.place(query_for("r1", 0), noon, true);
  CHECK(overloaded.instance == "b");
  CHECK(overloaded.reasons.pass == 2);
  CHECK(passes_of(overloaded.reasons) == "metric1a2 ");
  CHECK(
    sentence(overloaded.reasons, overloaded.instance)
    == "b chosen by all_prefills_tokens_num; every healthy candidate is above the load limit");
  auto either = d.place(query_for("r3", 0, {"b"}), noon, true);
  CHECK(
    sentence(either.reasons, either.instance)
    == "a chosen: the only one left of 2 candidates; every healthy candidate is above the load "
       "limit or excluded");
  auto excluded = d.place(query_for("r2", 0, {"a", "b"}), noon, true);
  CHECK(excluded.instance == "b");
  CHECK(excluded.reasons.pass == 3);
  CHECK(passes_of(excluded.reasons) == "excluded1a2 metric1a2 excluded2a2 ");
  CHECK(
    sentence(excluded.reasons, excluded.instance)
    == "b chosen by all_prefills_tokens_num; only excluded candidates are healthy");
}

TEST_CASE("a refusal explains itself too") {
  auto d = make();
  auto nobody = d.place(query_for("r1"), noon, true);
  CHECK(nobody.instance == "");
  CHECK(sentence(nobody.reasons, "") == "no neutral instance is known");
  join(d, "a");
  d.set_state("a", instance_state::stopped);
  auto refused = d.place(query_for("r2"), noon, true);
  CHECK(refused.instance == "");
  CHECK(refused.reasons.ranking.empty());
  REQUIRE(refused.reasons.drops.size() == 2); // in either pass
  CHECK(refused.reasons.drops[1].pass == 2);
  CHECK(refused.reasons.drops[1].filter == filter_kind::state);
  CHECK(
    sentence(refused.reasons, "") == "none of 1 candidates can take work; dropped: 1 by state");
}

TEST_CASE("a refusal's sentence names what rejected candidates in the pass that found nobody") {
  struct row {
    const char* what;
    placement_reasons reasons;
    instance_id chosen;
    const char* said;
  };
  auto ttft = metric_number("predicted_ttft");
  placement_reasons refused;
  refused.policy = "slo";
  refused.considered = 5;
  refused.pass = 2;
  refused.drops
    = {{filter_kind::excluded, 1, 3, "a", 0, 0, 0},
       {filter_kind::schedulability, 2, 2, "a", 0, 0, 0},
       {filter_kind::metric, 2, 3, "b", ttft, 12, 1}};
  placement_reasons nobody;
  nobody.considered = 2;
  placement_reasons elsewhere;
  elsewhere.policy = "remote";
  elsewhere.note = "placed by another scheduler: gateway.scheduler";
  for (auto& [what, reasons, chosen, said] :
       {row{
          "filters of either kind", refused, "",
          "none of 5 candidates can take work; dropped: 2 by schedulability, 3 by predicted_ttft"},
        row{"no filter did it", nobody, "", "none of 2 candidates can take work"},
        row{"no candidates", {}, "", "no instance is known for neutral requests"},
        row{"a note says why not", elsewhere, "", elsewhere.note.c_str()},
        row{"chosen by whoever had candidates", elsewhere, "b", "b chosen by remote"}}) {
    CAPTURE(what);
    CHECK(sentence(reasons, chosen) == said);
  }
}

TEST_CASE("a refusal says who is reserved for another role") {
  placement_reasons reasons;
  reasons.considered = 2;
  reasons.drops = {
    {filter_kind::state, 1, 1, "a", 0, 0, 0},
    {filter_kind::attribute, 1, 1, "b", 0, 0, 0, infer_type::decode}};
  CHECK(
    sentence(reasons, "")
    == "none of 2 candidates can take work; dropped: 1 by state, 1 reserved for decode");
}

TEST_CASE("the sentence says what set the chosen one apart from the best of the others") {
  auto first = metric_number("adapter_miss"), second = metric_number("num_tokens");
  placement_reasons about;
  about.policy = "load-balance";
  about.stage = infer_type::decode;
  about.considered = 5;
  about.ranked_by = {first, second};
  about.ranked_by_count = 2;
  about.ranking = {{"a", {1, 0}}, {"b", {1, 2}}, {"c", {1, 3}}, {"d", {1, 4}}, {"e", {1, 5}}};
  struct row {
    decisive_fact decided;
    const char* said;
  };
  using enum choice_cause;
  for (auto& [decided, said] :
       {row{{policy}, "b chosen by load-balance"},
        row{{session}, "b chosen: it took the last request of the session"},
        row{
          {kept, "a"},
          "b chosen: it was chosen last, and nobody is better by more than scheduler.hysteresis"},
        row{{alone}, "b chosen: the only one left of 5 candidates"},
        row{{metric, "a", first, 0, 1}, "b chosen by adapter_miss"},
        row{
          {metric, "a", second, 0, 2.5},
          "b chosen by num_tokens, 0 against 2.5 of a: equal in adapter_miss"},
        row{
          {metric, "a", metric_number("predicted_ttft"), 7, 8},
          "b chosen by predicted_ttft, 7 against 8 of a: equal in adapter_miss and num_tokens"},
        row{{reserved, "a"}, "b chosen: it is reserved for decode"},
        row{{turn, "a"}, "b chosen: its turn among those equal in adapter_miss and num_tokens"},
        row{
          {lowest_id, "a"},
          "b chosen: the lowest id of those equal in adapter_miss and num_tokens"},
        row{{drawn, "a", 0, 0, 0, 2}, "b chosen: drawn among the best 2: a, b"},
        row{{drawn, "a", 0, 0, 0, 20}, "b chosen: drawn among the best 20: a, b, c, d, e, ..."},
        row{{metric, "a", first, 0, 1, 7}, "b chosen by adapter_miss; b and a were drawn"}}) {
    about.decided = decided;
    CHECK(sentence(about, "b") == said);
  }
}

TEST_CASE("reasons are bounded: drops are counted by filter, and the best four are named") {
  auto d = make();
  for (int i = 0; i < 60; ++i)
    join(d, padded(i), i < 40 ? 200 : 100 - i); // the first 40 above the limit
  auto [instance, reasons, decode, decode_reasons] = d.place(query_for("r"), noon, true);
  CHECK(instance == padded(59));
  CHECK(reasons.considered == 60);
  REQUIRE(reasons.drops.size() == 1);
  CHECK(reasons.drops[0].count == 40);
  CHECK(reasons.drops[0].first == padded(0));
  REQUIRE(reasons.ranking.size() == 4);
  for (int i = 0; i < 4; ++i) {
    CHECK(reasons.ranking[i].instance == padded(59 - i));
    CHECK(reasons.ranking[i].values[0] == 41 + i);
  }
}

TEST_CASE("the winner is named also where it is not among the best four") {
  scheduler_config config;
  config.dispatch_top_k = 20;
  auto d = *dispatcher::make(config);
  for (int i = 0; i < 20; ++i)
    join(d, padded(i), 10 * i);
  bool beyond = false;
  for (int i = 0; i < 40; ++i) {
    auto [instance, reasons, decode, decode_reasons]
      = d.place(query_for("r" + std::to_string(i), 0), noon, true);
    CHECK(std::ranges::count(reasons.ranking, instance, &ranked_candidate::instance) == 1);
    beyond = beyond || reasons.ranking.size() == 5;
  }
  CHECK(beyond);
}

TEST_CASE("reasons are filled only where asked for, and asking changes no choice") {
  auto asked = make(), silent = make();
  for (auto* d : {&asked, &silent})
    for (int i = 0; i < 5; ++i)
      join(*d, padded(i), 20 * i);
  for (int i = 0; i < 20; ++i) {
    auto query = query_for("r" + std::to_string(i), 30);
    auto quiet = silent.place(query, noon, false);
    CHECK(quiet.instance == asked.place(query, noon, true).instance);
    CHECK(quiet.reasons.considered == 0);
    CHECK(quiet.reasons.drops.empty());
    CHECK(quiet.reasons.ranking.empty());
  }
}

namespace {

/// T(tokens) = 10 + tokens / 10 from 0 to 1000; P(batch, each) = 5 + batch from 1 to 3, 8 to 2000.
latency_profile profile() {
  latency_profile made;
  made.ttft = interpolation_table{{{0, 0, 10}, {1000, 0, 110}}};
  made.tpot = interpolation_table{{{1, 8, 6}, {3, 8, 8}, {1, 2000, 6}, {3, 2000, 8}}};
  return made;
}

placement_reasons predicted_of(const std::string& policy, latency_profile by, int decodes = 1) {
  scheduler_config config;
  config.policy = policy;
  auto d = *dispatcher::make(config, std::move(by));
  auto metadata = neutral_instance("a");
  metadata.max_num_batched_tokens = 2048;
  d.put(metadata, life_of("a"));
  auto status = idle_status("a");
  status.num_uncomputed_tokens_all_waiting_prefills = 200;
  status.scheduler_running_to_decode_requests_num = decodes;
  status.scheduler_running_to_decode_tokens_num = 400 * decodes;
  d.update(status, noon);
  return d.place(query_for("r", 100), noon, true).reasons;
}

} // namespace

TEST_CASE("whatever the policy, a placement tells what profiles predict of the one it chose") {
  for (auto policy : {"load-balance", "flood", "round-robin", "cache-aware"}) {
    CAPTURE(policy);
    auto reasons = predicted_of(policy, profile());
    // T(200 + 100) and a decode step of the one request with 400 tokens beside it: 40 + 6
    REQUIRE(reasons.predicted_ttft_ms.has_value());
    CHECK(*reasons.predicted_ttft_ms == 46);
    // one more: L(2, 500) = P(2, 250)
    REQUIRE(reasons.predicted_tpot_ms.has_value());
    CHECK(*reasons.predicted_tpot_ms == 7);
  }
}

TEST_CASE("what profiles do not reach is not told as a prediction") {
  auto none = predicted_of("load-balance", {});
  CHECK_FALSE(none.predicted_ttft_ms.has_value());
  CHECK_FALSE(none.predicted_tpot_ms.has_value());
  auto ttft_alone = profile();
  ttft_alone.tpot = {};
  auto idle = predicted_of("load-balance", ttft_alone, 0);
  CHECK(idle.predicted_ttft_ms == 40.f);
  CHECK_FALSE(idle.predicted_tpot_ms.has_value());
  auto beyond = predicted_of("load-balance", profile(), 3); // three decode; four were never seen
  CHECK(beyond.predicted_ttft_ms == 48.f);
  CHECK_FALSE(beyond.predicted_tpot_ms.has_value());
}

TEST_CASE("apart, a prefill predicts its first token and a decode its tokens") {
  scheduler_config config;
  config.policy = "slo";
  auto d = *dispatcher::make(config, profile());
  for (auto role : {"prefill", "decode"}) {
    auto metadata = neutral_instance(role);
    metadata.instance_type = role;
    metadata.max_num_batched_tokens = 2048;
    d.put(metadata, life_of(role));
    d.update(idle_status(role), noon);
  }
  auto query = query_for("r", 100);
  query.mode = serving_mode::pd_batch;
  auto made = d.schedule(query, nullptr, noon, explain::briefly);
  REQUIRE(made.placed);
  CHECK(made.stages[0].reasons.predicted_ttft_ms == 20.f);
  CHECK_FALSE(made.stages[0].reasons.predicted_tpot_ms.has_value());
  CHECK_FALSE(made.stages[1].reasons.predicted_ttft_ms.has_value());
  CHECK(made.stages[1].reasons.predicted_tpot_ms == 6.f);
  CHECK_FALSE(d.schedule(query, nullptr, noon, explain::nothing)
                .stages[0]
                .reasons.predicted_ttft_ms.has_value());
}
