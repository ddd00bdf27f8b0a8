#include "tests/virtual/orders_stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

using nlohmann::json;

} // namespace

TEST_CASE("a drain moves all there is to where there is room, and says so") {
  orders_stage there{{"engine-0", "engine-1", "engine-2"}};
  for (int i = 0; i < 20; ++i)
    there.begin("r" + std::to_string(i), "engine-0");
  there.begin("other", "engine-1");
  auto told = there.drain("engine-0");
  there.wait(500ms);
  CHECK(
    there.document(told)
    == json{{"instance", "engine-0"}, {"moved", 20}, {"finished", 0}, {"left", 0}});
  CHECK(there.at("engine-0") == 0);
  CHECK(there.at("engine-1") == 11);
  CHECK(there.at("engine-2") == 10);
  for (const auto& each : there.instances.at("engine-0").told) {
    CHECK(each.policy == "drain");
    CHECK(each.requests.size() == 1);
  }
  CHECK(there.events() == "draining drained");
  // Nobody waits: it is left alone, and stays drained.
  auto looks = there.instances.at("engine-0").drained.size();
  there.wait(1s);
  CHECK(there.instances.at("engine-0").drained == std::vector<bool>(looks, true));
  auto again = there.drain("engine-0");
  CHECK(
    there.document(again)
    == json{{"instance", "engine-0"}, {"moved", 0}, {"finished", 0}, {"left", 0}});
  auto back = there.order({order_msg::undrain{"engine-0"}});
  CHECK(there.document(back) == json{{"instance", "engine-0"}, {"state", "ready"}});
  CHECK(there.instances.at("engine-0").drained.back() == false);
}

TEST_CASE("what nobody takes finishes by itself, and counts") {
  orders_stage there{{"engine-0"}};
  for (auto request : {"a", "b", "c"})
    there.begin(request, "engine-0");
  auto told = there.drain("engine-0");
  there.wait(1s);
  CHECK(!*told);
  there.end("a");
  there.end("b");
  there.wait(100ms);
  CHECK(!*told);
  there.end("c");
  there.wait(100ms);
  CHECK(
    there.document(told)
    == json{{"instance", "engine-0"}, {"moved", 0}, {"finished", 3}, {"left", 0}});
}

TEST_CASE("who refuses is asked less and less; somebody else is asked") {
  orders_stage there{{"engine-0", "engine-1", "engine-2"}};
  there.instances.at("engine-1").takes = "refused";
  there.begin("sea", "engine-0");
  auto told = there.drain("engine-0");
  there.wait(200ms);
  CHECK(there.document(told)["moved"] == 1);
  CHECK(there.place("sea") == "engine-2");
  // Nobody wants it: 50, 100, ... 1000 ms between two offers, a dozen of them in 10 s.
  there.instances.at("engine-1").takes = there.instances.at("engine-0").takes = "refused";
  auto never = there.drain("engine-2", 10s);
  there.wait(10'100ms);
  CHECK(there.document(never)["left"] == 1);
  auto offers = there.instances.at("engine-2").told.size();
  CHECK(offers >= 10);
  CHECK(offers <= 15);
}

TEST_CASE("a drain's time runs out, and the instance stays as it is") {
  orders_stage there{{"engine-0"}};
  there.begin("sea", "engine-0");
  auto first = there.drain("engine-0", 300ms);
  there.wait(100ms);
  auto second = there.drain("engine-0", 2s); // joins
  there.wait(300ms);
  CHECK(
    there.document(first)
    == json{
      {"instance", "engine-0"},
      {"moved", 0},
      {"finished", 0},
      {"left", 1},
      {"reason", "1 request is still there after 300ms; engine-0 takes no new work until `llumnix "
                 "undrain engine-0`, and draining it again goes on"}});
  CHECK(!*second);
  there.add("engine-1"); // which the view tells of only when it is asked anew
  there.end("sea");
  there.wait(100ms);
  CHECK(there.document(second)["finished"] == 1);
  CHECK(there.events() == "draining drained");
  const auto& drained = there.instances.at("engine-0").drained;
  CHECK(std::ranges::count(drained, false) == 0);
}

TEST_CASE("an instance that is taken back meanwhile keeps what it has") {
  orders_stage there{{"engine-0"}};
  there.begin("sea", "engine-0");
  auto told = there.drain("engine-0");
  there.wait(100ms);
  auto back = there.order({order_msg::undrain{"engine-0"}});
  CHECK(there.status(back) == 200);
  CHECK(there.document(told)["left"] == 1);
  CHECK(there.document(told)["reason"] == "it was taken back meanwhile");
  there.wait(1s);
  CHECK(there.instances.at("engine-0").drained.back() == false);
  CHECK(there.events() == "draining undrained");
  // It can be drained once more.
  there.end("sea");
  CHECK(there.document(there.drain("engine-0"))["left"] == 0);
  CHECK(there.instances.at("engine-0").drained.back() == true);
}

TEST_CASE("a LLUMLET that is started again hears of the drain, if not at once") {
  orders_stage there{{"engine-0", "engine-1"}};
  CHECK(there.document(there.drain("engine-0"))["left"] == 0);
  there.wait(1s);
  auto& x = there.instances.at("engine-0");
  x.drained.clear();
  x.silent = true;
  caf::anon_send_exit(x.llumlet, caf::exit_reason::kill);
  there.add("engine-0");
  CHECK(x.drained == std::vector<bool>{true});
  x.silent = false;
  there.wait(7s); // the first question gets no answer
  CHECK(x.drained == std::vector<bool>{true, true});
  there.wait(20s);
  CHECK(x.drained.size() == 2);
}

TEST_CASE("an instance that was never drained is taken back all the same") {
  orders_stage there{{"engine-0"}}; // whoever drained it may have been another CONSOLE
  CHECK(there.status(there.order({order_msg::undrain{"engine-0"}})) == 200);
  CHECK(there.instances.at("engine-0").drained == std::vector<bool>{false});
}

TEST_CASE("a drain waits for the same life of what was lost, and goes on") {
  // Also if the LLUMLET was asked something that it did not answer before the link broke.
  for (auto unanswered : {"nothing", "a move", "a look"}) {
    CAPTURE(unanswered);
    orders_stage there{{"engine-0", "engine-1"}};
    auto& x = there.instances.at("engine-0");
    x.keeps = unanswered == std::string{"a move"};
    if (!x.keeps)
      there.instances.at("engine-1").takes = "refused";
    there.begin("sea", "engine-0");
    auto told = there.drain("engine-0");
    x.silent = unanswered == std::string{"a look"};
    there.wait(100ms);
    there.lose("engine-0");
    there.wait(1500ms);
    CHECK(!*told);
    x.drained.clear();
    x.silent = x.keeps = false;
    there.instances.at("engine-1").takes = "moved";
    there.is_back("engine-0", 1);
    CHECK(x.drained == std::vector<bool>{true});
    there.wait(1500ms); // as long as a refused move may pause
    CHECK(
      there.document(told)
      == json{{"instance", "engine-0"}, {"moved", 1}, {"finished", 0}, {"left", 0}});
    CHECK(there.place("sea") == "engine-1");
  }
}

TEST_CASE("whoever waits hears of the loss of what is drained") {
  orders_stage there{{"engine-0"}};
  there.begin("sea", "engine-0");
  auto told = there.drain("engine-0");
  there.wait(100ms);
  there.lose("engine-0");
  there.wait(1s);
  CHECK(!*told);
  there.instances.at("engine-0").drained.clear();
  there.is_back("engine-0", 2);
  CHECK(there.status(told) == 503);
  CHECK(
    there.document(told)["error"]["message"]
    == "engine-0 was started anew while it was drained; what it had is replayed elsewhere");
  // The new life is not drained, but can be.
  there.wait(2s);
  CHECK(there.instances.at("engine-0").drained.empty());
  there.end("sea");
  CHECK(there.document(there.drain("engine-0"))["left"] == 0);
}

TEST_CASE("a drain does not wait for what stopped, nor longer than it has") {
  struct row {
    bool stopped;
    const char* message;
  };
  for (const auto& [stopped, message] :
       {row{true, "engine-0 stopped while it was drained; what it had is replayed elsewhere"},
        row{
          false, "engine-0 was lost while it was drained, and was not back after 2s; what it had "
                 "is replayed elsewhere"}}) {
    CAPTURE(stopped);
    orders_stage there{{"engine-0"}};
    there.begin("sea", "engine-0");
    auto told = there.drain("engine-0", 2s);
    there.wait(100ms);
    there.lose("engine-0", stopped);
    CHECK(told->has_value() == stopped);
    auto joined = there.drain("engine-0", 2s); // which is lost already, or waits along
    CHECK(joined->has_value() == stopped);
    there.wait(2100ms);
    CHECK(there.status(told) == 503);
    CHECK(there.document(told)["error"]["message"] == message);
    CHECK(there.status(joined) == 503);
    // Nobody waits any more, and the drain has ended.
    auto again = there.drain("engine-0");
    CHECK(there.status(again) == 503);
    CHECK(
      there.document(again)["error"]["message"]
      == "engine-0 cannot be reached; what it had is replayed elsewhere");
  }
}

TEST_CASE("what is lost for long is not waited for, however long the drain may take") {
  orders_stage there{{"engine-0"}};
  there.begin("sea", "engine-0");
  auto told = there.drain("engine-0", 60s);
  there.wait(100ms);
  there.lose("engine-0");
  there.wait(14s);
  CHECK(!*told);
  there.wait(2s);
  REQUIRE(told->has_value());
  CHECK(
    there.document(told)["error"]["message"]
    == "engine-0 was lost while it was drained, and was not back after 15s; what it had is "
       "replayed elsewhere");
}

TEST_CASE("an engine behind HTTP is lost with the last node that speaks for it, as that goes") {
  for (auto [at_last, told_so] :
       {std::pair{false, "server was lost while it was drained, and was not back after 2s"},
        std::pair{true, "server stopped while it was drained"}}) {
    CAPTURE(at_last);
    orders_stage there{{}};
    there.add("server", true);
    there.add("other", true).takes = "stays";
    there.speak_for("gate", "server");
    there.begin("sea", "server");
    auto told = there.drain("server", 2s);
    there.wait(100ms);
    there.lose("gate", true);
    CHECK(!*told);
    there.lose("server", at_last);
    there.wait(2100ms);
    CHECK(
      there.document(told)["error"]["message"]
      == std::string{told_so} + "; what it had is replayed elsewhere");
  }
}

TEST_CASE("a LLUMLET that says nothing does not hold up who waits") {
  orders_stage there{{"engine-0"}};
  there.instances.at("engine-0").silent = true;
  auto told = there.drain("engine-0", 1s);
  auto back = there.order({order_msg::undrain{"engine-0"}});
  there.wait(1100ms);
  REQUIRE(*told); // by the undrain
  there.wait(5s);
  CHECK(there.status(back) == 503);
  auto alone = there.drain("engine-0", 1s);
  there.wait(1100ms);
  CHECK(there.status(alone) == 503);
  CHECK(there.document(alone)["error"]["message"] == "engine-0 does not answer");
}

TEST_CASE("a drain of an engine behind HTTP moves what it can, wherever its gateway places it") {
  orders_stage there{{}};
  there.add("server", true);
  there.add("other", true);
  there.begin("sea", "server");
  there.begin("sky", "server");
  auto told = there.drain("server");
  there.wait(200ms);
  CHECK(
    there.document(told)
    == json{{"instance", "server"}, {"moved", 2}, {"finished", 0}, {"left", 0}});
  for (const auto& order : there.instances.at("server").told) {
    CHECK(order.to.instance.empty());
    CHECK(order.policy == "drain");
    CHECK_FALSE(order.rescheduled());
  }
}

TEST_CASE("what cannot leave an engine behind HTTP is asked once, and ends there") {
  orders_stage there{{}};
  there.add("server", true);
  there.add("other", true).takes = "stays";
  there.begin("sea", "server");
  auto told = there.drain("server");
  there.wait(5s);
  CHECK(!*told);
  CHECK(there.instances.at("server").told.size() == 1);
  there.end("sea");
  there.wait(100ms);
  CHECK(
    there.document(told)
    == json{{"instance", "server"}, {"moved", 0}, {"finished", 1}, {"left", 0}});
}

} // namespace llumnix::testing
