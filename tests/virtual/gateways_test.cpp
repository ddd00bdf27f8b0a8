#include "actors/protocol/migration_messages.hpp"
#include "tests/virtual/scripted_desk.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <map>
#include <set>
#include <utility>

namespace llumnix::testing {

namespace {

const std::vector<std::string> engines{"127.0.0.1:8001", "127.0.0.1:8002"};

/// Notes of whom it was told.
struct noting_store final : cms_store {
  void put_metadata(const instance_metadata& metadata) override {
    described.insert(metadata.instance_id);
  }
  void put_status(const instance_status& status) override { told.insert(status.instance_id); }
  void remove(const instance_id& id) override { described.erase(id); }
  void read_metadata(std::function<void(result<std::vector<instance_metadata>>)> done) override {
    done(std::vector<instance_metadata>{});
  }
  void read_statuses(
    std::vector<instance_id>, std::function<void(result<stored_statuses>)> done) override {
    done(stored_statuses{});
  }
  std::set<instance_id> described, told;
};

/// Two gateways in front of the same engines: `head` has the SCHEDULER, `side` asks it.
struct two_gateways : virtual_cluster {
  two_gateways() : virtual_cluster{1, lite_mode()} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    start_head();
    virtual_node_options side;
    side.roles = {"gateway", "cms", "console"};
    side.seeds = {"head"};
    side.engines = engines;
    side.store = store_of_side;
    start("side", side);
    run_for(2s);
    from_head.emplace(streams("head"));
    from_side.emplace(streams("side"), "side");
    check_all();
  }

  void start_head() {
    virtual_node_options head;
    head.roles = {"gateway", "scheduler", "cms", "console"};
    head.engines = engines;
    head.store = store_of_head;
    start("head", head);
  }
  /// Each gateway finds each engine well.
  void check_all() {
    for (const char* node : {"head", "side"})
      for (const auto& engine : engines)
        check(node, engine, true);
  }
  void check(const std::string& node, const std::string& engine, bool healthy) {
    instance_status news;
    news.schedulable = healthy;
    news.update_id = ++updates_;
    tell_news(node, engine, news);
    run_for(50ms);
  }
  scripted_desk::relay& open(scripted_desk& desk, const std::string& id, std::uint32_t tokens) {
    auto& relay = desk.open(id, {tokens, 0});
    run_for(100ms);
    return relay;
  }
  /// Who speaks for the engines, in the view of a node.
  std::string speakers(const std::string& node) {
    auto cluster = nlohmann::json::parse(inspect(node, "cluster"));
    std::set<std::string> all;
    for (const auto& line : cluster["instances"])
      all.insert(line["node"].get<std::string>() + " " + line["state"].get<std::string>());
    std::string text;
    for (const auto& one : all)
      text += (text.empty() ? "" : ", ") + one;
    return text;
  }

  std::shared_ptr<noting_store> store_of_head = std::make_shared<noting_store>();
  std::shared_ptr<noting_store> store_of_side = std::make_shared<noting_store>();
  std::optional<scripted_desk> from_head;
  std::optional<scripted_desk> from_side;

private:
  std::int32_t updates_ = 0;
};

} // namespace

TEST_CASE_FIXTURE(two_gateways, "two gateways place by one account") {
  auto& big = open(*from_side, "big", 1000);
  CHECK(big.at() == engines[0]);
  for (auto id : {"a", "b", "c"})
    CHECK(open(*from_head, id, 100).at() == engines[1]);
  CHECK(open(*from_side, "d", 100).at() == engines[1]);
  from_side->close(big);
  run_for(100ms);
  CHECK(open(*from_head, "e", 100).at() == engines[0]);
}

TEST_CASE_FIXTURE(two_gateways, "of an engine that drains each gateway moves what its clients have") {
  std::vector<scripted_desk::relay*> relays;
  std::map<scripted_desk*, std::size_t> at_first;
  for (auto* desk : {&*from_head, &*from_side, &*from_side, &*from_head}) {
    relays.push_back(&open(*desk, "r" + std::to_string(relays.size()), 100));
    at_first[desk] += relays.back()->at() == engines[0];
  }
  REQUIRE(at_first[&*from_head] > 0);
  REQUIRE(at_first[&*from_side] > 0);
  caf::anon_send(card("head").console.front(), order_msg{order_msg::drain{engines[0], 60s}});
  run_for(2s);
  for (auto* desk : {&*from_head, &*from_side}) {
    CHECK(desk->drained.back() == std::pair{engines[0], true});
    CHECK(desk->moves.size() == at_first[desk]);
  }
  for (auto* each : relays)
    CHECK(each->at() == engines[1]);
}

TEST_CASE_FIXTURE(two_gateways, "what a gateway had placed counts no more once it is gone") {
  CHECK(open(*from_side, "big", 1000).at() == engines[0]);
  CHECK(open(*from_head, "a", 100).at() == engines[1]);
  from_side.reset();
  kill("side");
  run_for(3s);
  CHECK(open(*from_head, "b", 100).at() == engines[0]);
}

TEST_CASE_FIXTURE(
  two_gateways, "a gateway goes on by itself when the node that placed for it dies") {
  CHECK(speakers("head") == "head ready");
  auto& running = open(*from_side, "running", 100);
  CHECK(running.owner);
  from_head.reset();
  kill("head");
  run_for(3s);
  CHECK(running.owner); // its engine is not on that node
  CHECK(speakers("side") == "side ready");
  auto& next = open(*from_side, "next", 100);
  CHECK(next.owner);
  start_head();
  run_for(3s);
  CHECK(speakers("head") == "head lost"); // nobody has looked after the engines there yet
  check_all();
  CHECK(speakers("head") == "head ready");
  CHECK(open(*from_side, "last", 100).owner);
}

TEST_CASE_FIXTURE(two_gateways, "what another node's scheduler chose counts when that node dies") {
  auto& big = open(*from_side, "big", 1000);
  CHECK(big.at() == engines[0]);
  CHECK(open(*from_head, "a", 100).at() == engines[1]);
  from_head.reset();
  kill("head");
  run_for(3s);
  for (auto id : {"b", "c", "d"}) // of which "a" is no more
    CHECK(open(*from_side, id, 300).at() == engines[1]);
  from_side->close(big);
  run_for(100ms);
  CHECK(open(*from_side, "e", 100).at() == engines[0]);
}

TEST_CASE_FIXTURE(two_gateways, "a scheduler that comes later counts what runs already") {
  from_head.reset();
  kill("head");
  run_for(3s);
  std::vector<scripted_desk::relay*> running;
  for (auto i = 0; i < 5; ++i)
    running.push_back(&open(*from_side, "r" + std::to_string(i), i == 0 ? 1000 : 100));
  CHECK(running[0]->at() == engines[0]);
  CHECK(running[4]->at() == engines[1]);
  start_head();
  run_for(3s);
  check_all();
  from_head.emplace(streams("head"));
  CHECK(open(*from_head, "a", 100).at() == engines[1]);
  CHECK(open(*from_side, "b", 100).at() == engines[1]);
  from_side->close(*running[0]); // it hears of the end, too
  run_for(100ms);
  CHECK(open(*from_head, "c", 100).at() == engines[0]);
  from_side.reset();
  kill("side"); // what that had told of counts no more
  run_for(3s);
  auto& d = open(*from_head, "d", 100); // "c" is at one, "a" at the other
  CHECK(open(*from_head, "e", 100).at() != d.at());
}

TEST_CASE_FIXTURE(two_gateways, "an engine that one gateway cannot reach is left to that gateway") {
  check("side", engines[0], false); // the scheduler's own node reaches it
  auto& relay = open(*from_side, "r", 100);
  CHECK(relay.at() == engines[0]);
  from_side->replay(relay, 0, {engines[0]}); // as its loop would
  run_for(100ms);
  CHECK(relay.at() == engines[1]);
  CHECK(open(*from_head, "s", 1).at() == engines[0]);
}

TEST_CASE_FIXTURE(two_gateways, "the record of an engine is written next to the scheduler alone") {
  std::set<instance_id> all{engines.begin(), engines.end()};
  CHECK(store_of_head->described == all);
  CHECK(store_of_head->told == all);
  store_of_side->described.clear(); // what it wrote before it had met the scheduler
  store_of_side->told.clear();
  check_all();
  run_for(30s);
  CHECK(store_of_side->described.empty());
  CHECK(store_of_side->told.empty());
}

} // namespace llumnix::testing
