#include "runtime/scheduling/candidate_table.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace llumnix::testing {

namespace {

/// A table of these instances, whose values depend on hits.
struct hit_table {
  explicit hit_table(const std::vector<std::string>& ids) {
    for (const auto& id : ids)
      views.push_back(seen(neutral_instance(id), idle_status(id)));
    for (const auto& view : views)
      table.put(view, {});
  }
  /// Ids and tokens of rows that have hits.
  std::vector<prefix_hit> found(const prefix_hits& hits) {
    decision_inputs about{.prompt_tokens = hits.prompt_tokens};
    about.hits = &hits;
    table.prepare(about);
    std::vector<prefix_hit> all;
    for (candidate_table::row at = 0; at < table.size(); ++at) {
      auto share = table.share(at);
      CHECK(share.hit_tokens + share.miss_tokens == static_cast<std::int32_t>(hits.prompt_tokens));
      if (share.hit_tokens > 0)
        all.push_back({table.ids()[at], static_cast<std::uint32_t>(share.hit_tokens)});
    }
    return all;
  }

  std::vector<instance_view> views;
  candidate_table table{{{find_load_metric("miss_tokens"), true}}};
};

} // namespace

TEST_CASE("hits find their rows, wherever those are, and those of others change nothing") {
  std::vector<std::string> ids;
  for (int i = 100; i < 200; ++i) {
    ids.push_back("a-" + std::to_string(i) + "-engine0"); // ends alike
    ids.push_back("b-" + std::to_string(i));
    ids.push_back(std::to_string(i)); // shorter than what is compared first
  }
  hit_table there{ids};
  std::mt19937 random{7};
  for (int held_of_100 : {0, 1, 5, 50, 99, 100})
    for (int round = 0; round < 20; ++round) {
      CAPTURE(held_of_100);
      auto lucky = [&] { return static_cast<int>(random() % 100) < held_of_100; };
      std::vector<prefix_hit> hits;
      std::vector<prefix_hit> expected;
      for (auto id : there.table.ids()) { // by id, as hits are
        auto tokens = 1 + static_cast<std::uint32_t>(random() % 1'000);
        if (lucky())
          expected.push_back({id, tokens}), hits.push_back({id, tokens});
        if (lucky())
          hits.push_back({id + "-of-another-role", tokens});
      }
      std::ranges::sort(hits, {}, &prefix_hit::instance);
      CHECK(there.found({true, 1'000, hits}) == expected);
    }
}

TEST_CASE("hits follow instances that come and go") {
  hit_table there{{"a", "b", "d"}};
  prefix_hits hits{true, 10, {{"a", 1}, {"c", 3}, {"d", 4}}};
  CHECK(there.found(hits) == std::vector<prefix_hit>{{"a", 1}, {"d", 4}});
  auto late = seen(neutral_instance("c"), idle_status("c"));
  there.table.put(late, {});
  CHECK(there.found(hits) == hits.instances.list());
  there.table.erase("a");
  CHECK(there.found(hits) == std::vector<prefix_hit>{{"c", 3}, {"d", 4}});
  there.table.erase("c");
  there.table.erase("d");
  CHECK(there.found(hits).empty());
  there.table.erase("b");
  CHECK(there.found(hits).empty()); // of nobody
}

} // namespace llumnix::testing
