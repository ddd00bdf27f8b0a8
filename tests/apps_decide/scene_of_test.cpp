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

private:
  std::uint32_t pick(std::uint32_t n) { return chance_() % n; }

  void report(const instance_id& id) {
    auto status = idle_status(id, now_, ++update_);
    status.schedulable = pick(9) != 0;
    status.num_used_gpu_tokens = static_cast<std::int32_t>(100 * pick(9));
    status.num_uncomputed_tokens_all_waiting_prefills = static_cast<std::int32_t>(40 * pick(4));
    status.num_waiting_requests = static_cast<std::int32_t>(pick(3));
    for (auto* list : {&status.recent_waiting_requests, &status.waiting_requests})
      list->push_back("cmpl-q" + std::to_string(pick(30)) + "-0");
    dispatcher_.update(status, now_);
  }

  void decide_twice() {
    auto query = query_for("q" + std::to_string(pick(30)), 20 * pick(5));
    if (pick(4) == 0)
      query.exclude = {"i" + std::to_string(pick(7))};
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
    } else if (made.stages[0].reasons.pass < last_pass) { // else one that had just failed it
      REQUIRE(again["outcome"] == "placed");
      REQUIRE(again["placement"][0]["instance"] == made.stages[0].instance);
      ++compared;
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
  };
  for (auto [policy, metric, limit, full, top_k] :
       {row{"load-balance", "all_prefills_tokens_num", 120},
        row{"load-balance", "kv_cache_usage_ratio_projected", 0.5},
        row{"load-balance", "num_requests", 4, true, 3}, row{"cache-aware", "num_requests", 4},
        row{"flood", "num_requests", 4}, row{"round-robin", "num_requests", 4},
        row{"load-balance", "num_tokens", 80, false},
        row{"round-robin", "num_tokens", 80, false}}) {
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
    twice run{config, 7};
    for (int i = 0; i < 120; ++i)
      run.step();
    CHECK(run.compared > 12);
  }
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
