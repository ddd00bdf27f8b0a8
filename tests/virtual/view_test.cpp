#include "actors/cms_actor.hpp"
#include "actors/llumlet_actor.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "runtime/engine/engine.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

using ids = std::vector<std::string>;

const node_life engine_life{"engine-0", 1};

instance_metadata metadata() {
  instance_metadata x;
  x.instance_id = "engine-0";
  x.instance_type = "neutral";
  return x;
}

status_msg status(std::int32_t update, ids seen) {
  status_msg msg{engine_life, {}};
  msg.status.instance_id = "engine-0";
  msg.status.schedulable = true;
  msg.status.update_id = update;
  msg.status.timestamp_ms = 1000 + update;
  msg.status.recent_waiting_requests = std::move(seen);
  return msg;
}

cms_actor start_cms(stage& x) {
  cms_actor_config config{{"head", 1}, {}, {}, std::make_shared<node_counters>(), nullptr};
  return x.system->spawn(make_cms, std::move(config));
}

peer_up_msg engine_up() {
  peer_up_msg up;
  up.card.self.life = engine_life;
  up.card.instances.push_back({metadata(), "scripted", {}});
  return up;
}

/// An engine whose load is what the test says.
struct idle_engine final : stepped_engine {
  engine_capabilities capabilities() const override { return {}; }
  result<void> submit(inference_request) override {
    seen.push_back("r" + std::to_string(++submitted));
    return {};
  }
  bool abort(const stream_ref&, std::uint32_t) override { return true; }
  void grant(const stream_ref&, std::uint32_t, std::uint32_t) override {}
  bool holds(const stream_ref&, std::uint32_t) const override { return false; }
  step_result step(time_point) override { return {}; }
  bool has_work() const override { return false; }
  instance_status status() const override {
    instance_status x;
    x.update_id = submitted;
    return x;
  }
  ids take_seen_waiting() override { return std::exchange(seen, {}); }

  ids seen;
  std::int32_t submitted = 0;
};

} // namespace

TEST_CASE("a paced listener hears the sum of loads some milliseconds later, and the rest at once") {
  stage x;
  std::vector<view_change_msg> at_once, paced;
  auto cms = start_cms(x);
  for (auto* heard : {&at_once, &paced})
    caf::anon_send(
      cms, subscribe_view_msg{caf::actor_cast<view_listener>(x.listener(*heard)), heard == &paced});
  caf::anon_send(cms, engine_up());
  x.run();
  REQUIRE(at_once.size() == 2); // the whole view, and the instance that came
  CHECK(paced.size() == 2);

  for (std::int32_t update : {1, 2, 3})
    caf::anon_send(cms, status(update, {"r" + std::to_string(update)}));
  x.run();
  CHECK(at_once.size() == 5);
  CHECK(paced.size() == 2);
  x.pass(20ms);
  REQUIRE(paced.size() == 3);
  REQUIRE(paced.back().statuses.size() == 1);
  CHECK(paced.back().statuses[0].update_id == 3);
  CHECK(paced.back().statuses[0].recent_waiting_requests == ids{"r1", "r2", "r3"});
  x.pass(100ms);
  CHECK(paced.size() == 3); // nothing new, nothing said

  caf::anon_send(cms, status(4, {}));
  caf::anon_send(cms, peer_down_msg{engine_life});
  x.run();
  REQUIRE(paced.size() == 5); // in the order in which it happened
  CHECK(paced[3].statuses.size() == 1);
  CHECK(paced[4].lost == std::vector<node_life>{engine_life});
  caf::anon_send_exit(cms, caf::exit_reason::user_shutdown);
  x.run();
}

TEST_CASE("of a node that goes the view says how") {
  for (bool stopped : {false, true}) {
    CAPTURE(stopped);
    stage x;
    std::vector<view_change_msg> heard;
    auto cms = start_cms(x);
    caf::anon_send(
      cms, subscribe_view_msg{caf::actor_cast<view_listener>(x.listener(heard)), false});
    caf::anon_send(cms, engine_up());
    caf::anon_send(cms, status(1, {}));
    x.run();
    cluster_view replica; // of whoever listens, and has heard of the node's end before
    auto take = [&] {
      for (const auto& change : std::exchange(heard, {})) {
        for (const auto& entry : change.put)
          if (replica.put(entry.metadata, entry.life, entry.engine))
            replica.set_state(entry.metadata.instance_id, entry.state);
        for (const auto& life : change.lost)
          replica.lose(life);
      }
    };
    take();
    REQUIRE(replica.instances().size() == 1);
    const auto& shown = replica.instances().begin()->second;
    CHECK(shown.state == instance_state::ready);
    replica.lose(engine_life);
    caf::anon_send(cms, peer_down_msg{engine_life, stopped});
    x.run();
    take();
    CHECK(shown.state == (stopped ? instance_state::stopped : instance_state::lost));
    auto last = status(2, {}); // a word from before it went
    last.draining = true;
    caf::anon_send(cms, last);
    caf::anon_send(cms, peer_down_msg{{engine_life.node, engine_life.incarnation + 1}}); // or later
    x.run();
    take();
    CHECK(shown.state == (stopped ? instance_state::stopped : instance_state::lost));
    caf::anon_send_exit(cms, caf::exit_reason::user_shutdown);
    x.run();
  }
}

TEST_CASE("that an instance drains is its state, until it takes work again") {
  stage x;
  std::vector<view_change_msg> heard;
  auto cms = start_cms(x);
  caf::anon_send(cms, engine_up());
  caf::anon_send(
    cms, subscribe_view_msg{caf::actor_cast<view_listener>(x.listener(heard)), true});
  x.run();
  auto say = [&](std::int32_t update, bool draining) {
    auto msg = status(update, {});
    msg.draining = draining;
    msg.status.schedulable = !draining;
    caf::anon_send(cms, msg);
    x.run();
  };
  say(1, false);
  x.pass(20ms);
  REQUIRE(heard.size() == 2); // the whole view, the first load
  CHECK(heard[1].put.empty());

  say(2, true);
  REQUIRE(heard.size() == 3); // at once
  REQUIRE(heard[2].put.size() == 1);
  CHECK(heard[2].put[0].state == instance_state::draining);
  REQUIRE(heard[2].statuses.size() == 1);
  CHECK_FALSE(heard[2].statuses[0].schedulable); // so say records for others, too

  say(1, false); // overtaken
  CHECK(heard.size() == 3);
  caf::anon_send(cms, engine_up()); // its card is told again
  std::vector<view_change_msg> late;
  caf::anon_send(
    cms, subscribe_view_msg{caf::actor_cast<view_listener>(x.listener(late)), false});
  x.run();
  REQUIRE(heard.size() == 4);
  CHECK(heard[3].put.at(0).state == instance_state::draining);
  REQUIRE(late.size() == 1);
  CHECK(late[0].put.at(0).state == instance_state::draining);

  say(3, false);
  REQUIRE(heard.size() == 5);
  REQUIRE(heard[4].put.size() == 1);
  CHECK(heard[4].put[0].state == instance_state::ready);

  caf::anon_send(cms, peer_down_msg{engine_life});
  x.run();
  say(4, true); // a word from before the link broke
  CHECK(heard.back().put.empty());
  caf::anon_send_exit(cms, caf::exit_reason::user_shutdown);
  x.run();
}

TEST_CASE("a llumlet tells who waited once, and all of the last ten seconds to a CMS that is new") {
  stage x;
  llumlet_actor_config config{{}, engine_life, metadata(), {}, {}};
  auto engine = std::make_shared<idle_engine>();
  config.make_engine = [engine] { return engine; };
  auto llumlet = x.system->spawn(make_llumlet, config);
  std::vector<status_msg> first, second;
  std::vector<refused_msg> refused; // by a hub, which there must be for a request to be taken
  auto connect = [&](const std::string& node, std::vector<status_msg>& heard) {
    peer_up_msg up;
    up.card.self.life = {node, 1};
    up.card.cms.push_back(caf::actor_cast<cms_actor>(x.listener(heard)));
    up.card.hubs.push_back(caf::actor_cast<stream_hub_actor>(x.listener(refused)));
    caf::anon_send(llumlet, up);
    x.run();
  };
  auto submit = [&] {
    submit_msg msg;
    msg.request.stream = {"one", 1, 0, 7};
    caf::anon_send(llumlet, msg);
    x.run();
    x.pass(2ms);
  };
  auto told = [](const std::vector<status_msg>& heard) {
    ids all;
    for (const auto& msg : heard)
      for (const auto& id : msg.status.recent_waiting_requests)
        all.push_back(id);
    return all;
  };
  x.run();
  connect("one", first);
  submit();
  submit();
  CHECK(told(first) == ids{"r1", "r2"});
  for (int second = 0; second < 4; ++second)
    x.pass(1000ms); // heartbeats repeat the load, not the ids
  CHECK(first.size() > 4);
  CHECK(told(first) == ids{"r1", "r2"});
  connect("two", second);
  REQUIRE(second.size() == 1);
  CHECK(told(second) == ids{"r1", "r2"});
  submit();
  CHECK(told(first) == ids{"r1", "r2", "r3"});
  CHECK(told(second) == ids{"r1", "r2", "r3"});
  caf::anon_send_exit(llumlet, caf::exit_reason::user_shutdown);
  x.run();
}

TEST_CASE("an instance that its node has no more is forgotten; one that starts again is not") {
  stage x;
  std::vector<view_change_msg> heard;
  auto cms = start_cms(x);
  caf::anon_send(cms, subscribe_view_msg{caf::actor_cast<view_listener>(x.listener(heard)), true});
  auto card_with = [](const ids& there, ids starting = {}) {
    peer_up_msg up;
    up.card.self.life = engine_life;
    for (const auto& id : there) {
      auto described = metadata();
      described.instance_id = id;
      up.card.instances.push_back({described, "scripted", {}});
    }
    up.card.starting = std::move(starting);
    return up;
  };
  auto removed = [&] {
    ids all;
    for (const auto& change : std::exchange(heard, {}))
      all.insert(all.end(), change.removed.begin(), change.removed.end());
    return all;
  };
  caf::anon_send(cms, card_with({"engine-0", "engine-1", "engine-2"}));
  caf::anon_send(cms, status(1, {}));
  x.run();
  CHECK(removed().empty());
  caf::anon_send(cms, card_with({"engine-1"}, {"engine-2"}));
  caf::anon_send(cms, status(2, {})); // late
  x.run();
  CHECK(removed() == ids{"engine-0"});
  x.pass(1000ms);
  CHECK(removed().empty());
  auto other = card_with({});
  other.card.self.life = {"engine-0", 2}; // another life says nothing of what this one has
  caf::anon_send(cms, other);
  x.run();
  CHECK(removed().empty());
  caf::anon_send(cms, card_with({}));
  x.run();
  CHECK(removed() == ids{"engine-1", "engine-2"});
  caf::anon_send_exit(cms, caf::exit_reason::user_shutdown);
  x.run();
}

} // namespace llumnix::testing
