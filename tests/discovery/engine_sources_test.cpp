#include "discovery_rig.hpp"
#include "integrations/discovery/engine_sources.hpp"
#include "integrations/discovery/merge_lists.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

discovered_engine engine(std::string id, std::string address) {
  discovered_engine made;
  made.id = std::move(id);
  made.address = std::move(address);
  return made;
}

/// Says what the test wants, with its ticks or whenever.
struct told_source final : discovery {
  explicit told_source(std::string name) { how.source = std::move(name); }
  void start(listener told) override { tell = std::move(told); }
  void tick() override {
    if (next)
      tell(*std::exchange(next, std::nullopt));
  }
  discovery_health health() const override { return how; }

  listener tell;
  std::optional<std::vector<discovered_engine>> next;
  discovery_health how{"", 0, 0, -1};
};

struct no_pool final : net::upstream_pool {
  std::unique_ptr<net::upstream_call> send(net::upstream_request, net::upstream_watcher&) override {
    FAIL("nobody is to be asked");
    return nullptr;
  }
  std::size_t connections() const override { return 0; }
};

} // namespace

TEST_CASE("lists become one, in which the earlier one tells of what several know") {
  using list = std::vector<discovered_engine>;
  const list a{engine("b", "1"), engine("a", "2")};
  const list b{engine("x", "1"), engine("a", "3"), engine("0", "4")};
  auto merged = merge_lists({a, b, {}});
  CHECK(merged.engines == list{engine("0", "4"), engine("a", "2"), engine("b", "1")});
  CHECK(merged.clashes == std::vector<std::string>{"a"});
  merged = merge_lists({b, a});
  CHECK(merged.engines == list{engine("0", "4"), engine("a", "3"), engine("x", "1")});
  CHECK(merge_lists({}).engines.empty());
  merged = merge_lists({{engine("a", "localhost:1")}, {engine("b", "127.0.0.1:1")}});
  CHECK(merged.engines == list{engine("a", "localhost:1")}); // one place by two names
}

TEST_CASE("several sources tell one list") {
  auto first_owned = std::make_unique<told_source>("first");
  auto second_owned = std::make_unique<told_source>("second");
  auto& first = *first_owned;
  auto& second = *second_owned;
  std::vector<std::unique_ptr<discovery>> sources;
  sources.push_back(std::move(first_owned));
  sources.push_back(std::move(second_owned));

  SUBCASE("without a fixed list") {
    engine_sources all{{}, std::move(sources)};
    heard_lists heard;
    all.start(heard.listener());
    all.tick();
    CHECK(heard.times() == 0);
    CHECK(all.health().answered_s_ago < 0);
    second.tell({engine("b", "2")}); // between two ticks
    CHECK(heard.ids() == "b");
    first.next = {engine("a", "1")};
    second.next = {engine("b", "2"), engine("c", "3")};
    all.tick(); // one list for both
    CHECK(heard.ids() == "a b c");
    CHECK(heard.times() == 2);
    second.tell({engine("b", "2"), engine("c", "3"), engine("d", "1")}); // known as a
    CHECK(heard.times() == 2);
    first.tell({});
    CHECK(heard.ids() == "b c d");
    all.tick();
    CHECK(heard.times() == 3);
  }
  SUBCASE("beside a fixed list") {
    engine_sources all{{engine("1", "1")}, std::move(sources)};
    heard_lists heard;
    all.start(heard.listener());
    CHECK(heard.times() == 0);
    all.tick();
    CHECK(heard.ids() == "1");
    first.tell({engine("pod", "1"), engine("other", "2")});
    CHECK(heard.ids() == "1 other");
    first.tell({});
    CHECK(heard.ids() == "1");
    first.how = {"first", 5, 2, 3.5};
    second.how = {"second", 7, 1, -1};
    CHECK(all.health().engines == 1);
    CHECK(all.health().errors == 3);
    CHECK(all.health().answered_s_ago == 3.5);
    auto parts = all.parts();
    REQUIRE(parts.size() == 3);
    CHECK(parts[0].source == "fixed");
    CHECK(parts[1].source == "first");
    CHECK(parts[2].errors == 1);
  }
}

TEST_CASE("the configuration names the sources, or does not") {
  no_pool pool;
  hand_loop loop;
  SUBCASE("none") {
    auto sources = make_sources({}, pool, loop);
    REQUIRE(sources);
    heard_lists heard;
    (*sources)->start(heard.listener());
    (*sources)->tick();
    (*sources)->tick();
    CHECK(heard.times() == 1);
    CHECK(heard.ids() == "");
  }
  SUBCASE("a fixed list") {
    cluster_config config;
    config.gateway.engines = {"http://H:2", "http://[FD00::1]:80/"};
    auto sources = make_sources(config, pool, loop);
    REQUIRE(sources);
    heard_lists heard;
    (*sources)->start(heard.listener());
    (*sources)->tick();
    CHECK(heard.ids() == "[fd00::1]:80 h:2");
    CHECK(heard.lists[0][0].address == "[fd00::1]:80");
    CHECK(heard.lists[0][0].kv_address == "[fd00::1]:20080");
    CHECK(heard.lists[0][1].kv_address == "h:20002");
  }
  SUBCASE("what cannot work") {
    using change = void (*)(cluster_config&);
    const std::pair<const char*, change> rows[] = {
      {"gateway.engines", [](auto& x) { x.gateway.engines = {"h:1"}; }},
      {"discovery.networks",
       [](auto& x) {
         x.discovery.networks = {"10.0.0.0/8", "10.0.0.0/99"};
       }},
      {"discovery.redis", [](auto& x) { x.discovery.redis = "nowhere"; }},
      {"discovery.redis", [](auto& x) { x.discovery.redis = "h:0"; }},
      {"discovery.etcd",
       [](auto& x) {
         x.discovery.etcd = {"h:1", "http://h:2"};
       }},
      {"discovery.instance_type", [](auto& x) { x.discovery.instance_type = "any"; }},
      {"discovery.files_interval", [](auto& x) { x.discovery.files_interval = 0ms; }},
      {"discovery.redis_interval", [](auto& x) { x.discovery.redis_interval = 0ms; }},
      {"discovery.etcd_interval", [](auto& x) { x.discovery.etcd_interval = -1ms; }},
      {"discovery.timeout", [](auto& x) { x.discovery.timeout = 0ms; }},
      {"discovery.record_expiry", [](auto& x) { x.discovery.record_expiry = 0ms; }},
    };
    for (const auto& [path, spoil] : rows) {
      CAPTURE(path);
      cluster_config config;
      spoil(config);
      auto sources = make_sources(config, pool, loop);
      REQUIRE(!sources);
      CHECK(sources.error().code == errc::invalid_argument);
      CHECK(sources.error().context.starts_with(path));
    }
  }
}

} // namespace llumnix::testing
