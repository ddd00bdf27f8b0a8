#include "gateway/relay/relay_table.hpp"
#include "gateway_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace llumnix::testing {
namespace {

/// Engines the test plays.
struct fake_engines final : net::upstream_pool {
  struct call final : net::upstream_call {
    void hold() override {}
    void resume() override {}
  };
  std::unique_ptr<net::upstream_call>
  send(net::upstream_request request, net::upstream_watcher& watcher) override {
    asked.push_back(std::move(request));
    watchers.push_back(&watcher);
    return std::make_unique<call>();
  }
  std::size_t connections() const override { return 0; }

  std::vector<net::upstream_request> asked;
  std::vector<net::upstream_watcher*> watchers;
};

struct fake_port final : stream_port {
  void place(inference_request, bool, std::vector<instance_id>) override {}
  void
  place_relayed(inference_request head, relayed_request, bool, std::vector<instance_id>) override {
    placed.push_back(std::move(head));
  }
  void abort(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void withdraw(std::uint64_t stream, std::uint32_t) override { withdrawn.push_back(stream); }
  void grant(const stream_owner&, std::uint64_t, std::uint32_t, std::uint32_t) override {}
  void ask_holds(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void closed(const stream_end& end) override { ended.push_back(end); }

  std::vector<inference_request> placed;
  std::vector<std::uint64_t> withdrawn;
  std::vector<stream_end> ended;
};

const std::string event
  = R"(data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]})"
    "\n\n";

struct table_rig {
  table_rig() { engines.put("e:1", {.address = "e:1"}); }

  std::shared_ptr<fake_exchange> open(bool stream, std::string first_body = {}) {
    auto client = std::make_shared<fake_exchange>(loop);
    relay::passed_request request;
    request.wish.model = "m";
    request.wish.stream = stream;
    request.body = R"({"model":"m"})";
    request.path = "/v1/chat/completions";
    request.id = ids.take({}, random);
    request.arrived = loop.now();
    request.first_body = std::move(first_body);
    table.open(client, std::move(request));
    return client;
  }
  /// The placement asked for last is granted.
  void place() {
    const auto& head = port.placed.back();
    table.on_placed(head.stream.stream, head.epoch, {{"head", 1}, "e:1"}, loop.now());
  }
  void begin_stream() {
    place();
    auto& engine = *pool.watchers.back();
    engine.on_head({200, {{"content-type", "text/event-stream"}}, {}});
    engine.on_body(event);
    engine.on_pause();
  }

  gateway_config config;
  fake_loop loop;
  fake_port port;
  fake_engines pool;
  gateway_metrics metrics{"m", loop.now()};
  relay::engine_directory engines;
  request_ids ids;
  std::mt19937_64 random;
  relay::relay_table table{
    {config, {"head", 1, 0, 0}, port, pool, loop, metrics.attach(), engines}};
};

const error draining{errc::draining, "the gateway stops"};

} // namespace

TEST_CASE_FIXTURE(table_rig, "relays given up are told so, in the form that fits") {
  auto begun = open(true);
  begin_stream();
  REQUIRE(begun->streaming);
  auto asked = open(false);
  place();
  auto waiting = open(true);
  table.give_up_all(draining);
  table.give_up_all(draining); // nothing is left, also not to be freed
  loop.run();
  for (const auto& client : {asked, waiting}) {
    CHECK(client->status == 503);
    CHECK(client->json()["error"]["code"] == "draining");
    CHECK(client->header("retry-after") == "1");
  }
  CHECK(begun->ended);
  CHECK(begun->body.find("[DONE]") == std::string::npos);
  CHECK(begun->events().back()["error"]["code"] == "draining");
  CHECK(port.withdrawn.size() == 1);
  REQUIRE(port.ended.size() == 3);
  for (const auto& end : port.ended) {
    CHECK(end.outcome == "failed");
    CHECK(end.failure == draining);
  }
  CHECK(table.size() == 0);
}

TEST_CASE_FIXTURE(table_rig, "clients whose relays end may send their next requests at once") {
  for (int i = 0; i < 100; ++i)
    open(true)->after_reply = [this] { open(false); };
  table.give_up_all(draining);
  loop.run();
  CHECK(table.size() == 100);
  CHECK(port.ended.size() == 100);
}

TEST_CASE_FIXTURE(
  table_rig, "a relay's client that reads nothing for too long is cut off, and that is said") {
  auto client = open(true);
  begin_stream();
  client->stall();
  pool.watchers.back()->on_body(event);
  pool.watchers.back()->on_pause();
  loop.time += config.stalled_client + std::chrono::milliseconds{1};
  table.sweep(loop.now());
  CHECK(client->abandoned);
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "cancelled");
  CHECK(port.ended[0].failure == error{errc::cancelled, "the client read nothing for too long"});
}

TEST_CASE_FIXTURE(table_rig, "a body made beforehand is sent if it suits the engine, once") {
  const std::string made = R"({"made":1})";
  struct row {
    bool stream, tells_ids, sent;
  };
  for (auto [stream, tells_ids, sent] :
       {row{true, false, true}, row{true, true, false}, row{false, true, true}}) {
    engines.put("e:1", {.address = "e:1", .token_ids = tells_ids});
    open(stream, made); // made for an engine that tells no ids
    place();
    CHECK((pool.asked.back().body == made) == sent);
  }
}

} // namespace llumnix::testing
