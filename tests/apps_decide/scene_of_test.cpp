#include "apps/decide/decide_scene.hpp"
#include "apps/decide/scene_of.hpp"
#include "apps/decide/scene_reader.hpp"
#include "apps/decide/scene_writer.hpp"
#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <random>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// A life of a cluster in which every decision is made twice: by the dispatcher, and by the scene
/// that was written of it.
class twice {
public:
  twice(const scheduler_config& config, unsigned seed)
    : dispatcher_{*dispatcher::make(config)}, chance_{seed} {
    for (int i = 0; i < 7; ++i) {
      auto metadata = neutral_instance("i" + std::to_string(i));
      metadata.node_id = "n" + std::to_string(i % 3);
      dispatcher_.put(metadata, life_of(metadata.instance_id));
    }
  }

  void step() {
    now_ += pick(300);
    auto id = "i" + std::to_string(pick(7));
    switch (pick(6)) {
      case 0: dispatcher_.release("q" + std::to_string(pick(30))); break;
      case 1:
        dispatcher_.set_state(id, instance_state{static_cast<std::uint8_t>(pick(3) ? 0 : pick(4))});
        break;
      case 2:
      case 3: report(id); break;
      default: decide_twice();
    }
  }
  int compared = 0;
  int last_resorts = 0; ///< of those, the ones that only excluded instances could take
  int by_session = 0;

private:
  std::uint32_t pick(std::uint32_t n) { return chance_() % n; }

  void report(const instance_id& id) {
    auto status = idle_status(id, now_, ++update_);
    status.schedulable = pick(9) != 0;
    status.num_used_gpu_tokens = static_cast<std::int32_t>(100 * pick(9));
    status.num_uncomputed_tokens_all_waiting_prefills = static_cast<std::int32_t>(40 * pick(4));
    status.num_waiting_requests = static_cast<std::int32_t>(pick(3));
    static const std::vector<std::string> adapters[]{{}, {"legal"}, {"legal", "sql"}, {"sql"}};
    status.adapters = adapters[pick(4)];
    for (auto* list : {&status.recent_waiting_requests, &status.waiting_requests})
      list->push_back("cmpl-q" + std::to_string(pick(30)) + "-0");
    dispatcher_.update(status, now_);
  }

  void decide_twice() {
    auto query = query_for("q" + std::to_string(pick(30)), 20 * pick(5));
    if (pick(4) == 0)
      query.exclude = {"i" + std::to_string(pick(7))};
    else if (pick(8) == 0)
      query.exclude = {"i0", "i1", "i2", "i3", "i4", "i5", "i6"};
    static constexpr const char* names[]{"", "sql", "legal"};
    query.wishes.adapter = names[pick(3)];
    query.wishes.priority = static_cast<std::int32_t>(pick(3)) - 1;
    if (pick(2))
      query.wishes.session = "s" + std::to_string(pick(4));
    prefix_hits hits{true, query.prompt_tokens, {}};
    if (query.prompt_tokens > 0)
      hits.instances = {{"i2", 1 + pick(query.prompt_tokens)}};
    auto* asked = pick(2) ? &hits : nullptr;
    auto text = write_scene(scene_of(dispatcher_.snapshot(query, asked, now_))).dump();
    auto again = nlohmann::json::parse(write_answer(decide(text)).dump());
    auto made = dispatcher_.schedule(query, asked, now_, explain::briefly);
    CAPTURE(text);
    CAPTURE(again.dump());
    if (!made.placed) {
      REQUIRE(again["outcome"] == "refused");
    } else {
      REQUIRE(again["outcome"] == "placed");
      REQUIRE(again["placement"][0]["instance"] == made.stages[0].instance);
      ++compared;
      last_resorts += made.stages[0].reasons.pass == last_pass;
      by_session += made.stages[0].reasons.decided.cause == choice_cause::session;
    }
  }

  dispatcher dispatcher_;
  std::mt19937 chance_;
  unix_ms now_ = noon;
  std::int32_t update_ = 0;
};

} // namespace

TEST_CASE("a decision that was written down is made the same way again") {
  struct row {
    const char* policy;
    const char* metric;
    double limit;
    bool full = true;
    std::uint32_t top_k = 1;
    void (*turn_on)(scheduler_config&) = [](scheduler_config&) {};
  };
  constexpr auto sessions = [](scheduler_config& of) { of.session_affinity = true; };
  constexpr auto priorities = [](scheduler_config& of) { of.priority_aware = true; };
  constexpr auto loras = [](scheduler_config& of) { of.lora_affinity = true; };
  constexpr auto all = [](scheduler_config& of) {
    of.session_affinity = of.priority_aware = of.lora_affinity = true;
  };
  for (auto [policy, metric, limit, full, top_k, turn_on] :
       {row{"load-balance", "all_prefills_tokens_num", 120},
        row{"load-balance", "kv_cache_usage_ratio_projected", 0.5},
        row{"load-balance", "num_requests", 4, true, 3}, row{"cache-aware", "num_requests", 4},
        row{"flood", "num_requests", 4}, row{"round-robin", "num_requests", 4},
        row{"load-balance", "num_tokens", 80, false},
        row{"round-robin", "num_tokens", 80, false},
        row{"load-balance", "num_requests", 4, true, 1, [](auto& of) { of.power_of_two = true; }},
        row{"load-balance", "num_requests", 4, true, 1, [](auto& of) { of.hysteresis = 0.5; }},
        row{"load-balance", "num_requests", 4, true, 1, sessions},
        row{"cache-aware", "num_requests", 4, true, 1, sessions},
        row{"flood", "num_requests", 4, true, 1, sessions},
        row{"round-robin", "num_tokens", 80, false, 1, sessions},
        row{"load-balance", "num_tokens", 80, false, 1, priorities},
        row{"load-balance", "num_requests", 4, false, 1, priorities},
        row{"load-balance", "num_tokens", 80, false, 1, loras},
        row{"cache-aware", "num_tokens", 80, false, 1, loras},
        row{"load-balance", "num_tokens", 80, false, 1, all}}) {
    CAPTURE(policy);
    CAPTURE(metric);
    scheduler_config config;
    config.policy = policy;
    config.neutral_load_metric = metric;
    config.neutral_load_threshold = limit;
    config.full_mode = full;
    config.dispatch_top_k = top_k;
    config.cache_aware_min_tokens = 0;
    config.failover_domain = "node";
    turn_on(config);
    twice run{config, 7};
    for (int i = 0; i < 160; ++i)
      run.step();
    CHECK(run.compared > 12);
    CHECK(run.last_resorts > 0);
    CHECK((run.by_session > 0) == config.session_affinity);
  }
}

// What decodes is compared with another time than what prefills: as if there were no prompt.
TEST_CASE("a decision of adaptive PD that was written down is made the same way again") {
  latency_profile profile;
  profile.ttft = interpolation_table{{{0, 0, 5}, {4'096, 0, 900}}};
  profile.tpot
    = interpolation_table{{{1, 8, 4}, {64, 8, 30}, {1, 4'096, 20}, {64, 4'096, 90}}};
  for (bool predict_progress : {false, true}) {
    CAPTURE(predict_progress);
    scheduler_config config;
    config.policy = "slo";
    config.adaptive_pd = true;
    config.predict_progress = predict_progress;
    config.ttft_slo_ms = 700;
    auto by = *dispatcher::make(config, profile);
    by.set_step_model({2, 0.2, 0});
    std::mt19937 chance{11};
    auto pick = [&](std::uint32_t n) { return static_cast<std::int32_t>(chance() % n); };
    auto now = noon;
    for (int i = 0; i < 8; ++i) {
      auto metadata = neutral_instance("i" + std::to_string(i));
      metadata.instance_type = i < 4 ? "prefill" : "decode";
      metadata.max_num_batched_tokens = 512;
      by.put(metadata, life_of(metadata.instance_id));
    }
    int placed = 0, refused = 0, by_fallback = 0;
    for (int i = 0; i < 400; ++i) {
      now += pick(60);
      auto status = idle_status("i" + std::to_string(pick(8)), now, i + 1);
      status.num_total_gpu_tokens = 100'000;
      status.num_uncomputed_tokens_all_waiting_prefills = 300 * pick(6);
      status.scheduler_running_to_decode_requests_num = 9 * pick(7);
      status.scheduler_running_to_decode_tokens_num
        = 200 * status.scheduler_running_to_decode_requests_num;
      by.update(status, now);
      auto query = query_for("q" + std::to_string(i), 1'300);
      query.mode = serving_mode::pd_batch;
      auto text = write_scene(scene_of(by.snapshot(query, nullptr, now))).dump();
      auto again = nlohmann::json::parse(write_answer(decide(text)).dump());
      auto made = by.schedule(query, nullptr, now, explain::in_full);
      CAPTURE(text);
      CAPTURE(again.dump());
      REQUIRE((again["outcome"] == "placed") == made.placed);
      placed += made.placed;
      refused += !made.placed;
      REQUIRE(again["stages"].size() == made.stages.size());
      for (std::size_t at = 0; at < made.stages.size(); ++at) {
        auto& report = *made.stages[at].report;
        REQUIRE(again["stages"][at]["fallback"] == report.fallback);
        if (made.placed)
          REQUIRE(again["placement"][at]["instance"] == made.stages[at].instance);
        by_fallback += report.fallback;
      }
      if (pick(2))
        by.release(query.request_id);
    }
    CHECK(placed > 100);
    CHECK(by_fallback > 10);
    CHECK(by_fallback < 700);
    MESSAGE(placed << " placed, " << refused << " refused, " << by_fallback << " by a fallback");
  }
}

TEST_CASE("what a request wished for decides in its scene, too") {
  struct row {
    void (*turn_on)(scheduler_config&);
    void (*live)(dispatcher&); ///< what happened to "a" and "b" before
    void (*ask)(placement_query&);
    const char *chosen, *place; ///< JSON pointer of what decides
    const char* without;        ///< chosen where that is missing
  };
  constexpr auto lite = [](scheduler_config& of) { of.full_mode = false; };
  constexpr auto by_priority = [](scheduler_config& of) {
    of.full_mode = false;
    of.priority_aware = true;
  };
  constexpr auto by_lora = [](scheduler_config& of) {
    of.full_mode = false;
    of.lora_affinity = true;
  };
  constexpr auto by_session = [](scheduler_config& of) { of.session_affinity = true; };
  constexpr auto a_had_session = [](dispatcher& by) {
    auto first = query_for("first");
    first.wishes.session = "s";
    by.schedule(first, nullptr, noon, explain::nothing);
  };
  constexpr auto b_has_sql = [](dispatcher& by) {
    auto status = idle_status("b", noon + 1, 2);
    status.adapters = {"legal", "sql"};
    by.update(status, noon);
    by.book("b", {"q", infer_type::neutral, 60, 60}, noon, false);
  };
  constexpr auto later_at_a = [](dispatcher& by) {
    by.book("a", {"p", infer_type::neutral, 100, 100, 5}, noon, false);
    by.book("b", {"q", infer_type::neutral, 60, 60}, noon, false);
  };
  constexpr auto urgent_at_a = [](dispatcher& by) {
    by.book("a", {"p", infer_type::neutral, 60, 60, -1}, noon, false);
    by.book("b", {"q", infer_type::neutral, 100, 100}, noon, false);
  };
  constexpr auto of_session = [](placement_query& of) { of.wishes.session = "s"; };
  constexpr auto urgent = [](placement_query& of) { of.wishes.priority = -1; };
  constexpr auto sql = [](placement_query& of) { of.wishes.adapter = "sql"; };
  for (auto [turn_on, live, ask, chosen, place, without] : {
         row{by_session, a_had_session, of_session, "a", "/request/session_last", "b"},
         row{by_priority, later_at_a, [](auto&) {}, "a", "/instances/0/account/low_tokens", "b"},
         row{by_priority, urgent_at_a, urgent, "b", "/request/priority", "a"},
         row{by_priority, urgent_at_a, urgent, "b", "/instances/0/account/urgent_tokens", "a"},
         row{by_lora, b_has_sql, sql, "b", "/request/adapter", "a"},
         row{by_lora, b_has_sql, sql, "b", "/instances/1/adapters", "a"},
         row{lite, [](auto&) {}, [](auto& of) { of.exclude = {"a"}; }, "b", "/request/exclude", "a"},
         // Both had just failed it, and one of them is better than nobody.
         row{
           lite, later_at_a, [](auto& of) { of.exclude = {"b", "a"}; }, "b", "/request/exclude",
           "b"},
       }) {
    CAPTURE(std::string{place});
    scheduler_config config;
    turn_on(config);
    auto by = *dispatcher::make(config);
    join(by, "a");
    join(by, "b");
    live(by);
    auto query = query_for("r", 10);
    ask(query);
    auto text = write_scene(scene_of(by.snapshot(query, nullptr, noon))).dump();
    auto scene = nlohmann::json::parse(text);
    CAPTURE(text);
    auto winner = [](const nlohmann::json& of) {
      auto answer = nlohmann::json::parse(write_answer(decide(of.dump())).dump());
      return answer["placement"][0].value("instance", answer.dump());
    };
    CHECK(by.schedule(query, nullptr, noon, explain::nothing).stages.at(0).instance == chosen);
    CHECK(winner(scene) == chosen);
    nlohmann::json::json_pointer at{place};
    REQUIRE(scene.contains(at));
    scene[at.parent_pointer()].erase(at.back());
    CHECK(winner(scene) == without);
  }
}

TEST_CASE("instances that a decision could not choose are in its scene as such, or not at all") {
  auto by = *dispatcher::make({});
  auto foreign = neutral_instance("a"); // a store tells of it; no node of ours reaches it
  by.put(foreign, node_life{});
  auto odd = neutral_instance("b");
  odd.instance_type = "mixed";
  by.put(odd, life_of("b"));
  join(by, "c", 500);
  auto query = query_for("r", 10, {"b", "gone"});
  prefix_hits hits{true, 10, {{"gone", 5}}};
  auto written = scene_of(by.snapshot(query, &hits, noon));
  auto text = write_scene(written).dump();
  CAPTURE(text);
  auto again = nlohmann::json::parse(write_answer(decide(text)).dump());
  CHECK(again["placement"][0]["instance"] == "c");
  CHECK(by.schedule(query, &hits, noon, explain::nothing).stages.at(0).instance == "c");
  CHECK(written.instances.size() == 2);
  query.by = reach::http;
  CHECK(by.schedule(query, nullptr, noon, explain::nothing).stages.at(0).instance.empty());
  auto refused = scene_of(by.snapshot(query, nullptr, noon));
  again = nlohmann::json::parse(write_answer(decide(write_scene(refused).dump())).dump());
  CHECK(again["outcome"] == "refused");
}

TEST_CASE("a scene tells of no files, hosts and keys") {
  scheduler_config config;
  config.ttft_profile = config.tpot_profile = "/secret/file";
  config.http = config.mooncake = "secret.host:1";
  config.http_key = "secret";
  config.kv_events = config.kv_events_replay = "tcp://secret.host:1";
  auto by = *dispatcher::make(config);
  auto text = write_scene(scene_of(by.snapshot(query_for("r", 10), nullptr, noon))).dump();
  CHECK(text.find("secret") == std::string::npos);
  CHECK(text.find("scheduler.kv_index") != std::string::npos);
  CHECK(text.find("scheduler.http_key") == std::string::npos);
}
