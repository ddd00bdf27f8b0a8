#include "runtime/scheduling/dispatcher.hpp"
#include "tests/scheduling/cluster_builder.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

dispatcher make(const scheduler_config& config = {}) {
  auto made = dispatcher::make(config);
  REQUIRE(made.has_value());
  return std::move(*made);
}

scheduler_config by_metric(std::string metric, double threshold = 1e9) {
  scheduler_config config;
  config.neutral_load_metric = std::move(metric);
  config.neutral_load_threshold = threshold;
  return config;
}

/// Places a request of 100 tokens.
instance_id place(dispatcher& by, const std::string& request, unix_ms now = noon) {
  return by.place(query_for(request, 100), now, false).instance;
}

} // namespace

TEST_CASE("a dispatcher is not made from names nothing knows") {
  scheduler_config config;
  config.neutral_load_metric = "kv_cache_hit";
  auto made = dispatcher::make(config);
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().code == errc::invalid_argument);
}

TEST_CASE("nobody is chosen where no neutral instance can take work") {
  auto d = make();
  CHECK(place(d, "r1") == "");
  for (auto role : {"prefill", "decode", "", "Neutral"}) {
    auto metadata = neutral_instance(std::string{"i-"} + role);
    metadata.instance_type = role;
    d.put(metadata, life_of("n"));
    d.update(idle_status(metadata.instance_id), noon);
  }
  CHECK(d.view().instances().size() == 4);
  CHECK(place(d, "r2") == "");
  join(d, "z");
  CHECK(place(d, "r3") == "z");
}

// Mends weakness 5 of spec/cms.md.
TEST_CASE("an instance that changes its role changes its group") {
  auto d = make();
  join(d, "a");
  auto metadata = neutral_instance("a");
  metadata.instance_type = "decode";
  d.put(metadata, life_of("a"));
  CHECK(place(d, "r1") == "");
  metadata.instance_type = "neutral";
  d.put(metadata, life_of("a"));
  CHECK(place(d, "r2") == "a");
}

TEST_CASE("each placement counts at once, so that requests in a row spread") {
  auto d = make();
  join(d, "a"), join(d, "b"), join(d, "c", 150);
  std::string chosen;
  for (auto request : {"r1", "r2", "r3", "r4", "r5"})
    chosen += place(d, request);
  CHECK(chosen == "ababc");
}

TEST_CASE("without a local account requests in a row pile up until a status says so") {
  scheduler_config config;
  config.local_account = false;
  auto d = make(config);
  join(d, "a"), join(d, "b");
  CHECK(place(d, "r1") == "a");
  CHECK(place(d, "r2") == "a");
  auto busy = idle_status("a", noon + 1, 2);
  busy.num_uncomputed_tokens_all_waiting_prefills = 200;
  d.update(busy, noon + 1);
  CHECK(place(d, "r3") == "b");
}

TEST_CASE("a release takes the booking back, and only once") {
  auto d = make();
  join(d, "a"), join(d, "b", 50);
  CHECK(place(d, "r1") == "a");
  CHECK(place(d, "r2") == "b");
  d.release("r1");
  d.release("r1");
  d.release("never placed");
  CHECK(place(d, "r3") == "a");
  CHECK(place(d, "r4") == "a"); // 100 there, 150 at b
}

TEST_CASE("what no status shows counts for ten seconds, though no status comes any more (cms "
          "weakness 15)") {
  auto d = make();
  join(d, "a"), join(d, "b", 200);
  CHECK(d.place(query_for("phantom", 5000), noon, false).instance == "a");
  CHECK(d.place(query_for("r1"), noon + 9'999, false).instance == "b");
  CHECK(d.place(query_for("r2"), noon + 10'000, false).instance == "a");
  CHECK(d.account("a").requests == 1);
  CHECK(d.account("b").requests == 1);
  d.update(idle_status("b", noon + 20'000, 2), noon + 20'000); // whoever's status it is
  CHECK(d.account("a") == inflight_load{});
  CHECK(d.account("b") == inflight_load{});
}

TEST_CASE("the account ends where a status shows the request") {
  auto d = make(by_metric("num_waiting_requests"));
  join(d, "a"), join(d, "b");
  CHECK(place(d, "r1") == "a");
  auto seen_waiting = idle_status("a", noon + 1, 2);
  seen_waiting.recent_waiting_requests = seen_waiting.waiting_requests = {"cmpl-r1-0"};
  seen_waiting.num_waiting_requests = 1;
  d.update(seen_waiting, noon + 1);
  CHECK(place(d, "r2") == "b");
  CHECK(place(d, "r3") == "a"); // one each, not two at a
  auto running = idle_status("a", noon + 2, 3);
  running.recent_waiting_requests = {"cmpl-r1-0", "cmpl-r3-0"};
  d.update(running, noon + 2);
  CHECK(place(d, "r4") == "a");
}

TEST_CASE("statuses pass the gates before they count") {
  struct row {
    const char* what;
    unix_ms written;
    std::int32_t update;
    bool schedulable;
    bool body_taken;
    bool still_chosen;
  };
  for (auto [what, written, update, schedulable, body, chosen] :
       {row{"older", noon - 1, 9, false, false, true}, row{"as old", noon, 9, false, false, true},
        row{"a heartbeat", noon + 1, 1, true, false, true},
        row{"a heartbeat of an earlier body", noon + 1, 0, true, false, true},
        row{"a heartbeat that gives up", noon + 1, 1, false, false, false},
        row{"a new body", noon + 1, 2, true, true, true},
        row{"a new body that gives up", noon + 1, 2, false, true, false}}) {
    CAPTURE(what);
    auto d = make();
    join(d, "a");
    CHECK(place(d, "r1") == "a");
    auto status = idle_status("a", written, update);
    status.schedulable = schedulable;
    status.num_uncomputed_tokens_all_waiting_prefills = 77;
    status.recent_waiting_requests = {"cmpl-r1-0"};
    d.update(status, noon + 1);
    auto placed = d.place(query_for("r2"), noon + 1, true);
    CHECK(placed.instance == (chosen ? "a" : ""));
    if (chosen) // what is reported once the account of r1 is reconciled; else r1 still counts
      CHECK(placed.reasons.ranking.at(0).values[0] == (body ? 77 : 100));
  }
}

TEST_CASE("a heartbeat keeps an instance fresh") {
  auto d = make();
  join(d, "a");
  CHECK(place(d, "r1", noon + 60'999) == "a");
  CHECK(place(d, "r2", noon + 61'000) == "");
  d.update(idle_status("a", noon + 61'000, 1), noon + 61'000);
  CHECK(place(d, "r3", noon + 61'000) == "a");
}

TEST_CASE("a status of an unknown instance changes nothing") {
  auto d = make();
  d.update(idle_status("ghost"), noon);
  d.set_state("ghost", instance_state::ready);
  CHECK(d.view().instances().empty());
  CHECK(place(d, "r1") == "");
}

TEST_CASE("an instance that has just registered is chosen whatever its metric is made of") {
  for (auto metric :
       {"kv_cache_usage_ratio_projected", "decode_batch_size", "num_waiting_requests",
        "all_prefills_tokens_num", "num_requests", "all_decodes_tokens_num"}) {
    CAPTURE(metric);
    auto d = make(by_metric(metric, 0.5));
    d.put(neutral_instance("new"), life_of("n"));
    auto placed = d.place(query_for("r1"), noon + 3'600'000, true);
    CHECK(placed.instance == "new");
    CHECK(placed.reasons.pass == 1);
    d.set_state("new", instance_state::draining);
    CHECK(place(d, "r2") == "");
  }
}

TEST_CASE("when everyone is above the threshold the least loaded takes it all the same") {
  auto d = make(by_metric("all_prefills_tokens_num", 100));
  join(d, "a", 300), join(d, "b", 200), join(d, "c", 99);
  auto first = d.place(query_for("r1", 1), noon, true);
  CHECK(first.instance == "c");
  CHECK(first.reasons.pass == 1);
  auto second = d.place(query_for("r2", 150), noon, true); // c is at 100: the limit is not below it
  CHECK(second.instance == "c");
  CHECK(second.reasons.pass == 2);
  CHECK(place(d, "r3") == "b");
}

TEST_CASE("an excluded instance is chosen only when nothing else is left") {
  auto d = make(by_metric("all_prefills_tokens_num", 100));
  join(d, "a"), join(d, "b", 50), join(d, "c", 5'000);
  auto with_out = [&](std::vector<instance_id> exclude) {
    auto placed = d.place(query_for("r", 0, std::move(exclude)), noon, false).instance;
    d.release("r");
    return placed;
  };
  CHECK(with_out({}) == "a");
  CHECK(with_out({"unknown"}) == "a");
  CHECK(with_out({"a"}) == "b");
  CHECK(with_out({"a", "b"}) == "c"); // rather above the limit than excluded
  CHECK(with_out({"a", "b", "c"}) == "a");
  d.set_state("a", instance_state::draining);
  CHECK(with_out({"a", "b", "c"}) == "b"); // excluded, never unfit
}

TEST_CASE("what has stopped is not lost as well, and its account is forgotten all the same") {
  auto d = make();
  d.put(neutral_instance("a"), life_of("n", 2));
  d.update(idle_status("a"), noon);
  CHECK(place(d, "r1") == "a");
  d.set_state("a", instance_state::stopped);
  d.lose(life_of("n", 2));
  CHECK(d.view().find("a")->state == instance_state::stopped);
  CHECK(place(d, "r2").empty());
  d.put(neutral_instance("a"), life_of("n", 3));
  d.update(idle_status("a", noon - 5'000), noon);
  CHECK(place(d, "r3") == "a");
}

TEST_CASE("a lost node's instances are no candidates and their account is forgotten") {
  auto d = make();
  d.put(neutral_instance("a"), life_of("n", 2));
  d.update(idle_status("a"), noon);
  join(d, "b", 150);
  CHECK(place(d, "r1") == "a");
  d.lose(life_of("n", 1)); // an earlier life: no news
  CHECK(place(d, "r2") == "a");
  d.lose(life_of("n", 2));
  CHECK(d.view().find("a")->state == instance_state::lost);
  CHECK(place(d, "r3") == "b");
  d.put(neutral_instance("a"), life_of("n", 3));
  d.update(idle_status("a", noon - 5'000), noon); // its numbers start anew
  CHECK(d.view().find("a")->has_status);
  CHECK(place(d, "r4") == "a"); // r1 and r2 would weigh 200 against 250 at b
  CHECK(place(d, "r5") == "a");
  d.release("r1"); // of the earlier life: nothing left to take back
  CHECK(place(d, "r6") == "a");
  CHECK(place(d, "r7") == "b"); // 300 at a, 250 at b
}

TEST_CASE("a new life forgets the account also where nobody saw the old one end") {
  auto d = make();
  join(d, "a"), join(d, "b", 150);
  CHECK(place(d, "r1") == "a");
  CHECK(place(d, "r2") == "a");
  d.put(neutral_instance("a"), life_of("a", 2));
  CHECK(place(d, "r3") == "a");
  d.put(neutral_instance("a"), life_of("a", 1)); // late news of the old life
  CHECK(d.view().find("a")->life == life_of("a", 2));
  CHECK(place(d, "r4") == "a");
  CHECK(place(d, "r5") == "b");
}

TEST_CASE("metadata written again does not touch the account") {
  auto d = make();
  join(d, "a"), join(d, "b", 50);
  CHECK(place(d, "r1") == "a");
  d.put(neutral_instance("a"), life_of("a"));
  CHECK(place(d, "r2") == "b");
}

TEST_CASE("a removed instance is gone with its account") {
  auto d = make();
  join(d, "a"), join(d, "b", 50);
  CHECK(place(d, "r1") == "a");
  d.remove("a");
  d.remove("a");
  CHECK(d.view().find("a") == nullptr);
  CHECK(place(d, "r2") == "b");
  join(d, "a");
  d.release("r1");
  CHECK(place(d, "r3") == "a");
}

TEST_CASE("a failing rank takes its unit out of the choice") {
  auto d = make();
  for (auto [id, unit] : {std::pair{"a", "u1"}, {"b", "u1"}, {"c", "u2"}}) {
    auto metadata = neutral_instance(id);
    metadata.unit_id = unit;
    metadata.data_parallel_size = 2;
    d.put(metadata, life_of(id));
    d.update(idle_status(id), noon);
  }
  CHECK(place(d, "r1") == "a");
  d.lose(life_of("b"));
  CHECK(place(d, "r2") == "c");
  CHECK(place(d, "r3") == "c");
}

TEST_CASE("flood fills one instance, round-robin goes around, both by name in config") {
  scheduler_config config;
  config.policy = "flood";
  auto flood = make(config);
  config.policy = "round-robin";
  auto around = make(config);
  for (auto* d : {&flood, &around})
    join(*d, "a", 9'000), join(*d, "b"), join(*d, "c");
  for (auto expected : {"a", "a", "a"})
    CHECK(place(flood, "f") == expected);
  for (auto expected : {"a", "b", "c", "a"})
    CHECK(place(around, "r") == expected);
  flood.set_state("a", instance_state::draining);
  CHECK(place(flood, "f") == "b");
  flood.set_state("a", instance_state::ready);
  CHECK(place(flood, "f") == "b");
}

TEST_CASE("with a top k the same trace gives the same placements") {
  scheduler_config config;
  config.dispatch_top_k = 3;
  config.seed = 42;
  auto trace = [&] {
    auto d = make(config);
    for (auto id : {"a", "b", "c", "d", "e"})
      join(d, id);
    std::string chosen;
    for (int i = 0; i < 50; ++i)
      chosen += place(d, "r" + std::to_string(i));
    return chosen;
  };
  auto first = trace();
  CHECK(first == trace());
  CHECK(first.find_first_not_of(first[0]) != std::string::npos);
  config.seed = 43;
  CHECK(first != trace());
}

TEST_CASE("a prompt beyond 31 bits counts as the largest number there is") {
  auto d = make();
  join(d, "a"), join(d, "b", 1'000'000), join(d, "c", 2'000'000'000);
  CHECK(d.place(query_for("r1", 4'000'000'000u), noon, false).instance == "a");
  CHECK(place(d, "r2") == "b");
  // Beyond 32 bits the fullest do not look emptiest (scheduling weakness 11).
  CHECK(d.place(query_for("r3", 4'000'000'000u), noon, false).instance == "b");
  CHECK(place(d, "r4") == "c");
  d.release("r3");
  CHECK(place(d, "r5") == "b");
}

namespace {

scheduler_config lite(std::string metric = "num_tokens") {
  auto config = by_metric(std::move(metric));
  config.full_mode = false;
  return config;
}

} // namespace

TEST_CASE("in lite mode an engine keeps its account when another node speaks for it") {
  auto d = make(lite());
  d.book("a", {"told", infer_type::neutral, 100, 100}, noon, false); // before anybody knows of it
  d.put(neutral_instance("a"), life_of("n"));
  d.put(neutral_instance("b"), life_of("n"));
  CHECK(d.account("a").prefill_tokens == 100);
  CHECK(place(d, "r1") == "b");
  auto sent = d.account("b");
  d.lose(life_of("n"));
  d.put(neutral_instance("a"), life_of("m"));
  d.put(neutral_instance("b"), life_of("m"));
  CHECK(d.account("a").prefill_tokens == 100);
  CHECK(d.account("b") == sent);
  d.release("told");
  d.release("r1");
  CHECK(d.account("a") == inflight_load{});
  CHECK(d.account("b") == inflight_load{});
}

TEST_CASE("in lite mode a request counts until it is released, however long it runs") {
  for (auto metric : {"num_tokens", "num_requests"}) {
    CAPTURE(metric);
    auto config = lite(metric);
    config.local_account = false; // it is all there is: nobody can do without
    auto d = make(config);
    join(d, "a"), join(d, "b");
    CHECK(place(d, "long") == "a");
    auto later = noon + 3'600'000;
    for (auto id : {"a", "b"}) { // the next check; it shows the request, and that changes nothing
      auto checked = idle_status(id, later, 2);
      checked.recent_waiting_requests = {"cmpl-long-0"};
      d.update(checked, later);
    }
    CHECK(place(d, "r1", later) == "b");
    d.release("r1");
    CHECK(place(d, "r2", later) == "b"); // its turn or not: `long` is still there
    d.release("long");
    CHECK(place(d, "r3", later) == "a");
  }
}

TEST_CASE("in lite mode what statuses say of load is not looked at") {
  auto d = make(lite());
  join(d, "a", 5'000), join(d, "b");
  CHECK(place(d, "r1") == "a");
  CHECK(place(d, "r2") == "b");
  CHECK(place(d, "r3") == "a");
}

TEST_CASE("in lite mode idle instances take turns, and the reasons rank the one whose turn it is") {
  auto d = make(lite("num_requests"));
  join(d, "a"), join(d, "b"), join(d, "c");
  for (auto expected : {"a", "b", "c", "a", "b"}) {
    CAPTURE(expected);
    auto placed = d.place(query_for("r"), noon, true);
    CHECK(placed.instance == expected);
    REQUIRE(placed.reasons.ranking.size() == 3);
    CHECK(placed.reasons.ranking[0].instance == expected);
    CHECK(metric_name(placed.reasons.ranked_by[0]) == "num_requests");
    d.release("r");
  }
}

TEST_CASE("in lite mode an instance is out from the status that says so to the one that says "
          "otherwise, or while its checks are overdue") {
  auto d = make(lite());
  d.put(neutral_instance("a"), life_of("n"));
  CHECK(place(d, "r1", noon) == "a"); // not checked yet
  auto checked = [&](unix_ms at, bool healthy, std::int32_t update = 1) {
    auto status = idle_status("a", at, update);
    status.schedulable = healthy;
    d.update(status, at);
  };
  checked(noon, false);
  CHECK(place(d, "r2", noon) == "");
  CHECK(place(d, "r2", noon + 59'000) == "");
  d.put(neutral_instance("a"), life_of("n")); // its card was told again
  CHECK(place(d, "r2", noon) == "");
  checked(noon + 1'000, true); // nothing else changed: a heartbeat
  CHECK(place(d, "r3", noon + 61'999) == "a");
  CHECK(place(d, "r4", noon + 62'000) == "");
  checked(noon + 62'000, true);
  CHECK(place(d, "r5", noon + 62'000) == "a");
  CHECK(d.place({"r6", 1, {"a"}}, noon + 62'000, false).instance == "a"); // rather than nobody
}

TEST_CASE("in lite mode a unit does not fail with one of its ranks") {
  auto d = make(lite());
  for (auto id : {"a", "b"}) {
    auto metadata = neutral_instance(id);
    metadata.unit_id = "u";
    metadata.data_parallel_size = 2;
    d.put(metadata, life_of("n"));
    d.update(idle_status(id), noon);
  }
  auto unfit = idle_status("a", noon + 1);
  unfit.schedulable = false;
  d.update(unfit, noon);
  CHECK(place(d, "r1") == "b");
}
