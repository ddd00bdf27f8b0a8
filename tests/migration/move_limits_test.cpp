#include "runtime/migration/move_limits.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

/// Instances with 1000 tokens of KV and slots for moves.
struct instances {
  cluster_view view;
  void add(const instance_id& id, std::int32_t out, std::int32_t in, std::int32_t tokens = 1000) {
    instance_metadata metadata;
    metadata.instance_id = id;
    view.put(metadata, {id, 1}, "modeled");
    instance_status status;
    status.instance_id = id;
    status.update_id = 1;
    status.timestamp_ms = 1;
    status.num_total_gpu_tokens = tokens;
    status.num_available_migrate_out_slots = out;
    status.num_available_migrate_in_slots = in;
    view.update(status);
  }
};

planned_move by_load(
  const instance_id& from, const instance_id& to, float from_load, float to_load,
  double tokens = 1024) {
  planned_move move;
  move.from = from;
  move.to = to;
  move.policy = "neutral_load";
  move.metric = "kv_cache_usage_ratio_projected";
  move.from_load = from_load;
  move.to_load = to_load;
  move.selection = {selection_rule::tokens, selection_order::shortest_running, tokens};
  return move;
}

planned_move failover(const instance_id& from, const instance_id& to) {
  planned_move move;
  move.from = from;
  move.to = to;
  move.policy = "neutral_failover";
  move.selection = {selection_rule::requests, selection_order::longest_running, -1};
  return move;
}

} // namespace

TEST_CASE("a move by load takes what makes both sides equal, and nothing where that is little") {
  instances there;
  there.add("a", 4, 4);
  there.add("b", 4, 4);
  there.add("large", 4, 4, 3000);
  struct row {
    planned_move move;
    double tokens; ///< 0: it is left
  };
  for (const auto& [move, tokens] : {
         row{by_load("a", "b", 1.0f, 0.0f), 500}, // 0.5 on both sides
         row{by_load("a", "b", 1.0f, 0.5f), 250},
         row{by_load("a", "large", 1.0f, 0.0f), 750},  // 0.25 on both sides
         row{by_load("a", "b", 1.0f, 0.0f, 300), 300}, // no more than the plan says
         row{by_load("a", "b", 0.5f, 0.375f), 0},      // 62.5 tokens
       }) {
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == (tokens > 0 ? 1 : 0));
    if (tokens > 0)
      CHECK(left.front().selection.value == tokens);
  }
}

TEST_CASE("pairs under way, full instances and unknown ones are left until the next plan") {
  instances there;
  there.add("a", 1, 4);
  there.add("b", 4, 1);
  there.add("c", 4, 0);
  there.add("d", 0, 4);
  auto ordered = [&](std::vector<planned_move> plan, const move_pairs& under_way = {}) {
    std::string text;
    for (const auto& move : moves_to_order(std::move(plan), there.view, under_way))
      text += move.from + ">" + move.to + " ";
    return text;
  };
  CHECK(ordered({failover("a", "b")}) == "a>b ");
  CHECK(ordered({failover("a", "b")}, {{"a", "b"}}) == "");
  CHECK(ordered({failover("b", "a")}, {{"a", "b"}}) == "b>a ");
  CHECK(ordered({failover("b", "c")}) == "");
  CHECK(ordered({failover("d", "b")}) == "");
  CHECK(ordered({failover("a", "b"), failover("a", "d")}) == "a>b "); // a has one slot
  CHECK(ordered({failover("a", "b"), failover("d", "b"), failover("c", "b")}) == "a>b ");
  CHECK(ordered({failover("a", "nobody"), failover("nobody", "a")}) == "");
}
