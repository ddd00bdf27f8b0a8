#include "watch_rig.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

using mood = scripted_engine::mood;

/// The gaps between the looks so far.
std::vector<std::chrono::milliseconds> gaps(const watch_rig& rig) {
  std::vector<std::chrono::milliseconds> all;
  std::optional<time_point> last;
  for (const auto& question : rig.pool.questions)
    if (question.target == "/health") {
      if (last)
        all.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(question.at - *last));
      last = question.at;
    }
  return all;
}

} // namespace

TEST_CASE("an engine that is not there yet is waited for ever more patiently") {
  watch_rig rig;
  rig.engine().now = mood::absent;
  rig.pass(23s);
  CHECK(
    gaps(rig)
    == std::vector<std::chrono::milliseconds>{1000ms, 2000ms, 4000ms, 5000ms, 5000ms, 5000ms});
  REQUIRE(rig.reports.size() == 1); // nothing is new
  CHECK_FALSE(rig.last().ready);
  CHECK_FALSE(rig.last().lost);
  CHECK_FALSE(rig.last().status.schedulable);
  CHECK(rig.last().status.update_id == 1);
  CHECK(rig.last().kind.empty());
  rig.pass(1h);
  CHECK_FALSE(rig.last().lost); // it never was

  rig.engine().now = mood::up;
  CHECK(rig.pass_until([&] { return rig.ready(); }, 5100ms));
  CHECK(rig.last().kind == "vLLM 0.32.0");
  CHECK(rig.last().status.update_id == 2);
  rig.paths();
  rig.pass(1100ms);
  CHECK(rig.paths() == "/health /metrics"); // at its usual pace again
}

TEST_CASE("an engine that loads for an hour is asked little, then served") {
  watch_rig rig;
  rig.engine().answers["/health"].status = 503;
  rig.pass(1h);
  CHECK(rig.count("/health") == rig.pool.questions.size());
  CHECK(rig.count("/health") >= 700);
  CHECK(rig.count("/health") <= 725);
  CHECK(rig.reports.size() == rig.count("/health")); // it answers
  CHECK_FALSE(rig.last().ready);
  CHECK_FALSE(rig.last().lost);
  rig.engine().answers["/health"].status = 200;
  CHECK(rig.pass_until([&] { return rig.ready(); }, 5100ms));
  CHECK(rig.count("/v1/models") == 1);
}

TEST_CASE("answers other than 200 take an engine out at once") {
  const scripted_answer rows[] = {
    {503, ""},
    {500, ""},
    {429, ""},
    {204, ""},
    {302, ""},
    {401, ""},
    {200, std::string(2 << 20, ' ')},
    {200, "x", errc::disconnected},
    {200, "", errc::bad_message},
    {0, "", errc::unreachable}};
  for (const auto& bad : rows) {
    CAPTURE(bad.status);
    CAPTURE(to_string(bad.end));
    watch_rig rig;
    rig.pass(100ms);
    CHECK(rig.last().ready);
    rig.engine().answers["/health"] = bad;
    rig.pass(1s);
    CHECK_FALSE(rig.last().ready);
    CHECK_FALSE(rig.last().status.schedulable);
    CHECK(rig.last().status.update_id == 2);
    CHECK(rig.last().kind == "vLLM 0.32.0"); // for people
  }
}

TEST_CASE("an engine that dies is out at once and lost when it stays away") {
  watch_rig rig;
  rig.pass(100ms);
  rig.engine().now = mood::absent;
  rig.pass(1s);
  CHECK_FALSE(rig.last().ready);
  CHECK_FALSE(rig.last().lost);
  rig.pass(28s);
  CHECK_FALSE(rig.last().lost);
  rig.pass(2s);
  CHECK(rig.last().lost);
  CHECK(rig.reports.size() == 3);
  rig.pass(10min);
  CHECK(rig.reports.size() == 3);
}

TEST_CASE("an engine that hangs is out after two silences and lost after hung_after") {
  watch_rig rig;
  rig.pass(100ms);
  rig.engine().now = mood::silent;
  auto hung_at = rig.loop.time;
  rig.pass(4s); // the first question of a hung engine ends 3 s later
  CHECK(rig.last().ready);
  rig.pass(1200ms);
  CHECK_FALSE(rig.last().ready);
  CHECK_FALSE(rig.last().lost);
  CHECK(rig.pass_until([&] { return rig.last().lost; }, 60s));
  CHECK(rig.loop.time - hung_at >= 29900ms);
  CHECK(rig.loop.time - hung_at <= 30s);
  auto reports = rig.reports.size();
  rig.pass(10min);
  CHECK(rig.reports.size() == reports);
  CHECK(rig.pool.most_open == 1);

  rig.engine() = make_vllm("0.33.0");
  CHECK(rig.pass_until([&] { return rig.ready(); }, 10s));
  CHECK_FALSE(rig.last().lost);
  CHECK(rig.last().kind == "vLLM 0.33.0");
  CHECK(rig.count("/v1/models") == 2);
}

TEST_CASE("silences before the limit, without one and of our own lose nobody") {
  SUBCASE("not so long") {
    watch_rig rig;
    rig.pass(100ms);
    rig.engine().now = mood::silent;
    rig.pass(25s);
    rig.engine().now = mood::up;
    rig.pass(60s);
    for (const auto& report : rig.reports)
      CHECK_FALSE(report.lost);
    CHECK(rig.last().ready);
  }
  SUBCASE("no limit") {
    watch_rig rig{{.hung_after = 0ms}};
    rig.pass(100ms);
    rig.engine().now = mood::silent;
    rig.pass(1h);
    CHECK_FALSE(rig.last().ready);
    CHECK_FALSE(rig.last().lost);
  }
  SUBCASE("we slept") {
    for (auto until : {500ms, 1000ms}) { // between looks and within one
      watch_rig rig;
      rig.pass(until);
      rig.watch->tick();
      rig.loop.time += 1h;
      rig.pass(10s);
      for (const auto& report : rig.reports) {
        CHECK(report.ready);
        CHECK_FALSE(report.lost);
      }
    }
  }
}

TEST_CASE("one answer too late is no reason, two are") {
  watch_rig rig;
  rig.pass(100ms);
  for (int i = 0; i < 3; ++i) {
    rig.engine().answers["/health"].after = 1h;
    auto looks = rig.count("/health");
    CHECK(rig.pass_until([&] { return rig.count("/health") == looks + 1; }, 2s));
    rig.engine().answers["/health"].after = 1900ms; // late, yet in time
    CHECK(rig.pass_until([&] { return rig.count("/health") == looks + 2; }, 2500ms));
    rig.pass(2s);
    CHECK(rig.last().ready);
  }
  for (const auto& report : rig.reports)
    CHECK(report.ready);
  CHECK(rig.count("/version") == 1); // it is the same life
  rig.engine().answers["/health"].after = 1h;
  rig.pass(6s);
  CHECK_FALSE(rig.last().ready);
}

TEST_CASE("an engine that drips its answer is cut off in time") {
  // As the pool would: pieces keep coming, so that it sees no silence.
  struct dripping final : net::upstream_pool {
    struct call final : net::upstream_call {
      explicit call(dripping& pool) : pool{pool} {}
      ~call() override { pool.watcher = nullptr; }
      void hold() override {}
      void resume() override {}
      dripping& pool;
    };
    std::unique_ptr<net::upstream_call>
    send(net::upstream_request, net::upstream_watcher& told) override {
      watcher = &told;
      ++sent;
      return std::make_unique<call>(*this);
    }
    std::size_t connections() const override { return watcher ? 1 : 0; }
    net::upstream_watcher* watcher = nullptr;
    int sent = 0;
  };
  manual_loop loop;
  dripping pool;
  std::vector<engine_report> reports;
  engine_watch watch{
    pool, loop, {}, [&](const engine_report& report) { reports.push_back(report); }};
  watch.add("a", "a");
  int known = 0;
  for (int i = 0; i < 600; ++i) {
    watch.tick();
    loop.run_posted();
    if (pool.watcher && pool.sent != known)
      pool.watcher->on_head({});
    known = pool.sent;
    if (pool.watcher)
      pool.watcher->on_body(std::string(100000, 'x'));
    loop.time += 100ms;
  }
  CHECK(pool.sent >= 8);
  CHECK(pool.sent <= 12);
  REQUIRE_FALSE(reports.empty());
  for (const auto& report : reports)
    CHECK_FALSE(report.ready);
}

TEST_CASE("an engine that comes back as another is another") {
  watch_rig rig;
  rig.pass(100ms);
  CHECK(rig.last().token_ids);
  rig.engine().now = mood::absent;
  rig.pass(1s);
  CHECK_FALSE(rig.last().ready);
  rig.engine() = make_vllm("0.9.0", "other");
  rig.engine().answers.erase("/metrics");
  rig.engine().answers["/inference/v1/abort_requests"].status = 200;
  rig.engine().answers["/inference/v1/generate"].status = 400;
  CHECK(rig.pass_until([&] { return rig.ready(); }, 6s));
  CHECK(rig.last().kind == "vLLM 0.9.0");
  CHECK(rig.last().model_ids == std::vector<std::string>{"other"});
  CHECK_FALSE(rig.last().token_ids);
  CHECK(rig.last().aborts);
  CHECK(rig.last().tokens == true);
  CHECK(rig.last().status.num_running_requests == 0); // nothing of the former one is left
  for (std::size_t i = 1; i < rig.reports.size(); ++i)
    CHECK(rig.reports[i].status.update_id >= rig.reports[i - 1].status.update_id);
  CHECK(rig.last().status.update_id == 3);

  rig.engine().now = mood::absent;
  rig.pass(1100ms);
  rig.engine() = {};
  rig.engine().answers["/health"] = {};
  CHECK(rig.pass_until([&] { return rig.ready(); }, 6s));
  CHECK(rig.last().kind == "OpenAI-compatible");
  CHECK(rig.last().models.empty());
  CHECK(rig.last().max_model_len == 0);
  CHECK_FALSE(rig.last().aborts);
  CHECK(rig.last().tokens == false);
}

} // namespace llumnix::testing
