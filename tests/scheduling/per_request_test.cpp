#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// A prefill takes a tenth of a millisecond a token, a step a millisecond per decode in it.
latency_profile simple_profile() {
  return {
    interpolation_table{{{0, 0, 0}, {10'000, 0, 1'000}}},
    interpolation_table{{{1, 8, 1}, {1, 100'000, 1}, {200, 8, 200}, {200, 100'000, 200}}}};
}

dispatcher slo(bool adaptive) {
  scheduler_config config;
  config.policy = "slo";
  config.adaptive_pd = adaptive;
  config.ttft_slo_ms = 100; // x 0.85: placed below 85 ms
  config.tpot_slo_ms = 50;  // x 0.85: placed below 42.5 ms
  return *dispatcher::make(config, simple_profile());
}

struct load {
  std::int32_t prefill_tokens = 0;
  std::int32_t decodes = 0; ///< of 100 tokens each
};

/// Tells of an instance's load; each time is news.
void tell(dispatcher& to, const instance_id& id, const load& now_has, std::int32_t update) {
  auto status = idle_status(id, noon + update, update);
  status.num_uncomputed_tokens_all_waiting_prefills = now_has.prefill_tokens;
  status.scheduler_running_to_decode_requests_num = now_has.decodes;
  status.scheduler_running_to_decode_tokens_num = 100 * now_has.decodes;
  to.update(status, noon);
}

void add(dispatcher& to, const instance_id& id, const char* role, const load& has = {}) {
  auto metadata = neutral_instance(id);
  metadata.instance_type = role;
  metadata.max_num_batched_tokens = 1000;
  to.put(metadata, life_of(id));
  tell(to, id, has, 1);
}

placement_query asked(serving_mode mode, std::uint32_t tokens, placement_wishes wishes) {
  auto query = query_for("r", tokens);
  query.mode = mode;
  query.stage = infer_type::decode;
  query.wishes = std::move(wishes);
  return query;
}

/// "p d": who was chosen for each role; "-": nobody. Nothing of it stays booked.
std::string chosen(dispatcher& by, const placement_query& query) {
  std::string text;
  for (auto& stage : by.schedule(query, nullptr, noon, explain::nothing).stages)
    text += (text.empty() ? "" : " ") + (stage.instance.empty() ? "-" : stage.instance);
  by.release(query.request_id);
  return text;
}

/// A request of a session, placed and over.
std::pair<instance_id, placement_reasons>
serve(dispatcher& by, const std::string& session, std::vector<instance_id> exclude = {}) {
  auto query = query_for("r", 10, std::move(exclude));
  query.wishes.session = session;
  auto placed = by.place(query, noon, true);
  by.release("r");
  return {placed.instance, placed.reasons};
}

dispatcher with_sessions(std::string policy = "load-balance") {
  scheduler_config config;
  config.policy = std::move(policy);
  config.session_affinity = true;
  return *dispatcher::make(config);
}

} // namespace

TEST_CASE("a request's own goals take the place of those of config, for itself alone") {
  auto d = slo(false);
  add(d, "p", "prefill", {.prefill_tokens = 300}); // 30 ms and the prompt
  add(d, "d", "decode", {.decodes = 20});          // 21 ms
  struct row {
    std::uint32_t tokens;
    placement_wishes wishes;
    const char* expected;
  };
  for (auto& [tokens, wishes, expected] : std::initializer_list<row>{
         {100, {}, "p d"},
         {100, {50.f, {}, {}, {}}, "p d"}, // 40 ms, below 42.5
         {100, {47.f, {}, {}, {}}, "- d"}, // not below 39.95
         {100, {}, "p d"},
         {100, {{}, 25.f, {}, {}}, "p d"},      // below 21.25
         {100, {{}, 24.f, {}, {}}, "p -"},      // not below 20.4
         {100, {50.f, 24.f, {}, {}}, "p -"},    //
         {850, {}, "- d"},                      // 115 ms, not below 85
         {850, {200.f, {}, {}, {}}, "p d"},     // below 170: a client more patient than config
         {100, {1e-30f, {}, {}, {}}, "- d"},    // what nobody can do
         {850, {1e9f, 1e9f, {}, {}}, "p d"}}) { // the largest that are let in
    CAPTURE(tokens);
    CAPTURE(wishes.ttft_slo_ms.value_or(0));
    CAPTURE(wishes.tpot_slo_ms.value_or(0));
    CHECK(chosen(d, asked(serving_mode::pd_batch, tokens, wishes)) == expected);
  }
}

TEST_CASE("adaptive PD packs decodes below the request's own goal") {
  auto d = slo(true);
  for (auto [id, role] :
       {std::pair{"a", "decode"}, {"b", "prefill"}, {"c", "prefill"}, {"e", "prefill"}})
    add(d, id, role);
  REQUIRE(d.reserved(noon) == reservations{"b", "a"});
  tell(d, "a", {.decodes = 50}, 2); // the one kept for decodes; 51 ms with this one
  tell(d, "c", {.decodes = 10}, 2);
  tell(d, "e", {.decodes = 20}, 2);
  using row = std::pair<std::optional<float>, const char*>;
  for (auto [goal, expected] : std::initializer_list<row>{
         {{}, "e"},    // a is not below 42.5
         {100.f, "a"}, // below 85
         {20.f, "c"},  // e is not below 17
         {10.f, "c"},  // nobody is below 8.5: the least
         {{}, "e"}}) {
    CAPTURE(goal.value_or(0));
    CHECK(chosen(d, asked(serving_mode::pd_staged, 1, {{}, goal, {}})) == expected);
  }
}

TEST_CASE("the limit that was applied is told, and what was wished") {
  auto d = slo(false);
  add(d, "p", "prefill", {.prefill_tokens = 300});
  add(d, "d", "decode");
  placement_wishes wishes{20.f, 30.f, "s"}; // 30 ms are not below 17
  auto decided
    = d.schedule(asked(serving_mode::pd_batch, 0, wishes), nullptr, noon, explain::in_full);
  REQUIRE(decided.stages.size() == 2);
  auto& prefill = decided.stages[0];
  CHECK(prefill.instance.empty());
  REQUIRE(prefill.reasons.drops.size() == 2); // in either pass
  CHECK(prefill.reasons.drops[0].threshold == doctest::Approx(17));
  CHECK(prefill.reasons.wishes == wishes);
  REQUIRE(prefill.report->dropped.size() == 2);
  CHECK(prefill.report->dropped[0].threshold == doctest::Approx(17));
}

TEST_CASE("goals change nothing where the policy predicts nothing, and are told all the same") {
  for (auto policy : {"load-balance", "flood", "round-robin"}) {
    CAPTURE(policy);
    scheduler_config config;
    config.policy = policy;
    auto d = *dispatcher::make(config);
    join(d, "a", 5'000), join(d, "b", 6'000);
    auto query = query_for("r");
    query.wishes = {1.f, 1.f, "s"};
    auto placed = d.place(query, noon, true);
    CHECK(placed.instance == "a");
    CHECK(placed.reasons.wishes == query.wishes);
    CHECK(
      placed.reasons.decided.cause
      == (policy == std::string_view{"load-balance"} ? choice_cause::metric
                                                     : choice_cause::policy));
  }
}

// Mends weakness 13 of spec/scheduling.md.
TEST_CASE("a session stays with its instance as long as that one may take it") {
  auto d = with_sessions();
  join(d, "a"), join(d, "b", 100);
  CHECK(serve(d, "s").first == "a");
  tell(d, "a", {.prefill_tokens = 500}, 2);
  CHECK(serve(d, "").first == "b"); // who has no session goes where there is least to do
  CHECK(serve(d, "t").first == "b");
  auto [instance, reasons] = serve(d, "s");
  CHECK(instance == "a");
  CHECK(reasons.decided.cause == choice_cause::session);
  CHECK(sentence(reasons, instance) == "a chosen: it took the last request of the session");
  CHECK(reasons.ranking[0].instance == "b");

  tell(d, "a", {.prefill_tokens = 9'000}, 3); // above the limit
  CHECK(serve(d, "s").first == "b");
  tell(d, "a", {}, 4);
  CHECK(serve(d, "s").first == "b");        // it has moved
  CHECK(serve(d, "s", {"b"}).first == "a"); // b just failed it
  CHECK(serve(d, "s").first == "a");
  d.set_state("a", instance_state::draining);
  CHECK(serve(d, "s").first == "b");
  d.remove("b");
  d.set_state("a", instance_state::ready);
  CHECK(serve(d, "s").first == "a");
}

TEST_CASE("sessions go before any policy's own choice, and are nobody's turn") {
  auto d = with_sessions("round-robin");
  for (auto id : {"a", "b", "c"})
    join(d, id);
  CHECK(serve(d, "s").first == "a");
  CHECK(serve(d, "s").first == "a");
  CHECK(serve(d, "").first == "b");
  CHECK(serve(d, "s").first == "a");
  CHECK(serve(d, "").first == "c");
}

TEST_CASE("without scheduler.session_affinity a session is a word in the record") {
  auto d = *dispatcher::make({});
  join(d, "a"), join(d, "b", 100);
  CHECK(serve(d, "s").first == "a");
  tell(d, "a", {.prefill_tokens = 500}, 2);
  auto [instance, reasons] = serve(d, "s");
  CHECK(instance == "b");
  CHECK(reasons.wishes.session == "s");
}

TEST_CASE("with hysteresis a choice does not follow every small change of load") {
  for (auto [share, expected] : {std::pair{0.0, "a b a b b"}, {0.1, "a a a a b"}}) {
    CAPTURE(share);
    scheduler_config config;
    config.hysteresis = share;
    auto d = *dispatcher::make(config);
    join(d, "a"), join(d, "b");
    std::string chosen;
    std::int32_t update = 1;
    placement_reasons last;
    for (auto [a, b] :
         {std::pair{1000, 1010}, {1010, 1000}, {1000, 1010}, {1010, 1000}, {1200, 1000}}) {
      tell(d, "a", {.prefill_tokens = a}, ++update);
      tell(d, "b", {.prefill_tokens = b}, update);
      auto [instance, reasons] = serve(d, "");
      chosen += (chosen.empty() ? "" : " ") + instance;
      if (update == 3)
        CHECK((reasons.decided.cause == choice_cause::kept) == (share > 0));
      last = reasons;
    }
    CHECK(chosen == expected);
    CHECK(last.decided.cause == choice_cause::metric);
  }
}

TEST_CASE("power of two: the one with the most to do gets nothing, the others their share") {
  scheduler_config config;
  config.power_of_two = true;
  auto d = *dispatcher::make(config);
  join(d, "a", 300), join(d, "b", 100), join(d, "c", 200);
  std::map<instance_id, int> times;
  for (int i = 0; i < 300; ++i) {
    auto query = query_for("r" + std::to_string(i));
    ++times[d.place(query, noon, false).instance];
    d.release(query.request_id);
  }
  CHECK(times["a"] == 0);  // whoever is drawn with it is better
  CHECK(times["b"] > 150); // in two of three pairs
  CHECK(times["c"] > 50);  // in one
}
