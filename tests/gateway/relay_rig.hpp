#pragma once

#include "gateway/relay/relay_table.hpp"
#include "gateway_rig.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

/// Engines the test plays.
struct fake_engines final : net::upstream_pool {
  struct call final : net::upstream_call {
    explicit call(int& open) : open_{open} { ++open_; }
    ~call() override { --open_; }
    void hold() override {}
    void resume() override {}

  private:
    int& open_;
  };
  std::unique_ptr<net::upstream_call>
  send(net::upstream_request request, net::upstream_watcher& watcher) override {
    asked.push_back(std::move(request));
    watchers.push_back(&watcher);
    return std::make_unique<call>(calls_open);
  }
  std::size_t connections() const override { return 0; }

  std::vector<net::upstream_request> asked;
  std::vector<net::upstream_watcher*> watchers;
  int calls_open = 0; ///< not ended, nor given up
};

struct fake_port final : stream_port {
  void place(inference_request, bool, std::vector<instance_id>) override {}
  void place_relayed(
    inference_request head, relayed_request load, bool, std::vector<instance_id> exclude) override {
    placed.push_back(std::move(head));
    loads.push_back(std::move(load));
    excluded.push_back(std::move(exclude));
  }
  void abort(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void withdraw(std::uint64_t stream, std::uint32_t) override { withdrawn.push_back(stream); }
  void grant(const stream_owner&, std::uint64_t, std::uint32_t, std::uint32_t) override {}
  void ask_holds(const stream_owner&, std::uint64_t, std::uint32_t) override {}
  void closed(const stream_end& end) override { ended.push_back(end); }

  std::vector<inference_request> placed;
  std::vector<relayed_request> loads;             ///< of those placed
  std::vector<std::vector<instance_id>> excluded; ///< likewise
  std::vector<std::uint64_t> withdrawn;
  std::vector<stream_end> ended;
};

inline const std::string event
  = R"(data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]})"
    "\n\n";

inline const std::string whole = R"({"id":"x","choices":[{"text":"a","finish_reason":"stop"}]})";

struct table_rig {
  table_rig() { engines.put("e:1", {.address = "e:1"}); }

  std::shared_ptr<fake_exchange> open(bool stream) {
    const std::string body = R"({"model":"m"})";
    auto wish
      = std::get<relay::relay_request>(relay::request_reader{}.read(openai::endpoint::chat, body));
    wish.stream = stream;
    return open(wish, body);
  }
  std::shared_ptr<fake_exchange> open(const relay::relay_request& wish, std::string body) {
    auto client = std::make_shared<fake_exchange>(loop);
    relay::passed_request request;
    request.wish = wish;
    request.body = std::make_shared<const std::string>(std::move(body));
    request.path = wish.kind == openai::endpoint::chat          ? "/v1/chat/completions"
                   : wish.kind == openai::endpoint::completions ? "/v1/completions"
                                                                : "/inference/v1/generate";
    request.id = ids.take({}, random);
    request.arrived = loop.now();
    request.wishes = wishes;
    table.open(client, std::move(request));
    return client;
  }
  /// Token ids in and out.
  std::shared_ptr<fake_exchange> open_tokens(bool stream = true) {
    const std::string body
      = R"({"token_ids":[7,8],"sampling_params":{"max_tokens":9,"y":1},"stream":true})";
    auto wish = std::get<relay::relay_request>(
      relay::request_reader{}.read(openai::endpoint::tokens, body));
    wish.stream = stream;
    return open(wish, body);
  }
  /// The placement asked for last is granted.
  void place(const char* engine = "e:1") {
    const auto& head = port.placed.back();
    table.on_placed(head.stream.stream, head.epoch, {{"head", 1}, engine}, loop.now());
  }
  /// The engine asked last.
  net::upstream_watcher& engine() { return *pool.watchers.back(); }
  void answer(net::http_reply reply) {
    auto body = std::exchange(reply.body, {});
    auto asked = pool.watchers.size();
    auto before = port.placed.size() + port.ended.size();
    engine().on_head(reply);
    if (port.placed.size() + port.ended.size() == before)
      engine().on_body(body);
    if (port.placed.size() + port.ended.size() == before)
      engine().on_end({errc::ok, {}});
    REQUIRE(pool.watchers.size() == asked);
  }
  /// The engine asked last says this in a stream.
  void say(const std::string& events) {
    engine().on_head({200, {{"content-type", "text/event-stream"}}, {}});
    engine().on_body(events);
    engine().on_pause();
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
  placement_wishes wishes; ///< of the next request
  std::shared_ptr<net::body_budget> replies = std::make_shared<net::body_budget>(8 << 20);
  relay::relay_table table{
    {config, {"head", 1, 0, 0}, port, pool, loop, metrics.attach(), engines, false, {}, replies}};
};

inline const error draining{errc::draining, "the gateway stops"};

} // namespace llumnix::testing
