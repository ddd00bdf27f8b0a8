#include "runtime/scheduling/selectors.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <deque>
#include <map>
#include <set>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

using ids = std::vector<instance_id>;

float used(const metric_input& x) {
  return static_cast<float>(x.instance.status.num_used_gpu_tokens);
}
float running(const metric_input& x) {
  return static_cast<float>(x.instance.status.num_running_requests);
}
constexpr load_metric low_used{"used", better::lower, used};
constexpr load_metric high_running{"running", better::higher, running};

/// A table of two columns, and who is rejected in it.
struct scene {
  scene() : table{{{&low_used}, {&high_running}}} {}

  void add(const instance_id& id, std::int32_t used, std::int32_t running) {
    auto status = idle_status(id);
    status.num_used_gpu_tokens = used;
    status.num_running_requests = running;
    table.put(views.emplace_back(seen(neutral_instance(id), status)), {});
    rejected.assign(table.size(), 0);
  }
  void reject(const instance_id& id) { rejected[*table.find(id)] = 1; }
  survivors among() const { return {table, rejected, 1}; }
  instance_id pick(const selector& which, std::string_view request = "r") {
    auto row = choose(which, among(), request, false, memory);
    return row ? table.ids()[*row] : "";
  }

  std::deque<instance_view> views; ///< that the table points to
  candidate_table table;
  std::vector<rejections> rejected;
  selector_memory memory;
};

best_metric by(std::vector<std::size_t> slots, std::uint32_t top_k = 1, std::uint64_t seed = 1) {
  return {std::move(slots), top_k, seed};
}

} // namespace

TEST_CASE("the best metric wins, in its own direction, and the next one settles ties") {
  scene s;
  s.add("a", 5, 9), s.add("b", 3, 1), s.add("c", 3, 7), s.add("d", 3, 7);
  CHECK(s.pick(by({0})) == "b");
  CHECK(s.pick(by({1})) == "a");
  CHECK(s.pick(by({0, 1})) == "c");
  CHECK(s.pick(by({1, 0})) == "a");
  s.reject("c");
  CHECK(s.pick(by({0, 1})) == "d");
  s.reject("d");
  CHECK(s.pick(by({0, 1})) == "b");
}

// Mends weakness 8 of spec/scheduling.md.
TEST_CASE("ties go to the lowest id, however many and whoever was chosen before") {
  scene s;
  for (auto id : {"c", "a", "d", "b"})
    s.add(id, 4, 4);
  for (int again = 0; again < 3; ++again)
    CHECK(s.pick(by({0})) == "a");
  s.reject("a");
  CHECK(s.pick(by({0})) == "b");
}

TEST_CASE("ties settled in turn go around the best, and only around them") {
  scene s;
  for (auto [id, load] : {std::pair{"a", 2}, {"b", 1}, {"c", 1}, {"d", 3}, {"e", 1}})
    s.add(id, load, 0);
  auto which = by({0});
  which.ties = tie_rule::in_turn;
  for (auto expected : {"b", "c", "e", "b", "c"})
    CHECK(s.pick(which) == expected);
  s.reject("e");
  for (auto expected : {"b", "c", "b"})
    CHECK(s.pick(which) == expected);
  s.reject("b"), s.reject("c");
  for (auto expected : {"a", "a"})
    CHECK(s.pick(which) == expected);
  s.reject("a");
  CHECK(s.pick(which) == "d");
  s.table.erase("d"); // the last choice left: whoever follows it is next
  s.rejected.assign(s.table.size(), 0);
  CHECK(s.pick(which) == "e");
  s.reject("e"), s.reject("b"), s.reject("c"), s.reject("a");
  CHECK(s.pick(which) == "");
}

TEST_CASE("ties settled in turn come after the other metrics, and before the best k are cut") {
  scene s;
  for (auto [id, running] : {std::pair{"a", 7}, {"b", 9}, {"c", 7}, {"d", 9}})
    s.add(id, 1, running);
  auto both = by({0, 1});
  both.ties = tie_rule::in_turn;
  for (auto expected : {"b", "d", "b"})
    CHECK(s.pick(both) == expected);

  auto two = by({0}, 2);
  two.ties = tie_rule::in_turn;
  std::set<instance_id> drawn;
  for (int i = 0; i < 40; ++i) {
    auto before = s.memory.last;
    auto chosen = s.pick(two, "r" + std::to_string(i));
    auto distance = (chosen[0] - before[0] + 4) % 4; // the next two after the last choice
    CHECK((distance == 1 || distance == 2));
    drawn.insert(chosen);
    auto ranking = best_of(two, s.among(), 2, s.memory.ranking, s.memory.first);
    CHECK((s.table.ids()[ranking[0]] == chosen || s.table.ids()[ranking[1]] == chosen));
  }
  CHECK(drawn.size() == 4);
}

TEST_CASE("a filter that sits a pass out rejects nobody in it") {
  scene s;
  s.add("a", 1, 0), s.add("b", 2, 0);
  s.rejected = {0b10, 0b00};
  CHECK(choose(by({0}), {s.table, s.rejected, 0b11}, "r", false, s.memory) == 1u);
  CHECK(choose(by({0}), {s.table, s.rejected, 0b01}, "r", false, s.memory) == 0u);
}

TEST_CASE("without survivors nobody is chosen") {
  for (selector which :
       {selector{by({0})}, selector{by({0}, 3)}, selector{fixed_preference{}},
        selector{next_in_order{}}}) {
    CAPTURE(name_of(which));
    scene s;
    CHECK(s.pick(which) == "");
    s.add("a", 1, 1);
    s.reject("a");
    CHECK(s.pick(which) == "");
  }
}

TEST_CASE(
  "with a top k one of the best k is drawn, all of them, and the same one for the same id") {
  scene s;
  for (auto [id, load] : {std::pair{"a", 9}, {"b", 1}, {"c", 5}, {"d", 2}, {"e", 3}})
    s.add(id, load, 0);
  std::map<instance_id, int> drawn;
  for (int i = 0; i < 3'000; ++i) {
    auto request = "r" + std::to_string(i);
    auto chosen = s.pick(by({0}, 3), request);
    CHECK(s.pick(by({0}, 3), request) == chosen);
    ++drawn[chosen];
  }
  CHECK(drawn.size() == 3);
  for (auto id : {"b", "d", "e"}) {
    CAPTURE(id);
    CHECK(drawn[id] > 900); // 1000 expected, standard deviation 26
    CHECK(drawn[id] < 1'100);
  }
}

TEST_CASE("a top k beyond the survivors draws among all of them, and the seed changes the draw") {
  scene s;
  s.add("a", 1, 0), s.add("b", 2, 0), s.add("c", 3, 0);
  s.reject("b");
  std::set<instance_id> drawn;
  bool seeds_differ = false;
  for (int i = 0; i < 100; ++i) {
    auto request = "r" + std::to_string(i);
    drawn.insert(s.pick(by({0}, 10), request));
    seeds_differ |= s.pick(by({0}, 10, 1), request) != s.pick(by({0}, 10, 2), request);
  }
  CHECK(drawn == std::set<instance_id>{"a", "c"});
  CHECK(seeds_differ);
}

TEST_CASE("the ranking lists the best survivors first") {
  scene s;
  s.add("a", 3, 0), s.add("b", 1, 0), s.add("c", 2, 0), s.add("d", 1, 5);
  s.reject("c");
  std::vector<candidate_table::row> memory;
  auto rank = [&](std::size_t count) {
    ids order;
    for (auto row : best_of(by({0, 1}), s.among(), count, memory))
      order.push_back(s.table.ids()[row]);
    return order;
  };
  CHECK(rank(0) == ids{});
  CHECK(rank(2) == ids{"d", "b"});
  CHECK(rank(9) == ids{"d", "b", "a"});
}

TEST_CASE("the ranking of adaptive decode is in its own order, with the limits and without") {
  scene s; // by `used` as the time per token; `running` as the backlog
  s.add("a", 10, 3), s.add("b", 40, 2), s.add("c", 40, 1), s.add("d", 60, 0), s.add("e", 5, 0);
  s.table.reserve("e", infer_type::decode);
  selector packed = slo_decode{0, 1, 50};
  auto ranked = [&](bool fallback, std::size_t count) {
    ids names;
    for (auto row : ranking_of(packed, s.among(), count, fallback, s.memory))
      names.push_back(s.table.ids()[row]);
    return names;
  };
  CHECK(ranked(false, 9) == ids{"e", "d", "b", "c", "a"}); // the reserved one, then the highest
  CHECK(ranked(true, 9) == ids{"c", "b", "a", "e", "d"});  // below the limit, ties by backlog
  CHECK(ranked(true, 2) == ids{"c", "b"});
  for (bool fallback : {false, true})
    CHECK(
      s.table.ids()[*choose(packed, s.among(), "r", fallback, s.memory)] == ranked(fallback, 1)[0]);
  s.reject("e");
  CHECK(ranked(false, 1) == ids{"d"});
  CHECK(ranking_of(fixed_preference{}, s.among(), 3, false, s.memory).empty());
}

TEST_CASE("a fixed preference stays with its choice while that survives") {
  scene s;
  s.add("b", 1, 1), s.add("c", 0, 0);
  CHECK(s.pick(fixed_preference{}) == "b");
  s.add("a", 0, 0);
  CHECK(s.pick(fixed_preference{}) == "b");
  s.reject("b");
  CHECK(s.pick(fixed_preference{}) == "a");
  s.rejected.assign(3, 0);
  CHECK(s.pick(fixed_preference{}) == "a");
  s.table.erase("a");
  CHECK(s.pick(fixed_preference{}) == "b");
}

TEST_CASE("round robin goes around the survivors in id order") {
  scene s;
  s.add("c", 0, 0), s.add("a", 9, 9), s.add("b", 5, 5);
  next_in_order around;
  for (auto expected : {"a", "b", "c", "a"})
    CHECK(s.pick(around) == expected);
  s.reject("b");
  CHECK(s.pick(around) == "c");
  s.reject("a");
  CHECK(s.pick(around) == "c"); // alone
  s.add("bb", 0, 0);            // and everybody may come again
  CHECK(s.pick(around) == "a");
  s.table.erase("a"); // the last choice left: its successor is next
  s.rejected.assign(3, 0);
  CHECK(s.pick(around) == "b");
  CHECK(s.pick(around) == "bb");
}

TEST_CASE("power of two: the better of two drawn survivors, the same ones for the same request") {
  scene s;
  for (auto [id, used] : {std::pair{"a", 4}, {"b", 1}, {"c", 2}, {"d", 3}})
    s.add(id, used, 0);
  best_metric two{{0}};
  two.power_of_two = true;
  auto draws = [&](const best_metric& which) {
    std::map<instance_id, int> times;
    for (int i = 0; i < 600; ++i)
      ++times[s.pick(which, "r" + std::to_string(i))];
    return times;
  };
  // Of six pairs b is in three, c in two without b, d in one with a.
  auto times = draws(two);
  CHECK(times.count("a") == 0);
  for (auto [id, expected] : {std::pair{"b", 300}, {"c", 200}, {"d", 100}}) {
    CAPTURE(id);
    CHECK(std::abs(times[id] - expected) < 50);
  }
  CHECK(draws(two) == times);
  auto other = two;
  other.seed = 2;
  CHECK(draws(other) != times);
  s.reject("b");
  times = draws(two);
  CHECK(times.count("b") == 0);
  CHECK(times.count("a") == 0);
  s.reject("c"); // two left: the better one
  CHECK(draws(two) == std::map<instance_id, int>{{"d", 600}});
  s.reject("d");
  CHECK(s.pick(two) == "a");
  s.reject("a");
  CHECK(s.pick(two) == "");
}

// Mends weakness 8 of spec/scheduling.md.
TEST_CASE("hysteresis: the last choice stays until another is better by more than its share") {
  constexpr auto infinite = std::numeric_limits<float>::infinity();
  struct row {
    std::size_t slot; ///< 0: lower is better; 1: higher
    float last, other, share;
    bool stays;
  };
  for (auto [slot, last, other, share, stays] : std::initializer_list<row>{
         {0, 100, 90, 0.125f, true},
         {0, 100, 87, 0.125f, false},
         {0, 8, 7, 0.125f, true}, // by just its share
         {0, 8, 6, 0.125f, false},
         {0, 8, 8, 0.125f, true},
         {0, 8, 9, 0.125f, true},
         {0, 0, 0, 0.125f, true},
         {0, infinite, 8, 0.125f, false},
         {0, infinite, infinite, 0.125f, true},
         {1, 8, 9, 0.125f, true},
         {1, 8, 10, 0.125f, false},
         {1, -8, -7, 0.125f, true},
         {1, -8, -6, 0.125f, false},
         {1, 0, 1, 0.125f, false},
         {1, -infinite, 1, 0.125f, false},
         {0, 8, 7.99f, 0, false}, // off: as in the reference
         {0, 8, 8, 0, false}}) {
    CAPTURE(slot);
    CAPTURE(last);
    CAPTURE(other);
    CAPTURE(share);
    scene s;
    s.add("a", 0, 0), s.add("b", 0, 0);
    auto which = by({slot});
    which.hysteresis = share;
    s.reject("a");
    REQUIRE(s.pick(which) == "b");
    s.rejected.assign(2, 0);
    auto name = slot == 0 ? "used" : "running";
    s.table.give("a", {{name, other}}), s.table.give("b", {{name, last}});
    CHECK(s.pick(which) == (stays ? "b" : "a"));
    bool worse = slot == 0 ? other > last : other < last;
    CHECK(s.memory.kept == (stays && !worse));
    s.reject("b");
    CHECK(s.pick(which) == "a"); // who cannot take it stays nowhere
    CHECK_FALSE(s.memory.kept);
  }
}
