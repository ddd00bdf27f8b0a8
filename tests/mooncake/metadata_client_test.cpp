#include "integrations/mooncake/metadata_client.hpp"
#include "net/http_server.hpp"
#include "tests/net/http_testing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>

namespace llumnix::mooncake {
namespace {

using namespace std::chrono_literals;
using net::testing::eventually;

using prompt = std::vector<token_id>;
using holders = std::vector<prefix_holder>;

prompt tokens(std::size_t size) {
  prompt made(size);
  std::iota(made.begin(), made.end(), token_id{1});
  return made;
}

client_options quick(std::uint32_t attempts = 1) {
  client_options options;
  options.keys.chunk_tokens = 4;
  options.keys.save_unfull_chunk = true;
  options.attempts = attempts;
  return options;
}

/// The keys of one request.
std::vector<std::string> keys_of(std::string_view query) {
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

errc code_of(const result<prefix_holders>& found) {
  return found ? errc::ok : found.error().code;
}

/// An address where nobody listens.
std::string deserted() {
  auto server = net::http_server::make({});
  REQUIRE(server.has_value());
  return (*server)->address();
}

} // namespace

TEST_CASE("answers of any wrong kind use up the attempts and put the service down") {
  const std::string good = R"({"success":true,"data":{}})";
  struct row {
    const char* what;
    int status;
    std::string body;
    errc code;
  };
  const row rows[]{
    {"an error", 500, good, errc::internal},
    {"an unknown path", 404, "no such path", errc::internal},
    {"a URL too long for it", 414, "", errc::internal},
    {"another good status", 201, good, errc::internal},
    {"elsewhere", 302, good, errc::internal},
    {"nothing", 200, "", errc::bad_message},
    {"garbage", 200, "<html>", errc::bad_message},
    {"half of it", 200, R"({"success":true,"data":{)", errc::bad_message},
    {"a failure", 200, R"({"success":false,"data":{}})", errc::internal},
    {"wrong types", 200, R"({"success":true,"data":[]})", errc::bad_message},
    {"too much", 200, std::string(5000, ' '), errc::too_long}};
  for (const auto& [what, status, body, code] : rows) {
    CAPTURE(what);
    auto options = quick(3);
    options.answer_bytes_max = 4096;
    stage on{options};
    on.will_reply(status, body, 3);
    CHECK(code_of(on.ask(tokens(8), 50ms, 600ms)) == code);
    CHECK(on.service.requests == 3);
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
    CHECK(on.service.requests == 3);
  }
}

TEST_CASE("where nobody listens a query ends after its attempts and pauses") {
  stage on{quick(3), deserted()};
  on.find(tokens(8));
  for (int pause = 0; pause < 3; ++pause) { // also after the last
    on.settle();
    CHECK(on.heard->size() == 0);
    on.pass(100ms);
  }
  REQUIRE(on.hears(1));
  CHECK(code_of(on.last()) == errc::unreachable);
}

TEST_CASE("no address is an error like others") {
  for (const char* address : {"nowhere", "127.0.0.1:", "http://127.0.0.1:1", "a b:1"}) {
    stage on{quick(), address};
    CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) != errc::ok);
  }
}

TEST_CASE("a connection that is cut is tried three more times at once, within the attempt") {
  auto cut = [](const auto& client, const auto&) { client->abandon(); };
  auto cut_within = [](const auto& client, const auto&) {
    client->begin_stream(200, {});
    client->write(R"({"success":true,)");
    client->flush();
    client->abandon();
  };
  {
    stage on;
    on.will(cut, 2);
    on.will(cut_within);
    CHECK(code_of(on.ask(tokens(8))) == errc::ok);
    CHECK(on.service.requests == 4);
  }
  stage on;
  on.will(cut_within, 4);
  CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) == errc::disconnected);
  CHECK(on.service.requests == 4);
}

TEST_CASE("a service that is slow gets its time for each call, and a query its attempts") {
  auto options = quick(2);
  options.budget = 1h;
  stage on{options};
  on.will_wait();
  on.will([&](const auto& client, const auto&) { // begins, and never ends
    client->begin_stream(200, {});
    client->write("{");
    client->flush();
    on.service.kept.push_back(client);
  });
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.pass(2999ms);
  CHECK(on.heard->size() == 0);
  on.pass(1ms); // given up
  on.pass(99ms);
  on.settle();
  CHECK(on.service.requests == 1);
  on.pass(1ms);
  REQUIRE(on.is_asked(2));
  on.pass(2999ms);
  on.pass(1ms);
  CHECK(on.heard->size() == 0);
  on.pass(100ms);
  REQUIRE(on.hears(1));
  CHECK(code_of(on.last()) == errc::timeout);
  CHECK(on.service.requests == 2);
}

TEST_CASE("a query never outlasts its budget") {
  SUBCASE("by one slow call") {
    stage on{quick(5)};
    on.will_wait();
    on.find(tokens(8));
    REQUIRE(on.is_asked(1));
    on.pass(1499ms);
    CHECK(on.heard->size() == 0);
    on.pass(1ms);
    REQUIRE(on.hears(1));
    CHECK(code_of(on.last()) == errc::timeout);
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable); // down
    CHECK(on.service.requests == 1);
  }
  SUBCASE("by many attempts; the last failure is told") {
    auto options = quick(1000);
    stage on{options};
    on.will_reply(503, "", 1000);
    CHECK(code_of(on.ask(tokens(8), 100ms, 1500ms)) == errc::internal);
    CHECK(on.service.requests == 15);
  }
  SUBCASE("by a long list of keys") {
    auto options = quick();
    options.target_bytes_max = 100; // one key each
    stage on{options};
    on.on_loop([&] { on.service.hold(tokens(12), "h", options.keys); });
    on.will([&](const auto& client, const auto& request) { on.service.answer(client, request); });
    on.will_wait();
    on.find(tokens(12));
    REQUIRE(on.is_asked(2));
    on.pass(1500ms);
    REQUIRE(on.hears(1));
    CHECK(code_of(on.last()) == errc::timeout);
  }
}

TEST_CASE("a failed attempt is made good by the next, after a pause") {
  stage on{quick(5)};
  on.on_loop([&] { on.service.hold(tokens(8), "10.0.0.1", quick().keys); });
  on.will_reply(500, "", 2);
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.settle();
  on.pass(99ms);
  on.settle();
  CHECK(on.service.requests == 1);
  on.pass(1ms);
  REQUIRE(on.is_asked(2));
  on.settle();
  on.pass(100ms);
  REQUIRE(on.hears(1));
  CHECK(on.last()->list == holders{{"10.0.0.1", 8}});
  CHECK(code_of(on.ask(tokens(8))) == errc::ok); // it was never down
}

TEST_CASE("a service that was down is asked again by one query alone") {
  stage on{quick(5)};
  on.will_reply(500, "", 5);
  CHECK(code_of(on.ask(tokens(8), 100ms, 600ms)) == errc::internal);
  on.pass(30s); // not yet
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  CHECK(on.service.requests == 5);

  on.pass(1ms);
  on.will_wait();
  on.find(tokens(8)); // the probe
  REQUIRE(on.is_asked(6));
  for (int i = 0; i < 3; ++i)
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.on_loop([&] { on.service.kept.front()->reply({500, {}, {}}); });
  on.settle();
  on.pass(100ms);
  REQUIRE(on.heard->size() == 6); // in one attempt
  CHECK(code_of(on.last()) == errc::internal);

  on.pass(30s); // down anew
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.pass(1ms);
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(7));
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.on_loop([&] { on.service.kept.back()->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(9));
  CHECK(code_of(on.last()) == errc::ok);
  CHECK(code_of(on.ask(tokens(8))) == errc::ok); // up
  CHECK(on.service.requests == 8);
}

TEST_CASE("a probe that hears nothing ends with its budget, and the next one comes later") {
  stage on;
  on.will_reply(500, "");
  CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) == errc::internal);
  on.pass(30001ms);
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(2));
  on.pass(1500ms);
  REQUIRE(on.hears(2));
  CHECK(code_of(on.last()) == errc::timeout);
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.pass(30001ms);
  CHECK(code_of(on.ask(tokens(8))) == errc::ok);
}

TEST_CASE("queries that were under way when the service went down may still succeed, once") {
  stage on{quick(2)};
  on.will_wait(3);
  for (int i = 0; i < 3; ++i)
    on.find(tokens(8));
  REQUIRE(on.is_asked(3));
  on.will_reply(500, "");
  on.on_loop([&] { on.service.kept[0]->reply({500, {}, {}}); });
  on.settle();
  on.pass(100ms);
  REQUIRE(on.is_asked(4)); // its second attempt, which fails
  on.settle();
  on.pass(50ms);
  on.on_loop([&] { on.service.kept[1]->reply({500, {}, {}}); });
  on.settle();
  on.pass(50ms); // the first has ended
  REQUIRE(on.hears(1));
  on.pass(50ms); // the second's pause is over, but there is no second attempt
  REQUIRE(on.hears(2));
  CHECK(code_of(on.last()) == errc::internal);
  CHECK(on.service.requests == 4);
  on.on_loop([&] { on.service.kept[2]->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(3));
  CHECK(code_of(on.last()) == errc::ok);
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable); // it stays down
}

TEST_CASE("one request asks for all keys as the reference does, and its answer counts runs") {
  stage on;
  on.on_loop([&] {
    auto& hosts = on.service.hosts; // keys of 1..10, computed apart from this code
    hosts["c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0"] = {"a", "b", "c"};
    hosts["24125b23e68883b5c2141db2959d48433fe6bde2f26bd914efad121d154ab2d6_0"] = {"c", "a", "d"};
    hosts["128a226d31d49c070c027325a6f501ea097fb252653e92d2055ff7af74062fc8_0"] = {"b", "c", "c"};
  });
  auto found = on.ask(tokens(10));
  REQUIRE(found);
  CHECK(found->named_by == holder_naming::kv_address);
  CHECK(found->list == holders{{"a", 8}, {"b", 4}, {"c", 10}});
  REQUIRE(on.service.asked.size() == 1);
  const auto& request = on.service.asked.front();
  CHECK(request.method == "GET");
  CHECK(request.path == "/batch_query_keys");
  CHECK(
    request.query
    == "keys=c9d58ba695280d69b243e1e0df813136ca9196b286fb1a021e0b2e028ef071cb_0,"
       "24125b23e68883b5c2141db2959d48433fe6bde2f26bd914efad121d154ab2d6_0,"
       "128a226d31d49c070c027325a6f501ea097fb252653e92d2055ff7af74062fc8_0");
  CHECK(request.header("accept") == "application/json");
  CHECK(request.body.empty());
}

TEST_CASE("a long list of keys takes several requests, as long as somebody holds everything") {
  auto options = quick();
  options.keys.chunk_tokens = 1; // 1200 keys of 66 bytes: three requests
  stage on{options};
  on.on_loop([&] { on.service.hold(tokens(1200), "all", options.keys); });
  on.on_loop([&] { on.service.hold(tokens(600), "half", options.keys); });
  CHECK(on.ask(tokens(1200))->list == holders{{"all", 1200}, {"half", 600}});
  CHECK(on.service.requests == 3);
  std::size_t keys = 0;
  for (const auto& request : on.service.asked) {
    CHECK(request.path.size() + 1 + request.query.size() <= 32 * 1024);
    keys += keys_of(request.query).size();
  }
  CHECK(keys == 1200);

  on.will_reply(500, ""); // the second request of the next fails
  on.on_loop([&] {
    on.service.next.push_front(
      [&](const auto& client, const auto& request) { on.service.answer(client, request); });
  });
  CHECK(code_of(on.ask(tokens(1200), 100ms, 200ms)) == errc::internal);
  CHECK(on.service.requests == 5);

  on.pass(30001ms);
  on.on_loop([&] { on.service.hosts.clear(); });
  CHECK(on.ask(tokens(1200))->list.empty());
  CHECK(on.service.requests == 6); // nobody holds the first
}

TEST_CASE("prompts without a key are answered without asking") {
  auto options = quick();
  options.keys.save_unfull_chunk = false;
  stage on{options};
  CHECK(on.ask(tokens(3))->list.empty());
  CHECK(code_of(on.ask({})) == errc::invalid_argument);
  CHECK(on.service.requests == 0);
}

TEST_CASE("too many queries at a time are refused") {
  auto options = quick();
  options.queries_max = 2;
  stage on{options};
  on.will_wait(2);
  on.find(tokens(8));
  on.find(tokens(8));
  CHECK(code_of(on.ask(tokens(8))) == errc::queue_full);
  REQUIRE(on.is_asked(2));
  on.on_loop([&] { on.service.kept[0]->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(2));
  CHECK(code_of(on.ask(tokens(8))) == errc::ok);
}

TEST_CASE("whoever waits for a client that ends is told so, once") {
  stage on;
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.on_loop([&] {
    on.find(tokens(8)); // not yet begun
    on.client.reset();
  });
  REQUIRE(on.hears(2));
  on.settle();
  CHECK(on.heard->size() == 2);
  for (const auto& each : on.heard->list)
    CHECK(code_of(each) == errc::cancelled);
}

TEST_CASE("an answer may end the client") {
  SUBCASE("as it comes") {
    stage on;
    std::atomic<bool> told = false;
    on.client->find(tokens(8), "m", [&](result<prefix_holders> found) {
      CHECK(code_of(found) == errc::ok);
      on.client.reset();
      told = true;
    });
    CHECK(eventually([&] { return told.load(); }));
  }
  SUBCASE("on a tick, with others") {
    stage on;
    on.will_wait(2);
    std::atomic<int> told = 0;
    for (int i = 0; i < 2; ++i)
      on.client->find(tokens(8), "m", [&](result<prefix_holders> found) {
        CHECK(code_of(found) == errc::timeout);
        on.client.reset();
        ++told;
      });
    REQUIRE(on.is_asked(2));
    on.pass(1500ms);
    CHECK(told == 2);
  }
}

TEST_CASE("the client's options come from the configuration") {
  scheduler_config config;
  config.mooncake = "10.0.0.1:9003";
  config.kv_attempts = 2;
  config.kv_attempt_pause = 7ms;
  config.kv_down = 9s;
  config.kv_chunk_tokens = 16;
  auto made = make_client_options(config);
  REQUIRE(made);
  CHECK(made->address == "10.0.0.1:9003");
  CHECK(made->attempts == 2);
  CHECK(made->attempt_pause == 7ms);
  CHECK(made->down == 9s);
  CHECK(made->keys.chunk_tokens == 16);
  CHECK(made->budget < 2s); // when a gateway gives up
  config.kv_hash = "md5";
  CHECK(make_client_options(config).error().code == errc::invalid_argument);
}

} // namespace llumnix::mooncake
