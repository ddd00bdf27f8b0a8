#include "actors/protocol/migration_messages.hpp"
#include "tests/virtual/scripted_desk.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llumnix::testing {

namespace {

const std::vector<std::string> engines{"127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"};

/// A gateway in front of engines over HTTP, which are what the test says of them.
struct front : virtual_cluster {
  explicit front(std::size_t count, cluster_config config = lite_mode(), bool scheduler = false)
    : virtual_cluster{1, std::move(config)} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    virtual_node_options head;
    head.roles = {"gateway", "cms", "console"};
    if (scheduler)
      head.roles.push_back("scheduler");
    head.engines.assign(engines.begin(), engines.begin() + static_cast<std::ptrdiff_t>(count));
    start("head", head);
    known_ = head.engines;
    desk.emplace(streams("head"));
    for (const auto& engine : known_)
      check(engine, true);
  }

  /// A check of the engine found this.
  void check(const std::string& engine, bool healthy) {
    instance_status news;
    news.schedulable = healthy;
    news.update_id = ++updates_;
    tell_news("head", engine, news);
    run_for(5ms);
  }
  void check_all(bool healthy) {
    for (const auto& engine : known_)
      check(engine, healthy);
  }
  nlohmann::json why(const std::string& id) {
    return nlohmann::json::parse(inspect("head", "why", id));
  }
  /// Messages that GATEWAY, or the hub, has handled.
  std::int64_t handled(const std::string& actor) {
    auto document = nlohmann::json::parse(inspect("head", "actors"));
    for (const auto& line : document["actors"])
      if (line["name"] == actor)
        return line["messages"];
    return -1;
  }

  std::optional<scripted_desk> desk;

private:
  std::vector<std::string> known_;
  std::int32_t updates_ = 0;
};

} // namespace

TEST_CASE("relays are placed by what was sent and has not ended") {
  front x{3};
  auto& big = x.desk->open("big", {1000, 0});
  x.run_for(5ms);
  CHECK(big.at() == engines[0]);
  CHECK(big.owner->life == node_life{"head", 1});
  for (int i = 0; i < 6; ++i) {
    auto& small = x.desk->open("r" + std::to_string(i), {60, 40});
    x.run_for(5ms);
    CHECK(small.at() == engines[1 + static_cast<std::size_t>(i % 2)]);
  }
  CHECK(x.counters("head").placements == 7);
  CHECK(x.counters("head").inflight == 7);
  x.desk->close(big);
  for (int i = 0; i < 3; ++i) { // one after the other, each engine idle again before the next
    auto& next = x.desk->open("s" + std::to_string(i), {1, 0});
    x.run_for(5ms);
    CHECK(next.at() == engines[0]);
    x.desk->close(next);
    x.run_for(5ms);
  }
}

TEST_CASE("idle engines take turns") {
  front x{3};
  for (int i = 0; i < 6; ++i) {
    auto& next = x.desk->open("r" + std::to_string(i));
    x.run_for(5ms);
    CHECK(next.at() == engines[static_cast<std::size_t>(i % 3)]);
    x.desk->close(next);
    x.run_for(5ms);
  }
}

TEST_CASE("a long request counts until it is closed, whatever the checks say meanwhile") {
  front x{2};
  auto& long_one = x.desk->open("long");
  x.run_for(5ms);
  CHECK(long_one.at() == engines[0]);
  for (int second = 0; second < 30; ++second) {
    x.run_for(1s);
    x.check_all(true);
  }
  auto next_goes_to = [&](const std::string& id) {
    auto& next = x.desk->open(id, {99, 0});
    x.run_for(5ms);
    auto at = next.at();
    x.desk->close(next);
    x.run_for(5ms);
    return at;
  };
  for (auto id : {"a", "b", "c"})
    CHECK(next_goes_to(id) == engines[1]);
  x.desk->close(long_one);
  CHECK(next_goes_to("d") == engines[0]);
}

TEST_CASE("placing without a scheduler is no loss in lite mode, and why says who placed") {
  front x{1};
  auto& relay = x.desk->open("r1", {100, 0});
  x.run_for(5ms);
  x.desk->replay(relay, 42, {});
  x.run_for(5ms);
  x.desk->close(relay, "length");
  x.run_for(5ms);
  CHECK(x.counters("head").placements == 2);
  CHECK(x.counters("head").replays == 1);
  CHECK(x.counters("head").placements_by_view == 0);
  auto events = x.why("r1")["events"];
  REQUIRE(events.size() == 4);
  CHECK(events[0]["kind"] == "placed");
  CHECK(events[0]["reasons"]["note"] == "placed by the gateway");
  CHECK(events[0]["reasons"]["sentence"] == "127.0.0.1:8001 chosen: the only candidate");
  CHECK(events[1]["kind"] == "replayed");
  CHECK(events[1]["note"] == "goes on from token 42");
  CHECK(events[3]["kind"] == "finished");
}

TEST_CASE("with a scheduler relays are placed by its account") {
  front x{2, lite_mode(), true};
  auto& first = x.desk->open("r1", {500, 0});
  x.run_for(5ms);
  CHECK(first.at() == engines[0]);
  for (auto id : {"r2", "r3"}) {
    auto& next = x.desk->open(id, {100, 0});
    x.run_for(5ms);
    CHECK(next.at() == engines[1]);
  }
  x.desk->close(first);
  auto& last = x.desk->open("r4", {100, 0});
  x.run_for(5ms);
  CHECK(last.at() == engines[0]);
  CHECK(x.counters("head").placements_by_view == 0);
}

TEST_CASE("relays wait while no engine takes work, and go on when one comes back") {
  front x{2};
  x.check_all(false);
  auto& relay = x.desk->open("r1");
  x.run_for(1s);
  CHECK_FALSE(relay.owner);
  CHECK(x.counters("head").waiting == 1);
  SUBCASE("by being healthy again") {
    x.check(engines[1], true);
    x.run_for(25ms);
    CHECK(relay.at() == engines[1]);
    CHECK(relay.failure.code == errc::ok);
    CHECK(x.counters("head").waiting == 0);
  }
  SUBCASE("a check that fails again is no news") {
    x.check_all(false);
    x.run_for(1s);
    CHECK_FALSE(relay.owner);
  }
  SUBCASE("else they are told in the end") {
    x.run_for(5s);
    CHECK(relay.failure.code == errc::no_instance);
    CHECK(x.counters("head").unplaceable == 1);
    CHECK(x.counters("head").inflight == 1);
    x.desk->close(relay, "failed");
    x.run_for(5ms);
    CHECK(x.counters("head").inflight == 0);
  }
}

TEST_CASE("an engine that nobody checks any more takes no work") {
  auto config = lite_mode();
  config.scheduler.instance_staleness_s = 2;
  front x{1, config};
  x.run_for(2500ms);
  auto& fresh = x.desk->open("r1");
  x.run_for(5ms);
  CHECK(fresh.at() == engines[0]);
  x.run_for(1s);
  auto& stale = x.desk->open("r2");
  x.run_for(100ms);
  CHECK_FALSE(stale.owner);
  x.check(engines[0], true);
  x.run_for(25ms);
  CHECK(stale.at() == engines[0]);
}

TEST_CASE("an engine that was never checked may be tried") {
  virtual_cluster x{1, lite_mode()};
  virtual_node_options head;
  head.roles = {"gateway", "cms", "console"};
  head.engines = {engines[0]};
  x.start("head", head);
  x.run_for(10ms);
  scripted_desk desk{x.streams("head")};
  auto& relay = desk.open("r1");
  x.run_for(5ms);
  CHECK(relay.at() == engines[0]);
}

TEST_CASE("a replay goes elsewhere, and back only when nobody else is left") {
  front x{2};
  auto& relay = x.desk->open("r1", {100, 0});
  x.run_for(5ms);
  CHECK(relay.at() == engines[0]);
  x.desk->replay(relay, 7, {engines[0]});
  x.run_for(5ms);
  CHECK(relay.at() == engines[1]);
  CHECK(relay.placed == 2);
  x.check(engines[0], false);
  x.desk->replay(relay, 9, {engines[1]});
  x.run_for(5ms);
  CHECK(relay.at() == engines[1]);

  auto& other = x.desk->open("r2", {105, 0}); // the first engine is free of r1, the second is not
  x.check(engines[0], true);
  x.run_for(5ms);
  CHECK(other.at() == engines[1]);
  auto& third = x.desk->open("r3", {1, 0});
  x.run_for(5ms);
  CHECK(third.at() == engines[0]);
}

TEST_CASE("a relay withdrawn while it waits is not placed, and its load is not counted") {
  front x{2};
  x.check_all(false);
  auto& relay = x.desk->open("r1", {1000, 0});
  x.run_for(50ms);
  x.desk->withdraw(relay);
  x.run_for(5ms);
  CHECK(x.counters("head").waiting == 0);
  x.desk->close(relay, "cancelled");
  x.check_all(true);
  x.run_for(100ms);
  CHECK(x.counters("head").placements == 0);
  for (std::size_t i : {0, 1}) {
    auto& next = x.desk->open("s" + std::to_string(i));
    x.run_for(5ms);
    CHECK(next.at() == engines[i]);
  }
}

TEST_CASE("a relay that ends while its placement is on the way leaves nothing behind") {
  front x{2};
  auto& relay = x.desk->open("r1", {1000, 0});
  x.desk->withdraw(relay); // GATEWAY hears all of it in a row
  x.desk->close(relay, "cancelled");
  x.run_for(5ms);
  CHECK(x.counters("head").inflight == 0);
  auto& next = x.desk->open("r2", {10, 0});
  x.run_for(5ms);
  auto& after = x.desk->open("r3", {10, 0});
  x.run_for(5ms);
  CHECK(next.at() != after.at());
}

TEST_CASE("the queue of relays nobody can take is bounded") {
  auto config = lite_mode();
  config.gateway.max_queue = 4;
  front x{1, config};
  x.check_all(false);
  std::vector<scripted_desk::relay*> relays;
  for (int i = 0; i < 6; ++i) {
    relays.push_back(&x.desk->open("r" + std::to_string(i)));
    x.run_for(1ms);
  }
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(relays[i]->failure.code == (i < 4 ? errc::ok : errc::queue_full));
  CHECK(x.counters("head").rejected_full == 2);
}

TEST_CASE("a gateway that was started again is asked again for what waits, and only for that") {
  front x{2};
  auto& running = x.desk->open("running");
  x.run_for(5ms);
  REQUIRE(running.owner);
  x.check_all(false);
  auto& waiting = x.desk->open("waiting");
  x.run_for(50ms);
  x.kill_actor("head", "gateway");
  x.run_for(5ms);
  auto& meanwhile = x.desk->open("meanwhile"); // there is nobody to hear it
  x.run_for(500ms);
  CHECK_FALSE(waiting.owner);
  x.check(engines[1], true);
  x.run_for(50ms);
  CHECK(waiting.at() == engines[1]);
  CHECK(meanwhile.at() == engines[1]);
  CHECK(running.placed == 1);
  CHECK(running.at() == engines[0]);
}

TEST_CASE("a llumlet that is started again holds no relay up, and its news go on") {
  front x{1};
  x.kill_actor("head", "llumlet " + engines[0]);
  x.run_for(5ms);
  auto& meanwhile = x.desk->open("r1");
  x.run_for(5ms);
  CHECK(meanwhile.at() == engines[0]);
  x.run_for(500ms);
  CHECK(x.counters("head").restarts == 1);
  x.check(engines[0], false);
  auto& after = x.desk->open("r2");
  x.run_for(100ms);
  CHECK_FALSE(after.owner);
  x.check(engines[0], true);
  x.run_for(25ms);
  CHECK(after.at() == engines[0]);
}

TEST_CASE("relays and streams share a loop: both are swept and listed") {
  front x{1};
  x.check_all(false);
  x.desk->open("relay");
  auto& client = x.request("head", greedy("stream", 4));
  x.run_for(250ms);
  CHECK(x.desk->sweeps >= 2);
  auto listed = nlohmann::json::parse(x.inspect("head", "requests"))["requests"];
  REQUIRE(listed.size() == 2);
  CHECK(listed[0]["id"] == "stream");
  CHECK(listed[1]["id"] == "relay");
  CHECK(listed[1]["state"] == "queued");
  CHECK_FALSE(client.ended());
}

TEST_CASE("without a desk what is said of relays is dropped") {
  front x{1};
  x.desk->open("r1");
  x.desk.reset();
  x.run_for(50ms);
  CHECK(x.counters("head").placements == 1);
  CHECK(nlohmann::json::parse(x.inspect("head", "requests"))["requests"].empty());
}

TEST_CASE("a relayed request costs two messages: one to have it placed, one when it ended") {
  front x{3};
  auto gateway_before = x.handled("gateway"), hub_before = x.handled("stream_hub 0");
  auto began = x.now();
  constexpr int count = 500;
  for (int i = 0; i < count; ++i) {
    auto& relay = x.desk->open("r" + std::to_string(i));
    REQUIRE(x.run_until([&] { return relay.owner.has_value(); }, 100ms));
    x.desk->close(relay);
  }
  REQUIRE(x.run_until([&] { return x.counters("head").inflight == 0; }, 100ms));
  auto ticks = (x.now() - began) / 20ms + 2;
  auto gateway = x.handled("gateway") - gateway_before;
  auto hub = x.handled("stream_hub 0") - hub_before;
  CHECK(gateway >= 2 * count);
  CHECK(gateway <= 2 * count + ticks + 2); // and the questions for these numbers
  CHECK(hub <= ticks + 2);
}

TEST_CASE("relays move by replay, as many at a time as have slots, and why says by which rung") {
  auto config = lite_mode();
  config.migration.out_slots = 2;
  front x{2, config};
  std::vector<scripted_desk::relay*> relays;
  migrate_msg order;
  order.to = {{"head", 1}, engines[1]};
  order.policy = "by hand";
  for (int i = 0; i < 6; ++i) {
    relays.push_back(&x.desk->open("r" + std::to_string(i)));
    x.run_for(5ms);
    if (relays.back()->at() == engines[0])
      order.requests.push_back(relays.back()->head.stream);
  }
  REQUIRE(order.requests.size() == 3);
  x.check_all(false); // so that nothing is placed
  auto told = x.order(engines[0], order);
  x.run_for(50ms);
  REQUIRE(x.desk->moves.size() == 2); // the third waits for a slot
  CHECK(x.desk->moves[0].from == engines[0]);
  CHECK(x.desk->moves[0].to == engines[1]);
  CHECK(x.desk->moves[0].policy == "by hand");
  CHECK(x.counters("head").departing == 2);
  CHECK(told->empty());
  x.check(engines[1], true);
  x.run_for(100ms);
  REQUIRE(told->size() == 1);
  CHECK(told->front().moves.size() == 3);
  for (const auto& each : told->front().moves) {
    CHECK(each.outcome == "moved");
    CHECK(each.path == "replay");
    CHECK(each.from.instance == engines[0]);
    CHECK(each.to.instance == engines[1]);
  }
  CHECK(x.counters("head").replays == 0); // nothing failed
  CHECK(x.counters("head").moves_out == 3);
  CHECK(x.counters("head").departing == 0);
  std::string kinds, note;
  auto why = x.why("r0");
  for (auto& each : why["events"]) {
    kinds += each["kind"].get<std::string>() + " ";
    note = each["note"].is_string() ? each["note"].get<std::string>() : "";
  }
  CHECK(kinds.starts_with("placed moving "));
  CHECK(kinds.ends_with("placed moved "));
  CHECK(note.starts_with(
    "from " + engines[0]
    + " for by hand by replay: an engine behind HTTP has no KV to hand over; "));
}

TEST_CASE("what a llumlet without an engine does not let go, it says why") {
  front x{2};
  auto& relay = x.desk->open("r0");
  x.run_for(5ms);
  struct row {
    const char* what;
    bool named, planned;
    instance_id to;
    const char* reason; ///< a part of it
  };
  for (const auto& [what, named, planned, to, reason] :
       {row{"by load", true, true, engines[1], "a move computes a request anew"},
        row{"a selection", false, false, engines[1], "a move computes a request anew"},
        row{"to itself", true, false, engines[0], "it is there already"}}) {
    CAPTURE(what);
    migrate_msg order;
    order.to = {{"head", 1}, to};
    if (named)
      order.requests = {relay.head.stream};
    if (planned)
      order.term = {7, {"head", 1}};
    auto told = x.migrate(engines[0], order, 100ms);
    REQUIRE(told);
    REQUIRE(told->moves.size() == 1);
    CHECK(told->moves[0].outcome == "refused");
    CHECK(told->moves[0].reason.find(reason) != std::string::npos);
  }
  CHECK(x.desk->moves.empty());
  migrate_msg order;
  order.to = {{"head", 1}, engines[1]};
  order.requests = {relay.head.stream};
  x.desk->answer = {.outcome = "refused", .reason = "'seed'", .lasting = true};
  auto told = x.migrate(engines[0], order, 100ms);
  REQUIRE(told);
  CHECK(told->moves[0].outcome == "refused");
  CHECK(told->moves[0].reason == "'seed'");
  CHECK(told->moves[0].lasting);
  CHECK(x.counters("head").departing == 0);
}

TEST_CASE("an engine behind HTTP that drains gets nothing new, and empties") {
  front x{3};
  std::vector<scripted_desk::relay*> relays;
  for (int i = 0; i < 9; ++i) {
    relays.push_back(&x.desk->open("r" + std::to_string(i)));
    x.run_for(5ms);
  }
  auto at_first = [&] {
    return std::ranges::count_if(relays, [](auto* each) { return each->at() == engines[0]; });
  };
  REQUIRE(at_first() == 3);
  auto state = [&] {
    auto cluster = nlohmann::json::parse(x.inspect("head", "cluster"));
    for (const auto& each : cluster["instances"])
      if (each["id"] == engines[0])
        return each["state"].get<std::string>();
    return std::string{};
  };
  CHECK(state() == "ready");
  auto console = x.card("head").console.front();
  caf::anon_send(console, order_msg{order_msg::drain{engines[0], 60s}});
  x.run_for(20ms);
  CHECK(x.desk->drained.back() == std::pair{engines[0], true});
  CHECK(state() == "draining");
  auto& fresh = x.desk->open("fresh", {1, 0});
  x.run_for(5ms);
  CHECK(fresh.at() != engines[0]);
  x.run_for(500ms);
  CHECK(at_first() == 0);
  CHECK(x.desk->moves.size() == 3);
  x.check(engines[0], true); // a look at it changes nothing
  CHECK(state() == "draining");
  caf::anon_send(console, order_msg{order_msg::undrain{engines[0]}});
  x.run_for(20ms);
  CHECK(state() == "ready");
  CHECK(x.desk->drained.back() == std::pair{engines[0], false});
  auto& next = x.desk->open("next", {1, 0});
  x.run_for(5ms);
  CHECK(next.at() == engines[0]);
}

} // namespace llumnix::testing
