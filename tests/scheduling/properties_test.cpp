#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

/// What holds for every policy, whatever the cluster looks like.
using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// T(tokens) = 5 + tokens / 8 up to 100000; P(batch, each) = 5 + batch / 4 up to 64.
latency_profile wide_profile() {
  latency_profile made;
  made.ttft = interpolation_table{{{0, 0, 5}, {100'000, 0, 12'505}}};
  made.tpot = interpolation_table{{{1, 8, 5.25}, {64, 8, 21}, {1, 1e6, 5.25}, {64, 1e6, 21}}};
  return made;
}

struct policy_row {
  const char* name;
  bool full_mode = true;
  bool adaptive_pd = false;
  std::uint32_t top_k = 1;
  bool power_of_two = false;
  bool session_affinity = false;
  double hysteresis = 0;
  bool lora_affinity = false;
  bool priority_aware = false;

  /// Policies whose roles are apart, and such requests.
  bool apart() const { return std::string{name} == "slo"; }
  /// Chance, not order, decides among some of the best.
  bool draws() const { return top_k > 1 || power_of_two; }

  scheduler_config config() const {
    scheduler_config made;
    made.policy = name;
    made.full_mode = full_mode;
    made.adaptive_pd = adaptive_pd;
    made.dispatch_top_k = top_k;
    made.power_of_two = power_of_two;
    made.session_affinity = session_affinity;
    made.hysteresis = hysteresis;
    made.lora_affinity = lora_affinity;
    made.priority_aware = priority_aware;
    made.neutral_load_metric = full_mode ? "all_prefills_tokens_num" : "num_tokens";
    made.neutral_load_threshold = 400;
    made.cache_aware_min_tokens = 0;
    made.ttft_slo_ms = 200;
    made.tpot_slo_ms = 20;
    return made;
  }
};

std::vector<policy_row> all_policies() {
  std::vector<policy_row> rows{
    {"load-balance"},
    {"cache-aware"},
    {"flood"},
    {"round-robin"},
    {"slo"},
    {"slo", true, true},
    {"load-balance", false},
    {"flood", false},
    {"round-robin", false},
    {"load-balance"},
    {"load-balance"},
    {"cache-aware"},
    {"load-balance"},
    {"cache-aware", false},
    {"cache-aware", false},
    {"load-balance", false}};
  rows[9].top_k = 3;
  rows[10].power_of_two = true;
  rows[11].session_affinity = true;
  rows[12].hysteresis = 0.2;
  rows[14].lora_affinity = true;
  rows[15].priority_aware = true;
  return rows;
}

/// An instance of a scene, and what was sent there and no status shows.
struct placed_instance {
  instance_metadata metadata;
  instance_status status;
  instance_state state = instance_state::ready;
  std::int32_t sent_tokens = 0;
  std::int32_t sent_priority = 0;
  std::uint32_t hit_tokens = 0;

  const instance_id& id() const { return metadata.instance_id; }
  bool healthy() const {
    return state == instance_state::ready && status.schedulable
           && noon - status.timestamp_ms < 61'000;
  }
};

class scene_maker {
public:
  scene_maker(const policy_row& policy, unsigned seed) : policy_{policy}, chance_{seed} {}

  std::vector<placed_instance> instances() {
    std::vector<placed_instance> made;
    auto count = 1 + pick(7);
    for (std::uint32_t i = 0; i < count; ++i)
      made.push_back(instance("i" + std::to_string(i)));
    return made;
  }
  /// Idle, healthy, and in nobody's failover domain. Before all others by name, among them or
  /// behind them.
  placed_instance idle() {
    auto made = blank(std::array{"a", "i2x", "z"}[pick(3)]);
    made.metadata.node_id = "idle";
    return made;
  }
  placement_query query(const std::vector<placed_instance>& among) {
    auto made = query_for("r" + std::to_string(pick(100)), 16 * pick(20));
    for (auto& each : among)
      if (pick(8) == 0)
        made.exclude.push_back(each.id());
    if (policy_.apart())
      made.mode = serving_mode::pd_batch;
    if (policy_.session_affinity)
      made.wishes.session = "s" + std::to_string(pick(3));
    if (policy_.lora_affinity)
      made.wishes.adapter = adapters[pick(3)];
    if (policy_.priority_aware)
      made.wishes.priority = some(3) - 1;
    return made;
  }
  template <class T>
  void shuffle(std::vector<T>& list) {
    std::shuffle(list.begin(), list.end(), chance_);
  }

private:
  std::uint32_t pick(std::uint32_t n) { return chance_() % n; }
  std::int32_t some(std::uint32_t n) { return static_cast<std::int32_t>(pick(n)); }

  placed_instance blank(const std::string& id) {
    placed_instance made{neutral_instance(id), idle_status(id)};
    made.metadata.max_num_batched_tokens = 2048;
    if (policy_.apart())
      made.metadata.instance_type = pick(2) ? "prefill" : "decode";
    made.status.num_total_gpu_tokens = 10'000;
    return made;
  }
  placed_instance instance(const std::string& id) {
    auto made = blank(id);
    made.metadata.node_id = std::array{"", "h1", "h2"}[pick(3)];
    auto& status = made.status;
    status.schedulable = pick(12) != 0;
    if (pick(12) == 0)
      status.timestamp_ms = noon - 1'000 * (50 + pick(30));
    if (pick(10) == 0)
      made.state = instance_state{static_cast<std::uint8_t>(pick(4))};
    status.num_used_gpu_tokens = 500 * some(20);
    if (pick(3))
      status.num_uncomputed_tokens_all_waiting_prefills = 64 * some(16);
    if (pick(2)) {
      status.scheduler_running_to_decode_requests_num = some(30);
      status.scheduler_running_to_decode_tokens_num
        = 300 * status.scheduler_running_to_decode_requests_num;
    }
    made.sent_tokens = pick(3) ? 0 : 64 * (1 + some(8));
    made.hit_tokens = 16 * pick(4);
    if (policy_.lora_affinity && pick(2))
      status.adapters = {adapters[pick(2)]};
    if (policy_.priority_aware)
      made.sent_priority = some(3) - 1;
    return made;
  }

  static constexpr std::array<const char*, 3> adapters{"legal", "sql", "rare"};

  const policy_row& policy_;
  std::mt19937 chance_;
};

/// The cluster as it is known when its parts came in the order given.
dispatcher know(const policy_row& policy, const std::vector<placed_instance>& instances) {
  auto made = *dispatcher::make(policy.config(), wide_profile());
  for (auto& each : instances) {
    made.put(each.metadata, life_of(each.id()));
    made.update(each.status, noon);
    made.set_state(each.id(), each.state);
    if (each.sent_tokens > 0)
      made.book(
        each.id(),
        {"sent-" + each.id(), *parse_infer_type(each.metadata.instance_type), each.sent_tokens,
         each.sent_tokens, each.sent_priority},
        noon, false);
  }
  return made;
}

prefix_hits hits_of(std::vector<placed_instance> instances, std::uint32_t prompt_tokens) {
  std::ranges::sort(instances, {}, &placed_instance::id);
  std::vector<prefix_hit> hits;
  for (auto& each : instances)
    if (auto held = std::min(each.hit_tokens, prompt_tokens); held > 0)
      hits.push_back({each.id(), held});
  return {true, prompt_tokens, hits};
}

struct told {
  bool placed = false;
  std::vector<std::pair<instance_id, int>> stages; ///< whom, in which pass
  bool operator==(const told&) const = default;
};

told tell(const scheduled& outcome) {
  told made{outcome.placed, {}};
  for (auto& stage : outcome.stages)
    made.stages.emplace_back(stage.instance, stage.reasons.pass);
  return made;
}

constexpr unsigned scenes = 1'500; // of each policy

} // namespace

TEST_CASE("no policy picks an instance that a filter rejects") {
  for (auto& policy : all_policies()) {
    CAPTURE(policy.name);
    CAPTURE(policy.adaptive_pd);
    int placed = 0, refused = 0, fallbacks = 0;
    for (unsigned seed = 1; seed <= scenes; ++seed) {
      CAPTURE(seed);
      scene_maker make{policy, seed};
      auto instances = make.instances();
      auto d = know(policy, instances);
      for (int i = 0; i < 3; ++i) { // so that what selectors remember has its turn
        auto query = make.query(instances);
        auto hits = hits_of(instances, query.prompt_tokens);
        auto made = d.schedule(query, &hits, noon, explain::in_full);
        for (auto& stage : made.stages) {
          if (stage.instance.empty())
            continue;
          // As the specification has it: health holds in every pass.
          auto chosen = std::ranges::find(instances, stage.instance, &placed_instance::id);
          REQUIRE(chosen != instances.end());
          REQUIRE(chosen->healthy());
          if (!policy.adaptive_pd)
            REQUIRE(chosen->metadata.instance_type == to_string(stage.stage));
          bool excluded = std::ranges::count(query.exclude, stage.instance) > 0;
          if (stage.reasons.pass < last_pass)
            REQUIRE_FALSE(excluded);
          // And as the decision itself says, for every filter of the pass that decided.
          REQUIRE(std::ranges::none_of(stage.report->dropped, [&](auto& drop) {
            return drop.instance == stage.instance && drop.pass == stage.reasons.pass;
          }));
          fallbacks += stage.reasons.pass > 1;
        }
        placed += made.placed, refused += !made.placed;
      }
    }
    CHECK(placed > 500); // so that all outcomes occurred
    CHECK(refused > 50);
    CHECK((fallbacks > 30 || policy.apart()));
  }
}

TEST_CASE("slo places nobody above the limit on predicted times") {
  policy_row policy{"slo"};
  auto limit_of
    = [&](infer_type stage) { return stage == infer_type::prefill ? 200.f * 0.85f : 20.f * 0.85f; };
  int close = 0;
  for (unsigned seed = 1; seed <= scenes; ++seed) {
    CAPTURE(seed);
    scene_maker make{policy, seed};
    auto instances = make.instances();
    auto d = know(policy, instances);
    auto query = make.query(instances);
    for (auto& stage : d.schedule(query, nullptr, noon, explain::briefly).stages) {
      auto& reasons = stage.reasons;
      auto told = stage.stage == infer_type::prefill ? reasons.predicted_ttft_ms
                                                     : reasons.predicted_tpot_ms;
      if (stage.instance.empty())
        continue;
      REQUIRE(told.has_value());
      REQUIRE(*told < limit_of(stage.stage));
      close += *told > limit_of(stage.stage) / 2;
    }
  }
  CHECK(close > 50);
}

TEST_CASE("the order in which instances became known changes no choice") {
  for (auto& policy : all_policies()) {
    CAPTURE(policy.name);
    CAPTURE(policy.adaptive_pd);
    CAPTURE(policy.full_mode);
    int placed = 0;
    for (unsigned seed = 1; seed <= scenes; ++seed) {
      CAPTURE(seed);
      scene_maker make{policy, seed};
      auto instances = make.instances();
      auto shuffled = instances;
      make.shuffle(shuffled);
      auto one = know(policy, instances);
      auto other = know(policy, shuffled);
      for (int i = 0; i < 4; ++i) {
        auto query = make.query(instances);
        auto hits = hits_of(instances, query.prompt_tokens);
        auto first = tell(one.schedule(query, &hits, noon, explain::briefly));
        make.shuffle(query.exclude);
        REQUIRE(first == tell(other.schedule(query, &hits, noon, explain::briefly)));
        placed += first.placed;
      }
    }
    CHECK(placed > 1'000);
  }
}

TEST_CASE("one idle instance more makes no request worse off") {
  for (auto& policy : all_policies()) {
    CAPTURE(policy.name);
    CAPTURE(policy.adaptive_pd);
    CAPTURE(policy.full_mode);
    int changed = 0, rescued = 0;
    for (unsigned seed = 1; seed <= scenes; ++seed) {
      CAPTURE(seed);
      scene_maker make{policy, seed};
      auto instances = make.instances();
      auto more = instances;
      auto idle = make.idle();
      more.push_back(idle);
      auto query = make.query(instances);
      auto hits = hits_of(instances, query.prompt_tokens);
      auto before = know(policy, instances).schedule(query, &hits, noon, explain::briefly);
      auto after = know(policy, more).schedule(query, &hits, noon, explain::briefly);
      if (before.placed)
        REQUIRE(after.placed);
      rescued += !before.placed && after.placed;
      if (!before.placed)
        continue;
      for (std::size_t i = 0; i < before.stages.size(); ++i) {
        auto& was = before.stages[i];
        auto& is = after.stages[i];
        REQUIRE(is.reasons.pass <= was.reasons.pass);
        changed += is.instance != was.instance;
        // A request goes where it went, or to the idle one. Where chance decides it is drawn from
        // more; with adaptive PD the reservations are others, and an earlier pass may be reached.
        if (!policy.draws() && !policy.adaptive_pd)
          REQUIRE((is.instance == was.instance || is.instance == idle.id()));
        bool same_pass = is.reasons.pass == was.reasons.pass;
        if (policy.adaptive_pd && was.stage == infer_type::prefill && same_pass)
          REQUIRE(*is.reasons.predicted_ttft_ms <= *was.reasons.predicted_ttft_ms);
      }
    }
    CHECK(changed > 50);
    CHECK(rescued > 20);
  }
}

TEST_CASE("numbers kept for decisions are those that are computed for each") {
  for (auto& policy : all_policies()) {
    CAPTURE(policy.name);
    CAPTURE(policy.adaptive_pd);
    for (unsigned seed = 1; seed <= scenes; ++seed) {
      CAPTURE(seed);
      scene_maker make{policy, seed};
      auto instances = make.instances();
      auto kept = know(policy, instances);
      auto computed = know(policy, instances);
      computed.give(
        instances[0].id(), {{"freeness", 0.f}}); // no metric of theirs: all is looked up
      for (int i = 0; i < 3; ++i) {
        auto query = make.query(instances);
        auto hits = hits_of(instances, query.prompt_tokens);
        auto first = kept.schedule(query, &hits, noon, explain::briefly);
        auto second = computed.schedule(query, &hits, noon, explain::briefly);
        REQUIRE(tell(first) == tell(second));
        for (std::size_t s = 0; s < first.stages.size(); ++s) {
          auto& ranking = first.stages[s].reasons.ranking;
          REQUIRE(ranking.size() == second.stages[s].reasons.ranking.size());
          for (std::size_t at = 0; at < ranking.size(); ++at) {
            REQUIRE(ranking[at].instance == second.stages[s].reasons.ranking[at].instance);
            REQUIRE(ranking[at].values == second.stages[s].reasons.ranking[at].values);
          }
        }
      }
    }
  }
}
