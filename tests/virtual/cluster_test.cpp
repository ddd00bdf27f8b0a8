#include "runtime/engine/latency_model.hpp"
#include "runtime/scheduling/profile_file.hpp"
#include "tests/virtual/scene.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace llumnix::testing {

TEST_CASE("a request placed on another node comes back token for token") {
  scene cluster{1, 2};
  REQUIRE(cluster.settle());
  auto& client = cluster.request("head", greedy("r1", 40));
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 10s));
  CHECK(client.failure.code == errc::ok);
  CHECK(client.finish == finish_reason::length);
  CHECK(client.tokens == expected_tokens({72, 105}, 40));
}

TEST_CASE("requests are spread over the instances by load") {
  scene cluster{2, 4};
  REQUIRE(cluster.settle());
  std::vector<virtual_client*> clients;
  for (int i = 0; i < 32; ++i)
    clients.push_back(&cluster.request(
      "head", greedy("r" + std::to_string(i), 64, std::vector<token_id>(64, 65 + i))));
  REQUIRE(cluster.run_until([&] { return cluster.counters("head").placements == 32; }, 1s));
  auto placed = [&] {
    std::map<std::string, int> by_instance;
    auto document = cluster.inspect("head", "requests");
    for (int i = 0; i < 4; ++i) {
      auto name = "\"instance\":\"engine-" + std::to_string(i) + "\"";
      for (std::size_t at = 0; (at = document.find(name, at)) != std::string::npos; ++at)
        ++by_instance[scene::engine_name(static_cast<std::uint32_t>(i))];
    }
    return by_instance;
  }();
  REQUIRE(placed.size() == 4);
  for (const auto& [instance, count] : placed) {
    CAPTURE(instance);
    CHECK(count >= 6);
    CHECK(count <= 10);
  }
  REQUIRE(cluster.run_until(
    [&] { return std::all_of(clients.begin(), clients.end(), [](auto* x) { return x->ended(); }); },
    30s));
  for (int i = 0; i < 32; ++i)
    CHECK(
      clients[static_cast<std::size_t>(i)]->tokens
      == expected_tokens(std::vector<token_id>(64, static_cast<token_id>(65 + i)), 64));
}

TEST_CASE("what a request asks of its placement reaches the scheduler, and its record") {
  auto config = small_engines();
  config.scheduler.session_affinity = true;
  scene cluster{3, 2, config};
  REQUIRE(cluster.settle());
  auto send = [&](std::string id, placement_wishes wishes) {
    auto request = greedy(std::move(id), 8, std::vector<token_id>(64, 65));
    request.wishes = std::move(wishes);
    return &cluster.request("head", std::move(request));
  };
  std::vector clients{send("r1", {{}, {}, "s"}), send("r2", {250.f, 7.5f, "s"}), send("r3", {})};
  REQUIRE(cluster.run_until(
    [&] { return std::all_of(clients.begin(), clients.end(), [](auto* x) { return x->ended(); }); },
    10s));
  auto placed = [&](const std::string& id) {
    auto record = nlohmann::json::parse(cluster.inspect("head", "why", id));
    auto events = record["events"];
    auto found = std::find_if(
      events.begin(), events.end(), [](const auto& event) { return event["kind"] == "placed"; });
    REQUIRE(found != events.end());
    return *found;
  };
  auto first = placed("r1"), second = placed("r2"), third = placed("r3");
  CHECK(second["instance"] == first["instance"]); // although the other one is idle
  CHECK(third["instance"] != first["instance"]);
  CHECK(
    second["reasons"]["sentence"]
    == second["instance"].get<std::string>() + " chosen: it took the last request of the session");
  CHECK(
    second["reasons"]["wishes"]
    == nlohmann::json{{"ttft_slo_ms", 250}, {"tpot_slo_ms", 7.5}, {"session", "s"}});
  CHECK_FALSE(third["reasons"].contains("wishes"));
}

TEST_CASE("what nobody could take is recorded with the filters, values and limits in its way") {
  struct row {
    const char* decided_by;
    std::vector<std::string> head, other;
  };
  latency_profile profile;
  profile.ttft = interpolation_table{{{0, 0, 20}, {4096, 0, 20}}};
  profile.tpot = interpolation_table{{{1, 8, 2}, {2, 8, 2}, {1, 4096, 2}, {2, 4096, 2}}};
  auto config = small_engines();
  config.scheduler.policy = "slo";
  config.scheduler.ttft_slo_threshold = 0.5;
  config.gateway.serving_mode = "pd_batch"; // `slo` places no others
  config.gateway.wait_for_instance = 300ms;
  for (auto& [decided_by, head, other] :
       {row{"the scheduler of its node", {"gateway", "scheduler", "cms", "console"}, {}},
        row{"a scheduler on another node", {"gateway", "cms", "console"}, {"scheduler", "cms"}},
        row{"the gateway itself", {"gateway", "cms", "console"}, {}}}) {
    CAPTURE(decided_by);
    virtual_cluster cluster{5, config, profile};
    virtual_node_options node;
    node.roles = head;
    cluster.start("head", node);
    node.seeds = {"head"};
    node.roles = other;
    if (!other.empty())
      cluster.start("other", node);
    for (const char* engine : {"engine-0", "engine-1", "engine-2"}) {
      auto options = scene::engine();
      options.instance_type = engine == std::string{"engine-2"} ? "decode" : "prefill";
      cluster.start(engine, options);
    }
    cluster.run_for(3s);
    auto request = greedy("r", 8);
    request.wishes.ttft_slo_ms = 2.f;
    auto& client = cluster.request("head", std::move(request));
    REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
    cluster.run_for(10ms);
    const std::string why = "none of 2 candidates can take work; dropped: 2 by predicted_ttft";
    CHECK(client.failure.code == errc::no_instance);
    CHECK(client.failure.context == "no instance could take the request within 300 ms: " + why);
    auto events = nlohmann::json::parse(cluster.inspect("head", "why", "r"))["events"];
    REQUIRE(events.size() == 2); // waiting, and its end
    CHECK(events[0]["kind"] == "waiting");
    CHECK(events[0]["note"] == why);
    const auto& reasons = events[0]["reasons"];
    CHECK(reasons["policy"] == "slo");
    CHECK(reasons["for"] == "prefill");
    CHECK(reasons["considered"] == 2);
    CHECK(reasons["fallback"] == false);
    CHECK(reasons["sentence"] == why);
    REQUIRE_FALSE(reasons["dropped"].empty());
    for (const auto& drops : reasons["dropped"])
      CHECK(
        drops
        == nlohmann::json{
          {"filter", "metric"}, {"pass", drops["pass"]}, {"count", 2}, {"first", "engine-0"},
          {"metric", "predicted_ttft"}, {"value", 20}, {"threshold", 1}});
  }
}

TEST_CASE("what a policy never places is refused at once, by whoever of the node decides") {
  auto config = small_engines();
  config.scheduler.policy = "slo"; // knows no neutral requests
  for (bool scheduler : {true, false}) {
    CAPTURE(scheduler);
    virtual_cluster cluster{5, config};
    virtual_node_options node;
    node.roles = {"gateway", "cms", "console"};
    if (scheduler)
      node.roles.push_back("scheduler");
    cluster.start("head", node);
    cluster.start("engine-0", scene::engine());
    cluster.run_for(3s);
    auto& client = cluster.request("head", greedy("r", 8));
    REQUIRE(cluster.run_until([&] { return client.ended(); }, 1s)); // not after 5 s
    CHECK(client.failure.code == errc::no_instance);
    CHECK(
      client.failure.context
      == "no instance will ever take the request: policy slo places no neutral requests");
  }
}

TEST_CASE("what stands in the way last is recorded, too") {
  auto config = small_engines();
  config.gateway.wait_for_instance = 500ms;
  scene cluster{5, 1, config};
  REQUIRE(cluster.settle());
  auto drain = [&](const std::string& instance) {
    caf::anon_send(
      cluster.card("head").console.front(), order_msg{order_msg::drain{instance, 60s}});
    cluster.run_for(100ms);
  };
  drain("engine-0");
  auto& client = cluster.request("head", greedy("r", 8));
  cluster.run_for(100ms);
  CHECK_FALSE(client.ended());
  cluster.kill("engine-0");
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
  cluster.run_for(10ms);
  auto events = cluster.list_of("events", "why", "r");
  REQUIRE(events.size() == 3); // before, after and its end
  CHECK(
    events[0]["note"]
    == "none of 1 candidates can take work; dropped: 1 by state, 1 by schedulability");
  CHECK(events[0]["reasons"]["dropped"][0]["first"] == "engine-0");
  CHECK(events[1]["kind"] == "waiting");
  CHECK(events[1]["note"] != events[0]["note"]);
  CHECK(client.failure.context.ends_with(events[1]["note"].get<std::string>()));
}

TEST_CASE("the neighbours of a drained instance go on taking work") {
  auto config = small_engines();
  config.scheduler.failover_domain = "node";
  scene cluster{5, 0, config};
  auto engines = scene::engine();
  engines.instances = 2;
  cluster.start("engine-0", engines);
  REQUIRE(cluster.settle(2));
  auto place = [&](const std::string& id) {
    auto& client = cluster.request("head", greedy(id, 8));
    REQUIRE(cluster.run_until([&] { return client.ended(); }, 3s));
    CHECK(client.failure.code == errc::ok);
    cluster.run_for(10ms);
    auto events = cluster.list_of("events", "why", id);
    auto placed = std::ranges::find_if(events, [](auto& x) { return x["kind"] == "placed"; });
    REQUIRE(placed != events.end());
    return (*placed)["instance"].get<std::string>();
  };
  auto order = [&](order_msg what) {
    caf::anon_send(cluster.card("head").console.front(), std::move(what));
    cluster.run_for(100ms);
  };
  order({order_msg::drain{"engine-0.0", 60s}});
  for (auto id : {"r1", "r2"})
    CHECK(place(id) == "engine-0.1");
  order({order_msg::undrain{"engine-0.0"}});
  order({order_msg::drain{"engine-0.1", 60s}});
  CHECK(place("r3") == "engine-0.0");
}

TEST_CASE("the same seed gives the same events, another seed others") {
  auto run = [](std::uint64_t seed) {
    scene cluster{seed, 2};
    cluster.settle();
    auto& one = cluster.request("head", greedy("a", 20));
    auto& two = cluster.request("head", greedy("b", 20, {74}));
    cluster.run_until([&] { return one.ended() && two.ended(); }, 10s);
    return std::make_pair(cluster.trace(), one.arrivals);
  };
  CHECK(run(7) == run(7));
  CHECK(run(7).first != run(8).first);
}

TEST_CASE("nodes find each other in whatever order they start, and after the seed was away") {
  virtual_cluster cluster{3, small_engines()};
  auto head = scene::head();
  cluster.start("engine-0", scene::engine());
  cluster.run_for(3s);
  cluster.start("head", head);
  CHECK(cluster.run_until([&] { return cluster.counters("head").statuses > 0; }, 5s));
  cluster.kill("head");
  cluster.run_for(5s);
  cluster.start("head", head);
  CHECK(cluster.run_until([&] { return cluster.counters("head").statuses > 0; }, 5s));
}

TEST_CASE("why tells where a request went and how it ended") {
  scene cluster{4, 2};
  REQUIRE(cluster.settle());
  auto& client = cluster.request("head", greedy("r1", 8));
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
  cluster.run_for(10ms);
  auto why = cluster.inspect("head", "why", "r1");
  CHECK(why.find("\"kind\":\"placed\"") != std::string::npos);
  CHECK(why.find("all_prefills_tokens_num") != std::string::npos);
  CHECK(why.find("\"kind\":\"finished\"") != std::string::npos);
  CHECK(cluster.inspect("head", "why", "unheard-of").empty());
}

TEST_CASE("the record of a request tells what it took beside what was predicted") {
  // Any prefill takes 20 ms and any step with one request 2 ms, profiles say.
  latency_profile profile;
  profile.ttft = interpolation_table{{{0, 0, 20}, {4096, 0, 20}}};
  profile.tpot = interpolation_table{{{1, 8, 2}, {2, 8, 2}, {1, 4096, 2}, {2, 4096, 2}}};
  for (bool by_scheduler : {true, false}) {
    CAPTURE(by_scheduler);
    auto config = small_engines();
    config.gateway.forward_scheduler = by_scheduler;
    scene cluster{4, 1, config, profile};
    REQUIRE(cluster.settle());
    auto& client = cluster.request("head", greedy("r1", 8, std::vector<token_id>(64, 65)));
    REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
    cluster.run_for(10ms);
    auto why = nlohmann::json::parse(cluster.inspect("head", "why", "r1"));
    const auto& placed = why["events"].front();
    const auto& finished = why["events"].back();
    REQUIRE(placed["kind"] == "placed");
    REQUIRE(finished["kind"] == "finished");
    CHECK(placed["reasons"]["predicted"] == nlohmann::json{{"ttft_ms", 20}, {"tpot_ms", 2}});
    const auto& times = finished["times"];
    auto ms = [&](const char* name) { return times.at(name).get<double>(); };
    // The engine's own word for it: one prefill of 64 tokens, then 7 decode steps.
    auto model = *find_latency_model(config.engine.latency);
    step_load prefill;
    prefill.add_prefill(64, 0);
    double decodes = 0;
    for (std::uint32_t i = 0; i < 7; ++i) {
      step_load decode;
      decode.add_decode(64 + i);
      decodes += model.step_ms(decode) / config.engine.speed;
    }
    auto prefill_ms = model.step_ms(prefill) / config.engine.speed;
    CHECK(ms("ttft_ms") - ms("placed_ms") >= prefill_ms); // and what links take
    CHECK(ms("ttft_ms") - ms("placed_ms") < prefill_ms + 5);
    CHECK(ms("tpot_ms") == doctest::Approx(decodes / 7).epsilon(0.2));
    CHECK(ms("predicted_ttft_ms") == 20);
    CHECK(ms("predicted_tpot_ms") == 2);
    CHECK(ms("ttft_error_ms") == doctest::Approx(ms("ttft_ms") - ms("placed_ms") - 20));
    CHECK(ms("tpot_error_ms") == doctest::Approx(ms("tpot_ms") - 2));
    const auto& counted = cluster.counters("head");
    CHECK(counted.ttft_error.early.sum() == doctest::Approx(-ms("ttft_error_ms")));
    CHECK(counted.ttft_error.late.sum() == 0);
    CHECK(counted.tpot_error.early.sum() == doctest::Approx(-ms("tpot_error_ms")));
  }
}

TEST_CASE("what moved to another engine is not held against its prediction") {
  latency_profile profile;
  profile.ttft = interpolation_table{{{0, 0, 20}, {4096, 0, 20}}};
  profile.tpot = interpolation_table{{{1, 8, 2}, {2, 8, 2}, {1, 4096, 2}, {2, 4096, 2}}};
  scene cluster{4, 2, small_engines(), profile};
  REQUIRE(cluster.settle());
  auto& client = cluster.request("head", greedy("r1", 200));
  REQUIRE(cluster.run_until([&] { return client.tokens.size() > 20; }, 5s));
  cluster.kill("engine-0");
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 30s));
  cluster.run_for(10ms);
  auto why = nlohmann::json::parse(cluster.inspect("head", "why", "r1"));
  const auto& times = why["events"].back()["times"];
  CHECK(times.contains("ttft_ms"));
  CHECK_FALSE(times.contains("predicted_ttft_ms"));
  CHECK_FALSE(times.contains("tpot_error_ms"));
  const auto& counted = cluster.counters("head");
  REQUIRE(counted.replays == 1);
  for (const auto* errors : {&counted.ttft_error, &counted.tpot_error}) {
    CHECK(errors->late.sum() == 0);
    CHECK(errors->early.sum() == 0);
  }
}

TEST_CASE("what engines took for their steps is a profile, by role") {
  scene cluster{4, 2};
  REQUIRE(cluster.settle());
  auto asked = [&](const char* role) {
    return nlohmann::json::parse(cluster.inspect("head", "profile", role));
  };
  auto nothing = asked("neutral");
  CHECK(nothing["ttft"].is_null());
  CHECK(nothing["tpot"].is_null());
  for (int i : {64, 256}) {
    auto& client = cluster.request(
      "head",
      greedy("r" + std::to_string(i), 8, std::vector<token_id>(i, static_cast<token_id>(i % 200))));
    REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
  }
  auto config = small_engines();
  auto model = *find_latency_model(config.engine.latency);
  auto seen = asked("neutral");
  CHECK(seen["role"] == "neutral");
  CHECK(seen["samples"]["ttft"] == 2);
  CHECK(seen["samples"]["tpot"] == 14);
  auto read = profile_from_results(profile_kind::ttft, seen["ttft"]["results"], "profile");
  REQUIRE(read.has_value());
  for (std::uint32_t tokens : {64u, 256u}) {
    step_load prefill;
    prefill.add_prefill(tokens, 0);
    CHECK(
      read->table.at(tokens, 0).value_or(-1)
      == doctest::Approx(model.step_ms(prefill) / config.engine.speed).epsilon(0.01));
  }
  REQUIRE(profile_from_results(profile_kind::tpot, seen["tpot"]["results"], "profile").has_value());
  CHECK(asked("prefill")["ttft"].is_null());
  CHECK(cluster.inspect("head", "profile", "none").empty());
}

TEST_CASE("a gateway that is told to place by itself misses no scheduler") {
  auto config = small_engines();
  config.gateway.forward_scheduler = false;
  scene cluster{4, 2, config};
  REQUIRE(cluster.settle());
  auto& client = cluster.request("head", greedy("r1", 8));
  REQUIRE(cluster.run_until([&] { return client.ended(); }, 5s));
  CHECK(cluster.counters("head").placements_by_view == 0);
  auto why = cluster.inspect("head", "why", "r1");
  CHECK(why.find("placed by the gateway") != std::string::npos);
  CHECK(
    why.find("engine-0 chosen: the lowest id of those equal in all_prefills_tokens_num")
    != std::string::npos);
}

TEST_CASE("the directory lists the actors of every node") {
  scene cluster{5, 2};
  REQUIRE(cluster.settle());
  auto actors = cluster.inspect("head", "actors");
  for (const char* role :
       {"node head", "node engine-1", "scheduler", "gateway", "cms", "llumlet engine-0",
        "engine engine-1"}) {
    CAPTURE(role);
    CHECK(actors.find(std::string{"\"name\":\""} + role + "\"") != std::string::npos);
  }
}

TEST_CASE("what no engine could ever hold is refused at once, what can wait waits") {
  scene cluster{6, 1};
  REQUIRE(cluster.settle());
  auto& huge = cluster.request("head", greedy("huge", 4, std::vector<token_id>(5000, 65)));
  REQUIRE(cluster.run_until([&] { return huge.ended(); }, 1s));
  CHECK(huge.failure.code == errc::too_long);
}

TEST_CASE("a burst larger than the queue is no reason to refuse while instances take it") {
  auto config = small_engines();
  config.gateway.max_queue = 4;
  scene cluster{7, 2, config};
  REQUIRE(cluster.settle());
  std::vector<virtual_client*> clients;
  for (int i = 0; i < 40; ++i)
    clients.push_back(&cluster.request("head", greedy("r" + std::to_string(i), 4)));
  REQUIRE(cluster.run_until(
    [&] { return std::all_of(clients.begin(), clients.end(), [](auto* x) { return x->ended(); }); },
    10s));
  for (auto* client : clients)
    CHECK(client->failure.code == errc::ok);
}

TEST_CASE("the queue of requests nobody can take is bounded") {
  auto config = small_engines();
  config.gateway.max_queue = 4;
  scene cluster{8, 1, config};
  REQUIRE(cluster.settle());
  cluster.kill("engine-0");
  REQUIRE(cluster.run_until([&] { return cluster.counters("head").peers_lost == 1; }, 1s));
  cluster.run_for(100ms); // every view knows
  std::vector<virtual_client*> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(&cluster.request("head", greedy("r" + std::to_string(i), 4)));
    cluster.run_for(1ms);
  }
  auto refused = std::count_if(
    clients.begin(), clients.end(), [](auto* x) { return x->failure.code == errc::queue_full; });
  CHECK(refused == 6);
  cluster.start("engine-0", scene::engine());
  CHECK(cluster.run_until(
    [&] { return std::all_of(clients.begin(), clients.end(), [](auto* x) { return x->ended(); }); },
    10s));
}

} // namespace llumnix::testing
