#include "actors/llumlet_desk.hpp"
#include "tests/virtual/scene.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

#include <optional>

namespace llumnix::testing {

namespace {

using enum selection_rule;
using enum selection_order;

// --- the desk ------------------------------------------------------------------------------------

/// LLUMLET DESK of a node with the instances "pair.0" and "pair.1", and stand-ins for all it talks
/// to.
struct desk_stage : stage {
  desk_stage() {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    desk = system->spawn(make_llumlet_desk, node_life{"pair", 1});
    source = system->spawn([this](caf::event_based_actor* self) -> caf::behavior {
      return {
        [this, self](const begin_moves_msg& msg) -> caf::result<moves_begun_msg> {
          auto promise = self->make_response_promise<moves_begun_msg>();
          begun.push_back(msg);
          if (answer)
            promise.deliver(moves_begun_msg{*answer});
          else
            open.push_back(promise);
          return promise;
        },
        [this](const moves_begun_msg& late) {
          for (auto& each : open)
            each.deliver(late);
        }};
    });
    hub = listener(ended);
  }
  ~desk_stage() {
    for (const auto& each : {caf::actor_cast<caf::actor>(desk), source, hub})
      caf::anon_send_exit(each, caf::exit_reason::kill);
    desk = nullptr;
    run();
  }

  void connect() {
    node_card pair;
    pair.self.life = {"pair", 1};
    for (const char* id : {"pair.0", "pair.1"})
      pair.instances.push_back(
        {metadata(id, "10.0.0.1"), "modeled", caf::actor_cast<llumlet_actor>(source), false});
    node_card away;
    away.self.life = {"away", 4};
    away.instances.push_back({metadata("away", "10.0.0.2"), "modeled", {}, false});
    away.hubs = {caf::actor_cast<stream_hub_actor>(hub)};
    caf::anon_send(desk, peer_up_msg{away});
    caf::anon_send(desk, peer_up_msg{pair});
    run();
  }
  static instance_metadata metadata(std::string id, std::string ip) {
    instance_metadata x;
    x.instance_id = std::move(id);
    x.ip = x.ip_kvs = std::move(ip);
    x.llumlet_port = x.kvt_port = 7000;
    return x;
  }

  static migrate_call call() {
    migrate_call x;
    x.source = "pair.1";
    x.destination = "away";
    x.type = "NUM_REQ";
    x.order = "LR";
    x.wanted = {{requests, 2}};
    return x;
  }
  void ask(std::variant<migrate_call, abort_call> what, const std::string& key = {}) {
    incoming_call in{std::move(what), key, scheduler().clock().now() + 5s, {}};
    caf::anon_send(desk, llumlet_call{in, [this](call_reply x) { told.push_back(std::move(x)); }});
    run();
  }

  llumlet_desk_actor desk;
  caf::actor source;
  caf::actor hub;
  std::optional<result<moves_begun>> answer{moves_begun{.accepted = 2}}; ///< none: silent
  std::vector<begin_moves_msg> begun;
  std::vector<caf::typed_response_promise<moves_begun_msg>> open;
  std::vector<end_streams_msg> ended;
  std::vector<call_reply> told;
};

const std::string two_moved
  = "migrate requests from pair.1 to away; accepted=2 rejected=0 failed=0";

// --- LLUMLET -------------------------------------------------------------------------------------

/// Requests there last for seconds.
cluster_config slow_engines() {
  auto config = small_engines();
  config.engine.speed = 5;
  return config;
}

/// Two engines; the requests are all at engine-0.
struct calls_scene : scene {
  explicit calls_scene(std::uint64_t seed, cluster_config config = slow_engines())
    : scene{seed, 1, std::move(config)} {
    REQUIRE(settle());
  }
  void run_requests(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      auto id = "r" + std::to_string(i);
      clients.push_back(&request("head", greedy(id, 400, std::vector<token_id>(20 + 30 * i, 97))));
    }
    REQUIRE(run_until(
      [&] { return std::ranges::all_of(clients, [](auto* x) { return x->tokens.size() >= 3; }); },
      20s));
    start("engine-1", engine());
    REQUIRE(settle(2));
    run_for(1s);
  }
  /// Asks engine-0's LLUMLET to begin moves to engine-1, wanted within `limit`.
  std::shared_ptr<std::vector<result<moves_begun>>> begin(
    request_selection selection, nanoseconds limit = 5s, std::string policy = "grpc",
    std::shared_ptr<const std::atomic<bool>> withdrawn = {}) {
    auto answers = std::make_shared<std::vector<result<moves_begun>>>();
    auto llumlet = card("engine-0").instances.front().llumlet;
    auto& system = caf::actor_cast<caf::abstract_actor*>(llumlet)->home_system();
    begin_moves_msg wanted;
    wanted.order.to = owner("engine-1");
    wanted.order.selection = selection;
    wanted.planned = policy != "grpc";
    wanted.order.policy = std::move(policy);
    wanted.due = system.clock().now() + limit;
    wanted.withdrawn = std::move(withdrawn);
    system.spawn([wanted, llumlet, answers](caf::event_based_actor* self) {
      self->request(llumlet, caf::infinite, wanted)
        .then(
          [answers](moves_begun_msg& x) { answers->push_back(std::move(x.outcome)); },
          [](const caf::error&) {});
    });
    return answers;
  }
  result<moves_begun>
  begun(request_selection selection, nanoseconds limit = 5s, std::string policy = "grpc") {
    auto answers = begin(selection, limit, std::move(policy));
    REQUIRE(run_until([&] { return !answers->empty(); }, 10s));
    return std::move(answers->front());
  }
  std::size_t moved() {
    std::size_t count = 0;
    for (const auto& each : list_of("requests", "requests"))
      count += each.at("instance") == "engine-1";
    return count;
  }
  bool finish_exact() {
    if (!run_until(
          [&] { return std::ranges::all_of(clients, [](auto* x) { return x->ended(); }); }, 120s))
      return false;
    for (std::size_t i = 0; i < clients.size(); ++i)
      if (clients[i]->tokens != expected_tokens(std::vector<token_id>(20 + 30 * i, 97), 400))
        return false;
    return true;
  }

  std::vector<virtual_client*> clients;
};

} // namespace

TEST_CASE_FIXTURE(desk_stage, "a call goes to the instance it names, and says how that began") {
  ask(call());
  CHECK(told.back() == call_reply{call_code::unavailable, false, "the llumlet is being started"});
  connect();
  ask(call());
  REQUIRE(begun.size() == 1);
  CHECK(begun[0].order.to == stream_owner{{"away", 4}, "away"});
  CHECK(begun[0].order.selection == request_selection{requests, longest_running, 2});
  CHECK(begun[0].order.policy == "grpc");
  CHECK_FALSE(begun[0].planned);
  CHECK(told.back() == call_reply{call_code::ok, true, two_moved});
  auto planned = call();
  planned.trigger = "NEUTRAL_Failover";
  planned.destination = "";
  planned.destination_ip = "10.0.0.2";
  planned.destination_port = 7000;
  ask(planned);
  CHECK(begun.back().order.policy == "neutral_failover");
  CHECK(begun.back().planned);
  CHECK(told.back().success);
}

TEST_CASE_FIXTURE(desk_stage, "what is wrong with a call is found before anybody is asked") {
  connect();
  struct row {
    void (*change)(migrate_call&);
    call_code code;
  };
  for (const auto& [change, code] : {
         row{[](auto& x) { x.type = "ALL"; }, call_code::invalid_argument},
         row{[](auto& x) { x.source = ""; }, call_code::invalid_argument},
         row{[](auto& x) { x.source = "away"; }, call_code::invalid_argument},
         row{[](auto& x) { x.destination = ""; }, call_code::invalid_argument},
         row{[](auto& x) { x.destination = "gone"; }, call_code::ok},
       }) {
    auto wrong = call();
    change(wrong);
    ask(wrong);
    CHECK(told.back().code == code);
    CHECK_FALSE(told.back().success);
  }
  CHECK(begun.empty());
  caf::anon_send(desk, peer_down_msg{{"away", 3}}); // an earlier life
  ask(call());
  CHECK(told.back().success);
  caf::anon_send(desk, peer_down_msg{{"away", 4}});
  ask(call());
  CHECK_FALSE(told.back().success);
  CHECK(begun.size() == 1);
}

TEST_CASE_FIXTURE(desk_stage, "a call with a key is done once") {
  connect();
  answer.reset();
  ask(call(), "k");
  ask(call(), "k"); // the first is under way
  CHECK(told.empty());
  auto other = call();
  other.order = "SR";
  ask(other, "k");
  CHECK(told.back().code == call_code::invalid_argument);
  told.clear();
  REQUIRE(open.size() == 1);
  caf::anon_send(source, moves_begun_msg{moves_begun{.accepted = 2}});
  run();
  CHECK(told == std::vector(2, call_reply{call_code::ok, true, two_moved}));
  answer = moves_begun{.accepted = 1};
  ask(call(), "k");
  CHECK(told.back().message == two_moved);
  CHECK(begun.size() == 1);
  pass(std::chrono::minutes{10});
  ask(call(), "k");
  CHECK(begun.size() == 2);
}

TEST_CASE_FIXTURE(desk_stage, "a key of a call that came to nothing is free again") {
  connect();
  answer = error{errc::timeout, "the engine does not answer"};
  ask(call(), "k");
  CHECK(told.back().code == call_code::deadline_exceeded);
  answer = moves_begun{.accepted = 2};
  ask(call(), "k");
  CHECK(told.back().success);
  CHECK(begun.size() == 2);
  answer = error{errc::queue_full, "no slot"}; // that is an answer
  ask(call(), "l");
  answer = moves_begun{.accepted = 2};
  ask(call(), "l");
  CHECK(told.back().code == call_code::resource_exhausted);
}

TEST_CASE_FIXTURE(desk_stage, "a llumlet that is stuck, or ends, leaves no caller waiting") {
  connect();
  answer.reset();
  ask(call());
  pass(5s);
  CHECK(told.empty());
  pass(1s);
  REQUIRE(told.size() == 1);
  CHECK(told[0].code == call_code::deadline_exceeded);
  ask(call());
  caf::anon_send_exit(source, caf::exit_reason::kill);
  open.clear();
  pass(6s);
  REQUIRE(told.size() == 2);
  CHECK(told[1].code == call_code::deadline_exceeded);
}

TEST_CASE_FIXTURE(
  desk_stage, "an abort goes to the owners of streams, under all the names there are") {
  connect();
  ask(abort_call{{"sea", "chatcmpl-lake", "cmpl-pond-0"}});
  CHECK(told.back() == call_reply{call_code::ok, true, "abort 3 requests"});
  REQUIRE(ended.size() == 1);
  CHECK(
    ended[0].requests
    == std::vector<std::string>{"chatcmpl-lake", "cmpl-pond-0", "lake", "pond", "pond-0", "sea"});
  CHECK(ended[0].at == std::vector<instance_id>{"pair.0", "pair.1"});
  ask(abort_call{});
  CHECK(told.back().success);
  CHECK(ended.size() == 1);
}

TEST_CASE("moves begin when the destination has made room, and no more than there are slots") {
  calls_scene there{1};
  there.run_requests(6);
  auto none = there.begun({requests, shortest_running, 5});
  REQUIRE_FALSE(none);
  CHECK(none.error() == error{errc::queue_full, "5 may have to leave, slots for 4 are free"});
  auto some = there.begun({requests, longest_running, 3});
  REQUIRE(some);
  CHECK(*some == moves_begun{.accepted = 3});
  CHECK(there.run_until([&] { return there.moved() == 3; }, 5s));
  auto nothing = there.begun({requests, shortest_running, 0});
  REQUIRE(nothing);
  CHECK(*nothing == moves_begun{});
  CHECK(there.finish_exact());
}

TEST_CASE("tokens may choose more requests than there are slots; they leave one after the other") {
  calls_scene there{2};
  there.run_requests(6);
  auto all = there.begun({tokens, shortest_running, 100'000});
  REQUIRE(all);
  CHECK(*all == moves_begun{.accepted = 6});
  CHECK(there.run_until([&] { return there.moved() == 6; }, 5s));
  CHECK(there.finish_exact());
}

TEST_CASE("two orders at once choose no request twice, nor a slot") {
  calls_scene there{3};
  there.run_requests(6);
  auto first = there.begin({requests, shortest_running, 3});
  auto second = there.begin({requests, shortest_running, 3});
  REQUIRE(there.run_until([&] { return !first->empty() && !second->empty(); }, 10s));
  bool one_alone = first->front().has_value() != second->front().has_value();
  CHECK(one_alone);
  CHECK(there.run_until([&] { return there.moved() == 3; }, 5s));
  CHECK(there.finish_exact());
}

TEST_CASE("whoever wants all gone joins those who want that already") {
  calls_scene there{4};
  there.run_requests(6);
  there.cut("engine-0", "engine-1", true);
  auto first = there.begin({requests, shortest_running, -1}, 200ms);
  REQUIRE(there.run_until([&] { return !first->empty(); }, 1s));
  REQUIRE(first->front());
  CHECK(*first->front() == moves_begun{.waiting = 6}); // nobody has answered
  auto second = there.begun({requests, longest_running, -1}, 200ms);
  REQUIRE(second);
  CHECK(*second == moves_begun{.joined = 6, .merged = true});
  auto one = there.begun({tokens, longest_running, 1000}, 200ms);
  REQUIRE_FALSE(one);
  CHECK(one.error().code == errc::queue_full);
  there.cut("engine-0", "engine-1", false);
  CHECK(there.run_until([&] { return there.moved() == 6; }, 10s));
  CHECK(there.finish_exact());
}

TEST_CASE("nothing is begun for a caller that has gone, or is late") {
  calls_scene there{5};
  there.run_requests(2);
  auto gone = std::make_shared<std::atomic<bool>>(true);
  auto answers = there.begin({requests, shortest_running, 1}, 5s, "grpc", gone);
  REQUIRE(there.run_until([&] { return !answers->empty(); }, 10s));
  REQUIRE_FALSE(answers->front());
  CHECK(answers->front().error().code == errc::cancelled);
  auto late = there.begun({requests, shortest_running, 1}, 0ms);
  REQUIRE_FALSE(late);
  CHECK(late.error().code == errc::timeout);
  there.run_for(500ms);
  CHECK(there.moved() == 0);
  CHECK(there.finish_exact());
}

TEST_CASE("a destination that refuses is told by number and reason") {
  auto config = slow_engines();
  config.migration.in_slots = 1;
  calls_scene there{6, config};
  there.run_requests(3);
  auto some = there.begun({requests, shortest_running, 3});
  REQUIRE(some);
  CHECK(some->accepted >= 1);
  CHECK(some->accepted + some->rejected == 3);
  CHECK(there.finish_exact());
  auto none = there.begun({requests, shortest_running, 1});
  REQUIRE(none);
  CHECK(*none == moves_begun{});
}

} // namespace llumnix::testing
