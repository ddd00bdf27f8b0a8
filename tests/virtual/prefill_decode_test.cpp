#include "leftovers.hpp"
#include "random_faults.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <set>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

cluster_config apart(const char* mode = "pd_batch") {
  auto config = small_engines();
  config.gateway.serving_mode = mode;
  config.engine.max_num_batched_tokens = 64; // prompts take several steps
  config.engine.max_num_seqs = 64;
  return config;
}

/// A gateway node with everything, and engines for prefill and for decode.
struct apart_scene : scene {
  explicit apart_scene(
    std::uint64_t seed, std::uint32_t prefills = 2, std::uint32_t decodes = 2,
    cluster_config config = apart(), latency_profile profile = {})
    : scene{seed, 0, std::move(config), std::move(profile)}, engines_{prefills + decodes} {
    for (std::uint32_t i = 0; i < prefills; ++i)
      start_engine("prefill-" + std::to_string(i));
    for (std::uint32_t i = 0; i < decodes; ++i)
      start_engine("decode-" + std::to_string(i));
    wait_for_all();
  }
  /// Its name tells its role.
  void start_engine(const std::string& name) {
    auto options = engine();
    options.instance_type = name.substr(0, name.find('-'));
    start(name, options);
  }
  void wait_for_all() {
    REQUIRE(settle(engines_));
    run_for(1s); // until the engine nodes have dialled each other
  }

  virtual_client& ask_for(const std::string& id, std::uint32_t tokens, std::size_t prompt) {
    std::vector<token_id> ids(prompt);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<token_id>(97 + (i * 7 + std::hash<std::string>{}(id) % 13) % 26);
    prompts[id] = ids;
    return request("head", greedy(id, tokens, ids));
  }
  void expect_exact(const std::string& id, virtual_client& client, std::size_t tokens) {
    CAPTURE(id);
    REQUIRE(run_until([&] { return client.ended(); }, 60s));
    CHECK(client.failure.code == errc::ok);
    CHECK(client.finish == finish_reason::length);
    CHECK(client.tokens == expected_tokens(prompts[id], tokens));
  }
  bool nothing_left() {
    return run_until([&] { return leftovers_of(*this, engines_) == leftovers{}; }, 20s);
  }

  /// The events of a request's record of that kind.
  std::vector<nlohmann::json> events(const std::string& id, const std::string& kind) {
    std::vector<nlohmann::json> found;
    auto record = nlohmann::json::parse(inspect("head", "why", id), nullptr, false);
    if (record.is_object())
      for (const auto& event : record.at("events"))
        if (event.at("kind") == kind)
          found.push_back(event);
    return found;
  }
  /// A number that the ENGINE of an instance tells of itself.
  std::uint64_t engine_state(const instance_id& id, const char* what) {
    for (const auto& actor : list_of("actors", "actors"))
      if (actor.at("name") == "engine " + id)
        return actor.at("state").at(what).get<std::uint64_t>();
    return 0;
  }

  std::map<std::string, std::vector<token_id>> prompts;
  std::uint32_t engines_;
};

} // namespace

TEST_CASE("a request is prefilled at one instance and decodes at another") {
  for (const char* mode : {"pd_batch", "pd_staged"}) {
    CAPTURE(mode);
    apart_scene there{1, 1, 1, apart(mode)};
    auto& client = there.ask_for("r1", 200, 300);
    there.expect_exact("r1", client, 200);
    CHECK(there.engine_state("prefill-0", "tokens") == 1);
    CHECK(there.engine_state("decode-0", "tokens") == 199);

    auto placed = there.events("r1", "placed");
    REQUIRE(placed.size() == 1);
    CHECK(placed[0].at("instance") == "prefill-0");
    CHECK(placed[0].at("reasons").at("for") == "prefill");
    auto decode = there.events("r1", "decode_placed");
    REQUIRE(decode.size() == 1);
    CHECK(decode[0].at("instance") == "decode-0");
    CHECK(decode[0].at("reasons").at("for") == "decode");
    auto moved = there.events("r1", "moved");
    REQUIRE(moved.size() == 1);
    CHECK(moved[0].at("instance") == "decode-0");
    CHECK(moved[0].at("note").get<std::string>().starts_with("from prefill-0 for decode by kv: "));
    CHECK(there.counters("head").handovers.load() == 1);
    CHECK(there.counters("head").decodes_at_prefill.load() == 0);
    CHECK(there.nothing_left());
  }
}

TEST_CASE("KV goes to the decode instance while the rest of the prompt is computed") {
  apart_scene there{2, 1, 1};
  virtual_client* client = nullptr;
  std::size_t before_first_token = 0;
  there.kv_network().on_pull([&](const loopback_job&) {
    before_first_token += client && client->tokens.empty();
    return loopback_fate{};
  });
  client = &there.ask_for("r1", 50, 640); // ten steps
  there.expect_exact("r1", *client, 50);
  CHECK(before_first_token >= 3);
  CHECK(there.engine_state("decode-0", "tokens") == 49);
}

TEST_CASE("what ends with its first token never leaves") {
  apart_scene there{3, 1, 1};
  auto& one = there.ask_for("one", 1, 100);
  there.expect_exact("one", one, 1);

  std::vector<token_id> prompt(100, 97);
  auto stops = greedy("stops", 50, prompt);
  stops.sampling.stop_token_ids = expected_tokens(prompt, 1);
  auto& stopped = there.request("head", stops);
  REQUIRE(there.run_until([&] { return stopped.ended(); }, 10s));
  CHECK(stopped.finish == finish_reason::stop);
  CHECK(there.nothing_left());
  CHECK(there.counters("head").handovers.load() == 0);
  CHECK(there.events("one", "moved").empty());
  CHECK(there.events("stops", "moved").empty());
  CHECK(there.engine_state("decode-0", "tokens") == 0);
}

TEST_CASE("a decode instance computes no prompt, however short") {
  apart_scene there{4, 1, 1};
  auto& client = there.ask_for("r1", 20, 5);
  there.expect_exact("r1", client, 20);
  auto moved = there.events("r1", "moved");
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].at("note").get<std::string>().find("1 rounds, 1 KiB") != std::string::npos);
}

TEST_CASE("without a KV transport the decode instance computes the prompt again") {
  apart_scene there{5, 1, 0};
  auto options = scene::engine();
  options.instance_type = "decode";
  options.kv_transport = false;
  there.start("decode-0", options);
  there.engines_ = 2;
  there.wait_for_all();
  auto& client = there.ask_for("r1", 100, 200);
  there.expect_exact("r1", client, 100);
  CHECK(there.events("r1", "move_failed").size() == 1);
  auto moved = there.events("r1", "moved");
  REQUIRE(moved.size() == 1);
  CHECK(
    moved[0].at("note").get<std::string>().starts_with("from prefill-0 for decode by recompute"));
  CHECK(moved[0].at("note").get<std::string>().find(" ms down; no kv: ") != std::string::npos);
  CHECK(there.nothing_left());
}

TEST_CASE("a decode instance without room is not the end: another one, or it decodes where it is") {
  apart_scene there{6, 1, 2};
  std::vector<virtual_client*> clients;
  for (int i = 0; i < 8; ++i) // 4096 tokens fit into an engine: two of them, and 64 to spare
    clients.push_back(&there.ask_for("r" + std::to_string(i), 300, 1500));
  for (int i = 0; i < 8; ++i)
    there.expect_exact("r" + std::to_string(i), *clients[static_cast<std::size_t>(i)], 300);
  const auto& counters = there.counters("head");
  CHECK(counters.handovers.load() >= 4);
  CHECK(counters.decodes_at_prefill.load() >= 1);
  CHECK(counters.handovers.load() + counters.decodes_at_prefill.load() == 8);
  std::size_t told = 0;
  for (int i = 0; i < 8; ++i)
    for (const auto& event : there.events("r" + std::to_string(i), "decodes_at_prefill")) {
      CHECK(event.at("instance") == "prefill-0");
      CHECK(!event.at("note").get<std::string>().empty());
      ++told;
    }
  CHECK(told == counters.decodes_at_prefill.load());
  CHECK(there.nothing_left());
}

TEST_CASE("without a decode instance nothing is placed") {
  auto config = apart();
  config.gateway.wait_for_instance = 500ms;
  apart_scene there{7, 1, 0, config};
  auto& client = there.ask_for("r1", 10, 10);
  REQUIRE(there.run_until([&] { return client.ended(); }, 5s));
  CHECK(client.failure.code == errc::no_instance);
  CHECK(client.tokens.empty());
  CHECK(there.nothing_left());
}

namespace {

/// Something happens so long after a request was made; then it goes on exactly, and nothing is
/// left.
void at_every_moment(
  std::uint64_t seed, const std::function<void(apart_scene&, const std::string& prefill)>& happens,
  const std::function<void(apart_scene&)>& mend, bool client_stays = true) {
  apart_scene there{seed};
  int number = 0;
  for (auto after = 0us; after <= 14ms; after += 700us) {
    auto id = "r" + std::to_string(number++);
    CAPTURE(id);
    CAPTURE(after.count());
    auto& client = there.ask_for(id, 60, 400);
    there.run_for(after);
    auto placed = there.events(id, "placed");
    auto prefill = placed.empty() ? instance_id{"prefill-0"}
                                  : placed.front().at("instance").get<instance_id>();
    if (client_stays)
      happens(there, prefill);
    else
      there.disconnect(client);
    if (client_stays)
      there.expect_exact(id, client, 60);
    mend(there);
    CHECK(there.nothing_left());
  }
}

} // namespace

TEST_CASE("a prefill instance dies at any moment") {
  instance_id dead;
  at_every_moment(
    11,
    [&](apart_scene& there, const instance_id& prefill) {
      dead = prefill;
      there.kill(dead);
    },
    [&](apart_scene& there) {
      there.start_engine(dead);
      there.wait_for_all();
    });
}

TEST_CASE("decode instances die at any moment") {
  for (bool both : {false, true}) {
    CAPTURE(both);
    std::set<instance_id> dead;
    at_every_moment(
      12,
      [&](apart_scene& there, const instance_id&) {
        dead = {"decode-0"};
        if (both) {
          there.kill("decode-1");
          there.start_engine("decode-1"); // soon there again
        }
        there.kill("decode-0");
      },
      [&](apart_scene& there) {
        for (const auto& name : dead)
          there.start_engine(name);
        there.wait_for_all();
      });
  }
}

TEST_CASE("a decode instance is silent at any moment") {
  at_every_moment(
    13, [](apart_scene& there, const instance_id&) { there.pause("decode-0"); },
    [](apart_scene& there) {
      there.resume("decode-0");
      there.wait_for_all();
    });
}

TEST_CASE("a prefill instance is silent at any moment") {
  instance_id silent;
  at_every_moment(
    14,
    [&](apart_scene& there, const instance_id& prefill) {
      silent = prefill;
      there.pause(silent);
    },
    [&](apart_scene& there) {
      there.resume(silent);
      there.wait_for_all();
    });
}

TEST_CASE("the link between the two breaks at any moment") {
  at_every_moment(
    15,
    [](apart_scene& there, const instance_id& prefill) {
      there.reset(prefill, "decode-0");
      there.reset(prefill, "decode-1");
    },
    [](apart_scene& there) { there.run_for(1s); });
}

TEST_CASE("the client goes away at any moment") {
  at_every_moment(
    16, [](apart_scene&, const instance_id&) {}, [](apart_scene&) {}, false);
}

TEST_CASE("whatever breaks with prefill and decode apart, streams are exact, nothing is left") {
  const char* more = std::getenv("LLUMNIX_SEEDS"); // a longer search, by hand
  const std::uint64_t seeds = more ? std::stoull(more) : 8;
  const char* first = std::getenv("LLUMNIX_FIRST_SEED");
  const std::uint64_t begin = first ? std::stoull(first) : 1;
  std::uint64_t handed_over = 0;
  for (std::uint64_t seed = begin; seed < begin + seeds; ++seed) {
    CAPTURE(seed);
    apart_scene there{seed, 2, 2, apart(seed % 2 == 0 ? "pd_batch" : "pd_staged")};
    random_faults faults{there, seed, {"prefill-0", "prefill-1", "decode-0", "decode-1"},
                    [&](const auto& engine) { there.start_engine(engine); }};
    std::vector<virtual_client*> clients;
    for (int round = 0; round < 60; ++round) {
      if (round % 4 == 0)
        clients.push_back(
          &there.ask_for("r" + std::to_string(clients.size()), 150, 20 + faults.draw(600)));
      there.run_for(std::chrono::milliseconds{1 + faults.draw(8)});
      const auto& engine = faults.engine();
      auto i = faults.draw(clients.size());
      faults.strike(faults.draw(16), engine, *clients[i], i);
    }
    faults.go_on();
    for (std::size_t i = 0; i < clients.size(); ++i)
      if (!faults.has_left(i))
        there.expect_exact("r" + std::to_string(i), *clients[i], 150);
    CHECK(there.nothing_left());
    handed_over += there.counters("head").handovers.load();
  }
  CHECK(handed_over > 5 * seeds);
  MESSAGE(handed_over, " requests handed over");
}

namespace {

/// Prefill takes 0.1 ms a token; a decode step 5 ms, and 1 ms more for each request in it.
latency_profile profile_of_steps() {
  std::vector<profile_point> decodes;
  for (double batch : {1.0, 64.0})
    for (double tokens : {8.0, 4096.0})
      decodes.push_back({batch, tokens, 5 + batch});
  return {
    .ttft = interpolation_table{{{1, 0, 0.1}, {4096, 0, 409.6}}},
    .tpot = interpolation_table{decodes}};
}

} // namespace

TEST_CASE("policy slo chooses a prefill and a decode instance by what is predicted") {
  auto config = apart();
  config.scheduler.policy = "slo";
  apart_scene there{21, 1, 1, config, profile_of_steps()};
  auto& client = there.ask_for("r1", 100, 300);
  there.expect_exact("r1", client, 100);
  auto placed = there.events("r1", "placed");
  REQUIRE(placed.size() == 1);
  CHECK(placed[0].at("instance") == "prefill-0");
  CHECK(placed[0].at("reasons").at("ranking").size() == 1);
  CHECK(placed[0].at("reasons").at("metrics").at("prefill-0").contains("predicted_ttft"));
  auto decode = there.events("r1", "decode_placed");
  REQUIRE(decode.size() == 1);
  CHECK(decode[0].at("reasons").at("metrics").at("decode-0").contains("predicted_tpot"));
  CHECK(there.engine_state("decode-0", "tokens") == 99);
}

TEST_CASE("with adaptive roles a prompt is computed where nothing decodes, whatever it was for") {
  auto config = apart();
  config.scheduler.policy = "slo";
  config.scheduler.adaptive_pd = true;
  apart_scene there{22, 1, 2, config, profile_of_steps()};
  // Reserved, by id, while all are idle: decode-0 for decode, decode-1 for prefill. The prompt
  // takes as long at decode-1 as at prefill-0, and ties go to the reserved one.
  auto& client = there.ask_for("r1", 100, 300);
  there.expect_exact("r1", client, 100);
  auto placed = there.events("r1", "placed");
  REQUIRE(placed.size() == 1);
  CHECK(placed[0].at("instance") == "decode-1");
  CHECK(placed[0].at("reasons").at("for") == "prefill");
  CHECK(there.engine_state("decode-1", "tokens") == 1);
  CHECK(there.engine_state("decode-0", "tokens") == 99);
  CHECK(there.engine_state("prefill-0", "tokens") == 0);
  CHECK(there.nothing_left());
}
