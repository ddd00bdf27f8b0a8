#pragma once

#include "integrations/mooncake/metadata_client.hpp"
#include "net/http_server.hpp"
#include "tests/net/http_testing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::mooncake::testing {

using namespace std::chrono_literals;
using net::testing::eventually;

using prompt = std::vector<token_id>;
using holders = std::vector<prefix_holder>;

inline prompt tokens(std::size_t size) {
  prompt made(size);
  std::iota(made.begin(), made.end(), token_id{1});
  return made;
}

inline client_options quick(std::uint32_t attempts = 1) {
  client_options options;
  options.keys.chunk_tokens = 4;
  options.keys.save_unfull_chunk = true;
  options.attempts = attempts;
  return options;
}

/// The keys of one request.
inline std::vector<std::string> keys_of(std::string_view query) {
  CHECK(query.starts_with("keys="));
  std::vector<std::string> keys{""};
  for (char c : query.substr(std::min<std::size_t>(query.size(), 5)))
    if (c == ',')
      keys.emplace_back();
    else
      keys.back() += c;
  return keys;
}

/// A metadata service. Used on its loop alone, but for what is atomic.
struct fake_service {
  using act = std::function<void(std::shared_ptr<net::exchange>, const net::http_request&)>;

  void hold(const prompt& held, const std::string& host, const chunk_key_options& options) {
    auto keys = chunk_keys(held, options);
    REQUIRE(keys);
    for (const auto& key : *keys)
      hosts[key].push_back(host);
  }
  void answer(const std::shared_ptr<net::exchange>& client, const net::http_request& request) {
    std::string data;
    for (const auto& key : keys_of(request.query)) {
      auto found = hosts.find(key);
      if (found == hosts.end())
        continue;
      std::string values;
      for (const auto& host : found->second)
        values
          += (values.empty() ? "" : ",") + (R"({"transport_endpoint_":")" + host) + ":17001\"}";
      data += (data.empty() ? "\"" : ",\"") + key + R"(":{"ok":true,"values":[)" + values + "]}";
    }
    client->reply({200, {}, R"({"success":true,"data":{)" + data + "}}"});
  }

  std::map<std::string, std::vector<std::string>> hosts; ///< by key
  std::deque<act> next; ///< done first, one per request; after that it answers
  std::vector<net::http_request> asked;
  std::vector<std::shared_ptr<net::exchange>> kept;
  std::atomic<std::size_t> requests{0};
};

/// A client whose clock the test moves, and the service it asks, on one loop.
class stage {
public:
  explicit stage(client_options options = quick(), const std::string& address = {}) {
    net::http_server_options listen;
    listen.max_header_bytes = 64 * 1024;
    auto made = net::http_server::make(listen);
    REQUIRE(made.has_value());
    server_ = std::move(*made);
    server_->start([this](std::uint32_t) { return std::make_unique<handler>(service); });
    options.address = address.empty() ? server_->address() : address;
    on_loop([&] {
      pool_ = server_->make_upstream(0, {});
      clock_.emplace(server_->loop(0));
      client.emplace(std::move(options), *pool_, *clock_);
    });
  }
  ~stage() {
    end_client();
    on_loop([&] {
      pool_.reset();
      service.kept.clear();
    });
    server_.reset();
  }

  void on_loop(const std::function<void()>& act) {
    std::promise<void> done;
    server_->loop(0).post([&] {
      act();
      done.set_value();
    });
    REQUIRE(done.get_future().wait_for(net::testing::patience) == std::future_status::ready);
  }
  void end_client() {
    on_loop([&] { client.reset(); });
  }
  /// Moves the clock, and tells the client.
  void pass(std::chrono::milliseconds time) {
    on_loop([&] {
      clock_->time += time;
      if (client)
        client->tick();
    });
  }
  /// Lets what is under way come as far as it can.
  void settle() {
    for (int turn = 0; turn < 30; ++turn)
      on_loop([] {});
  }
  void will(fake_service::act act, std::size_t times = 1) {
    on_loop([&] { service.next.insert(service.next.end(), times, act); });
  }
  void will_reply(int status, const std::string& body, std::size_t times = 1) {
    will([=](const auto& client, const auto&) { client->reply({status, {}, body}); }, times);
  }
  /// Leaves requests without an answer.
  void will_wait(std::size_t times = 1) {
    will([this](const auto& client, const auto&) { service.kept.push_back(client); }, times);
  }

  /// What comes of a query, in the order in which they end.
  struct heard_answers {
    std::mutex mutex;
    std::vector<result<prefix_holders>> list;
    std::size_t size() {
      std::lock_guard guard{mutex};
      return list.size();
    }
  };
  void find(const prompt& of) {
    client->find(of, "m", [heard = heard](result<prefix_holders> found) {
      std::lock_guard guard{heard->mutex};
      heard->list.push_back(std::move(found));
    });
  }
  bool hears(std::size_t count) {
    return eventually([&] { return heard->size() >= count; });
  }
  result<prefix_holders> last() {
    std::lock_guard guard{heard->mutex};
    return heard->list.back();
  }
  /// Asks, and waits for an answer that needs no time to pass.
  result<prefix_holders> ask(const prompt& of) {
    auto before = heard->size();
    find(of);
    REQUIRE(hears(before + 1));
    return last();
  }
  /// The same while the clock moves in steps.
  result<prefix_holders>
  ask(const prompt& of, std::chrono::milliseconds step, std::chrono::milliseconds limit) {
    auto before = heard->size();
    find(of);
    for (auto passed = 0ms; heard->size() == before && passed <= limit; passed += step) {
      settle();
      pass(step);
    }
    REQUIRE(hears(before + 1));
    return last();
  }
  bool is_asked(std::size_t times) {
    return eventually([&] { return service.requests >= times; });
  }
  std::string address() const { return server_->address(); }

  fake_service service;
  std::optional<metadata_client> client; ///< made, ticked and destroyed on the loop
  std::shared_ptr<heard_answers> heard = std::make_shared<heard_answers>();

private:
  struct hand_clock final : executor {
    explicit hand_clock(executor& loop) : real{loop} {}
    void post(std::function<void()> work) override { real.post(std::move(work)); }
    clock::time_point now() const override { return time; }
    executor& real;
    time_point time{1h};
  };
  struct handler final : net::http_handler {
    explicit handler(fake_service& to) : service{to} {}
    void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override {
      service.asked.push_back(request);
      ++service.requests;
      if (service.next.empty())
        return service.answer(client, request);
      auto act = std::move(service.next.front());
      service.next.pop_front();
      act(std::move(client), request);
    }
    net::http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }
    fake_service& service;
  };

  std::unique_ptr<net::http_server> server_;
  std::unique_ptr<net::upstream_pool> pool_;
  std::optional<hand_clock> clock_;
};

inline errc code_of(const result<prefix_holders>& found) {
  return found ? errc::ok : found.error().code;
}

} // namespace llumnix::mooncake::testing
