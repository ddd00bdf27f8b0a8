#include "actors/engine_actor.hpp"
#include "actors/prefix_watch.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix::testing {

namespace {

/// An engine that steps every millisecond, and each step of which caches one block more.
struct caching_engine final : stepped_engine {
  engine_capabilities capabilities() const override { return {.tells_kv = true}; }
  result<void> submit(inference_request) override { return {}; }
  bool abort(const stream_ref&, std::uint32_t) override { return false; }
  void grant(const stream_ref&, std::uint32_t, std::uint32_t) override {}
  bool holds(const stream_ref&, std::uint32_t) const override { return false; }
  step_result step(time_point) override {
    ++blocks;
    changes.block_tokens = 1;
    changes.store(0, blocks, std::vector<token_id>{7});
    step_result made;
    made.worked = true;
    made.duration = std::chrono::milliseconds{1};
    return made;
  }
  bool has_work() const override { return true; }
  instance_status status() const override { return {}; }
  std::vector<std::string> take_seen_waiting() override { return {}; }
  kv_changes take_kv_changes() override { return std::exchange(changes, {}); }
  std::vector<kv_changes> cached_kv() const override {
    kv_changes all;
    all.cleared = true;
    return {all};
  }

  std::uint64_t blocks = 0;
  kv_changes changes;
};

/// ENGINE, and somebody who listens to what it caches.
struct watched_engine : stage {
  watched_engine() {
    engine = system->spawn(
      make_engine, engine_actor_config{{"a", 1}, "a"}, std::make_shared<caching_engine>(),
      caf::actor_cast<llumlet_actor>(listener(news)));
    gateway = caf::actor_cast<kv_listener>(listener(heard));
    run();
    caf::anon_send(engine, watch_kv_msg{gateway, 5});
    caf::anon_send(engine, grant_msg{}); // of nobody: the first step begins
    run();
  }
  ~watched_engine() {
    caf::anon_send_exit(engine, caf::exit_reason::kill);
    engine = nullptr;
    run();
  }
  /// So many steps pass.
  void steps(int count) {
    for (int i = 0; i < count; ++i)
      pass(1ms);
  }
  void say_heard(std::uint64_t count, std::uint64_t watch = 5) {
    caf::anon_send(engine, kv_heard_msg{gateway, watch, count});
    run();
  }
  bool in_order() const {
    for (std::size_t i = 0; i < heard.size(); ++i)
      if (heard[i].number != i || heard[i].watch != 5)
        return false;
    return true;
  }
  std::ptrdiff_t told_all() const {
    return std::ranges::count_if(heard, [](const auto& x) { return x.changes.cleared; });
  }

  std::vector<engine_news_msg> news;
  std::vector<kv_changes_msg> heard;
  engine_actor engine;
  kv_listener gateway;
};

} // namespace

TEST_CASE_FIXTURE(watched_engine, "who says how far it has heard is told of every step") {
  for (int round = 0; round < 20; ++round) {
    steps(16);
    say_heard(heard.size());
  }
  CHECK(heard.size() >= 320);
  CHECK(in_order());
  CHECK(told_all() == 1);
}

TEST_CASE_FIXTURE(
  watched_engine,
  "who is behind is told nothing, and once it has caught up all that there is, at once") {
  steps(200);
  REQUIRE(heard.size() == 1 + 64); // all that was cached, and as many steps as may be unheard
  say_heard(16);
  say_heard(32); // 33 are unheard
  steps(5);
  CHECK(heard.size() == 65);
  say_heard(48);
  CHECK(told_all() == 2);
  CHECK(heard[65].changes.cleared);
  steps(200);
  CHECK(heard.size() == 65 + 1 + 64);
  CHECK(in_order());
}

TEST_CASE_FIXTURE(
  watched_engine, "what nobody can have heard, or was told to another, is no word") {
  steps(200);
  REQUIRE(heard.size() == 65);
  say_heard(66);
  say_heard(64, 4);
  caf::anon_send(engine, kv_heard_msg{caf::actor_cast<kv_listener>(listener(heard)), 5, 64});
  steps(5);
  CHECK(heard.size() == 65);
  say_heard(65);
  say_heard(1); // late, and takes nothing back
  steps(5);
  CHECK(heard.size() > 65);
}

} // namespace llumnix::testing
