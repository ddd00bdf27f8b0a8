#include "apps/node_metrics.hpp"

#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <vector>

namespace llumnix {

namespace {

bool has(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

std::size_t lines_with(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at)
    ++count;
  return count;
}

instance_gauges gauges(const std::string& id, double first) {
  instance_gauges x{id, "neutral", {}};
  x.values[0] = first;
  return x;
}

std::string scheduler_text(const scheduler_probes& probes) {
  return scheduler_metrics_text(
    probes, [](const instance_id& id) { return id == "a" ? "m" : std::string{}; });
}

} // namespace

TEST_CASE("errors of predictions are told by what was predicted and by the side they are on") {
  node_counters counters;
  auto before = node_metrics_text(counters, nullptr, 1);
  CHECK(has(before, "# TYPE llumnix_prediction_error_milliseconds histogram"));
  CHECK(lines_with(before, "llumnix_prediction_error_milliseconds_count") == 0);
  counters.ttft_error.observe(15);
  counters.ttft_error.observe(0);
  counters.ttft_error.observe(-70'000);
  counters.tpot_error.observe(2.5);
  auto text = node_metrics_text(counters, nullptr, 1);
  const std::string name = "llumnix_prediction_error_milliseconds";
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="10"} 1)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="20"} 2)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="+Inf"} 2)"));
  CHECK(has(text, name + R"(_sum{kind="ttft",side="late"} 15)"));
  CHECK(has(text, name + R"(_count{kind="ttft",side="late"} 2)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="early",le="60000"} 0)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="early",le="+Inf"} 1)"));
  CHECK(has(text, name + R"(_sum{kind="ttft",side="early"} 70000)"));
  CHECK(has(text, name + R"(_bucket{kind="tpot",side="late",le="2"} 0)"));
  CHECK(has(text, name + R"(_bucket{kind="tpot",side="late",le="5"} 1)"));
  CHECK(lines_with(text, R"(kind="tpot",side="early")") == 0);
}

TEST_CASE("moves are counted, and who leads shows") {
  node_counters counters;
  counters.departing = 2;
  counters.arriving = 1;
  counters.moves_out = 3;
  counters.moves_in = 4;
  counters.moves_refused = 5;
  counters.moves_failed = 6;
  counters.moves_spoiled = 8;
  counters.orders_stale = 7;
  counters.leads = 1;
  counters.leader_term = 1'764'200'000'123;
  counters.move_orders = 9;
  counters.move_orders_empty = 10;
  auto text = node_metrics_text(counters, nullptr, 1);
  for (auto line :
       {"llumnix_moves_departing 2", "llumnix_moves_arriving 1", "llumnix_moves_out_total 3",
        "llumnix_moves_in_total 4", "llumnix_moves_refused_total 5", "llumnix_moves_failed_total 6",
        "llumnix_moves_spoiled_total 8", "llumnix_stale_orders_total 7",
        "llumnix_rescheduler_leader 1",
        "llumnix_rescheduler_term 1764200000123", "llumnix_rescheduler_orders_total 9",
        "llumnix_rescheduler_empty_orders_total 10"}) {
    CAPTURE(line);
    CHECK(has(text, line));
  }
}

TEST_CASE("gauges of an instance come with its status and go with it") {
  scheduler_probes probes;
  CHECK(scheduler_text(probes).find("instance_cms_") == std::string::npos);
  probes.instances.show({gauges("b\"", 7), gauges("a", 5)});
  probes.instances.show({gauges("a", 6)});
  auto text = scheduler_text(probes);
  CHECK(has(text, "# TYPE instance_cms_used_gpu_tokens gauge"));
  for (auto help :
       {"used_gpu_tokens GPU tokens currently used per instance",
        "waiting_requests Waiting requests per instance",
        "unallocated_tokens_hybrid_scheduler_waiting_decodes Unallocated tokens for hybrid "
        "scheduler waiting decodes per instance",
        "all_decodes_tokens_num Total tokens for all decode requests per instance"}) {
    CAPTURE(help);
    CHECK(has(text, std::string{"# HELP instance_cms_"} + help));
  }
  CHECK(has(text, R"(instance_cms_used_gpu_tokens{instance_id="a",infer_type="neutral"} 6)"));
  CHECK(has(text, R"(instance_cms_used_gpu_tokens{instance_id="b\"",infer_type="neutral"} 7)"));
  CHECK(lines_with(text, "\ninstance_cms_") == 2 * 24);
  probes.instances.forget("a");
  text = scheduler_text(probes);
  CHECK(lines_with(text, R"(instance_id="a")") == 0);
  CHECK(lines_with(text, "\ninstance_cms_") == 24);
}

TEST_CASE("beyond a thousand instances the rest is one series") {
  scheduler_probes probes;
  std::vector<instance_gauges> many;
  for (int i = 0; i < 1003; ++i)
    many.push_back(gauges("i" + std::to_string(10'000 + i), i));
  probes.instances.show(std::move(many));
  auto text = scheduler_text(probes);
  CHECK(lines_with(text, "\ninstance_cms_used_gpu_tokens{") == 1001);
  CHECK(has(
    text, R"(instance_cms_used_gpu_tokens{instance_id="_overflow",infer_type="_overflow"} 1002)"));
}

TEST_CASE("how loaded chosen instances were is told by the role they were chosen for") {
  scheduler_probes probes;
  placement_reasons reasons;
  reasons.predicted_tpot_ms = 12.f;
  probes.decode.observe({0.25f, 7, 300, 5000}, reasons);
  auto text = scheduler_text(probes);
  CHECK(has(
    text,
    R"(selected_instance_kv_cache_usage_ratio_projected_bucket{infer_type="decode",le="0.2"} 0)"));
  CHECK(has(
    text,
    R"(selected_instance_kv_cache_usage_ratio_projected_bucket{infer_type="decode",le="0.3"} 1)"));
  CHECK(has(text, R"(selected_instance_decode_batch_size_sum{infer_type="decode"} 7)"));
  CHECK(has(text, R"(selected_instance_all_prefills_tokens_num_sum{infer_type="decode"} 300)"));
  CHECK(has(text, R"(selected_instance_all_decodes_tokens_num_sum{infer_type="decode"} 5000)"));
  CHECK(has(text, R"(selected_instance_predicted_tpot_sum{infer_type="decode"} 12)"));
  CHECK(lines_with(text, "selected_instance_predicted_ttft_") == 0);
  CHECK(lines_with(text, R"(infer_type="prefill")") == 0);
}

TEST_CASE("in lite mode gauges tell what instances have, by the address of each") {
  scheduler_probes probes;
  CHECK(scheduler_text(probes).find("instance_lrs_") == std::string::npos);
  probes.requests.show(
    {{"a", "10.0.0.7:8000", "neutral", 30, 10, 3, 1},
     {"b", "10.0.0.8:8000", "prefill", 5, 5, 1, 1},
     {"b again", "10.0.0.8:8000", "prefill", 7, 0, 1, 0}});
  auto text = scheduler_text(probes);
  const std::string a = R"({model="m",instance_id="10.0.0.7:8000",infer_type="neutral"} )";
  const std::string b = R"({model="",instance_id="10.0.0.8:8000",infer_type="prefill"} )";
  using row = std::tuple<const char*, int, int>;
  for (const auto& [name, of_a, of_b] :
       {row{"total_tokens", 30, 12}, row{"waiting_tokens", 10, 5}, row{"running_tokens", 20, 7},
        row{"total_requests", 3, 2}, row{"waiting_requests", 1, 1},
        row{"running_requests", 2, 1}}) {
    CAPTURE(name);
    auto full = std::string{"instance_lrs_"} + name;
    CHECK(has(text, "# TYPE " + full + " gauge"));
    CHECK(has(text, full + a + std::to_string(of_a)));
    CHECK(has(text, full + b + std::to_string(of_b)));
  }
  CHECK(lines_with(text, "\ninstance_lrs_") == 2 * 6);
  probes.requests.forget("a");
  CHECK(lines_with(scheduler_text(probes), "\ninstance_lrs_") == 6);
}

TEST_CASE("beyond a thousand instances the requests of the rest are summed up") {
  scheduler_probes probes;
  std::vector<request_gauges> many;
  for (int i = 10'000; i < 11'003; ++i)
    many.push_back({"i" + std::to_string(i), "h:" + std::to_string(i), "", 2, 0, 1, 0});
  probes.requests.show(std::move(many));
  auto text = scheduler_text(probes);
  CHECK(lines_with(text, "\ninstance_lrs_total_tokens{") == 1001);
  CHECK(has(
    text,
    R"(instance_lrs_total_tokens{model="_overflow",instance_id="_overflow",infer_type="_overflow"} 6)"));
}

TEST_CASE("how long readings of the records in Redis take is told as dashboards know it") {
  node_counters counters;
  CHECK(lines_with(node_metrics_text(counters, nullptr, 1), "scheduler_cms_refresh_") == 0);
  redis_metrics mirror;
  auto before = node_metrics_text(counters, &mirror, 1);
  CHECK(lines_with(before, "scheduler_cms_refresh_metadata_duration_milliseconds_") == 0);
  mirror.metadata_ms.observe(0.25);
  mirror.metadata_ms.observe(1.5);
  mirror.statuses_ms.observe(1000);
  auto text = node_metrics_text(counters, &mirror, 1);
  for (auto line :
       {"# TYPE scheduler_cms_refresh_metadata_duration_milliseconds histogram",
        R"(scheduler_cms_refresh_metadata_duration_milliseconds_bucket{le="0.1"} 0)",
        R"(scheduler_cms_refresh_metadata_duration_milliseconds_bucket{le="0.5"} 1)",
        R"(scheduler_cms_refresh_metadata_duration_milliseconds_bucket{le="2"} 2)",
        R"(scheduler_cms_refresh_metadata_duration_milliseconds_bucket{le="+Inf"} 2)",
        "scheduler_cms_refresh_metadata_duration_milliseconds_sum 1.75",
        "scheduler_cms_refresh_metadata_duration_milliseconds_count 2",
        "# TYPE scheduler_cms_refresh_status_duration_milliseconds histogram",
        R"(scheduler_cms_refresh_status_duration_milliseconds_bucket{le="100"} 0)",
        R"(scheduler_cms_refresh_status_duration_milliseconds_bucket{le="+Inf"} 1)",
        "scheduler_cms_refresh_status_duration_milliseconds_count 1"}) {
    CAPTURE(line);
    CHECK(has(text, line));
  }
  CHECK(lines_with(text, "scheduler_cms_refresh_status_duration_milliseconds_bucket{") == 11);
}

TEST_CASE("look-ups of a gateway and of a scheduler are one series") {
  prefix_probes ours, others;
  CHECK(lines_with(prefix_metrics_text(ours, others), "_count") == 0);
  ours.saw_query(std::chrono::milliseconds{3});
  ours.saw_match(std::chrono::microseconds{10});
  others.saw_match(std::chrono::microseconds{10});
  ours.saw_choice({true, 100, {{"a", 55}}}, 55);
  others.saw_choice({}, 0);
  auto text = prefix_metrics_text(ours, others);
  for (auto line :
       {"# TYPE request_query_prefix_cache_hit_duration_milliseconds histogram",
        R"(request_query_prefix_cache_hit_duration_milliseconds_bucket{le="2"} 0)",
        R"(request_query_prefix_cache_hit_duration_milliseconds_bucket{le="5"} 1)",
        "request_query_prefix_cache_hit_duration_milliseconds_count 1",
        R"(request_calc_prefix_cache_hit_duration_milliseconds_bucket{le="0.1"} 2)",
        "request_calc_prefix_cache_hit_duration_milliseconds_count 2",
        R"(request_prefix_cache_hit_percent_bucket{le="0"} 1)",
        R"(request_prefix_cache_hit_percent_bucket{le="50"} 1)",
        R"(request_prefix_cache_hit_percent_bucket{le="60"} 2)",
        R"(request_prefix_cache_hit_percent_bucket{le="+Inf"} 2)",
        "request_prefix_cache_hit_percent_sum 55", "request_prefix_cache_hit_percent_count 2",
        "request_max_prefix_cache_hit_percent_sum 55",
        "request_max_prefix_cache_hit_percent_count 1"}) {
    CAPTURE(line);
    CHECK(has(text, line));
  }
}

} // namespace llumnix
