#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Joins an idle instance of a role, changed before it is told.
void add(
  dispatcher& to, const instance_id& id, const char* role,
  const std::function<void(instance_status&)>& set = {}) {
  auto metadata = neutral_instance(id);
  metadata.instance_type = role;
  metadata.max_num_batched_tokens = 1000;
  to.put(metadata, life_of(id));
  auto status = idle_status(id);
  if (set)
    set(status);
  to.update(status, noon);
}

void prefills(instance_status& s, std::int32_t tokens) {
  s.num_uncomputed_tokens_all_waiting_prefills = tokens;
}

void decodes(instance_status& s, std::int32_t requests, std::int32_t tokens) {
  s.scheduler_running_to_decode_requests_num = requests;
  s.scheduler_running_to_decode_tokens_num = tokens;
}

placement_query asked(const char* mode, const char* stage = "prefill", std::uint32_t tokens = 10) {
  auto query = query_for("r", tokens);
  query.mode = *parse_serving_mode(mode);
  query.stage = *parse_infer_type(stage);
  return query;
}

/// "prefill=p decode=d", or "" for nobody at all.
std::string placed(dispatcher& by, const placement_query& query, unix_ms now = noon) {
  auto decided = by.schedule(query, nullptr, now, explain::briefly);
  std::string text;
  for (auto& stage : decided.stages)
    text += std::string{to_string(stage.stage)} + "=" + stage.instance + " ";
  return text + (decided.placed ? "placed" : "refused");
}

/// A grid on which time is easy to tell: T(tokens) = tokens / 10 ms; P(batch, tokens per request) =
/// batch ms.
latency_profile simple_profile() {
  std::vector<profile_point> ttft, tpot;
  for (double tokens : {0.0, 10'000.0})
    ttft.push_back({tokens, 0, tokens / 10});
  for (double batch : {1.0, 200.0})
    for (double each : {8.0, 100'000.0})
      tpot.push_back({batch, each, batch});
  return {interpolation_table{std::move(ttft)}, interpolation_table{std::move(tpot)}};
}

dispatcher slo(bool adaptive) {
  scheduler_config config;
  config.policy = "slo";
  config.adaptive_pd = adaptive;
  config.ttft_slo_ms = 100; // x 0.85: placed below 85 ms
  config.tpot_slo_ms = 50;  // x 0.85: placed below 42.5 ms
  return *dispatcher::make(config, simple_profile());
}

} // namespace

// Mends weakness 13 of spec/cms.md.
TEST_CASE("roles are chosen as the mode says, all or none") {
  struct row {
    const char* what;
    std::vector<std::pair<const char*, const char*>> cluster; ///< id and role
    const char* mode;
    const char* stage;
    const char* expected;
  };
  for (auto& [what, cluster, mode, stage, expected] : std::initializer_list<row>{
         {"neutral wants a neutral one",
          {{"n", "neutral"}, {"p", "prefill"}},
          "neutral",
          "prefill",
          "neutral=n placed"},
         {"and nobody else will do",
          {{"p", "prefill"}, {"d", "decode"}},
          "neutral",
          "prefill",
          "refused"},
         {"both at once, prefill first",
          {{"p", "prefill"}, {"d", "decode"}},
          "pd_batch",
          "prefill",
          "prefill=p decode=d placed"},
         {"one role is not enough",
          {{"p", "prefill"}, {"q", "prefill"}},
          "pd_batch",
          "prefill",
          "refused"},
         {"not even where it is the one wanted",
          {{"p", "prefill"}},
          "pd_staged",
          "prefill",
          "refused"},
         {"any second role will do for a stage",
          {{"n", "neutral"}, {"p", "prefill"}},
          "pd_staged",
          "prefill",
          "prefill=p placed"},
         {"half a pair is none (weakness 14)",
          {{"n", "neutral"}, {"p", "prefill"}},
          "pd_batch",
          "prefill",
          "prefill=p decode= refused"},
         {"the other half neither",
          {{"n", "neutral"}, {"d", "decode"}},
          "pd_batch",
          "prefill",
          "prefill= decode=d refused"},
         {"stage decode",
          {{"p", "prefill"}, {"d", "decode"}},
          "pd_staged",
          "decode",
          "decode=d placed"},
         {"a stage that is none",
          {{"p", "prefill"}, {"d", "decode"}},
          "pd_staged",
          "neutral",
          "refused"}}) {
    CAPTURE(what);
    auto d = *dispatcher::make({});
    for (auto [id, role] : cluster)
      add(d, id, role);
    CHECK(placed(d, asked(mode, stage)) == expected);
    // What is refused is not booked.
    for (auto [id, role] : cluster)
      if (std::string_view{expected}.ends_with("refused"))
        CHECK(d.account(id) == inflight_load{});
  }
}

TEST_CASE("both stages of a staged request are booked, on one instance as a neutral one") {
  auto d = *dispatcher::make({});
  add(d, "p", "prefill"), add(d, "d", "decode");
  CHECK(placed(d, asked("pd_staged", "prefill", 30)) == "prefill=p placed");
  CHECK(placed(d, asked("pd_staged", "decode", 30)) == "decode=d placed");
  CHECK(d.account("p") == inflight_load{1, 1, 0, 30, 0});
  CHECK(d.account("d") == inflight_load{1, 0, 1, 0, 30});
  d.release("r");
  CHECK(d.account("p") == inflight_load{});
  CHECK(d.account("d") == inflight_load{});
}

TEST_CASE("a role that changes is counted anew, and the last of its kind takes the mode with it") {
  auto d = *dispatcher::make({});
  add(d, "p", "prefill"), add(d, "d", "decode");
  CHECK(placed(d, asked("pd_staged")) == "prefill=p placed");
  add(d, "d", "prefill");
  CHECK(placed(d, asked("pd_staged")) == "refused");
  add(d, "d", "decode");
  CHECK(placed(d, asked("pd_staged")) == "prefill=p placed");
  d.remove("d");
  CHECK(placed(d, asked("pd_staged")) == "refused");
}

TEST_CASE("slo: the shortest predicted time, and nobody where none is below the limit") {
  auto d = slo(false);
  add(d, "p1", "prefill", [](auto& s) { prefills(s, 500); }); // 50 ms + the prompt
  add(d, "p2", "prefill", [](auto& s) { prefills(s, 300); });
  add(d, "d1", "decode", [](auto& s) { decodes(s, 41, 4'100); });
  add(d, "d2", "decode", [](auto& s) { decodes(s, 20, 2'000); });
  CHECK(placed(d, asked("pd_batch", "prefill", 100)) == "prefill=p2 decode=d2 placed");
  // The prompt alone takes 85 ms: not below the limit, in no pass.
  CHECK(placed(d, asked("pd_staged", "prefill", 850)) == "prefill= refused");
  auto refused = d.schedule(asked("pd_staged", "prefill", 850), nullptr, noon, explain::briefly);
  REQUIRE(refused.stages.size() == 1);
  CHECK(refused.stages[0].reasons.drops.size() == 2); // strict: in the fallback pass too
  // Neutral requests are not this policy's, and neutral instances harm nobody (weakness 15).
  add(d, "n", "neutral");
  auto neutral = d.schedule(asked("neutral"), nullptr, noon, explain::in_full);
  CHECK_FALSE(neutral.placed);
  CHECK(neutral.note == "policy slo places no neutral requests");
  CHECK(d.place(query_for("x"), noon, true).instance == "");
}

TEST_CASE("a metadata record without a step budget predicts nothing, and hangs nobody (weakness "
          "15)") {
  auto d = slo(false);
  add(d, "d", "decode");
  auto metadata = neutral_instance("p");
  metadata.instance_type = "prefill";
  d.put(metadata, life_of("p"));
  d.update(idle_status("p"), noon);
  CHECK(placed(d, asked("pd_staged", "prefill", 100)) == "prefill= refused");
}

TEST_CASE("adaptive PD: roles are what load makes of instances, two are reserved") {
  auto d = slo(true);
  add(d, "a", "prefill"), add(d, "b", "decode"), add(d, "c", "decode");
  CHECK(d.reserved(noon) == reservations{"b", "a"}); // a: no prefill work; b: no decode, and not a
  // A prefill goes where no decode runs, not to the one reserved for decode; all alike: to `b`.
  CHECK(placed(d, asked("pd_staged", "prefill", 100)) == "prefill=b placed");
  // A decode goes to the reserved one while it is within the limit.
  CHECK(placed(d, asked("pd_staged", "decode", 100)) == "decode=a placed");
}

TEST_CASE("adaptive PD keeps two instances that take work for one role each (cms weakness 7)") {
  struct seen_instance {
    const char* id;
    std::int32_t prefill_tokens;
    std::int32_t decode_requests;
    bool schedulable = true;
    unix_ms age = 0;
    instance_state state = instance_state::ready;
  };
  using enum instance_state;
  struct row {
    const char* what;
    std::vector<seen_instance> cluster;
    reservations before;
    reservations expected; ///< prefill, decode
  };
  for (auto& [what, cluster, before, expected] : std::initializer_list<row>{
         {"the first that are idle", {{"a", 0, 0}, {"b", 0, 0}, {"c", 0, 0}}, {}, {"b", "a"}},
         {"not one that is unschedulable",
          {{"a", 0, 0, false}, {"b", 0, 0}, {"c", 0, 0}},
          {},
          {"c", "b"}},
         {"nor stale",
          {{"a", 0, 0, true, 61'000}, {"b", 0, 0, true, 60'999}, {"c", 0, 0}},
          {},
          {"c", "b"}},
         {"nor drained",
          {{"a", 0, 0, true, 0, draining}, {"b", 0, 0}, {"c", 0, 0}},
          {},
          {"c", "b"}},
         {"where all are busy, the fewest decodes, and of the others the least prefill work",
          {{"a", 5, 1}, {"b", 9, 2}, {"c", 8, 3}},
          {},
          {"c", "a"}},
         {"never one for both", {{"a", 5, 0}, {"b", 9, 2}}, {}, {"a", "b"}},
         {"not even alone", {{"a", 5, 1}}, {}, {"", "a"}},
         {"who became unschedulable loses it",
          {{"a", 0, 0}, {"b", 0, 0, false}, {"c", 0, 0}},
          {"b", "a"},
          {"c", "a"}},
         {"who became stale does",
          {{"a", 0, 0, true, 61'000}, {"b", 0, 0}, {"c", 0, 0}},
          {"b", "a"},
          {"b", "c"}},
         {"who is unknown does", {{"a", 0, 0}, {"b", 0, 0}}, {"a", "z"}, {"a", "b"}},
         {"who is only busy keeps it",
          {{"a", 5, 9}, {"b", 9, 9}, {"c", 0, 0}},
          {"b", "a"},
          {"b", "a"}},
         {"nobody takes work", {{"a", 0, 0, false}, {"b", 0, 0, false}}, {"b", "a"}, {}}}) {
    CAPTURE(what);
    cluster_view view;
    for (auto& [id, tokens, requests, schedulable, age, state] : cluster) {
      view.put(neutral_instance(id), life_of(id));
      auto status = idle_status(id, noon - age);
      prefills(status, tokens);
      decodes(status, requests, 0);
      status.schedulable = schedulable;
      view.update(status);
      view.set_state(id, state);
    }
    auto reserved = before;
    fill(reserved, view, noon, 60);
    CHECK(reserved.prefill == expected.prefill);
    CHECK(reserved.decode == expected.decode);
  }
}

TEST_CASE("adaptive PD: an instance that takes no work any more loses its role to another") {
  auto d = slo(true);
  add(d, "a", "decode"), add(d, "b", "prefill"), add(d, "c", "prefill");
  CHECK(placed(d, asked("pd_staged", "decode")) == "decode=a placed");
  auto ill = idle_status("a", noon + 1, 2);
  ill.schedulable = false;
  d.update(ill, noon + 1);
  CHECK(placed(d, asked("pd_staged", "decode"), noon + 1) == "decode=c placed");
  CHECK(d.reserved(noon + 1) == reservations{"b", "c"});
}

// Mends weakness 7 of spec/scheduling.md.
TEST_CASE("adaptive PD packs decodes: the reserved one, else the busiest below the limit; past it, "
          "an instance without decodes is turned") {
  auto d = slo(true);
  add(d, "a", "decode"), add(d, "b", "prefill"), add(d, "c", "prefill"), add(d, "e", "prefill");
  CHECK(d.reserved(noon) == reservations{"b", "a"});
  auto tell = [&, update = 1](const char* id, std::int32_t batch) mutable {
    ++update;
    auto status = idle_status(id, noon + update, update);
    decodes(status, batch, 100 * batch);
    d.update(status, noon);
  };
  auto decode = [&] {
    auto chosen = placed(d, asked("pd_staged", "decode", 1));
    d.release("r");
    return chosen;
  };
  tell("a", 50), tell("c", 10), tell("e", 20); // a: 51 ms, above 42.5
  CHECK(decode() == "decode=e placed");
  tell("e", 60);
  CHECK(decode() == "decode=c placed");
  tell("c", 70); // nobody within the limit but `b`, which is kept for prefills
  CHECK(decode() == "decode=a placed"); // the fallback: the least
  tell("c", 0);
  CHECK(decode() == "decode=c placed"); // `c` becomes a decode instance again
}

TEST_CASE("adaptive PD: a prefill finds no instance where decodes run everywhere") {
  auto d = slo(true);
  add(d, "a", "decode"), add(d, "b", "prefill");
  CHECK(d.reserved(noon) == reservations{"b", "a"});
  auto busy = idle_status("b", noon + 1, 2);
  decodes(busy, 1, 100);
  d.update(busy, noon);
  CHECK(placed(d, asked("pd_staged", "prefill", 1)) == "prefill= refused");
}

TEST_CASE("cache-aware: the most of the prompt, then the least load; nobody asked, nobody misses") {
  scheduler_config config;
  config.cache_aware = true;
  auto d = *dispatcher::make(config);
  join(d, "a", 100), join(d, "b", 700), join(d, "c", 90);
  prefix_hits hits{true, 1000, {{"b", 800}}};
  auto with = [&](const prefix_hits* known) {
    auto decided = d.schedule(query_for("r", 1000), known, noon, explain::briefly);
    auto account = d.account(decided.stages.at(0).instance);
    d.release("r");
    return std::pair{decided.stages[0].instance, account.prefill_tokens};
  };
  CHECK(with(&hits) == std::pair<instance_id, std::int32_t>{"b", 200}); // 900 against 1100, 1090
  CHECK(with(nullptr) == std::pair<instance_id, std::int32_t>{"c", 1000});
  prefix_hits none{true, 1000, {}};
  CHECK(
    with(&none) == std::pair<instance_id, std::int32_t>{"c", 1000}); // all miss alike (weakness 1)
}

TEST_CASE("cache-aware: what waits has to compute what the account says, not the engine") {
  scheduler_config config;
  config.cache_aware = true;
  auto d = *dispatcher::make(config);
  join(d, "a");
  prefix_hits hits{true, 1000, {{"a", 800}}};
  d.schedule(query_for("r", 1000), &hits, noon, explain::nothing);
  auto status = idle_status("a", noon + 1, 2);
  status.recent_waiting_requests = status.waiting_requests = {"cmpl-r-0"};
  status.num_uncomputed_tokens_all_waiting_prefills = 1000;
  d.update(status, noon + 1);
  CHECK(d.view().find("a")->status.num_uncomputed_tokens_all_waiting_prefills == 200);
  CHECK(d.account("a") == inflight_load{});
}

TEST_CASE("predicted progress makes a prefill instance look as far as it has come") {
  scheduler_config config;
  config.predict_progress = true;
  config.max_num_batched_tokens = 100;
  auto d = *dispatcher::make(config);
  d.set_step_model({0, 1, 0}); // a token a millisecond
  add(d, "d", "decode");
  add(d, "p", "prefill", [](auto& s) { prefills(s, 400); });
  add(d, "q", "prefill", [](auto& s) { prefills(s, 150); });
  // At noon q has less to do; 300 ms later p has 100 left and q none.
  CHECK(placed(d, asked("pd_staged"), noon) == "prefill=q placed");
  d.release("r");
  auto later = d.schedule(asked("pd_staged"), nullptr, noon + 300, explain::in_full);
  REQUIRE(later.stages.size() == 1);
  auto& values = later.stages[0].report->candidates;
  CHECK(values[0].metrics[0].second == 100); // p
  CHECK(values[1].metrics[0].second == 0);   // q
}
