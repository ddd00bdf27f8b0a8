#include "actors/protocol/console_messages.hpp"
#include "actors/scheduler_desk.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <optional>

namespace llumnix::testing {

namespace {

using answer = std::optional<result<std::vector<chosen_instance>>>;

/// SCHEDULER alone, and what foreign gateways ask it.
struct scene : stage {
  explicit scene(bool full_mode, std::function<void(scheduler_config&)> settings = {})
    : full{full_mode}, more{std::move(settings)} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    start();
  }
  ~scene() {
    desk.attach({});
    caf::anon_send_exit(scheduler, caf::exit_reason::kill);
    scheduler = nullptr;
    run();
  }

  void start() {
    scheduler_actor_config settings;
    settings.life = {"head", 1};
    settings.knobs.full_mode = full;
    settings.knobs.neutral_load_metric = full ? "all_prefills_tokens_num" : "num_tokens";
    settings.foreign = true;
    if (more)
      more(settings.knobs);
    settings.probes = probes;
    settings.recorded_requests = 2;
    scheduler = system->spawn(make_scheduler, settings);
    desk.attach(scheduler);
    run();
  }

  void know(
    const std::string& id, const std::string& type = "neutral",
    const node_life& life = {"head", 1}) {
    view_change_msg change;
    view_entry entry;
    entry.metadata.instance_id = id;
    entry.metadata.instance_type = type;
    entry.metadata.ip = entry.metadata.ip_kvs = "10.0.0." + std::to_string(++known);
    entry.metadata.api_server_port = 8000;
    entry.metadata.data_parallel_size = 1;
    entry.life = life;
    change.put.push_back(entry);
    instance_status status;
    status.instance_id = id;
    status.schedulable = true;
    status.update_id = 1;
    status.timestamp_ms = 1'000'000'000;
    change.statuses.push_back(status);
    caf::anon_send(scheduler, std::move(change));
    run();
  }
  void forget(const std::string& id) {
    view_change_msg change;
    change.removed.push_back(id);
    caf::anon_send(scheduler, std::move(change));
    run();
  }

  /// The instances chosen, by their own names, or why there are none.
  std::string place(
    const std::string& request, std::uint32_t tokens, const std::string& gateway = "g",
    serving_mode mode = serving_mode::neutral) {
    placement_query query;
    query.request_id = request;
    query.prompt_tokens = tokens;
    query.mode = mode;
    query.by = reach::http;
    answer got;
    desk.schedule(query, holders, gateway, [&got](auto told) { got = std::move(told); });
    run();
    REQUIRE(got);
    if (!*got)
      return got->error().context;
    std::string names;
    for (const auto& each : **got)
      names += (names.empty() ? "" : " ") + each.instance;
    return names;
  }
  void release(const std::string& request, const std::string& instance) {
    desk.release(request, "g", {{"neutral", instance}});
    run();
  }
  void report(const std::string& request, const std::string& instance, std::uint64_t tokens) {
    desk.report({{false, request, "g", {"neutral", instance}, tokens}});
    run();
  }

  /// The record of a request; null: none is kept.
  nlohmann::json why(const std::string& request) {
    std::string document;
    caf::scoped_actor self{*system};
    self->send(scheduler, inspect_msg{"why", request});
    run();
    self->receive([&](const inspected_msg& msg) { document = msg.json; });
    return document.empty() ? nlohmann::json() : nlohmann::json::parse(document)["events"];
  }

  bool full;
  std::function<void(scheduler_config&)> more; ///< settings of the next SCHEDULER
  std::optional<prefix_holders> holders;       ///< told with each question
  int known = 0;
  scheduler_desk desk;
  deciding_actor scheduler;
  std::shared_ptr<scheduler_probes> probes = std::make_shared<scheduler_probes>();
};

} // namespace

TEST_CASE("news that SCHEDULER has not heard are bounded, and taken again once it has") {
  scene there{false};
  std::vector<request_progress> half(100'000), more(100'001);
  CHECK(there.desk.report(half));
  CHECK_FALSE(there.desk.report(more));
  CHECK(there.desk.release("r", "g", {{"neutral", "i1"}}));
  CHECK_FALSE(there.desk.report(half)); // 2 more than there is room for
  half.resize(99'998);
  CHECK(there.desk.report(half));
  CHECK_FALSE(there.desk.release("r", "g", {{"neutral", "i1"}}));
  there.run();
  CHECK(there.desk.report(more));
  there.run();
  more.resize(300'000); // alone, whatever its size
  CHECK(there.desk.report(std::move(more)));
  caf::anon_send_exit(there.scheduler, caf::exit_reason::kill);
  there.run(); // what it did not hear waits no longer
  there.start();
  CHECK(there.desk.report(std::vector<request_progress>(200'000)));
}

TEST_CASE("gauges follow statuses, and end with their instance; choices count by role") {
  scene there{true};
  there.know("a");
  there.know("b");
  auto shown = there.probes->instances.all();
  REQUIRE(shown.size() == 2);
  CHECK(shown[0].instance == "a");
  CHECK(shown[0].role == "neutral");
  CHECK(there.place("r1", 300) == "a");
  const auto& prefill = there.probes->prefill;
  const auto& decode = there.probes->decode;
  for (const auto* chosen : {&prefill, &decode}) { // neutral: both
    CHECK(chosen->prefill_tokens.sum() == 300);    // the request included
    CHECK(chosen->decode_tokens.sum() == 300);
    CHECK(chosen->decode_batch.sum() == 1);
    CHECK(chosen->predicted_ttft.sum() == 0);
  }
  there.forget("a");
  shown = there.probes->instances.all();
  REQUIRE(shown.size() == 1);
  CHECK(shown[0].instance == "b");
}

TEST_CASE("in lite mode no loads are known, and none are told") {
  scene there{false};
  there.know("a");
  there.desk.gateway_up("g");
  there.run();
  CHECK(there.place("r1", 300) == "a");
  CHECK(there.probes->instances.all().empty());
  CHECK(there.probes->prefill.prefill_tokens.sum() == 0);
}

TEST_CASE("in lite mode what instances have is shown every five seconds, and goes with them") {
  scene there{false};
  there.know("a");
  there.know("b", "neutral", {"other", 1});
  there.desk.gateway_up("g");
  there.run();
  const auto& shown = there.probes->requests;
  CHECK(shown.all().empty());
  CHECK(there.place("r1", 300) == "a");
  CHECK(there.place("r2", 10) == "b");
  CHECK(there.place("r3", 20) == "b");
  there.desk.report({{true, "r2", "g", {"neutral", "b"}, 0}});
  there.report("r2", "b", 15);
  there.pass(5s);
  auto all = shown.all();
  REQUIRE(all.size() == 2);
  CHECK(all[0].address == "10.0.0.1:8000");
  CHECK(all[0].role == "neutral");
  CHECK(all[0].tokens == 300);
  CHECK(all[0].waiting_tokens == 300);
  CHECK(all[0].waiting_requests == 1);
  CHECK(all[1].tokens == 35);
  CHECK(all[1].waiting_tokens == 20);
  CHECK(all[1].requests == 2);
  CHECK(all[1].waiting_requests == 1);
  there.release("r1", "a");
  CHECK(shown.all()[0].requests == 1); // as it was
  there.pass(5s);
  CHECK(shown.all()[0].requests == 0);
  there.forget("a");
  REQUIRE(shown.all().size() == 1);
  CHECK(shown.all()[0].instance == "b");
  view_change_msg change;
  change.lost.push_back({"other", 1});
  caf::anon_send(there.scheduler, std::move(change));
  there.run();
  CHECK(shown.all().empty());
  there.pass(5s);
  CHECK(shown.all().empty());
}

TEST_CASE("in full mode no requests are shown: statuses tell of them") {
  scene there{true};
  there.know("a");
  CHECK(there.place("r1", 300) == "a");
  there.pass(20s);
  CHECK(there.probes->requests.all().empty());
}

TEST_CASE("nobody decides: whoever asks is told so") {
  scene there{true};
  there.desk.attach({});
  CHECK(there.place("r", 1) == "scheduler not ready");
}

TEST_CASE("a question that dies with SCHEDULER is answered") {
  scene there{true};
  answer got;
  caf::anon_send_exit(there.scheduler, caf::exit_reason::kill);
  there.desk.schedule({}, std::nullopt, "g", [&got](auto told) { got = std::move(told); });
  there.run();
  REQUIRE(got);
  CHECK(got->error().code == errc::draining);
}

TEST_CASE("in full mode requests count by their ids alone") {
  scene there{true};
  CHECK(there.place("r0", 1) == "no available endpoint");
  there.know("a");
  there.know("b");
  CHECK(there.place("r1", 100, "") == "a");
  CHECK(there.place("r2", 10, "") == "b");
  CHECK(there.place("r3", 10, "") == "b");
  there.release("r1", "whatever");
  CHECK(there.place("r4", 1, "") == "a");
  there.report("r4", "a", 1000); // means nothing here
  CHECK(there.place("r5", 1, "") == "a");
}

TEST_CASE("requests go where a store holds their beginning, and its hits count in the account") {
  scene there{true, [](scheduler_config& knobs) { knobs.policy = "cache-aware"; }};
  there.know("a");
  there.know("b"); // 10.0.0.2
  there.holders = prefix_holders{holder_naming::kv_address, {{"10.0.0.2", 900}}};
  CHECK(there.place("r1", 1000) == "b"); // 100 to compute, not 1000
  CHECK(there.place("r2", 1000) == "b"); // 200, with those of r1
  there.holders.reset();
  CHECK(there.place("r3", 10) == "a"); // 0 against 200
  there.holders = prefix_holders{holder_naming::kv_address, {{"10.0.0.9", 900}}};
  CHECK(there.place("r4", 1000) == "a"); // nobody has it: 1010 against 1200
  const auto& prefixes = there.probes->prefixes;
  CHECK(prefixes.hit_percent.sum() == 90 + 90 + 0 + 0);
  CHECK(prefixes.hit_percent.count(0) == 2); // one nobody was asked for
  CHECK(prefixes.best_percent.sum() == 90 + 90 + 0);
  CHECK(prefixes.best_percent.count(0) == 1);
  CHECK(prefixes.match_ms.count(0) == 3);
  CHECK(prefixes.query_ms.count(0) == 0); // whoever asked counts that
}

TEST_CASE("what is cached counts where a prompt is prefilled, and only if the policy looks at it") {
  using row = std::pair<const char*, std::uint64_t>; // policy, observed
  for (auto [policy, observed] : {row{"cache-aware", 1}, row{"load-balance", 0}}) {
    CAPTURE(policy);
    scene there{true, [policy = policy](scheduler_config& knobs) { knobs.policy = policy; }};
    there.know("d", "decode");
    there.know("p", "prefill");
    there.holders
      = prefix_holders{holder_naming::kv_address, {{"10.0.0.1", 100}, {"10.0.0.2", 250}}};
    CHECK(there.place("r1", 1000, "g", serving_mode::pd_batch) == "p d");
    CHECK(there.probes->prefixes.hit_percent.sum() == 25. * static_cast<double>(observed));
    CHECK(there.probes->prefixes.best_percent.sum() == 25. * static_cast<double>(observed));
    CHECK(there.probes->prefixes.hit_percent.count(3) == observed); // up to 30
  }
}

TEST_CASE("while the store cannot be read loads are not known") {
  for (bool full : {true, false}) {
    scene there{full};
    auto tell = [&](store_news news) {
      view_change_msg change;
      change.store = news;
      caf::anon_send(there.scheduler, std::move(change));
      there.run();
    };
    there.know("a");
    CHECK(there.place("r1", 1) == "a"); // there is none
    tell(store_news::unreachable);
    CHECK(there.place("r2", 1) == (full ? "cms not available" : "a"));
    there.know("b"); // says nothing of the store
    CHECK(there.place("r3", 1) == (full ? "cms not available" : "b"));
    tell(store_news::reachable);
    CHECK(there.place("r4", 1).size() == 1);
  }
}

TEST_CASE("instances that only a store tells of serve foreign gateways alone") {
  scene there{true};
  there.know("a", "neutral", {});
  CHECK(there.place("r1", 1) == "a");
  place_msg ours;
  ours.questions.push_back({{"gateway", 1, 0, 1}, 1, {}});
  ours.questions.back().query.request_id = "r2";
  ours.questions.back().query.prompt_tokens = 100;
  auto asked = [&] {
    std::string owner = "unanswered";
    caf::scoped_actor self{*there.system};
    self->send(scheduler_actor{there.scheduler}, ours);
    there.run();
    self->receive([&](const placements_msg& msg) { owner = msg.placed.at(0).owner.instance; });
    return owner;
  };
  CHECK(asked() == "");
  there.know("b");
  CHECK(asked() == "b");
  CHECK(there.place("r3", 1) == "a"); // b has r2
}

TEST_CASE("where a request of a foreign gateway went is recorded, why, and that it was released") {
  for (bool full : {true, false}) {
    CAPTURE(full);
    scene there{full};
    there.desk.gateway_up("g");
    there.know("a");
    there.know("b");
    CHECK(there.place("r1", 100) == "a");
    there.pass(3s);
    there.release("r1", "a");
    there.release("r0", "a"); // nobody knows it
    CHECK(there.why("r0").is_null());
    auto events = there.why("r1");
    REQUIRE(events.size() == 2);
    CHECK(events[0]["kind"] == "placed");
    CHECK(events[0]["instance"] == "a");
    const auto& reasons = events[0]["reasons"];
    CHECK(reasons["policy"] == "load-balance");
    CHECK(reasons["considered"] == 2);
    CHECK(reasons["ranking"] == nlohmann::json{"a", "b"});
    CHECK(reasons["note"] == "asked for over HTTP by gateway g");
    CHECK(events[1]["kind"] == "released");
    CHECK(events[1]["at_ms"].get<std::int64_t>() - events[0]["at_ms"].get<std::int64_t>() == 3000);
    there.place("r2", 1, "");
    CHECK(there.why("r2")[0]["reasons"]["note"] == "asked for over HTTP");
    there.place("r3", 1); // one more than are kept
    CHECK(there.why("r1").is_null());
    CHECK(there.why("r3").size() == 1);
  }
}

TEST_CASE("a refusal of a foreign gateway's request is recorded, with what was in its way") {
  scene there{true};
  there.know("p", "prefill");
  auto refused = [&](const char* id, serving_mode mode) {
    CHECK(there.place(id, 1, "g", mode) == "no available endpoint");
    auto events = there.why(id);
    REQUIRE(events.size() == 1);
    CHECK(events[0]["kind"] == "refused");
    CHECK_FALSE(events[0].contains("instance"));
    CHECK(events[0]["note"] == events[0]["reasons"]["sentence"]);
    return events[0];
  };
  CHECK(refused("r1", serving_mode::neutral)["note"] == "no neutral instance is known");
  CHECK(
    refused("r2", serving_mode::pd_batch)["note"]
    == "prefill and decode apart want instances of two roles");
  there.know("d", "decode");
  view_change_msg change;
  auto& status = change.statuses.emplace_back();
  status.instance_id = "d";
  status.update_id = 2;
  status.timestamp_ms = 1'000'000'001;
  caf::anon_send(there.scheduler, std::move(change));
  there.run();
  auto reasons = refused("r3", serving_mode::pd_batch)["reasons"];
  CHECK(reasons["for"] == "decode"); // the one that nobody was found for
  CHECK(
    reasons["sentence"]
    == "none of 1 candidates can take work; dropped: 1 by schedulability, 1 by failover");
  CHECK(reasons["dropped"][0]["filter"] == "schedulability");
  CHECK(reasons["dropped"][0]["first"] == "d");
  view_change_msg gone;
  gone.store = store_news::unreachable;
  caf::anon_send(there.scheduler, std::move(gone));
  there.run();
  CHECK(there.place("r4", 1) == "cms not available");
  CHECK(there.why("r4")[0]["note"].get<std::string>().starts_with("cms not available"));
}

TEST_CASE("both roles of a request are recorded, and that its gateway has gone") {
  scene there{false};
  there.desk.gateway_up("g");
  there.know("p", "prefill");
  there.know("d", "decode");
  CHECK(there.place("r", 100, "g", serving_mode::pd_batch) == "p d");
  there.desk.gateway_down("g");
  there.run();
  auto events = there.why("r");
  REQUIRE(events.size() == 3);
  CHECK(events[0]["kind"] == "placed");
  CHECK(events[0]["instance"] == "p");
  CHECK(events[1]["kind"] == "decode_placed");
  CHECK(events[1]["instance"] == "d");
  CHECK(events[1]["reasons"]["for"] == "decode");
  CHECK(events[2]["kind"] == "released");
  CHECK(events[2]["note"] == "its gateway g is not connected any more");
}

TEST_CASE("all roles are found, or nothing is booked") {
  scene there{true};
  there.know("p", "prefill");
  there.know("n");
  CHECK(there.place("r1", 100, "g", serving_mode::pd_batch) == "no available endpoint");
  there.know("d", "decode");
  there.know("q", "prefill");
  CHECK(there.place("r2", 1, "g", serving_mode::pd_batch) == "p d"); // p holds nothing of r1
}

TEST_CASE("in lite mode load is what connected gateways report") {
  scene there{false};
  there.desk.gateway_up("g");
  there.know("a");
  there.know("b");
  CHECK(there.place("r1", 100) == "a");
  CHECK(there.place("r2", 1) == "b");
  CHECK(there.place("r3", 1) == "b"); // 2 against 100
  there.report("r2", "b", 500);
  CHECK(there.place("r4", 1) == "a"); // 501 against 101
  there.report("r2", "b", 5);         // it cannot shrink
  there.release("r2", "a");           // it is not there
  CHECK(there.place("r5", 1) == "a");
  there.release("r2", "b");
  CHECK(there.place("r6", 1) == "b"); // 1 against 102
}

TEST_CASE("the same request again is not counted twice") {
  scene there{false};
  there.desk.gateway_up("g");
  there.know("a");
  there.know("b");
  CHECK(there.place("r1", 100) == "a");
  CHECK(there.place("r1", 100) == "b");
  CHECK(there.place("r2", 1) == "b"); // which r1 does not weigh on
}

TEST_CASE("what a gateway had ends with its last connection") {
  scene there{false};
  there.know("a");
  there.know("b");
  there.desk.gateway_up("g");
  there.desk.gateway_up("g");
  there.desk.gateway_up("h");
  CHECK(there.place("r1", 100, "g") == "a");
  CHECK(there.place("r2", 50, "h") == "b");
  there.desk.gateway_down("g");
  CHECK(there.place("r3", 1, "h") == "b");
  there.desk.gateway_down("g");
  there.desk.gateway_down("nobody");
  CHECK(there.place("r4", 1, "h") == "a");
}

TEST_CASE("a request of a gateway that is not connected weighs nothing") {
  scene there{false};
  there.know("a");
  there.know("b");
  there.desk.gateway_up("g");
  CHECK(there.place("r1", 100, "unknown") == "a");
  CHECK(there.place("r2", 50, "g") == "b"); // whose turn it is
  CHECK(there.place("r3", 1, "g") == "a");
}

TEST_CASE("with an instance its requests are gone") {
  scene there{false};
  there.desk.gateway_up("g");
  there.know("a");
  CHECK(there.place("r1", 100) == "a");
  there.forget("a");
  there.know("a");
  there.know("b");
  there.report("r1", "a", 1000);
  CHECK(there.place("r2", 5) != there.place("r3", 1)); // a is as empty as b
}

TEST_CASE("a scheduler that starts again knows who is connected") {
  scene there{false};
  there.desk.gateway_up("g");
  caf::anon_send_exit(there.scheduler, caf::exit_reason::kill);
  there.run();
  there.start();
  there.know("a");
  there.know("b");
  CHECK(there.place("r1", 100) == "a");
  CHECK(there.place("r2", 1) == "b");
  CHECK(there.place("r3", 1) == "b"); // so r1 counts
}

} // namespace llumnix::testing
