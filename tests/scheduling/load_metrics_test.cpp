#include "runtime/scheduling/candidate_table.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// A status whose fields are distinct powers of two, so that a sum tells its parts. Field numbers
/// are those of spec/cms.md 1.2.
instance_status powers() {
  auto s = idle_status("a");
  s.hybrid_scheduler_waiting_to_decode_requests_num = 1 << 0;         // 8
  s.scheduler_waiting_to_decode_requests_num = 1 << 1;                // 9
  s.num_waiting_requests = 1 << 2;                                    // 10
  s.scheduler_running_to_decode_requests_num = 1 << 3;                // 11
  s.num_running_requests = 1 << 4;                                    // 12
  s.num_loading_requests = 1 << 5;                                    // 13
  s.num_total_gpu_tokens = 1 << 20;                                   // 14
  s.num_used_gpu_tokens = 1 << 6;                                     // 15
  s.num_uncomputed_tokens_hybrid_scheduler_waiting_prefills = 1 << 7; // 16, in no metric
  s.num_unallocated_tokens_hybrid_scheduler_waiting_decodes = 1 << 8; // 17
  s.hybrid_scheduler_waiting_to_decode_tokens_num = 1 << 9;           // 18
  s.num_uncomputed_tokens_scheduler_waiting_prefills = 1 << 10;       // 19, in no metric
  s.scheduler_waiting_to_decode_tokens_num = 1 << 11;                 // 20
  s.num_uncomputed_tokens_scheduler_running_prefills = 1 << 12;       // 21
  s.num_unallocated_tokens_scheduler_running_prefills = 1 << 13;      // 22
  s.scheduler_running_to_decode_tokens_num = 1 << 14;                 // 23
  s.num_tokens_loading_requests = 1 << 15;                            // 24
  s.num_uncomputed_tokens_all_waiting_prefills = 1 << 16;             // 25
  return s;
}

constexpr inflight_load sent{
  .requests = 1 << 17,
  .prefill_requests = 1 << 18,
  .decode_requests = 1 << 19,
  .prefill_tokens = 1 << 21,
  .decode_tokens = 1 << 22};

float value_of(
  const char* metric, const instance_view& view, const inflight_load& inflight = {},
  scheduling_mode mode = scheduling_mode::full) {
  auto* found = find_load_metric(metric, mode);
  REQUIRE(found != nullptr);
  decision_share none;
  return value_of(*found, {view, inflight, none});
}

constexpr float bits(std::initializer_list<int> which) {
  int sum = 0;
  for (auto bit : which)
    sum += 1 << bit;
  return static_cast<float>(sum);
}

} // namespace

TEST_CASE("each metric sums the fields the specification names, and nothing else") {
  struct row {
    const char* name;
    float expected;
  };
  for (auto [name, expected] :
       {row{"kv_cache_usage_ratio_projected", bits({6, 16, 13, 8, 22}) / 1048576.0f},
        row{"decode_batch_size", bits({0, 5, 1, 3, 19})},
        row{"num_waiting_requests", bits({2, 17})},
        row{"all_prefills_tokens_num", bits({16, 12, 21})},
        row{"num_requests", bits({2, 5, 4, 18, 19})},
        row{"all_decodes_tokens_num", bits({9, 11, 14, 15, 22})}}) {
    CAPTURE(name);
    CHECK(value_of(name, seen(neutral_instance("a"), powers()), sent) == expected);
    CHECK(find_load_metric(name)->direction == better::lower);
    CHECK(known_load_metrics().find(name) != std::string::npos);
  }
}

TEST_CASE("metrics follow the numeric rules of the reference") {
  struct row {
    const char* what;
    const char* metric;
    std::function<void(instance_status&)> set;
    float expected;
  };
  constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
  const row rows[]{
    {"no cache at all", "kv_cache_usage_ratio_projected",
     [](auto& s) { s.num_total_gpu_tokens = 0; }, 3.4028234663852886e38f},
    {"more promised than fits", "kv_cache_usage_ratio_projected",
     [](auto& s) { s.num_used_gpu_tokens = 1500; }, 1.5f},
    {"a ratio of floats", "kv_cache_usage_ratio_projected",
     [](auto& s) { s.num_used_gpu_tokens = 1, s.num_total_gpu_tokens = 3; }, 1.0f / 3.0f},
    {"the sum is rounded once", "all_prefills_tokens_num",
     [](auto& s) {
       s.num_uncomputed_tokens_all_waiting_prefills = 16'777'217;
       s.num_uncomputed_tokens_scheduler_running_prefills = 1;
     },
     16'777'218.0f},
    {"a sum may be negative", "all_prefills_tokens_num",
     [](auto& s) { s.num_uncomputed_tokens_all_waiting_prefills = -5; }, -5.0f},
    {"what is more than 32 bits hold stays at their limit (scheduling weakness 11)",
     "all_decodes_tokens_num",
     [](auto& s) {
       s.scheduler_waiting_to_decode_tokens_num = most;
       s.scheduler_running_to_decode_tokens_num = 1;
     },
     2147483647.0f},
    {"however much more", "kv_cache_usage_ratio_projected",
     [](auto& s) {
       s.num_used_gpu_tokens = s.num_uncomputed_tokens_all_waiting_prefills = most;
       s.num_unallocated_tokens_scheduler_running_prefills = most;
       s.num_total_gpu_tokens = most;
     },
     1.0f},
    {"and below zero", "all_prefills_tokens_num",
     [](auto& s) {
       s.num_uncomputed_tokens_all_waiting_prefills = -most;
       s.num_uncomputed_tokens_scheduler_running_prefills = -most;
     },
     -2147483648.0f},
  };
  for (auto& [what, metric, set, expected] : rows) {
    CAPTURE(what);
    auto status = idle_status("a");
    set(status);
    CHECK(value_of(metric, seen(neutral_instance("a"), status)) == expected);
  }
}

TEST_CASE("an instance that has not reported counts as idle but for what was sent there") {
  instance_view silent;
  silent.metadata = neutral_instance("a");
  CHECK(value_of("kv_cache_usage_ratio_projected", silent) == 0);
  CHECK(value_of("kv_cache_usage_ratio_projected", silent, sent) == 0);
  CHECK(value_of("all_prefills_tokens_num", silent, sent) == bits({21}));
  CHECK(value_of("num_requests", silent, sent) == bits({18, 19}));
}

TEST_CASE("in lite mode load is what was sent, whatever a status says") {
  constexpr auto lite = scheduling_mode::lite;
  struct row {
    const char* what;
    inflight_load sent;
    float requests, tokens;
  };
  for (auto& [what, sent, requests, tokens] :
       {row{"nothing", {}, 0, 0}, row{"neutral requests", {2, 2, 2, 30, 30}, 2, 30},
        row{"prefills", {3, 3, 0, 45, 0}, 3, 45}, row{"decodes", {3, 0, 3, 0, 46}, 3, 46}}) {
    CAPTURE(what);
    instance_view silent;
    silent.metadata = neutral_instance("a");
    for (auto& view : {seen(neutral_instance("a"), powers()), silent}) {
      CHECK(value_of("num_requests", view, sent, lite) == requests);
      CHECK(value_of("num_tokens", view, sent, lite) == tokens);
    }
  }
  CHECK(
    known_load_metrics(lite)
    == "num_requests, num_tokens, num_requests_ahead, num_tokens_ahead, cache_aware_num_tokens, "
       "adapter_miss");
  CHECK(find_load_metric("num_waiting_requests", lite) == nullptr);
}

TEST_CASE("names that are none, or of the other mode, find nothing") {
  for (auto name : {"", "num_tokens", "num_requests ", "NUM_REQUESTS"})
    CHECK(find_load_metric(name) == nullptr);
}

TEST_CASE("a candidate table keeps its rows in id order through every change") {
  candidate_table table{{{find_load_metric("num_waiting_requests")}}};
  auto put = [&](const char* id, std::int32_t waiting) {
    auto status = idle_status(id);
    status.num_waiting_requests = waiting;
    table.put(seen(neutral_instance(id), status), {});
  };
  put("m", 1), put("a", 2), put("z", 3), put("m", 4), put("c", 5);
  CHECK(table.ids() == std::vector<instance_id>{"a", "c", "m", "z"});
  CHECK(table.values(0) == std::vector<float>{2, 5, 4, 3});
  auto layout = table.layout();
  table.erase("a");
  table.erase("b");
  CHECK(table.ids() == std::vector<instance_id>{"c", "m", "z"});
  CHECK(table.values(0) == std::vector<float>{5, 4, 3});
  CHECK(table.layout() != layout);
  CHECK(table.find("m") == 1u);
  CHECK_FALSE(table.find("a").has_value());
  CHECK(table.first_above("") == 0);
  CHECK(table.first_above("c") == 1);
  CHECK(table.first_above("d") == 1);
  CHECK(table.first_above("z") == 3);
}

TEST_CASE("the layout of a table changes with locations, not with load") {
  candidate_table table{{}};
  auto metadata = neutral_instance("a");
  auto layout_after = [&] {
    table.put(seen(metadata, idle_status("a")), {});
    return table.layout();
  };
  auto known = layout_after();
  CHECK(layout_after() == known);
  auto changes = [&](auto change) {
    change();
    auto before = std::exchange(known, layout_after());
    return known != before;
  };
  CHECK(changes([&] { metadata.node_id = "n"; }));
  CHECK(changes([&] { metadata.unit_id = "u"; }));
  CHECK(changes([&] { metadata.data_parallel_size = 2; }));
  CHECK_FALSE(changes([&] { metadata.data_parallel_size = 4; }));
  CHECK_FALSE(changes([&] { metadata.ip = "10.0.0.1"; }));
}
