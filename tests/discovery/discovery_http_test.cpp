#include "discovery_rig.hpp"
#include "fake_etcd.hpp"
#include "integrations/discovery/engine_sources.hpp"
#include "integrations/discovery/etcd_messages.hpp"
#include "integrations/discovery/redis_records.hpp"
#include "net/http_server.hpp"
#include "tests/redis/redis_server.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>
#include <mutex>
#include <unistd.h>

namespace llumnix::testing {
namespace {

/// The fake etcd behind a socket. Its store is changed under its mutex.
struct etcd_front final : net::http_handler {
  struct shared_store {
    std::mutex mutex;
    fake_etcd store;
  };
  explicit etcd_front(shared_store& shared) : shared_{shared} {}

  void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override {
    std::lock_guard guard{shared_.mutex};
    if (request.path == etcd::watch_path) {
      client->begin_stream(200, {{"content-type", "application/json"}});
      watches_.push_back({std::move(client), fake_etcd::start_of(request.body)});
      return;
    }
    auto answer = shared_.store.ask(request.path, request.body, request.header("authorization"));
    client->reply({answer.status, {{"content-type", "application/json"}}, std::move(answer.body)});
  }
  void on_tick() override {
    std::lock_guard guard{shared_.mutex};
    for (auto& [client, from, told] : watches_) {
      for (const auto& line : shared_.store.watch(from, told)) {
        ++told;
        client->write(line + "\n");
      }
      client->flush();
    }
  }
  net::http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }

private:
  struct watch {
    std::shared_ptr<net::exchange> client;
    std::int64_t from = 0;
    std::size_t told = 0;
  };
  shared_store& shared_;
  std::vector<watch> watches_;
};

/// A node with sources on its I/O loop.
struct sources_host final : net::http_handler {
  struct heard {
    std::mutex mutex;
    heard_lists lists;
  };
  sources_host(net::http_server& http, const cluster_config& config, heard& to)
    : pool_{http.make_upstream(0, {})} {
    auto made = make_sources(config, *pool_, http.loop(0));
    REQUIRE(made);
    sources_ = std::move(*made);
    sources_->start([&to](std::vector<discovered_engine> list) {
      std::lock_guard guard{to.mutex};
      to.lists.lists.push_back(std::move(list));
    });
  }
  void on_request(std::shared_ptr<net::exchange> client, net::http_request&&) override {
    client->reply({404, {}, {}});
  }
  void on_tick() override { sources_->tick(); }
  void on_loop_end() override { sources_.reset(); }
  net::http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }

private:
  std::unique_ptr<net::upstream_pool> pool_;
  std::unique_ptr<discovery> sources_;
};

} // namespace

TEST_CASE("engines from a fixed list, a file, a Redis and an etcd over their sockets") {
  if (!redis_server::available())
    return;
  etcd_front::shared_store shared;
  shared.store.user = "gateway";
  shared.store.password = "secret";
  auto etcd = net::http_server::make({});
  REQUIRE(etcd);
  (*etcd)->start([&](std::uint32_t) { return std::make_unique<etcd_front>(shared); });
  redis_server redis;
  char path[] = "/tmp/llumnix-engines-XXXXXX";
  ::close(::mkstemp(path));
  std::ofstream{path} << "h:2\nh:1\n";

  cluster_config config;
  config.gateway.engines = {"http://h:1"};
  config.discovery.files = {path};
  config.discovery.redis = redis.address();
  config.discovery.redis_interval = 50ms;
  config.discovery.etcd = {"127.0.0.1:1", (*etcd)->address()};
  config.discovery.etcd_username = "gateway";
  config.discovery.etcd_password = "secret";

  sources_host::heard heard;
  auto http = net::http_server::make({});
  REQUIRE(http);
  (*http)->start(
    [&](std::uint32_t) { return std::make_unique<sources_host>(**http, config, heard); });
  auto hears = [&](const std::string& ids) {
    return eventually([&] {
      std::lock_guard guard{heard.mutex};
      return heard.lists.ids() == ids;
    });
  };
  auto put = [&](const std::string& pod, int last) {
    std::lock_guard guard{shared.mutex};
    shared.store.put(pod, record_of(pod, last, utc_now()));
  };
  CHECK(hears("h:1 h:2"));
  put("e", 1);
  CHECK(hears("e_dp0 h:1 h:2"));
  redis.ask({"SET", std::string{redis_record_prefix} + "r", record_of("r", 2, utc_now())});
  CHECK(hears("e_dp0 h:1 h:2 r_dp0"));
  put("e2", 2); // at an address that Redis tells of
  put("e3", 3);
  CHECK(hears("e3_dp0 e_dp0 h:1 h:2 r_dp0"));
  redis.ask({"DEL", std::string{redis_record_prefix} + "r"}); // was the only one: not believed
  {
    std::lock_guard guard{shared.mutex};
    shared.store.remove("e");
  }
  CHECK(hears("e3_dp0 h:1 h:2 r_dp0"));
  (*http)->stop();
  std::remove(path);
}

} // namespace llumnix::testing
