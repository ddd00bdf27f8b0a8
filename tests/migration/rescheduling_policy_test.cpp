#include "runtime/migration/rescheduling_policy.hpp"
#include "runtime/scheduling/latency_profile.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <map>

using namespace llumnix;

namespace {

using lines = std::vector<std::string>;

constexpr unix_ms noon = 1'700'000'000'000;
constexpr float infinite = std::numeric_limits<float>::infinity();

/// An instance of these tests, healthy and alone unless said otherwise.
struct member {
  const char* id;
  const char* role = "decode";
  given_metrics metrics = {};
  bool schedulable = true;
  const char* unit = "";
  std::int32_t ranks = 1;
  instance_state state = instance_state::ready;
  std::int64_t age_ms = 0;
  bool reported = true;
  std::optional<infer_type> reserved = {};
};

given_metrics used(float ratio) {
  return {{"kv_cache_usage_ratio_projected", ratio}};
}

given_metrics decoding(float tpot, float batch = 1) {
  return {{"predicted_tpot", tpot}, {"decode_batch_size", batch}};
}

/// A cluster and its table.
struct cluster {
  cluster(const move_policies& policies, const std::vector<member>& members)
    : table{policies.metrics} {
    for (auto& told : members) {
      auto& view = views[told.id];
      view.metadata.instance_id = told.id;
      view.metadata.instance_type = told.role;
      view.metadata.unit_id = told.unit;
      view.metadata.data_parallel_size = told.ranks;
      view.has_status = told.reported;
      view.state = told.state;
      view.status.schedulable = told.schedulable;
      view.status.timestamp_ms = noon - told.age_ms;
      table.put(view, {});
      table.give(told.id, told.metrics);
      table.reserve(told.id, told.reserved);
    }
  }
  std::map<instance_id, instance_view> views;
  candidate_table table;
};

move_policies policies_of(lines names, rescheduler_config config = {}) {
  config.policies = std::move(names);
  auto made = make_move_policies(config, {});
  REQUIRE(made);
  return *made;
}

move_plan planned(
  const move_policies& policies, const std::vector<member>& members,
  plan_detail detail = plan_detail::moves) {
  cluster all{policies, members};
  return plan_moves(policies, all.table, noon, detail);
}

/// The moves as people read them: "decode_load a>b".
lines moves(const move_plan& plan) {
  lines text;
  for (auto& move : plan.moves)
    text.push_back(move.policy + " " + move.from + ">" + move.to);
  return text;
}

lines moves(
  const lines& names, const std::vector<member>& members, const rescheduler_config& config = {}) {
  return moves(planned(policies_of(names, config), members));
}

} // namespace

TEST_CASE("load moves from decode instances at the threshold to those below it") {
  struct row {
    const char* what;
    std::vector<member> members;
    lines expected;
  };
  for (auto& [what, members, expected] : std::vector<row>{
         {"nobody", {}, {}},
         {"nobody is overloaded", {{"a", "decode", used(0.9f)}, {"b", "decode", used(0.1f)}}, {}},
         {"at the threshold",
          {{"a", "decode", used(1)}, {"b", "decode", used(0.1f)}},
          {"decode_load a>b"}},
         {"the difference is too small",
          {{"a", "decode", used(1)}, {"b", "decode", used(0.5f)}},
          {}},
         {"heaviest to lightest",
          {{"a", "decode", used(1.75f)},
           {"b", "decode", used(0.25f)},
           {"c", "decode", used(2)},
           {"d", "decode", used(0.75f)}},
          {"decode_load c>b", "decode_load a>d"}},
         {"a pair that is not worth it takes none of the others with it",
          {{"a", "decode", used(3)},
           {"b", "decode", used(0.1f)},
           {"c", "decode", used(1)},
           {"d", "decode", used(0.9f)}},
          {"decode_load a>b"}},
         {"other roles",
          {{"a", "neutral", used(2)}, {"b", "decode", used(0.1f)}, {"c", "prefill", used(2)}},
          {}},
         {"no cache at all",
          {{"a", "decode", used(std::numeric_limits<float>::max())}, {"b", "decode", used(0)}},
          {"decode_load a>b"}},
         {"infinite",
          {{"a", "decode", used(infinite)}, {"b", "decode", used(0)}},
          {"decode_load a>b"}},
         {"unfit ones neither give nor take",
          {{"a", "decode", used(2), false},
           {"b", "decode", used(0.1f)},
           {"c", "decode", used(2)},
           {"d", "decode", used(0), false}},
          {"decode_load c>b"}}}) {
    CAPTURE(what);
    CHECK(moves({"decode_load"}, members) == expected);
  }
}

TEST_CASE("the least difference is exact to the float") {
  rescheduler_config config;
  config.load_balance_threshold = 0.5;
  std::vector<member> members{{"a", "decode", used(1.25f)}, {"b", "decode", used(0.75f)}};
  CHECK(moves({"decode_load"}, members, config) == lines{"decode_load a>b"});
  config.load_balance_threshold = 0.50000006;
  CHECK(moves({"decode_load"}, members, config) == lines{});
}

TEST_CASE("without a threshold everybody gives and takes, and the middle stays") {
  rescheduler_config config;
  config.neutral_load_threshold = 0;
  config.load_balance_threshold = 0;
  std::vector<member> members{
    {"a", "neutral", used(0.5f)},
    {"b", "neutral", used(0.1f)},
    {"c", "neutral", used(0.9f)},
    {"d", "neutral", used(0.3f)},
    {"e", "neutral", used(0.4f)}};
  CHECK(moves({"neutral_load"}, members, config) == lines{"neutral_load c>b", "neutral_load a>d"});
}

TEST_CASE("within units load stays in its unit") {
  rescheduler_config config;
  config.load_balance_scope = "unit";
  config.load_balance_threshold = 0.5;
  auto in = [](const char* id, const char* unit, float load) {
    return member{.id = id, .metrics = used(load), .unit = unit};
  };
  std::vector<member> members{in("a", "u2", 0.9f), in("b", "u2", 0.2f), in("c", "u1", 0.1f),
                              in("d", "u1", 0.8f), in("e", "u3", 0.4f), in("f", "u3", 0.1f),
                              in("g", "", 0.9f),   in("h", "", 0)};
  CHECK(moves({"decode_load"}, members, config) == lines{"decode_load d>c", "decode_load a>b"});
}

TEST_CASE("a metric that is better when higher is compared its own way, but subtracted plainly") {
  rescheduler_config config;
  config.decode_load_metric = "kv_cache_hit_len";
  config.decode_load_threshold = 100;
  config.load_balance_threshold = 0;
  auto hits = [](float tokens) { return given_metrics{{"kv_cache_hit_len", tokens}}; };
  std::vector<member> members{
    {"a", "decode", hits(100)},
    {"b", "decode", hits(101)},
    {"c", "decode", hits(5)},
    {"d", "decode", hits(300)}};
  CHECK(moves({"decode_load"}, members, config) == lines{"decode_load c>d", "decode_load a>b"});
  config.load_balance_threshold = 1; // 5 - 300 is below it
  CHECK(moves({"decode_load"}, members, config) == lines{});
}

TEST_CASE("failover empties the domain of an unfit instance, in turn, within the role") {
  auto policies = policies_of({"prefill_failover", "decode_failover", "neutral_failover"});
  auto in_unit = [](const char* id, const char* role, const char* unit, bool schedulable = true) {
    return member{.id = id, .role = role, .schedulable = schedulable, .unit = unit, .ranks = 2};
  };
  auto plan = planned(
    policies,
    {in_unit("a", "prefill", "u1", false), in_unit("b", "decode", "u1"),
     in_unit("c", "decode", "u1"), in_unit("d", "decode", "u2"), in_unit("e", "prefill", "u2"),
     in_unit("f", "decode", "u3"), in_unit("g", "decode", "u1"), in_unit("h", "neutral", "u1")});
  CHECK(
    moves(plan)
    == lines{
      "prefill_failover a>e", "decode_failover b>d", "decode_failover c>f", "decode_failover g>d"});
  for (auto& move : plan.moves)
    CHECK(
      move.selection
      == request_selection{selection_rule::requests, selection_order::longest_running, -1});
}

TEST_CASE("a stale instance fails over from the first whole second above the limit") {
  for (auto [age_ms, expected] :
       {std::pair{60'999, lines{}}, std::pair{61'000, lines{"decode_failover a>b"}}})
    CHECK(moves({"decode_failover"}, {{.id = "a", .age_ms = age_ms}, {.id = "b"}}) == expected);
}

TEST_CASE("those that are not ready take nothing, and only draining ones give") {
  for (auto state : {instance_state::draining, instance_state::lost, instance_state::stopped}) {
    CAPTURE(to_string(state));
    member heavy{.id = "a", .metrics = used(2), .state = state};
    member light{.id = "b", .metrics = used(0), .state = state};
    bool gives = state == instance_state::draining;
    CHECK(
      moves({"decode_load"}, {heavy, {.id = "c", .metrics = used(0)}})
      == (gives ? lines{"decode_load a>c"} : lines{}));
    CHECK(moves({"decode_load"}, {{.id = "c", .metrics = used(2)}, light}) == lines{});
    CHECK(moves({"decode_failover"}, {{.id = "c", .schedulable = false}, light}) == lines{});
  }
}

// Mends weakness 6 of spec/rescheduling.md.
TEST_CASE("a lost instance cannot be asked to give, but its unit fails over") {
  auto rank = [](const char* id, const char* unit, instance_state state = instance_state::ready) {
    return member{.id = id, .unit = unit, .ranks = 2, .state = state};
  };
  CHECK(
    moves(
      {"decode_failover"},
      {rank("a", "u1", instance_state::lost), rank("b", "u1"), rank("c", "u2")})
    == lines{"decode_failover b>c"});
}

TEST_CASE("an instance that has not reported is left alone") {
  std::vector<member> members{
    {.id = "a", .metrics = used(2)}, {.id = "b", .metrics = used(0), .reported = false}};
  CHECK(moves({"decode_load"}, members) == lines{});
  members[0].reported = false;
  members[1].reported = true;
  CHECK(moves({"decode_load"}, members) == lines{});
}

TEST_CASE("bin-packing relieves the most loaded and empties the least loaded") {
  struct row {
    const char* what;
    std::vector<member> members;
    lines expected;
  };
  auto decoder = [](const char* id, float tpot, std::optional<infer_type> reserved = {}) {
    return member{.id = id, .role = "neutral", .metrics = decoding(tpot), .reserved = reserved};
  };
  auto idle = member{.id = "i", .role = "prefill", .metrics = decoding(0, 0)};
  const std::string mitigation = "binpacking_mitigation ",
                    consolidation = "binpacking_consolidation ";
  for (auto& [what, members, expected] : std::vector<row>{
         {"from the ceiling on",
          {decoder("a", 47.5f), decoder("b", 42), decoder("c", 41)},
          {mitigation + "a>b"}},
         {"below the ceiling", {decoder("a", 47.4f), decoder("b", 42)}, {}},
         {"nobody below the limit of dispatch", {decoder("a", 60), decoder("b", 42.5f)}, {}},
         {"an idle one takes too", {decoder("a", 60), idle}, {mitigation + "a>i"}},
         {"not to the one reserved for prefill",
          {decoder("a", 60), decoder("b", 1, infer_type::prefill)},
          {}},
         {"below the floor", {decoder("a", 30), decoder("b", 35)}, {consolidation + "a>b"}},
         {"at the floor", {decoder("a", 30.000002f), decoder("b", 35)}, {}},
         {"never into an idle one", {decoder("a", 10), idle}, {}},
         {"into the one reserved for decode",
          {decoder("a", 10), decoder("b", 35), decoder("c", 5, infer_type::decode)},
          {consolidation + "a>c"}},
         {"the reserved one is not emptied",
          {decoder("a", 32), decoder("c", 5, infer_type::decode)},
          {}},
         {"both in one cycle, into one instance",
          {decoder("a", 60), decoder("b", 42), decoder("c", 7)},
          {consolidation + "c>b", mitigation + "a>b"}}}) {
    CAPTURE(what);
    CHECK(moves({"binpacking_consolidation", "binpacking_mitigation"}, members) == expected);
  }
}

TEST_CASE("time per output token is predicted for one decode more, and for none where idle") {
  latency_profile profile;
  // Batch 4 with 75 tokens each is what a batch of 3 with 300 tokens is predicted as.
  profile.tpot = interpolation_table{{{4, 75, 47.5}, {1, 75, 3}}};
  auto policies = policies_of({"binpacking_mitigation"});
  candidate_table table{policies.metrics, &profile};
  instance_view busy, idle;
  for (auto* view : {&busy, &idle}) {
    view->has_status = true;
    view->status.schedulable = true;
    view->status.timestamp_ms = noon;
  }
  busy.metadata.instance_id = "a";
  busy.status.scheduler_running_to_decode_requests_num = 3;
  busy.status.scheduler_running_to_decode_tokens_num = 300;
  idle.metadata.instance_id = "b";
  table.put(busy, {});
  table.put(idle, {});
  auto plan = plan_moves(policies, table, noon);
  CHECK(moves(plan) == lines{"binpacking_mitigation a>b"});
  CHECK(plan.moves.at(0).from_load == 47.5f);
  CHECK(plan.moves.at(0).to_load == 0);
}

TEST_CASE("a move back the way another goes is dropped, the same move twice is not") {
  auto heavy = decoding(35, 9), light = decoding(10, 2);
  heavy.merge(used(2));
  light.merge(used(0));
  std::vector<member> members{{"a", "decode", heavy}, {"b", "decode", light}};
  const std::string load = "decode_load", packing = "binpacking_consolidation";
  CHECK(moves({load, packing}, members) == lines{load + " a>b"});
  CHECK(moves({packing, load}, members) == lines{packing + " b>a"});
  CHECK(moves({load, load}, members) == lines{load + " a>b", load + " a>b"});

  auto plan = planned(policies_of({load, packing}), members, plan_detail::reports);
  REQUIRE(plan.reports.at(1).left_out.size() == 1);
  auto& left = plan.reports[1].left_out[0];
  CHECK(left.from == "b");
  CHECK(left.to == "a");
  CHECK(left.why == pair_left_out::cause::reverse_planned);
}

TEST_CASE("a move tells its requests and the loads it was made by") {
  rescheduler_config config;
  config.select_rule = "RATIO";
  config.select_order = "FCWSR";
  config.select_value = 0.25;
  auto plan = planned(
    policies_of({"decode_load"}, config),
    {{"a", "decode", used(1.5f)}, {"b", "decode", used(0.5f)}});
  REQUIRE(plan.moves.size() == 1);
  CHECK(plan.reports.empty());
  auto& move = plan.moves[0];
  CHECK(
    move.selection
    == request_selection{selection_rule::kv_ratio, selection_order::waiting_then_shortest, 0.25});
  CHECK(move.metric == "kv_cache_usage_ratio_projected");
  CHECK(move.from_load == 1.5f);
  CHECK(move.to_load == 0.5f);
}

TEST_CASE("a report tells whom each filter rejected on either side") {
  auto plan = planned(
    policies_of({"decode_load", "prefill_failover"}),
    {{"a", "decode", used(1.5f)},
     {"b", "decode", used(1.25f)},
     {"c", "decode", used(0.75f)},
     {"d", "prefill", used(0.5f), false},
     {.id = "e", .metrics = used(0.25f), .state = instance_state::lost}},
    plan_detail::reports);
  CHECK(moves(plan) == lines{"decode_load a>c"});
  REQUIRE(plan.reports.size() == 2);
  auto& load = plan.reports[0];
  CHECK(load.policy == "decode_load");
  CHECK(load.considered == lines{"a", "b", "c", "d", "e"});
  CHECK(load.sources == lines{"a", "b"});
  CHECK(load.destinations == lines{"c"});
  CHECK(load.left_out.empty()); // b finds no other destination
  lines dropped;
  for (auto& drop : load.dropped) {
    dropped.push_back(
      std::string{to_string(drop.side)} + " " + drop.instance + " "
      + std::string{filter_name(drop.filter)});
    if (drop.metric.empty())
      continue;
    CHECK(drop.metric == "kv_cache_usage_ratio_projected");
    CHECK(drop.threshold == 1);
    CHECK(drop.value == load.candidates.at(std::size_t(drop.instance[0] - 'a')).metrics[0].second);
  }
  CHECK(
    dropped
    == lines{
      "source c not_metric", "source d infer_type", "source d schedulability",
      "source d not_metric", "source d failover", "source e state", "source e not_metric",
      "source e failover", "destination a metric", "destination b metric",
      "destination d infer_type", "destination d schedulability", "destination d failover",
      "destination e state", "destination e failover"});
  CHECK(load.candidates.at(2).metrics.at(0).second == 0.75f);
  auto& failover = plan.reports[1];
  CHECK(failover.sources == lines{"d"});
  CHECK(failover.destinations.empty());
  CHECK(failover.candidates.at(0).metrics.empty());
}

TEST_CASE("a pair whose difference is too small is reported") {
  auto plan = planned(
    policies_of({"decode_load"}), {{"a", "decode", used(1)}, {"b", "decode", used(0.5f)}},
    plan_detail::reports);
  REQUIRE(plan.reports.at(0).left_out.size() == 1);
  CHECK(to_string(plan.reports[0].left_out[0].why) == "small_difference");
}
