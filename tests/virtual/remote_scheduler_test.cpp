#include "tests/virtual/scripted_desk.hpp"
#include "tests/virtual/scripted_index.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <deque>

namespace llumnix::testing {

namespace {

const std::vector<std::string> engines{"127.0.0.1:8001", "127.0.0.1:8002"};

/// A scheduler that answers when the test says so.
struct scripted_scheduler final : remote_scheduler {
  bool ready() const override { return is_ready; }
  void place(remote_question question, answer told) override {
    asked.push_back(std::move(question));
    waiting.push_back(std::move(told));
  }
  void release(std::string request) override { released.push_back(std::move(request)); }
  void tell(result<std::string> address) {
    auto told = std::move(waiting.front());
    waiting.pop_front();
    told(std::move(address));
  }

  bool is_ready = true;
  std::vector<remote_question> asked;
  std::deque<answer> waiting;
  std::vector<std::string> released;
};

/// A gateway in front of two engines over HTTP whose placements are another scheduler's.
struct front : virtual_cluster {
  explicit front(cluster_config config = lite_mode()) : virtual_cluster{1, std::move(config)} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    virtual_node_options head;
    head.roles = {"gateway", "cms", "console", "scheduler"};
    head.engines = engines;
    head.remote = &there;
    head.prefix_index = &index;
    start("head", head);
    desk.emplace(streams("head"));
    check(engines[0], true);
    check(engines[1], true);
  }
  ~front() {
    while (!there.waiting.empty())
      there.tell(error{errc::cancelled, "the test ends"});
    run_for(10ms);
  }
  void check(const std::string& engine, bool healthy) {
    instance_status news;
    news.schedulable = healthy;
    news.update_id = ++updates_;
    tell_news("head", engine, news);
    run_for(5ms);
  }
  scripted_desk::relay& open(const std::string& id, std::uint32_t tokens = 100) {
    auto& x = desk->open(id, {tokens, 0});
    run_for(5ms);
    return x;
  }
  void tell(result<std::string> address) {
    there.tell(std::move(address));
    run_for(5ms);
  }
  nlohmann::json reasons_of(const std::string& id, const std::string& kind = "placed") {
    auto document = nlohmann::json::parse(inspect("head", "why", id));
    for (const auto& event : document["events"])
      if (event["kind"] == kind)
        return event["reasons"];
    return {};
  }
  std::string note_of(const std::string& id) { return reasons_of(id).at("note"); }

  scripted_scheduler there;
  scripted_index index;
  std::optional<scripted_desk> desk;

private:
  std::int32_t updates_ = 0;
};

const error gone{errc::unreachable, "gone"};
const error busy{errc::no_instance, "busy"};

} // namespace

TEST_CASE("requests go where the other scheduler says, and it hears of their end") {
  front us;
  auto& x = us.open("r", 40);
  REQUIRE(us.there.asked.size() == 1);
  CHECK(us.there.asked[0].request == "r");
  CHECK(us.there.asked[0].model == "m");
  CHECK(us.there.asked[0].prompt_tokens == 40);
  CHECK(x.at().empty());
  us.tell(engines[1]);
  CHECK(x.at() == engines[1]);
  CHECK(us.note_of("r") == "placed by another scheduler: gateway.scheduler");
  CHECK(us.reasons_of("r").at("sentence") == engines[1] + " chosen by remote");
  CHECK(us.counters("head").placements_by_remote == 1);
  CHECK(us.counters("head").placements_by_view == 0);
  CHECK(us.there.released.empty());
  us.desk->close(x);
  us.run_for(50ms);
  CHECK(us.there.released == std::vector<std::string>{"r"});
}

TEST_CASE(
  "without its scheduler a gateway places by what it sent itself, also by what that had chosen") {
  front us;
  us.open("r1", 100);
  us.tell(engines[0]);
  us.there.is_ready = false;
  auto& second = us.open("r2", 10);
  CHECK(second.at() == engines[1]); // the other one has 100
  CHECK(us.there.asked.size() == 1);
  us.there.is_ready = true;
  auto& third = us.open("r3", 10);
  us.tell(gone);
  CHECK(third.at() == engines[1]); // 10 there
  CHECK(us.counters("head").placements_by_view == 2);
  CHECK(us.note_of("r3").find("its scheduler cannot help") != std::string::npos);
}

TEST_CASE("without its scheduler a gateway looks prompts up") {
  auto config = lite_mode();
  config.scheduler.policy = "cache-aware";
  config.scheduler.cache_aware_min_tokens = 3;
  front us{config};
  us.open("r1", 10);
  us.tell(engines[0]);
  auto& x = us.desk->open("r2", {100, 0}, std::vector<token_id>(100, 7));
  us.run_for(5ms);
  us.tell(gone);
  CHECK(x.at().empty());
  REQUIRE(us.index.asked.size() == 1);
  us.index.tell(prefix_holders{holder_naming::instance, {{engines[0], 96}}});
  us.run_for(5ms);
  CHECK(x.at() == engines[0]); // 10 and the 4 that are not there, of 100 at the other one
  CHECK(us.counters("head").hit_tokens == 96);
  CHECK(us.there.asked.size() == 2);
}

TEST_CASE("a scheduler that is busy is asked again, until the request has waited long enough") {
  front us;
  auto& x = us.open("r");
  us.tell(busy);
  us.run_for(800ms);
  CHECK(us.there.asked.size() == 1);
  us.run_for(400ms);
  CHECK(us.there.asked.size() == 2);
  us.tell(engines[0]);
  CHECK(x.at() == engines[0]);
  CHECK(
    us.reasons_of("r", "waiting").at("sentence")
    == "another scheduler, gateway.scheduler, has nobody: busy");

  auto& y = us.open("late");
  for (int i = 0; i < 6 && y.failure.code == errc::ok; ++i) {
    if (!us.there.waiting.empty())
      us.tell(busy);
    us.run_for(1100ms);
  }
  CHECK(y.failure.code == errc::no_instance); // after gateway.wait_for_instance, 5 s
}

TEST_CASE("a choice that is of no use is given back, and the gateway chooses") {
  front us;
  struct row {
    const char* what;
    std::string chosen;
  };
  int count = 0;
  us.check(engines[0], true);
  for (const auto& [what, chosen] :
       {row{"nobody knows it", "10.0.0.9:8000"}, row{"no address", "here"}}) {
    CAPTURE(what);
    auto id = "r" + std::to_string(++count);
    auto& x = us.open(id);
    us.tell(chosen);
    CHECK_FALSE(x.at().empty());
    CHECK(std::ranges::count(us.there.released, id) == 1);
  }
}

TEST_CASE("a request that lost its engine is asked for anew, and not sent there again") {
  front us;
  auto& x = us.open("r");
  us.tell(engines[0]);
  us.desk->replay(x, 5, {engines[0]});
  us.run_for(5ms);
  CHECK(us.there.released == std::vector<std::string>{"r"});
  REQUIRE(us.there.asked.size() == 2);
  CHECK(us.there.asked[1].epoch == 1);
  CHECK(us.there.asked[1].prompt_tokens == 105);
  us.tell(engines[0]); // it does not know
  CHECK(x.at() == engines[1]);
}

TEST_CASE("a choice for a request that has gone changes nothing") {
  front us;
  auto& x = us.open("r");
  us.desk->withdraw(x);
  us.desk->close(x, "cancelled");
  us.run_for(50ms);
  us.tell(engines[0]);
  CHECK(us.counters("head").placements == 0);
  CHECK(us.there.released == std::vector<std::string>{"r"});
}

TEST_CASE("a scheduler that hangs for longer than requests may wait costs them nothing") {
  auto config = lite_mode();
  config.gateway.wait_for_instance = 1s;
  front us{config};
  auto& x = us.open("r");
  us.run_for(2s);
  CHECK(us.counters("head").unplaceable == 0);
  us.tell(gone); // as its client says in the end
  CHECK_FALSE(x.at().empty());
  CHECK(us.counters("head").placements_by_view == 1);
  auto& y = us.open("s"); // one that is busy is waited for no longer than that
  us.tell(busy);
  us.run_for(1100ms);
  CHECK(y.at().empty());
  while (!us.there.waiting.empty())
    us.tell(busy);
  us.run_for(100ms);
  CHECK(us.counters("head").unplaceable == 1);
}

} // namespace llumnix::testing
