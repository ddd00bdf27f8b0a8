#include "runtime/scheduling/filters.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

using ids = std::vector<instance_id>;

/// Those a sweep of the filters leaves in a pass.
ids left(
  const candidate_table& table, const std::vector<filter>& filters, std::uint32_t pass = 1,
  const placement_query& query = {}, unix_ms now = noon) {
  screening into;
  screen(filters, table, query, now, into);
  auto taking_part = filters_of_pass(filters, pass);
  ids kept;
  for (std::size_t row = 0; row < table.size(); ++row)
    if ((into.rejected[row] & taking_part) == 0)
      kept.push_back(table.ids()[row]);
  return kept;
}

/// Where an instance of a failover test lives.
struct place {
  const char* id;
  const char* node;
  const char* unit;
  std::int32_t ranks;
  bool healthy;
};

candidate_table located(std::initializer_list<place> places) {
  candidate_table table{{}};
  for (auto& [id, node, unit, ranks, healthy] : places) {
    auto metadata = neutral_instance(id);
    metadata.node_id = node;
    metadata.unit_id = unit;
    metadata.data_parallel_size = ranks;
    auto status = idle_status(id);
    status.schedulable = healthy;
    table.put(seen(metadata, status), {});
  }
  return table;
}

} // namespace

TEST_CASE("only ready instances pass the state filter, in every pass") {
  candidate_table table{{}};
  for (auto state :
       {instance_state::ready, instance_state::draining, instance_state::lost,
        instance_state::stopped}) {
    auto view = seen(neutral_instance(std::string{to_string(state)}), {});
    view.state = state;
    table.put(view, {});
  }
  for (std::uint32_t pass = 1; pass <= last_pass; ++pass)
    CHECK(left(table, {state_filter{}}, pass) == ids{"ready"});
}

TEST_CASE("an unschedulable instance is rejected in every pass, a silent one is not") {
  candidate_table table{{}};
  auto unfit = idle_status("unfit");
  unfit.schedulable = false;
  table.put(seen(neutral_instance("unfit"), unfit), {});
  table.put(seen(neutral_instance("fit"), idle_status("fit")), {});
  instance_view silent;
  silent.metadata = neutral_instance("silent");
  table.put(silent, {});
  for (std::uint32_t pass = 1; pass <= last_pass; ++pass)
    CHECK(left(table, {schedulability_filter{}}, pass) == ids{"fit", "silent"});
}

TEST_CASE("a status is stale from the first whole second above the limit") {
  struct row {
    unix_ms age;
    std::uint32_t limit;
    bool fresh;
  };
  for (auto [age, limit, fresh] :
       {row{0, 60, true}, row{60'000, 60, true}, row{60'999, 60, true}, row{61'000, 60, false},
        row{3'600'000, 60, false}, row{-1, 60, true}, row{-3'600'000, 60, true}, row{999, 0, true},
        row{1'000, 0, false}, row{-999, 0, true}, row{noon, 4'294'967'295u, true}}) {
    CAPTURE(age);
    CAPTURE(limit);
    candidate_table table{{}};
    table.put(seen(neutral_instance("a"), idle_status("a", noon - age)), {});
    for (std::uint32_t pass = 1; pass <= last_pass; ++pass)
      CHECK(left(table, {staleness_filter{limit}}, pass).size() == (fresh ? 1 : 0));
  }
}

TEST_CASE("an instance that has not reported, or ended in order, is not stale") {
  candidate_table table{{}};
  instance_view silent;
  silent.metadata = neutral_instance("silent");
  table.put(silent, {});
  auto ended = seen(neutral_instance("stopped"), idle_status("stopped", 0));
  ended.state = instance_state::stopped;
  table.put(ended, {});
  CHECK(left(table, {staleness_filter{60}}) == ids{"silent", "stopped"});
}

TEST_CASE("the metric filter keeps what is strictly better than its threshold, in pass 1") {
  constexpr load_metric upward{"upward", better::higher, [](const metric_input& x) {
                                 return float(x.instance.status.num_used_gpu_tokens);
                               }};
  auto downward = upward;
  downward.direction = better::lower;
  using row = std::pair<const load_metric*, ids>;
  for (auto& [metric, kept] : {row{&upward, {"high"}}, row{&downward, {"low"}}}) {
    candidate_table table{{{metric}}};
    for (auto [id, used] : {std::pair{"low", 1}, std::pair{"equal", 2}, std::pair{"high", 3}}) {
      auto status = idle_status(id);
      status.num_used_gpu_tokens = used;
      table.put(seen(neutral_instance(id), status), {});
    }
    std::vector<filter> filters{metric_filter{0, 2.0f}};
    CHECK(left(table, filters, 1) == kept);
    CHECK(left(table, filters, 2) == ids{"equal", "high", "low"});
  }
}

TEST_CASE("excluded instances stay out of the first two passes") {
  auto table = located({{"a", "", "a", 1, true}, {"b", "", "b", 1, true}, {"c", "", "c", 1, true}});
  placement_query query{.request_id = "r", .exclude = {"b", "unknown", "b"}};
  CHECK(left(table, {excluded_filter{}}, 1, query) == ids{"a", "c"});
  CHECK(left(table, {excluded_filter{}}, 2, query) == ids{"a", "c"});
  CHECK(left(table, {excluded_filter{}}, 3, query) == ids{"a", "b", "c"});
}

TEST_CASE("a failure takes its failover domain along") {
  const auto plain = {
    place{"a", "n1", "a", 1, false}, place{"b", "n1", "b", 1, true},
    place{"c", "n2", "c", 1, true}};
  const auto parallel = {
    place{"a", "n1", "u1", 2, false}, place{"b", "n1", "u2", 2, true},
    place{"c", "n2", "u1", 2, true}, place{"d", "n2", "u2", 2, true},
    place{"e", "n3", "u3", 2, true}};
  const auto nameless
    = {place{"a", "", "", 2, false}, place{"b", "", "", 2, true}, place{"c", "", "u", 2, true}};
  const auto nameless_plain
    = {place{"a", "", "", 1, false}, place{"b", "", "", 1, true}, place{"c", "n", "", 1, true}};
  const auto named_failure = {
    place{"a", "n1", "", 2, false}, place{"b", "", "u", 2, true}, place{"c", "n1", "u", 2, true},
    place{"d", "", "", 2, true}, place{"e", "", "v", 2, true}};
  const auto two_failures = {
    place{"a", "n1", "a", 1, false}, place{"b", "n1", "b", 1, true},
    place{"c", "n2", "c", 1, false}, place{"d", "n2", "d", 1, true}, place{"e", "", "e", 1, true}};
  using enum failover_domain;
  struct row {
    const char* what;
    std::initializer_list<place> places;
    failover_domain domain;
    ids kept; ///< by the failover filter together with schedulability
  };
  const row rows[]{
    {"instance", plain, instance, {"b", "c"}},
    {"node", plain, node, {"c"}},
    {"unit, no ranks", plain, instance_unit, {"b", "c"}},
    {"node and unit, no ranks", plain, node_unit, {"c"}},
    {"instance, ranks", parallel, instance, {"b", "c", "d", "e"}},
    {"node, ranks", parallel, node, {"c", "d", "e"}},
    {"unit, ranks", parallel, instance_unit, {"b", "d", "e"}},
    {"node and unit, ranks", parallel, node_unit, {"e"}},
    {"no node", nameless, node, {"b", "c"}},
    {"the empty unit is one", nameless, instance_unit, {"c"}},
    {"no node, so no units", nameless, node_unit, {"b", "c"}},
    {"empty units, no ranks", nameless_plain, instance_unit, {"b", "c"}},
    {"no node, no ranks", nameless_plain, node_unit, {"b", "c"}},
    {"units of a node, the empty one too", named_failure, node_unit, {"e"}},
    {"two failures", two_failures, node, {"e"}},
  };
  for (auto& [what, places, domain, kept] : rows) {
    CAPTURE(what);
    auto table = located(places);
    for (std::uint32_t pass = 1; pass <= last_pass; ++pass)
      CHECK(left(table, {schedulability_filter{}, failover_filter{domain}}, pass) == kept);
  }
}

TEST_CASE("in a node domain without node ids not even the failing instance is in the set") {
  auto table = located({{"a", "", "a", 1, false}, {"b", "", "b", 1, true}});
  std::vector<filter> filters{schedulability_filter{}, failover_filter{failover_domain::node}};
  screening into;
  screen(filters, table, {}, noon, into);
  CHECK(into.rejected[0] == 0b01);
  CHECK(into.rejected[1] == 0);
}

TEST_CASE("stale and lost instances need failover; draining and stopped ones do not") {
  struct row {
    instance_state state;
    unix_ms age;
    bool neighbor_kept;
  };
  using enum instance_state;
  for (auto [state, age, kept] :
       {row{ready, 0, true}, row{ready, 61'000, false}, row{lost, 0, false}, row{draining, 0, true},
        row{draining, 61'000, false}, row{stopped, 61'000, true}}) {
    CAPTURE(to_string(state));
    CAPTURE(age);
    auto table = located({{"a", "n", "u", 1, true}, {"b", "n", "u", 1, true}});
    auto metadata = neutral_instance("a");
    metadata.node_id = "n";
    auto view = seen(metadata, idle_status("a", noon - age));
    view.state = state;
    table.put(view, {});
    auto survivors = left(
      table, {state_filter{}, schedulability_filter{}, staleness_filter{60},
              failover_filter{failover_domain::node}});
    CHECK((std::ranges::find(survivors, "b") != survivors.end()) == kept);
  }
}

TEST_CASE("that a drained instance takes nothing says nothing of its neighbours") {
  auto table = located({{"a", "n", "u", 1, true}, {"b", "n", "u", 1, true}});
  auto metadata = neutral_instance("a");
  metadata.node_id = "n";
  auto status = idle_status("a");
  status.schedulable = false; // as its llumlet says while it is emptied
  for (auto [state, kept, sources] :
       {std::tuple{instance_state::draining, ids{"b"}, ids{}},
        std::tuple{instance_state::ready, ids{}, ids{"a", "b"}}}) {
    CAPTURE(to_string(state));
    auto view = seen(metadata, status);
    view.state = state;
    table.put(view, {});
    CHECK(
      left(
        table, {state_filter{}, schedulability_filter{}, staleness_filter{60},
                failover_filter{failover_domain::node}})
      == kept);
    CHECK(left(table, {failover_source_filter{failover_domain::node, 60}}) == sources);
  }
}

TEST_CASE("failover domains follow instances that come, go and move") {
  screening into;
  std::vector<filter> filters{schedulability_filter{}, failover_filter{failover_domain::node}};
  auto table = located({{"b", "n1", "b", 1, true}, {"c", "n1", "c", 1, false}});
  auto kept = [&] {
    screen(filters, table, {}, noon, into);
    ids rest;
    for (std::size_t row = 0; row < table.size(); ++row)
      if (into.rejected[row] == 0)
        rest.push_back(table.ids()[row]);
    return rest;
  };
  auto put = [&](const char* id, const char* node) {
    auto metadata = neutral_instance(id);
    metadata.node_id = node;
    table.put(seen(metadata, idle_status(id)), {});
  };
  CHECK(kept() == ids{});
  put("a", "n2");
  CHECK(kept() == ids{"a"});
  put("b", "n2");
  CHECK(kept() == ids{"a", "b"});
  put("a", "n1");
  CHECK(kept() == ids{"b"});
  table.erase("c");
  CHECK(kept() == ids{"a", "b"});
}

TEST_CASE("an unknown failover domain is refused with the known ones") {
  for (auto name : {"instance", "node", "instance-unit", "node-unit"})
    CHECK(parse_failover_domain(name).has_value());
  auto refused = parse_failover_domain("rack");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::invalid_argument);
  CHECK(
    refused.error().context
    == "unknown failover domain \"rack\"; known: instance, node, instance-unit, node-unit");
}
