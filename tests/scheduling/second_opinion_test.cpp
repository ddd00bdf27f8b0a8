#include "runtime/base/log.hpp"
#include "tests/scheduling/cluster_builder.hpp"
#include "tests/scheduling/second_opinion.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// A cluster's life at random: the same events go to the dispatcher and to the second opinion.
class trial {
public:
  trial(const scheduler_config& config, unsigned seed)
    : chance_{seed}, dispatcher_{*dispatcher::make(config)}, opinion_{config} {}

  /// One random event.
  void step() {
    now_ += pick(400);
    switch (pick(20)) {
      case 0:
      case 1: put(); break;
      case 2: change_state(); break;
      case 3:
        if (pick(3) == 0)
          lose();
        break;
      case 4:
        if (pick(3) == 0)
          remove();
        break;
      case 5:
      case 6:
      case 7: release(); break;
      case 8:
        if (pick(8) == 0)
          now_ += 1'000 * pick(70); // so that statuses and bookings grow stale
        break;
      case 9:
      case 10:
      case 11:
      case 12:
      case 13: report(); break;
      default: place();
    }
  }

  int decisions = 0, refusals = 0, fallbacks = 0;

private:
  std::uint32_t pick(std::uint32_t n) { return chance_() % n; }
  std::int32_t some(std::uint32_t n) { return static_cast<std::int32_t>(pick(n)); }
  std::string instance() { return "i" + std::to_string(pick(12)); }
  std::string request() { return "q" + std::to_string(pick(40)); }
  node_life life() { return {"n" + std::to_string(pick(5)), 1 + pick(3)}; }

  void put() {
    auto metadata = neutral_instance(instance());
    metadata.node_id = std::array{"", "h1", "h2", "h3"}[pick(4)];
    metadata.unit_id = std::array{"", "u1", "u2", "u3", "u4"}[pick(5)];
    metadata.data_parallel_size = pick(6) == 0 ? 2 : 1;
    if (pick(12) == 0)
      metadata.instance_type = std::array{"prefill", "decode", ""}[pick(3)];
    auto lives = life();
    dispatcher_.put(metadata, lives);
    opinion_.put(metadata, lives);
  }

  void change_state() {
    auto id = instance();
    auto state
      = pick(2) ? instance_state::ready : instance_state{static_cast<std::uint8_t>(pick(4))};
    dispatcher_.set_state(id, state);
    opinion_.set_state(id, state);
  }

  void lose() {
    auto lives = life();
    dispatcher_.lose(lives);
    opinion_.lose(lives);
  }

  void remove() {
    auto id = instance();
    dispatcher_.remove(id);
    opinion_.remove(id);
  }

  void release() {
    auto id = request();
    dispatcher_.release(id);
    opinion_.release(id);
  }

  void report() {
    auto status = idle_status(instance(), now_ - some(300) + 50, some(40) + some(40));
    status.schedulable = pick(25) != 0;
    status.num_total_gpu_tokens = pick(10) == 0 ? 0 : 500;
    status.num_used_gpu_tokens = 50 * some(8); // coarse, so that ties are common
    status.num_uncomputed_tokens_all_waiting_prefills = 40 * some(4);
    status.num_uncomputed_tokens_scheduler_running_prefills = 40 * some(2);
    status.num_unallocated_tokens_scheduler_running_prefills = 25 * some(3);
    status.num_unallocated_tokens_hybrid_scheduler_waiting_decodes = 25 * some(3);
    status.num_waiting_requests = some(4);
    status.num_running_requests = some(4);
    status.num_loading_requests = some(2);
    status.hybrid_scheduler_waiting_to_decode_requests_num = some(2);
    status.scheduler_waiting_to_decode_requests_num = some(2);
    status.scheduler_running_to_decode_requests_num = some(3);
    status.hybrid_scheduler_waiting_to_decode_tokens_num = 30 * some(3);
    status.scheduler_waiting_to_decode_tokens_num = 30 * some(3);
    status.scheduler_running_to_decode_tokens_num = 30 * some(3);
    status.num_tokens_loading_requests = 30 * some(2);
    for (auto* list : {&status.recent_waiting_requests, &status.waiting_requests})
      for (auto count = pick(5); count > 0; --count)
        list->push_back(
          std::array{"cmpl-", "chatcmpl-", "generate-tokens-", ""}[pick(4)] + request()
          + std::array{"-0", "+1+x", "-0-12ab34cd", "-12ab34cd", "-1-x", ""}[pick(6)]);
    dispatcher_.update(status, now_);
    opinion_.update(status, now_);
  }

  void place() {
    auto prompt = pick(40) == 0 ? 4'000'000'000u : 20 * pick(5); // more than 32 bits hold, at times
    placement_query query{.request_id = request(), .prompt_tokens = prompt, .exclude = {}};
    for (auto count = pick(3) ? 0 : pick(14); count > 0; --count)
      query.exclude.push_back(instance());
    bool explain = pick(2) == 0;
    auto [chosen, reasons, decode, decode_reasons] = dispatcher_.place(query, now_, explain);
    auto acceptable = opinion_.acceptable(query, now_);
    if (acceptable.empty())
      REQUIRE(chosen == "");
    else
      REQUIRE(acceptable.count(chosen) == 1);
    opinion_.placed(query, chosen, now_);
    ++decisions;
    refusals += chosen.empty();
    fallbacks += !chosen.empty() && reasons.pass > 1;
  }

  std::mt19937 chance_;
  unix_ms now_ = noon;
  dispatcher dispatcher_;
  second_opinion opinion_;
};

} // namespace

TEST_CASE("the dispatcher decides as the specification does, whatever happens") {
  log::options quiet; // instances of no role are part of the trial
  quiet.threshold = log::level::error;
  log::configure(quiet);
  struct row {
    const char* policy;
    const char* metric;
    double threshold;
    const char* domain;
    std::uint32_t top_k;
    bool account;
    bool full_mode = true;
  };
  for (auto [policy, metric, threshold, domain, top_k, account, full_mode] :
       {row{"load-balance", "all_prefills_tokens_num", 120, "instance-unit", 1, true},
        row{"load-balance", "kv_cache_usage_ratio_projected", 0.6, "node", 1, true},
        row{"load-balance", "decode_batch_size", 3, "node-unit", 1, true},
        row{"load-balance", "num_waiting_requests", 2, "instance", 1, true},
        row{"load-balance", "num_requests", 4, "node", 1, true},
        row{"load-balance", "all_decodes_tokens_num", 120, "instance", 1, false},
        row{"load-balance", "num_requests", 4, "instance-unit", 3, true},
        row{"flood", "num_requests", 4, "instance", 1, true},
        row{"round-robin", "num_requests", 4, "node-unit", 1, true},
        row{"load-balance", "num_requests", 2, "node", 1, true, false},
        row{"load-balance", "num_tokens", 80, "instance", 1, false, false},
        row{"load-balance", "decode_batch_size", 80, "node-unit", 3, true, false},
        row{"round-robin", "num_tokens", 80, "instance-unit", 1, true, false}}) {
    CAPTURE(policy);
    CAPTURE(metric);
    CAPTURE(domain);
    CAPTURE(full_mode);
    scheduler_config config;
    config.policy = policy;
    config.neutral_load_metric = metric;
    config.neutral_load_threshold = threshold;
    config.failover_domain = domain;
    config.dispatch_top_k = top_k;
    config.local_account = account;
    config.full_mode = full_mode;
    int decisions = 0, refusals = 0, fallbacks = 0;
    for (unsigned seed = 1; seed <= 20; ++seed) {
      CAPTURE(seed);
      trial run{config, seed};
      for (int event = 0; event < 800; ++event)
        run.step();
      decisions += run.decisions, refusals += run.refusals, fallbacks += run.fallbacks;
    }
    CHECK(decisions > 3'000); // so that the trial is one: all outcomes occurred
    CHECK(refusals > 20);
    CHECK(fallbacks > 20);
    CHECK(decisions - refusals > 1'000);
  }
}
