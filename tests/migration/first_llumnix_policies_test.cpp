#include "runtime/migration/rescheduling_policy.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace llumnix;

namespace {

using lines = std::vector<std::string>;
using requests = std::vector<listed_request>;

constexpr unix_ms noon = 1'700'000'000'000;

/// An instance of 100 blocks of 16 tokens, of which so many are in use.
struct member {
  const char* id;
  const char* role;
  std::int32_t used_blocks = 0;
  std::int32_t running = 0;
  std::optional<requests> listed = {};
  const char* unit = "";
  given_metrics metrics = {};
};

move_plan planned(const char* policy, const std::vector<member>& members, const char* scope) {
  rescheduler_config config;
  config.policies = {policy};
  config.load_balance_scope = scope;
  auto policies = make_move_policies(config, {});
  REQUIRE(policies);
  candidate_table table{policies->metrics};
  std::map<instance_id, instance_view> views;
  for (auto& told : members) {
    auto& view = views[told.id];
    view.metadata.instance_id = told.id;
    view.metadata.instance_type = told.role;
    view.metadata.unit_id = told.unit;
    view.metadata.block_size = 16;
    view.has_status = true;
    view.status.schedulable = true;
    view.status.timestamp_ms = noon;
    view.status.num_total_gpu_tokens = 1600;
    view.status.num_used_gpu_tokens = told.used_blocks * 16;
    view.status.num_running_requests = told.running;
    view.status.scheduler_running_to_decode_requests_num = told.running;
    if (told.listed)
      view.requests = std::make_shared<const request_lists>(
        request_lists{.running = told.listed, .waiting = {}});
    table.put(view, {});
    table.give(told.id, told.metrics);
  }
  return plan_moves(*policies, table, noon, plan_detail::reports);
}

/// "a>b" for a move, "a-b no_gain" for a pair that was left out.
lines outcome(
  const char* policy, const std::vector<member>& members, const char* scope = "cluster") {
  auto plan = planned(policy, members, scope);
  lines text;
  for (auto& move : plan.moves)
    text.push_back(move.from + ">" + move.to);
  for (auto& pair : plan.reports.at(0).left_out)
    text.push_back(pair.from + "-" + pair.to + " " + std::string{to_string(pair.why)});
  return text;
}

member batch(const char* id, const char* role, float decodes) {
  return {.id = id, .role = role, .metrics = {{"decode_batch_size", decodes}}};
}

} // namespace

TEST_CASE("with few steps left an instance gives one request, if both are better off then") {
  struct row {
    const char* what;
    std::vector<member> members;
    lines expected;
  };
  for (auto& [what, members, expected] : std::vector<row>{
         // Free blocks by running requests. a: 4/4 = 1 step, b: 90/1. A mean request has 24 blocks:
         // then 28/3 = 9.3 and 66/2 = 33, and 23.7 is less than 89.
         {"closer", {{"a", "decode", 96, 4}, {"b", "decode", 10, 1}}, {"a>b"}},
         // b: 28/8 = 3.5 steps, with 24 blocks more 4/9.
         {"too full", {{"a", "decode", 96, 4}, {"b", "decode", 72, 8}}, {"a-b fills_destination"}},
         // a: 5/2 = 2.5 steps. Half of 95 blocks is 48: then 53/1 and 52/1, the other way round.
         {"turned round", {{"a", "decode", 95, 2}, {"b", "decode"}}, {"a-b no_gain"}},
         {"3 steps are few, more are not",
          {{"a", "decode", 88, 4}, {"b", "decode", 87, 4}},   // 12/4 = 3 and 13/4
          {"a-b fills_destination"}},
         {"nobody has few", {{"a", "decode", 50, 4}, {"b", "decode", 0, 0}}, {}},
         {"all have few", {{"a", "decode", 97, 4}, {"b", "decode", 96, 4}}, {}},
         {"none may move",
          {{"a", "decode", 95, 2, requests{{.id = "r", .tokens = 800}, {.id = "s", .tokens = 720}}},
           {"b", "decode"}},
          {"a-b no_request"}},
         // Of the normal one (100 tokens, 7 blocks) it is asked, not of the shorter high one.
         // a: 5/2; then 12/1 and 93/1.
         {"priority",
          {{"a",
            "decode",
            95,
            2,
            requests{
              {.id = "hi", .tokens = 16, .output_tokens = 1, .high_priority = true},
              {.id = "lo", .tokens = 100, .output_tokens = 1}}},
           {"b", "decode"}},
          {"a>b"}},
         {"the other role", {{"a", "neutral", 96, 4}, {"b", "neutral", 10, 1}}, {}}}) {
    CAPTURE(what);
    CHECK(outcome("decode_steps", members) == expected);
  }
  CHECK(
    outcome("neutral_steps", {{"a", "neutral", 96, 4}, {"b", "neutral", 10, 1}}) == lines{"a>b"});
}

TEST_CASE("balanced moves by the configured metric stay within units where that is the scope") {
  // Usage 1.0 and 0.2; the mean request has a quarter: then 0.75 and 0.45.
  member full{.id = "a", .role = "decode", .used_blocks = 100, .running = 4, .unit = "u1"};
  member light{.id = "b", .role = "decode", .used_blocks = 20, .running = 1, .unit = "u1"};
  member lighter{.id = "c", .role = "decode", .used_blocks = 10, .running = 1, .unit = "u2"};
  CHECK(outcome("decode_balanced", {full, light, lighter}) == lines{"a>c"});
  // c alone meets itself, and b meets a: one request would turn 0.2 and 1.0 into 0 and 1.2.
  auto plan = planned("decode_balanced", {full, light, lighter}, "unit");
  REQUIRE(plan.moves.size() == 1);
  CHECK(plan.moves[0].to == "b");
  CHECK(plan.moves[0].selection.value == 1);
  CHECK(!plan.moves[0].gathers);
}

TEST_CASE("decodes of prefill instances go back to decode instances with room") {
  // adaptive_decode: 3 -> 125, 100 -> 28; 128 -> 128, 60 -> 68. 129 is busy.
  CHECK(
    outcome(
      "return_decode",
      {batch("d1", "decode", 128), batch("d2", "decode", 129), batch("d3", "decode", 60),
       batch("p1", "prefill", 3), batch("p2", "prefill", 0), batch("p3", "prefill", 100)})
    == lines{"p1>d3", "p3>d1"});
  CHECK(
    outcome("return_decode", {batch("d", "decode", 129), batch("p", "prefill", 3)}) == lines{});
}

TEST_CASE("decodes of prefill instances are put together while no decode instance has room") {
  std::vector<member> prefills{
    batch("a", "prefill", 1), batch("b", "prefill", 2),   batch("c", "prefill", 3),
    batch("d", "prefill", 0), batch("e", "prefill", 129), batch("f", "prefill", 128)};
  CHECK(outcome("aggregate_prefill", prefills) == lines{"a>f", "b>c"});
  for (auto& move : planned("aggregate_prefill", prefills, "cluster").moves)
    CHECK(move.gathers);
  prefills.push_back(batch("x", "decode", 129));
  CHECK(outcome("aggregate_prefill", prefills) == lines{"a>f", "b>c"});
  prefills.push_back(batch("y", "decode", 128));
  CHECK(outcome("aggregate_prefill", prefills) == lines{});
  CHECK(planned("aggregate_prefill", prefills, "cluster").reports.at(0).needless_with == "y");
}

TEST_CASE("busy decode instances give to idle prefill instances") {
  auto idle = batch("p1", "prefill", 0);
  auto works = batch("p2", "prefill", 0);
  works.metrics["num_requests"] = 1;
  CHECK(
    outcome(
      "ease_decode",
      {batch("d1", "decode", 129), batch("d2", "decode", 140), batch("d3", "decode", 128), idle,
       works})
    == lines{"d2>p1"});
}
