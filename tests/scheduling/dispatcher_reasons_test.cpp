#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

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
  auto [instance, reasons] = d.place(query_for("r", 500, {"c"}), noon, true);
  CHECK(instance == "b");
  CHECK(reasons.policy == "load-balance");
  CHECK(reasons.view_version == d.view().version());
  CHECK_FALSE(reasons.fallback);
  CHECK(reasons.considered == std::vector<instance_id>{"a", "b", "c", "d", "e"});
  CHECK(reasons.considered_total == 5);
  using drop = std::tuple<instance_id, std::uint32_t, std::string, std::string, double, double>;
  std::vector<drop> drops;
  for (auto& x : reasons.dropped)
    drops.emplace_back(x.instance, x.pass, x.filter, x.metric, x.value, x.threshold);
  CHECK(
    drops
    == std::vector<drop>{
      {"a", 1, "metric", "all_prefills_tokens_num", 120, 100},
      {"c", 1, "excluded", "", 0, 0},
      {"d", 1, "schedulability", "", 0, 0},
      {"d", 1, "failover", "", 0, 0},
      {"e", 1, "state", "", 0, 0}});
  CHECK(reasons.dropped_total == 5);
  REQUIRE(reasons.metrics.size() == 1);
  CHECK(reasons.metrics[0].first == "b");
  CHECK(
    reasons.metrics[0].second
    == std::vector<std::pair<std::string, double>>{{"all_prefills_tokens_num", 40}});
  CHECK(reasons.note == "b chosen by metric");
}

TEST_CASE("each pass tells whom it dropped, and the note why there was another") {
  auto d = make();
  join(d, "a", 120), join(d, "b", 110);
  auto passes_of = [](const placement_reasons& reasons) {
    std::string text;
    for (auto& x : reasons.dropped)
      text += x.instance + std::to_string(x.pass) + x.filter + " ";
    return text;
  };
  auto overloaded = d.place(query_for("r1", 0), noon, true);
  CHECK(overloaded.instance == "b");
  CHECK(overloaded.reasons.fallback);
  CHECK(passes_of(overloaded.reasons) == "a1metric b1metric ");
  CHECK(
    overloaded.reasons.note
    == "b chosen by metric; every healthy candidate is above the load limit or excluded");
  auto excluded = d.place(query_for("r2", 0, {"a", "b"}), noon, true);
  CHECK(excluded.instance == "b");
  CHECK(excluded.reasons.fallback);
  CHECK(
    passes_of(excluded.reasons)
    == "a1excluded a1metric b1excluded b1metric a2excluded b2excluded ");
  CHECK(excluded.reasons.note == "b chosen by metric; only excluded candidates are healthy");
}

TEST_CASE("a refusal explains itself too") {
  auto d = make();
  auto nobody = d.place(query_for("r1"), noon, true);
  CHECK(nobody.instance == "");
  CHECK(nobody.reasons.note == "no neutral instance is known");
  join(d, "a");
  d.set_state("a", instance_state::stopped);
  auto refused = d.place(query_for("r2"), noon, true);
  CHECK(refused.instance == "");
  CHECK_FALSE(refused.reasons.fallback);
  CHECK(refused.reasons.metrics.empty());
  REQUIRE(refused.reasons.dropped.size() == 2); // in either pass
  CHECK(refused.reasons.dropped[1].pass == 2);
  CHECK(refused.reasons.dropped[1].filter == "state");
  CHECK(refused.reasons.note == "none of 1 candidates can take work");
}

TEST_CASE("reasons are bounded: 32 candidates and 32 drops are kept and counted on, and the best 8 "
          "are shown") {
  auto d = make();
  for (int i = 0; i < 60; ++i)
    join(d, padded(i), i < 40 ? 200 : 100 - i); // the first 40 above the limit
  auto [instance, reasons] = d.place(query_for("r"), noon, true);
  CHECK(instance == padded(59));
  CHECK(reasons.considered.size() == 32);
  CHECK(reasons.considered_total == 60);
  CHECK(reasons.dropped.size() == 32);
  CHECK(reasons.dropped_total == 40);
  CHECK(reasons.dropped.back().instance == padded(31));
  REQUIRE(reasons.metrics.size() == 8);
  for (int i = 0; i < 8; ++i) {
    CHECK(reasons.metrics[i].first == padded(59 - i));
    CHECK(reasons.metrics[i].second[0].second == 41 + i);
  }
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
    CHECK(quiet.reasons.policy.empty());
    CHECK(quiet.reasons.considered.empty());
    CHECK(quiet.reasons.dropped.empty());
    CHECK(quiet.reasons.metrics.empty());
    CHECK(quiet.reasons.note.empty());
  }
}
