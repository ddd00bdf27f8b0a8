#include "tests/virtual/orders_stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

using nlohmann::json;

using move_request = order_msg::move_request;
using move_some = order_msg::move_some;

} // namespace

TEST_CASE("orders that name nothing that is there are told so") {
  orders_stage there{{"engine-0", "engine-1"}};
  there.begin("sea", "engine-0");
  struct row {
    order_msg order;
    std::string code;
    std::string message;
  };
  std::vector<row> rows{
    {{move_request{"sea", "engine-2"}},
     "unknown_instance",
     "there is no instance engine-2; did you mean engine-0?"},
    {{move_request{"sea", "nowhere"}},
     "unknown_instance",
     "there is no instance nowhere; `llumnix status` lists them"},
    {{move_request{"lake", "engine-1"}},
     "unknown_request",
     "no request lake is running; `llumnix requests` lists those that are"},
    {{move_some{"nowhere", "engine-1", {}}},
     "unknown_instance",
     "there is no instance nowhere; `llumnix status` lists them"},
    {{move_some{"engine-1", "nowhere", {}}},
     "unknown_instance",
     "there is no instance nowhere; `llumnix status` lists them"},
    {{order_msg::drain{"nowhere", 1s}},
     "unknown_instance",
     "there is no instance nowhere; `llumnix status` lists them"},
    {{order_msg::undrain{"nowhere"}},
     "unknown_instance",
     "there is no instance nowhere; `llumnix status` lists them"},
  };
  for (const auto& [order, code, message] : rows) {
    CAPTURE(message);
    auto told = there.order(order);
    CHECK(there.status(told) == 404);
    CHECK(there.document(told) == json{{"error", {{"code", code}, {"message", message}}}});
  }
  CHECK(there.instances.at("engine-0").told.empty());
}

TEST_CASE("a move that cannot be is refused with a way out, and nothing is tried") {
  orders_stage there{{"engine-0", "engine-1", "engine-2", "engine-3"}};
  there.add("server", true);
  there.instances.at("engine-1").state = "draining";
  there.lose("engine-2");
  there.begin("sea", "engine-0");
  there.begin("early", "");
  there.begin("far", "server");
  there.begin("gone", "engine-2");
  struct row {
    order_msg order;
    std::string reason;
  };
  std::vector<row> rows{
    {{move_request{"sea", "engine-0"}}, "it is at engine-0 already; name another instance"},
    {{move_request{"sea", "engine-1"}},
     "engine-1 is draining; `llumnix undrain engine-1` lets it take requests again"},
    {{move_request{"sea", "engine-2"}},
     "engine-2 cannot be reached; `llumnix status` tells when it is ready"},
    {{move_request{"sea", "server"}},
     "server is a server behind HTTP, which takes over no request; name an engine of ours"},
    {{move_request{"early", "engine-3"}},
     "it has no instance yet; it gets one as soon as one can take it"},
    {{move_request{"far", "engine-3"}},
     "server is a server behind HTTP, and engine-3 is not; what it runs goes on at another such "
     "server only"},
    {{move_request{"gone", "engine-3"}},
     "engine-2 cannot be reached; what it had is replayed elsewhere"},
    {{move_some{"engine-0", "engine-0", {}}},
     "what is at engine-0 is there already; name two instances"},
    {{move_some{"engine-0", "engine-1", {}}},
     "engine-1 is draining; `llumnix undrain engine-1` lets it take requests again"},
  };
  for (const auto& [order, reason] : rows) {
    CAPTURE(reason);
    auto moves = there.moves(order);
    REQUIRE(moves.size() == 1);
    CHECK(moves[0]["outcome"] == "refused");
    CHECK(moves[0]["reason"] == reason);
    CHECK(moves[0]["path"] == nullptr);
    CHECK(moves[0]["downtime_ms"] == 0);
  }
  for (const auto& [id, x] : there.instances)
    CHECK(x.told.empty());
}

TEST_CASE("a request moves with all its choices, and no other with it") {
  orders_stage there{{"engine-0", "engine-1", "engine-2"}};
  there.begin("sea", "engine-0");
  there.begin("sea.1", "engine-2");
  there.begin("sea.2", "engine-1");
  there.begin("sea-2", "engine-0");          // a namesake
  there.begin("sea.x", "engine-0");          // another request
  there.begin("sea.3", "engine-0", "other"); // so named by another client
  there.begin("seaside", "engine-0");
  auto moves = there.moves({move_request{"sea", "engine-1"}});
  CHECK(moves.size() == 3);
  CHECK(
    moves[0]
    == json{
      {"request", "sea"},
      {"from", "engine-0"},
      {"to", "engine-1"},
      {"outcome", "moved"},
      {"reason", nullptr},
      {"policy", "by hand"},
      {"path", "kv"},
      {"rounds", 2},
      {"bytes", 4096},
      {"downtime_ms", 0.25},
      {"tail_tokens", 0},
      {"epoch", 1}});
  CHECK(moves[1]["request"] == "sea.1");
  CHECK(moves[1]["outcome"] == "moved");
  CHECK(moves[2]["request"] == "sea.2");
  CHECK(moves[2]["outcome"] == "refused"); // it is where they go
  CHECK(moves[2]["reason"] == "it is at engine-1 already");
  CHECK(moves[2]["from"] == moves[2]["to"]);
  CHECK(there.at("engine-1") == 3);
  CHECK(there.at("engine-0") == 4);
  // One choice can be named, too.
  CHECK(there.moves({move_request{"sea.1", "engine-0"}})[0]["outcome"] == "moved");
  CHECK(there.place("sea.1") == "engine-0");
  CHECK(there.place("sea") == "engine-1");
  for (const auto& each : there.moves({move_request{"sea", "engine-1"}}))
    CHECK(each["outcome"] == (each["request"] == "sea.1" ? "moved" : "refused"));
  for (const auto& each : there.moves({move_request{"sea", "engine-1"}}))
    CHECK(each["reason"] == "it is at engine-1 already; name another instance");
}

TEST_CASE("what becomes of a move is told as it is") {
  orders_stage there{{"engine-0", "engine-1"}};
  there.begin("sea", "engine-0");
  there.instances.at("engine-1").takes = "failed";
  auto failed = there.moves({move_request{"sea", "engine-1"}})[0];
  CHECK(failed["outcome"] == "failed");
  CHECK(failed["reason"] == "no blocks there");
  CHECK(failed["request"] == "sea");
}

TEST_CASE("a move whose source is gone ends with that") {
  for (auto [stopped, reason] :
       {std::pair{false, "its instance was lost; it is replayed elsewhere"},
        std::pair{true, "its instance stopped; it is replayed elsewhere"}}) {
    CAPTURE(stopped);
    orders_stage there{{"engine-0", "engine-1"}};
    there.begin("sea", "engine-0");
    there.instances.at("engine-0").silent = true;
    auto told = there.order({move_request{"sea", "engine-1"}});
    CHECK(!*told);
    there.lose("engine-0", stopped);
    auto move = there.document(told)["moves"][0];
    CHECK(move["outcome"] == "failed");
    CHECK(move["reason"] == reason);
  }
}

TEST_CASE("a LLUMLET that never answers is waited for, not for ever") {
  orders_stage there{{"engine-0", "engine-1"}};
  there.begin("sea", "engine-0");
  there.instances.at("engine-0").silent = true;
  auto one = there.order({move_request{"sea", "engine-1"}});
  auto some = there.order({move_some{"engine-0", "engine-1", {}}});
  there.pass(119s);
  CHECK(!*one);
  there.pass(2s);
  for (const auto& told : {one, some})
    CHECK(there.document(told)["moves"][0]["reason"] == "no answer in time");
}

TEST_CASE("a selection goes to the LLUMLET as it is, and its requests get their names") {
  orders_stage there{{"engine-0", "engine-1"}};
  there.begin("sea", "engine-0");
  there.begin("lake", "engine-0");
  there.begin("pond", "engine-0");
  request_selection two{selection_rule::requests, selection_order::longest_running, 2};
  auto moves = there.moves({move_some{"engine-0", "engine-1", two}});
  REQUIRE(moves.size() == 2);
  CHECK(moves[0]["request"] == "sea");
  CHECK(moves[1]["request"] == "lake");
  const auto& told = there.instances.at("engine-0").told.at(0);
  CHECK(told.selection == two);
  CHECK(told.requests.empty());
  CHECK(told.to == stream_owner{{"engine-1", 1}, "engine-1"});
  CHECK(told.policy == "by hand");
  two.value = 0;
  CHECK(there.moves({move_some{"engine-0", "engine-1", two}}) == json::array());
}

TEST_CASE("what runs behind HTTP is chosen by CONSOLE, and moved by the gateway of its client") {
  orders_stage there{{}};
  there.add("a", true);
  there.add("b", true);
  there.speak_for("gate", "a"); // which speaks for it, too
  there.begin("long", "a", "c", 90);
  there.begin("short", "a", "c", 20);
  there.begin("far", "a", "c", 50);
  there.streams.back().stream.node = "gate";
  there.begin("early", "a", "c", 0);
  using rule = selection_rule;
  using order = selection_order;
  struct row {
    request_selection wanted;
    std::vector<std::string> moved;
  };
  for (const auto& [wanted, moved] : std::vector<row>{
         {{rule::requests, order::shortest_running, 1}, {"short"}},
         {{rule::requests, order::longest_running, 2}, {"long", "far"}},
         {{rule::requests, order::earliest_waiting, 1}, {"early"}},
         {{rule::tokens, order::shortest_running, 90}, {"short", "far"}}, // 30 and 60
         {{rule::tokens, order::shortest_running, 89}, {"short"}},
         {{rule::requests, order::shortest_running, -1}, {"early", "long", "short", "far"}}}) {
    auto before = there.streams;
    std::vector<std::string> names;
    for (const auto& each : there.moves({move_some{"a", "b", wanted}})) {
      CHECK(each["outcome"] == "moved");
      CHECK(each["from"] == "a");
      CHECK(each["to"] == "b");
      names.push_back(each["request"]);
    }
    CHECK(names == moved);
    there.streams = before;
  }
  auto asked = there.instances.at("a").told.size();
  CHECK(there.moves({move_request{"far", "b"}}).at(0)["outcome"] == "moved");
  CHECK(there.instances.at("a").told.size() == asked);
  CHECK(there.instances.at("gate").told.size() == 4);

  auto none = there.moves({move_some{"a", "b", {rule::kv_ratio, order::shortest_running, 0.5}}});
  CHECK(none.at(0)["outcome"] == "refused");
  CHECK(
    none.at(0)["reason"]
    == "how much KV a holds is its own business; choose by --num-requests or --num-tokens");
}

TEST_CASE("orders before there is a CONSOLE are answered") {
  stage there;
  auto desk = there.system->spawn(make_admin_desk, node_life{"head", 1});
  std::optional<result<ordered_msg>> told;
  caf::anon_send(
    desk, admin_order{{order_msg::undrain{"x"}}, 1s, [&](result<ordered_msg> x) { told = x; }});
  there.run();
  REQUIRE(told);
  CHECK(told->error().code == errc::unreachable);
  caf::anon_send_exit(desk, caf::exit_reason::kill);
  desk = nullptr;
  there.run();
}

} // namespace llumnix::testing
