#include "runtime/migration/request_selection.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

using enum selection_rule;
using enum selection_order;
using ids = std::vector<std::string>;

/// Four that run, in order of arrival, and three that wait. r4 has no output yet, r3 and w2 are on
/// their way.
const request_lists full_house{
  .running
  = {{{.id = "r1", .tokens = 300, .output_tokens = 10}, {.id = "r2", .tokens = 100, .output_tokens = 5}, {.id = "r3", .tokens = 50, .output_tokens = 5, .migrating = true}, {.id = "r4", .tokens = 20, .output_tokens = 0}, {.id = "r5", .tokens = 300, .output_tokens = 1}, {.id = "r6", .tokens = 200, .output_tokens = 2}}},
  .waiting = {
    {{.id = "w1", .tokens = 80},
     {.id = "w2", .tokens = 10, .migrating = true},
     {.id = "w3", .tokens = 120, .output_tokens = 20}}}};

ids chosen(const request_selection& wanted, const request_lists& lists = full_house) {
  return *select_requests(wanted, lists, 1000);
}

/// What goes really.
ids going(const request_selection& wanted, const request_lists& lists = full_house) {
  return *select_within(wanted, lists, 1000);
}

/// Requests of so many tokens that run: "a", "b", ...
request_lists running(const std::vector<std::int32_t>& tokens) {
  request_lists lists;
  auto& all = lists.running.emplace();
  for (auto each : tokens)
    all.push_back(
      {.id = std::string(1, static_cast<char>('a' + all.size())), .tokens = each,
       .output_tokens = 1});
  return lists;
}

} // namespace

TEST_CASE("a number of requests is taken in the order asked for") {
  struct row {
    selection_order order;
    double value;
    ids expected;
  };
  for (auto& [order, value, expected] : std::vector<row>{
         {latest_running, 3, {"r6", "r5", "r2"}},
         {earliest_running, 3, {"r1", "r2", "r5"}},
         {longest_running, 9, {"r1", "r5", "r6", "r2"}},
         {shortest_running, 9, {"r2", "r6", "r1", "r5"}},
         {earliest_waiting, 9, {"w1", "w3"}},
         {earliest_waiting, 1, {"w1"}},
         {waiting_then_shortest, 2, {"w1", "w3"}},
         {waiting_then_shortest, 3, {"w1", "w3", "r2"}},
         {shortest_running, 2.9, {"r2", "r6"}}, // whole numbers of requests
         {shortest_running, 0, {}},
         {shortest_running, -2, {}}}) {
    CAPTURE(to_string(order));
    CAPTURE(value);
    CHECK(chosen({requests, order, value}) == expected);
  }
}

TEST_CASE("in the reference tokens are spent until none are left, and the last may overshoot") {
  struct row {
    selection_order order;
    double value;
    ids expected;
  };
  for (auto& [order, value, expected] : std::vector<row>{
         {shortest_running, 100, {"r2"}},
         {shortest_running, 200, {"r2", "r6"}}, // 100 + 200 overshoots
         {shortest_running, 301, {"r2", "r6", "r1"}},
         {longest_running, 299, {"r6", "r2"}}, // 300 is more than the whole budget
         {longest_running, 300, {"r1"}},
         {latest_running, 99, {}},
         {earliest_running, 250, {"r2", "r6"}},
         {earliest_waiting, 100, {"w1"}}, // 120 is more than all of it
         {earliest_waiting, 120, {"w1", "w3"}},
         {waiting_then_shortest, 120, {"w1", "w3"}},       // 200 spent, nothing left
         {waiting_then_shortest, 300, {"w1", "w3", "r2"}}, // 100 left, as large as r2
         {waiting_then_shortest, 299, {"w1", "w3"}},       // 99 left, and r2 costs 100
         {waiting_then_shortest, 79, {}},
         {shortest_running, -1, {}}}) { // all is a matter of requests only
    CAPTURE(to_string(order));
    CAPTURE(value);
    CHECK(chosen({tokens, order, value}) == expected);
  }
}

TEST_CASE("what goes is no more than asked for: each is compared with what is left of it") {
  struct row {
    selection_order order;
    double value;
    std::vector<std::int32_t> running;
    ids expected;
  };
  for (auto& [order, value, tokens_there, expected] : std::vector<row>{
         {shortest_running, 1000, {600, 700, 900}, {"a"}}, // the example of spec/migration.md 3.3
         {shortest_running, 1300, {600, 700, 900}, {"a", "b"}},
         {shortest_running, 1000, {558, 655, 852}, {"a"}},
         {earliest_running, 1000, {258, 855, 552}, {"a", "c"}}, // 855 is passed over
         {latest_running, 1000, {258, 855, 552}, {"c", "a"}},
         {longest_running, 1000, {258, 855, 552}, {"b"}},
         {earliest_running, 1000, {258, 742, 1}, {"a", "b"}}, // spent
         {earliest_running, 257, {258, 855, 552}, {}},
         {earliest_running, 0, {258}, {}},
         {earliest_running, -1, {258}, {}}}) {
    CAPTURE(to_string(order));
    CAPTURE(value);
    CHECK(going({tokens, order, value}, running(tokens_there)) == expected);
    CHECK(going({kv_ratio, order, value / 1000}, running(tokens_there)) == expected);
  }
}

TEST_CASE("what goes of a queue and of those that run is within one budget") {
  struct row {
    double value;
    ids expected;
  };
  for (auto& [value, expected] : std::vector<row>{
         {120, {"w1"}}, // 120 for w3, and 40 are left
         {199, {"w1", "r2"}},
         {200, {"w1", "w3"}},
         {300, {"w1", "w3", "r2"}},
         {299, {"w1", "w3"}},
         {79, {}}}) {
    CAPTURE(value);
    CHECK(going({tokens, waiting_then_shortest, value}) == expected);
  }
  for (double value : {0.0, 1.0, 3.0, 9.0, -1.0, -2.0}) { // requests: as ever
    CAPTURE(value);
    for (auto order : {shortest_running, waiting_then_shortest, latest_running})
      CHECK(going({requests, order, value}) == chosen({requests, order, value}));
  }
  CHECK(going({tokens, waiting_then_shortest, 300}, {}).empty());
  CHECK_FALSE(select_within({requests, shortest_running, 2}, full_house, 1000, 1));
}

// Mends weakness 18 of spec/rescheduling.md.
TEST_CASE("by load a request larger than the budget goes alone, where no smaller one can") {
  struct row {
    selection_order order;
    double value;
    double balance;
    std::vector<std::int32_t> running;
    ids expected;
  };
  for (auto& [order, value, balance, tokens_there, expected] : std::vector<row>{
         {shortest_running, 1024, 14700, {2300, 2100, 2200}, {"b"}}, // one alone
         {longest_running, 1024, 14700, {2300, 2100, 2200}, {"b"}},  // the cheapest, by any order
         {latest_running, 1024, 14700, {2100, 2200, 2100}, {"c"}},   // of equals the first
         {shortest_running, 1024, 2100, {2300, 2100, 2200}, {"b"}},  // just equal
         {shortest_running, 1024, 2099, {2300, 2100, 2200}, {}},     // it would be the fuller one
         {shortest_running, 1024, 14700, {2100, 900, 300}, {"c"}},   // some are within the budget
         {shortest_running, 1024, 14700, {2100, 1024}, {"b"}},
         {shortest_running, 1024, 500, {300, 400}, {"a"}}, // no more than balances
         {shortest_running, 1024, 0, {2100}, {}},          // nobody knows what helps
         {shortest_running, 0, 14700, {2100}, {}},         // none is wanted
         {shortest_running, -1, 14700, {2100}, {}}}) {
    CAPTURE(to_string(order));
    CAPTURE(balance);
    auto there = running(tokens_there);
    CHECK(going({tokens, order, value, balance}, there) == expected);
    CHECK(going({kv_ratio, order, value / 1000, balance}, there) == expected);
    CHECK(chosen({tokens, order, value, balance}, there) == chosen({tokens, order, value}, there));
  }
}

TEST_CASE("by load requests that are counted are no more tokens than balance") {
  auto there = running({2300, 300, 2200, 400});
  struct row {
    selection_order order;
    double value;
    double balance;
    ids expected;
  };
  for (auto& [order, value, balance, expected] : std::vector<row>{
         {longest_running, 1, 2250, {"c"}},
         {longest_running, 2, 2600, {"a", "b"}},
         {shortest_running, 2, 699, {"b"}},
         {shortest_running, 1, 299, {}}, // by count none exceeds it
         {shortest_running, -1, 3000, {"a", "b", "d"}},
         {shortest_running, -1, 0, {"a", "b", "c", "d"}}}) {
    CAPTURE(value);
    CAPTURE(balance);
    CHECK(going({requests, order, value, balance}, there) == expected);
  }
}

TEST_CASE("a request that waits goes alone, too, if it is the cheapest") {
  auto lists = running({2300, 2200});
  lists.waiting = {{{.id = "w", .tokens = 2200}, {.id = "x", .tokens = 2100, .migrating = true}}};
  CHECK(going({tokens, waiting_then_shortest, 1024, 5000}, lists) == ids{"w"});
  CHECK(going({tokens, shortest_running, 1024, 5000}, lists) == ids{"b"});
}

TEST_CASE("a ratio is of the KV capacity") {
  CHECK(chosen({kv_ratio, shortest_running, 0.1}) == ids{"r2"});
  CHECK(chosen({kv_ratio, shortest_running, 0.2}) == ids{"r2", "r6"});
  CHECK(chosen({kv_ratio, shortest_running, 0.0999}) == ids{}); // 99 tokens
  CHECK(select_requests({kv_ratio, shortest_running, 0.5}, full_house, 0)->empty());
}

TEST_CASE("minus one request is all of them, waiting ones first, whatever the order") {
  for (auto order : {latest_running, earliest_waiting, shortest_running}) {
    CHECK(chosen({requests, order, -1}) == ids{"w1", "w3", "r1", "r2", "r4", "r5", "r6"});
  }
}

TEST_CASE("every rule wants a free slot, requests as many as they are") {
  struct row {
    request_selection wanted;
    std::int64_t slots;
    bool refused;
  };
  for (auto& [wanted, slots, refused] : std::vector<row>{
         {{requests, shortest_running, 1}, 1, false},
         {{requests, shortest_running, 2}, 1, true},
         {{requests, shortest_running, 1}, 0, true},
         {{requests, shortest_running, 0}, 0, false},
         {{tokens, shortest_running, 1024}, 1, false},
         {{tokens, shortest_running, 1024}, 0, true},
         {{kv_ratio, shortest_running, 0.1}, 0, true},
         {{requests, longest_running, -1}, 0, false},
         {{requests, longest_running, -1}, -1, false},
         {{requests, longest_running, -1}, -2, true}}) {
    CAPTURE(to_string(wanted.rule));
    CAPTURE(wanted.value);
    CAPTURE(slots);
    auto answer = select_requests(wanted, full_house, 1000, slots);
    CHECK(answer.has_value() != refused);
    if (!answer)
      CHECK(answer.error().code == errc::queue_full);
  }
}

TEST_CASE("lists that are not known have nothing to take") {
  for (double value : {3.0, -1.0})
    CHECK(chosen({requests, waiting_then_shortest, value}, {}).empty());
}

TEST_CASE("a value that is no number is refused, a large one is all there is") {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  for (double value : {infinite, -infinite, std::numeric_limits<double>::quiet_NaN()}) {
    auto answer = select_requests({tokens, shortest_running, value}, full_house, 1000);
    REQUIRE_FALSE(answer);
    CHECK(answer.error().code == errc::invalid_argument);
    CHECK_FALSE(select_within({tokens, shortest_running, 1, value}, full_house, 1000));
  }
  for (auto rule : {requests, tokens, kv_ratio}) {
    CHECK(chosen({rule, shortest_running, 1e300}) == ids{"r2", "r6", "r1", "r5"});
    CHECK(going({rule, shortest_running, 1e300, 1e300}) == ids{"r2", "r6", "r1", "r5"});
    CHECK(chosen({rule, shortest_running, -1e300}) == ids{});
  }
  request_lists hostile{
    .running
    = {{{.id = "a", .tokens = std::numeric_limits<std::int32_t>::min(), .output_tokens = 1}}},
    .waiting = {}};
  CHECK(chosen({tokens, shortest_running, 5}, hostile) == ids{"a"});
  CHECK(going({tokens, shortest_running, 5, 5}, hostile) == ids{"a"});
}

TEST_CASE("rules and orders have the reference's names") {
  for (auto rule : {requests, tokens, kv_ratio})
    CHECK(parse_selection_rule(to_string(rule)) == rule);
  for (auto order :
       {latest_running, earliest_running, longest_running, shortest_running, earliest_waiting,
        waiting_then_shortest})
    CHECK(parse_selection_order(to_string(order)) == order);
  CHECK(known_selection_rules() == "NUM_REQ, TOKEN, RATIO");
  CHECK(known_selection_orders() == "LCR, FCR, LR, SR, FCW, FCWSR, LPSR");
  CHECK_FALSE(parse_selection_rule("num_req"));
  CHECK_FALSE(parse_selection_order(""));
}

TEST_CASE("where priority counts, high ones go last and of the others the shortest first") {
  request_lists lists{
    .running
    = {{{.id = "hi", .tokens = 10, .output_tokens = 1, .high_priority = true}, {.id = "lo", .tokens = 20, .output_tokens = 1}, {.id = "hi2", .tokens = 5, .output_tokens = 1, .high_priority = true}, {.id = "lo2", .tokens = 15, .output_tokens = 1}, {.id = "new", .tokens = 1, .output_tokens = 0}}},
    .waiting = {{{.id = "w", .tokens = 2}}}};
  struct row {
    request_selection wanted;
    ids expected;
  };
  for (auto& [wanted, expected] : std::vector<row>{
         {{requests, shortest_running, 2}, {"hi2", "hi"}}, // the reference sees no priority
         {{requests, low_priority_shortest, 1}, {"lo2"}},
         {{requests, low_priority_shortest, 9}, {"lo2", "lo", "hi2", "hi"}},
         {{tokens, low_priority_shortest, 15}, {"lo2"}},
         {{tokens, low_priority_shortest, 36}, {"lo2", "lo", "hi2"}}, // 40: it overshoots
         {{tokens, low_priority_shortest, 14}, {"hi2", "hi"}}}) {     // 15 and 20 are too large
    CAPTURE(wanted.value);
    CHECK(chosen(wanted, lists) == expected);
  }
  CHECK(parse_selection_order("LPSR") == low_priority_shortest);
  CHECK(to_string(low_priority_shortest) == "LPSR");
}
