#include "actors/cms_actor.hpp"
#include "actors/view_feed.hpp"
#include "runtime/base/log.hpp"
#include "runtime/cluster/memory_cms_store.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <optional>

namespace llumnix::testing {

namespace {

using ids = std::vector<instance_id>;

instance_metadata metadata(const instance_id& id, std::int32_t port = 8000) {
  instance_metadata x;
  x.instance_id = id;
  x.instance_type = "neutral";
  x.ip = "10.0.0.1";
  x.api_server_port = port;
  x.utc_create = 1;
  return x;
}

/// A store whose answers to readings of statuses come when the test says so.
struct slow_store final : cms_store {
  void put_metadata(const instance_metadata&) override {}
  void put_status(const instance_status&) override {}
  void remove(const instance_id&) override {}
  void read_metadata(std::function<void(result<std::vector<instance_metadata>>)> done) override {
    asked_metadata.push_back(std::move(done));
  }
  void read_statuses(
    std::vector<instance_id>, std::function<void(result<stored_statuses>)> done) override {
    asked_statuses.push_back(std::move(done));
  }
  std::vector<std::function<void(result<std::vector<instance_metadata>>)>> asked_metadata;
  std::vector<std::function<void(result<stored_statuses>)>> asked_statuses;
};

/// CMS of a node "head" and everything it says.
struct cms_stage : stage {
  explicit cms_stage(std::shared_ptr<cms_store> store, cms_config knobs = {}) {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    pass(1000ms); // actor time is wall time here, and begins at 0
    cms = system->spawn(
      make_cms, cms_actor_config{
                  {"head", 1}, knobs, {}, std::make_shared<node_counters>(), std::move(store)});
    caf::anon_send(cms, subscribe_view_msg{caf::actor_cast<view_listener>(listener(heard)), false});
  }
  ~cms_stage() {
    caf::anon_send_exit(cms, caf::exit_reason::user_shutdown);
    run();
  }
  /// What was told since the last call.
  view_change_msg news() {
    view_change_msg all;
    for (auto& one : std::exchange(heard, {})) {
      all.put.insert(all.put.end(), one.put.begin(), one.put.end());
      all.statuses.insert(all.statuses.end(), one.statuses.begin(), one.statuses.end());
      all.removed.insert(all.removed.end(), one.removed.begin(), one.removed.end());
      if (one.store != store_news::none)
        all.store = one.store;
    }
    return all;
  }
  std::int64_t stat(const std::string& name) {
    std::optional<std::int64_t> value;
    system->spawn([&, cms = cms](caf::event_based_actor* self) {
      self->request(cms, caf::infinite, stat_msg{}).then([&](const actor_stats_msg& all) {
        for (const auto& [key, number] : all.actors.at(0).state)
          if (key == name)
            value = number;
      });
    });
    run();
    REQUIRE(value);
    return *value;
  }
  void connect(const instance_metadata& x, const node_life& life, bool there = true) {
    peer_up_msg up;
    up.card.self.life = life;
    if (there)
      up.card.instances.push_back({x, "modeled", {}});
    caf::anon_send(cms, up);
    run();
  }

  cms_actor cms;
  std::vector<view_change_msg> heard;
};

struct memory_stage {
  explicit memory_stage(cms_config knobs = {}) : x{store, knobs} {}
  void write(const instance_id& id, std::int32_t update, std::int32_t running = 0) {
    instance_status status;
    status.instance_id = id;
    status.schedulable = true;
    status.update_id = update;
    status.timestamp_ms = 1000 + update;
    status.num_running_requests = running;
    status.num_total_gpu_tokens = 16000;
    store->statuses[id] = status;
  }
  void add(const instance_id& id, std::int32_t port = 8000) {
    store->metadata[id] = metadata(id, port);
    write(id, 1);
  }

  std::shared_ptr<memory_cms_store> store = std::make_shared<memory_cms_store>();
  cms_stage x;
};

} // namespace

TEST_CASE("a foreign instance appears, changes, is silent for a while and vanishes") {
  memory_stage m;
  m.add("f");
  m.x.run();
  m.x.pass(0ms);
  auto news = m.x.news();
  CHECK(news.store == store_news::reachable);
  REQUIRE(news.put.size() == 1); // read at once, not after an interval
  CHECK(news.put[0].metadata == metadata("f"));
  CHECK(news.put[0].life.node.empty());
  CHECK(news.put[0].state == instance_state::ready);
  REQUIRE(news.statuses.size() == 1);

  m.write("f", 2, 5);
  m.x.pass(49ms);
  CHECK(m.x.news().statuses.empty());
  m.x.pass(1ms);
  news = m.x.news();
  REQUIRE(news.statuses.size() == 1);
  CHECK(news.statuses[0].num_running_requests == 5);
  CHECK(news.put.empty());
  m.x.pass(50ms);
  CHECK(m.x.heard.empty()); // nothing new, nothing said

  m.store->metadata["f"].api_server_port = 9000;
  m.store->metadata["f"].instance_type = "decode";
  m.x.pass(10000ms);
  news = m.x.news();
  REQUIRE(news.put.size() == 1);
  CHECK(news.put[0].metadata.api_server_port == 9000);
  CHECK(news.put[0].metadata.instance_type == "decode");

  m.store->statuses.clear();
  m.x.pass(50ms);
  news = m.x.news();
  REQUIRE(news.put.size() == 1);
  CHECK(news.put[0].state == instance_state::stopped);
  CHECK(news.removed.empty());
  m.write("f", 3);
  m.x.pass(50ms);
  news = m.x.news();
  REQUIRE(news.put.size() == 1);
  CHECK(news.put[0].state == instance_state::ready);
  CHECK(m.x.stat("foreign") == 1);

  m.store->metadata.clear();
  m.x.pass(10000ms);
  CHECK(m.x.news().removed == ids{"f"});
  CHECK(m.x.stat("instances") == 0);
  CHECK(m.store->removed.empty()); // nobody deletes what is not his
  auto reads = m.store->status_reads;
  m.x.pass(1000ms);
  CHECK(m.store->status_reads <= reads + 1); // there is nobody to ask for
}

TEST_CASE(
  "a store that dies leaves the view as it is, and says so once; it is read when it returns") {
  memory_stage m;
  m.add("f");
  m.x.run();
  m.x.pass(0ms);
  m.x.news();
  CHECK(m.x.stat("store_reachable") == 1);
  m.store->reachable = false;
  m.x.pass(50ms);
  REQUIRE(m.x.heard.size() == 1);
  auto news = m.x.news();
  CHECK(news.store == store_news::unreachable);
  CHECK(news.put.empty());
  CHECK(news.removed.empty());
  for (int i = 0; i < 300; ++i)
    m.x.pass(50ms);
  CHECK(m.x.heard.empty());
  CHECK(m.x.stat("store_reachable") == 0);
  CHECK(m.x.stat("instances") == 1);

  m.store->reachable = true;
  m.write("f", 2);
  m.add("g");
  for (int i = 0; i < 40; ++i) // a second at most, then the statuses
    m.x.pass(50ms);
  news = m.x.news();
  CHECK(news.store == store_news::reachable);
  REQUIRE(news.put.size() == 1);
  CHECK(news.put[0].metadata.instance_id == "g");
  CHECK(news.statuses.size() == 2);
}

TEST_CASE("whoever subscribes hears how the store is") {
  for (bool reachable : {true, false}) {
    CAPTURE(reachable);
    memory_stage m;
    m.store->reachable = reachable;
    m.x.run();
    m.x.news();
    caf::anon_send(
      m.x.cms, subscribe_view_msg{caf::actor_cast<view_listener>(m.x.listener(m.x.heard)), true});
    m.x.run();
    REQUIRE(m.x.heard.size() == 1);
    CHECK(m.x.news().store == (reachable ? store_news::reachable : store_news::unreachable));
  }
  cms_stage without{nullptr};
  without.run();
  CHECK(without.news().store == store_news::none);
}

TEST_CASE("what is never to be read is not read") {
  memory_stage none{{.pull_metadata_interval = 0ms}};
  none.add("f");
  none.x.pass(20000ms);
  CHECK(none.store->metadata_reads == 0);
  memory_stage no_status{{.pull_status_interval = 0ms}};
  no_status.add("f");
  no_status.x.run();
  no_status.x.pass(20000ms);
  CHECK(no_status.store->metadata_reads > 0);
  CHECK(no_status.store->status_reads == 0);
  CHECK(no_status.x.stat("instances") == 0);
}

TEST_CASE("an instance of our own is known by its node, whatever the store says") {
  memory_stage m;
  const node_life life{"engine-0", 1};
  m.add("engine-0", 0); // as an earlier life of ours left it
  m.add("f");
  m.x.run();
  m.x.pass(0ms);
  auto news = m.x.news();
  REQUIRE(news.put.size() == 2);
  CHECK(news.put[0].metadata.instance_id == "engine-0");
  CHECK(news.put[0].state == instance_state::lost); // no node has it, and it has no endpoint
  auto own = metadata("engine-0", 0);
  own.utc_create = 2;
  m.x.connect(own, life);
  news = m.x.news();
  REQUIRE(news.put.size() == 1);
  CHECK(news.put[0].life == life);
  CHECK(news.put[0].state == instance_state::ready);
  CHECK(m.store->metadata["engine-0"].utc_create == 2); // mirrored

  m.write("engine-0", 70, 7);
  for (int i = 0; i < 4; ++i)
    m.x.pass(50ms);
  CHECK(m.x.news().statuses.empty());
  CHECK(m.store->asked == ids{"f"});
  m.x.pass(10000ms);
  CHECK(m.x.news().put.empty());

  m.x.connect({}, life, false); // its node has it no more
  CHECK(m.x.news().removed == ids{"engine-0"});
  CHECK(m.store->removed == ids{"engine-0"});
  m.store->metadata["engine-0"] = own; // another node of ours was told later
  m.write("engine-0", 71);
  m.x.pass(10000ms);
  m.x.pass(50ms);
  CHECK(m.x.news().put.empty());
  CHECK(m.x.stat("instances") == 1);
}

TEST_CASE("a lost instance of ours is not taken for a foreign one, and goes in the end") {
  memory_stage m;
  const node_life life{"engine-0", 1};
  m.x.connect(metadata("engine-0", 0), life);
  caf::anon_send(m.x.cms, peer_down_msg{life});
  m.x.run();
  m.x.pass(20000ms);
  CHECK(m.x.stat("instances") == 1);
  CHECK(m.x.stat("foreign") == 0);
  m.x.news();
  for (int i = 0; i < 101; ++i)
    m.x.pass(1000ms);
  CHECK(m.x.news().removed == ids{"engine-0"});
  CHECK(m.store->removed == ids{"engine-0"});
}

TEST_CASE("a slow store is asked once at a time, and answers late without harm") {
  auto store = std::make_shared<slow_store>();
  {
    cms_stage x{store};
    x.run();
    REQUIRE(store->asked_metadata.size() == 1);
    x.pass(60000ms);
    CHECK(store->asked_metadata.size() == 1);
    store->asked_metadata[0](std::vector<instance_metadata>{metadata("f")});
    x.run();
    x.pass(0ms);
    CHECK(store->asked_metadata.size() == 2); // overdue: asked again at once
    REQUIRE(store->asked_statuses.size() == 1);
    x.pass(1000ms);
    CHECK(store->asked_statuses.size() == 1);
    store->asked_metadata[1](std::vector<instance_metadata>{}); // it goes meanwhile
    instance_status late;
    late.instance_id = "f";
    store->asked_statuses[0](stored_statuses{{late}, {}});
    x.run();
    CHECK(x.news().put.empty());
    CHECK(x.stat("instances") == 0);
    x.pass(10000ms);
    REQUIRE(store->asked_metadata.size() == 3); // on its way as CMS ends
  }
  for (std::size_t i = 2; i < store->asked_metadata.size(); ++i) // CMS has ended
    store->asked_metadata[i](error{errc::cancelled, "the store is closing"});
}

TEST_CASE("those who place requests for llumlets do not hear of foreign instances") {
  auto decisions = dispatcher::make(scheduler_config{});
  REQUIRE(decisions);
  view_change_msg change;
  change.put.push_back({metadata("f"), {"", 5}, "x", instance_state::ready});
  change.put.push_back({metadata("own"), {"engine-0", 1}, "x", instance_state::ready});
  instance_status status;
  status.instance_id = "f";
  change.statuses.push_back(status);
  apply(*decisions, change, 0);
  CHECK(decisions->view().instances().size() == 1);
  CHECK(decisions->view().find("f") == nullptr);
  apply(*decisions, change, 0, true);
  REQUIRE(decisions->view().find("f") != nullptr);
  CHECK(decisions->view().find("f")->foreign());
}

TEST_CASE("numbers at the ends of what a record can hold are shown") {
  memory_stage m;
  m.add("f");
  auto& status = m.store->statuses["f"];
  status.num_total_gpu_tokens = std::numeric_limits<std::int32_t>::max();
  status.num_used_gpu_tokens = std::numeric_limits<std::int32_t>::min();
  status.timestamp_ms = std::numeric_limits<std::int64_t>::max();
  m.store->metadata["f"].block_size = std::numeric_limits<std::int32_t>::min();
  m.x.run();
  m.x.pass(0ms);
  std::string text;
  m.x.system->spawn([&, cms = m.x.cms](caf::event_based_actor* self) {
    self->request(cms, caf::infinite, inspect_msg{}).then([&](const inspected_msg& answer) {
      text = answer.json;
    });
  });
  m.x.run();
  auto shown = nlohmann::json::parse(text);
  REQUIRE(shown.size() == 1);
  CHECK(shown[0]["kv_blocks"]["free"] == 4294967295);
  CHECK(shown[0]["status_age_ms"] == 0);
  CHECK(shown[0]["state"] == "ready");
}

} // namespace llumnix::testing
