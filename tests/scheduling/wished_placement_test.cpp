#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

dispatcher two_idle(const scheduler_config& config) {
  auto made = *dispatcher::make(config);
  join(made, "a");
  join(made, "b");
  return made;
}

scheduler_config lite(const char* policy = "load-balance") {
  scheduler_config config;
  config.full_mode = false;
  config.policy = policy;
  return config;
}

prefix_hits held(std::uint32_t prompt, std::vector<prefix_hit> by) {
  return {true, prompt, std::move(by)};
}

placement_query of_priority(std::int32_t priority) {
  auto query = query_for("r" + std::to_string(priority), 10);
  query.wishes.priority = priority;
  return query;
}

/// A dispatch of so many tokens.
void book(
  dispatcher& by, const instance_id& at, std::string id, std::int32_t tokens, int priority) {
  by.book(at, {std::move(id), infer_type::neutral, tokens, tokens, priority}, noon, false);
}

std::map<std::string, float>
values(dispatcher& by, const instance_id& id, const placement_query& query) {
  auto all = by.metrics(id, &query, nullptr, noon);
  return {all.begin(), all.end()};
}

/// Who takes the request, with nothing left of it.
instance_id taker(dispatcher& by, const placement_query& query) {
  auto placed = by.place(query, noon, false);
  by.release(query.request_id);
  return placed.instance;
}

/// Tells of its LoRAs.
void tell(
  dispatcher& to, const instance_id& id, std::vector<std::string> adapters, std::int32_t update) {
  auto status = idle_status(id, noon + update, update);
  status.adapters = std::move(adapters);
  to.update(status, noon);
}

} // namespace

TEST_CASE("a decision on prefixes says where none was looked up") {
  struct row {
    const char* policy;
    bool asked;
    bool says_so;
  };
  for (auto [policy, asked, says_so] :
       {row{"cache-aware", false, true}, row{"cache-aware", true, false},
        row{"load-balance", false, false}}) {
    CAPTURE(policy);
    CAPTURE(asked);
    auto by = two_idle(lite(policy));
    auto hits = held(1000, {});
    hits.asked = asked;
    auto told = by.place(query_for("r", 1000), &hits, noon, true);
    CHECK(told.instance == "a");
    CHECK(told.reasons.note.empty() == !says_so);
    auto without = by.place(query_for("s", 1000), nullptr, noon, true).reasons.note;
    CHECK(without.starts_with("no cached prefix was looked up") == (*policy == 'c'));
  }
  auto by = two_idle(lite("cache-aware"));
  by.set_state("a", instance_state::draining), by.set_state("b", instance_state::draining);
  auto refused = by.place(query_for("r", 1000), nullptr, noon, true); // what kept it away counts
  CHECK(refused.instance.empty());
  CHECK(refused.reasons.note.empty());
}

TEST_CASE(
  "lite mode counts what a prompt has to be computed of, and what was sent and not cached") {
  auto by = two_idle(lite("cache-aware"));
  auto at_b = held(1000, {{"b", 900}});
  CHECK(by.place(query_for("r1", 1000), &at_b, noon, true).instance == "b"); // 100 against 1000
  auto second = by.place(query_for("r2", 1000), &at_b, noon, true);
  CHECK(second.instance == "b"); // 100, and 100 of r1
  CHECK(second.reasons.hit_tokens == 900);
  CHECK(by.place(query_for("r3", 10), nullptr, noon, true).instance == "a"); // 0 against 200
  auto nowhere = held(500, {});
  CHECK(by.place(query_for("r4", 500), &nowhere, noon, true).instance == "a"); // 510 against 700
  by.release("r4");
  by.release("r2");
  auto at_a = held(200, {{"a", 50}});
  CHECK(by.place(query_for("r5", 200), &at_a, noon, true).instance == "a"); // 160 against 300
}

TEST_CASE("in lite mode a prefix does not hold a request at an instance that has enough") {
  auto config = lite("cache-aware");
  config.neutral_load_threshold = 1500; // tokens of requests that have not ended
  auto by = two_idle(config);
  auto at_b = held(1000, {{"b", 900}});
  CHECK(by.place(query_for("r1", 1000), &at_b, noon, false).instance == "b");
  CHECK(by.place(query_for("r2", 1000), &at_b, noon, false).instance == "b"); // 1000 are below
  CHECK(by.place(query_for("r3", 1000), &at_b, noon, false).instance == "a"); // 2000 are not
}

// Mends weakness 13 of spec/scheduling.md.
TEST_CASE("what goes behind a request does not count for it") {
  auto config = lite();
  config.priority_aware = true;
  auto by = two_idle(config);
  book(by, "a", "x", 100, 5);
  book(by, "b", "y", 60, 0);
  book(by, "a", "w", 40, -5);
  book(by, "b", "z", 30, -2);
  struct row {
    std::int32_t priority;
    float tokens_a, tokens_b, requests_a, requests_b;
    const char* taker;
  };
  for (auto [priority, tokens_a, tokens_b, requests_a, requests_b, takes] :
       {row{5, 140, 90, 2, 2, "b"}, row{1, 140, 90, 2, 2, "b"}, row{0, 40, 90, 1, 2, "a"},
        row{-1, 40, 30, 1, 1, "b"}, row{-9, 40, 30, 1, 1, "b"}}) {
    CAPTURE(priority);
    auto query = of_priority(priority);
    auto at_a = values(by, "a", query), at_b = values(by, "b", query);
    CHECK(at_a["num_tokens_ahead"] == tokens_a);
    CHECK(at_b["num_tokens_ahead"] == tokens_b);
    CHECK(at_a["num_requests_ahead"] == requests_a);
    CHECK(at_b["num_requests_ahead"] == requests_b);
    CHECK(taker(by, query) == takes);
  }
  by.release("w");
  by.release("x");
  CHECK(values(by, "a", of_priority(5))["num_tokens_ahead"] == 0);
  CHECK(values(by, "a", of_priority(-5))["num_tokens_ahead"] == 0);
}

TEST_CASE("both stages of a request count once for priorities") {
  auto by = two_idle(lite());
  by.book("a", {"r", infer_type::prefill, 100, 100, 5}, noon, false);
  by.book("a", {"r", infer_type::decode, 100, 100, 5}, noon, false);
  auto urgent = values(by, "a", of_priority(0)), equal = values(by, "a", of_priority(5));
  CHECK(urgent["num_tokens_ahead"] == 0);
  CHECK(urgent["num_requests_ahead"] == 0);
  CHECK(equal["num_tokens_ahead"] == 100);
  CHECK(equal["num_requests_ahead"] == 1);
  by.release("r");
  CHECK(values(by, "a", of_priority(0))["num_tokens_ahead"] == 0);
}

TEST_CASE("without priority_aware all load counts for everybody") {
  auto by = two_idle(lite());
  book(by, "a", "x", 100, 5);
  book(by, "b", "y", 60, 0);
  CHECK(taker(by, of_priority(-5)) == "b");
}

TEST_CASE("a request prefers instances where its LoRA is active, up to their limit") {
  auto config = lite();
  config.lora_affinity = true;
  config.neutral_load_threshold = 1000;
  auto by = two_idle(config);
  tell(by, "b", {"legal", "sql"}, 2);
  book(by, "b", "x", 500, 0);
  auto names = [&](const char* adapter) {
    auto query = query_for("r", 10);
    query.wishes.adapter = adapter;
    return query;
  };
  CHECK(taker(by, names("sql")) == "b");
  CHECK(taker(by, names("legal")) == "b");
  CHECK(taker(by, names("sq")) == "a"); // nobody has it: the least load
  CHECK(taker(by, names("")) == "a");
  book(by, "b", "y", 500, 0);
  CHECK(taker(by, names("sql")) == "a"); // b has enough
  by.release("x");
  by.release("y");
  tell(by, "a", {"sql"}, 3);
  book(by, "a", "z", 900, 0);
  CHECK(taker(by, names("sql")) == "b"); // both have it: the least load
  tell(by, "b", {}, 4);
  CHECK(taker(by, names("sql")) == "a");
}

TEST_CASE("LoRAs come before load, and without lora_affinity they do not") {
  for (bool wanted : {true, false}) {
    auto config = lite();
    config.lora_affinity = wanted;
    auto by = two_idle(config);
    tell(by, "b", {"sql"}, 2);
    book(by, "b", "x", 100, 0);
    auto query = query_for("r", 10);
    query.wishes.adapter = "sql";
    CHECK(taker(by, query) == (wanted ? "b" : "a"));
  }
}
