#include "runtime/migration/move_limits.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

/// Instances with 1000 tokens of KV and slots for moves.
struct instances {
  cluster_view view;
  void add(
    const instance_id& id, std::int32_t out, std::int32_t in, std::int32_t tokens = 1000,
    const std::string& node = {}) {
    instance_metadata metadata;
    metadata.instance_id = id;
    view.put(metadata, {node.empty() ? id : node, 1}, "modeled");
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

/// "a" and "b", alike and with slots to spare.
instances two_equal() {
  instances there;
  there.add("a", 4, 4);
  there.add("b", 4, 4);
  return there;
}

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

// Mends weakness 4 of spec/rescheduling.md.
TEST_CASE("a move by load takes what makes both sides equal, and nothing where that is little") {
  auto there = two_equal();
  there.add("large", 4, 4, 3000);
  struct row {
    planned_move move;
    double tokens; ///< 0: it is left
    double balance;
  };
  for (const auto& [move, tokens, balance] : {
         row{by_load("a", "b", 1.0f, 0.0f), 500, 500}, // 0.5 on both sides
         row{by_load("a", "b", 1.0f, 0.5f), 250, 250},
         row{by_load("a", "large", 1.0f, 0.0f), 750, 750},  // 0.25 on both sides
         row{by_load("a", "b", 1.0f, 0.0f, 300), 300, 500}, // no more than the plan says
         row{by_load("a", "b", 5.0f, 0.0f), 1024, 2500},    // a long queue
         row{by_load("a", "b", 0.5f, 0.375f), 0, 0},        // 62.5 tokens
       }) {
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == (tokens > 0 ? 1 : 0));
    if (tokens > 0) {
      CHECK(left.front().selection.value == tokens);
      CHECK(left.front().selection.balance == balance);
    }
  }
}

TEST_CASE("by whatever rule it takes, a move by load is left where what balances is little") {
  auto there = two_equal();
  using enum selection_rule;
  struct row {
    selection_rule rule;
    double value;
    float to_load; ///< below 1
    double taken;  ///< 0: it is left
  };
  for (const auto& [rule, value, to_load, taken] :
       {row{kv_ratio, 0.75, 0.0f, 0.5}, row{kv_ratio, 0.25, 0.0f, 0.25},
        row{kv_ratio, 0.75, 0.875f, 0}, // 62.5 tokens
        row{requests, 2, 0.0f, 2}, row{requests, 2, 0.875f, 0}, row{tokens, 32, 0.0f, 0}}) {
    auto move = by_load("a", "b", 1.0f, to_load, value);
    move.selection.rule = rule;
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == (taken > 0 ? 1 : 0));
    if (taken > 0) {
      CHECK(left.front().selection.value == taken);
      CHECK(left.front().selection.balance == 500);
    }
  }
}

TEST_CASE("a move by a metric that counts requests takes at most half of the difference") {
  auto there = two_equal();
  using enum selection_rule;
  struct row {
    const char* metric;
    float from_load, to_load;
    selection_rule rule;
    double value;
    double taken; ///< requests; 0: it is left
    double balance = 0;
  };
  for (const auto& [metric, from_load, to_load, rule, value, taken, balance] : {
         row{"decode_batch_size", 32, 0, requests, 8, 8},
         row{"decode_batch_size", 16, 8, requests, 8, 4},
         row{"decode_batch_size", 16, 9, requests, 8, 3},
         row{"decode_batch_size", 10, 8, requests, 8, 1},
         row{"decode_batch_size", 9, 8, requests, 1, 0}, // it would come back
         row{"num_requests", 9, 1, requests, -1, 4},     // not all
         row{"num_requests", 9, 1, requests, 0, 0},      // as it says
         row{"num_waiting_requests", 6, 0, requests, 8, 3},
         row{"num_requests", 9, 1, tokens, 1024, 4, 1024}, // whichever is spent first
         row{"num_requests", 9, 8, tokens, 1024, 0},
         row{"num_requests", 9, 1, kv_ratio, 0.25, 4, 250},
       }) {
    CAPTURE(metric);
    CAPTURE(value);
    auto move = by_load("a", "b", from_load, to_load, value);
    move.metric = metric;
    move.selection.rule = rule;
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == (taken > 0 || value == 0 ? 1 : 0));
    if (!left.empty())
      CHECK(
        left.front().selection
        == request_selection{requests, selection_order::shortest_running, taken, balance});
  }
}

TEST_CASE("a plan that counts tokens takes few small requests where the metric counts requests") {
  auto there = two_equal();
  request_lists lists;
  lists.running.emplace();
  for (std::int32_t tokens : {600, 500, 20, 30, 40, 50})
    lists.running->push_back({.id = std::to_string(tokens), .tokens = tokens, .output_tokens = 1});
  struct row {
    float from_load; ///< beside none
    double tokens;
    std::vector<std::string> taken;
  };
  for (const auto& [from_load, tokens, taken] : {
         row{6, 1024, {"20", "30", "40"}},
         row{6, 80, {"20", "30"}},
         row{12, 1024, {"20", "30", "40", "50", "500"}},
         row{12, 10, {}},
       }) {
    auto move = by_load("a", "b", from_load, 0, tokens);
    move.metric = "decode_batch_size";
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == 1);
    CHECK(*select_within(left.front().selection, lists, 1000) == taken);
  }
}

TEST_CASE("a move by a metric that counts tokens takes at most half of the difference") {
  auto there = two_equal();
  using enum selection_rule;
  struct row {
    const char* metric;
    float from_load;
    selection_rule rule;
    double value;
    double taken; ///< 0: it is left
  };
  for (const auto& [metric, from_load, rule, value, taken] : {
         row{"all_decodes_tokens_num", 900, tokens, 1024, 400},
         row{"all_decodes_tokens_num", 900, tokens, 300, 300},
         row{"all_decodes_tokens_num", 900, requests, 8, 8},
         row{"all_decodes_tokens_num", 900, kv_ratio, 0.75, 0.4},
         row{"all_prefills_tokens_num", 900, tokens, 1024, 400},
         row{"cache_aware_all_prefills_tokens_num", 900, tokens, 1024, 400},
         row{"miss_waiting_tokens", 900, tokens, 1024, 400},
         row{"all_decodes_tokens_num", 226, tokens, 1024, 0}, // 63 tokens
         row{"all_decodes_tokens_num", 226, requests, 8, 0},
       }) {
    CAPTURE(metric);
    CAPTURE(value);
    auto move = by_load("a", "b", from_load, 100, value);
    move.metric = metric;
    move.selection.rule = rule;
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == (taken > 0 ? 1 : 0));
    if (taken > 0)
      CHECK(
        left.front().selection
        == request_selection{rule, selection_order::shortest_running, taken, 400});
  }
}

TEST_CASE("by other metrics, to gather and without loads a move takes what the plan says") {
  auto there = two_equal();
  auto by_steps = by_load("a", "b", 1, 9);
  by_steps.metric = "remaining_steps";
  auto gathering = by_load("a", "b", 1, 2, 1);
  gathering.gathers = true;
  gathering.metric = "decode_batch_size";
  gathering.selection.rule = selection_rule::requests;
  for (const auto& move : {by_steps, gathering, failover("a", "b")}) {
    auto left = moves_to_order({move}, there.view, {});
    REQUIRE(left.size() == 1);
    CHECK(left.front().selection == move.selection);
  }
}

// Mends weakness 1 of spec/rescheduling.md.
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

TEST_CASE("one order at a time goes from one node to another, whichever instances of theirs") {
  instances there;
  for (auto id : {"a0", "a1", "b0", "b1"})
    there.add(id, 4, 4, 1000, std::string{id[0]});
  auto ordered = [&](std::vector<planned_move> plan, const move_pairs& under_way = {}) {
    std::string text;
    for (const auto& move : moves_to_order(std::move(plan), there.view, under_way))
      text += move.from + ">" + move.to + " ";
    return text;
  };
  CHECK(ordered({failover("a0", "b0"), failover("a1", "b1")}) == "a0>b0 ");
  CHECK(ordered({failover("a1", "b1")}, {{"a0", "b0"}}) == "");
  CHECK(ordered({failover("b1", "a1")}, {{"a0", "b0"}}) == "b1>a1 ");             // the other way
  CHECK(ordered({failover("a0", "a1"), failover("a1", "a0")}) == "a0>a1 a1>a0 "); // no link
  CHECK(ordered({failover("a1", "b1")}, {{"gone", "b0"}}) == "a1>b1 ");
}
