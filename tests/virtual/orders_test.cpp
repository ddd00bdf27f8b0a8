#include "actors/admin_desk.hpp"
#include "actors/console_actor.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace llumnix::testing {

namespace {

using nlohmann::json;

/// ADMIN DESK and CONSOLE of a node "head", and stand-ins for all they talk to.
struct orders_stage : stage {
  /// A stand-in for an engine node with one instance and its LLUMLET.
  struct instance {
    instance_id id;
    caf::actor llumlet;
    std::string state = "ready";
    bool shared = false;
    bool connected = true;
    bool silent = false;           ///< its LLUMLET answers nothing
    bool keeps = false;            ///< its LLUMLET does not answer moves
    std::string takes = "moved";   ///< how what is to come here ends; stays: refused for good
    std::vector<migrate_msg> told; ///< to its LLUMLET
    std::vector<bool> drained;     ///< likewise
    std::uint32_t departing = 0;   ///< moved, and not let go of yet
    instance_id speaks_for;        ///< of another node's engine
  };

  explicit orders_stage(const std::vector<std::string>& names) {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    hub = system->spawn([this](caf::event_based_actor*) -> caf::behavior {
      return {[this](const inspect_msg&) { return streams_msg{0, streams}; }};
    });
    cms = system->spawn([this](caf::event_based_actor* self) -> caf::behavior {
      return {
        [this](const inspect_msg&) { return inspected_msg{states().dump()}; },
        [this, self](const subscribe_view_msg& msg) { self->send(msg.listener, view()); }};
    });
    console = system->spawn(make_console, console_actor_config{{"head", 1}, {}, {}});
    desk = system->spawn(make_admin_desk, node_life{"head", 1});
    node_card head;
    head.self.life = {"head", 1};
    head.hubs = {caf::actor_cast<stream_hub_actor>(hub)};
    head.cms = {caf::actor_cast<cms_actor>(cms)};
    head.console = {console};
    caf::anon_send(desk, peer_up_msg{head});
    tell(peer_up_msg{head});
    for (const auto& name : names)
      add(name);
  }
  ~orders_stage() {
    for (const auto& each :
         {caf::actor_cast<caf::actor>(console), caf::actor_cast<caf::actor>(desk), hub, cms})
      caf::anon_send_exit(each, caf::exit_reason::kill);
    for (auto& [id, x] : instances)
      caf::anon_send_exit(x.llumlet, caf::exit_reason::kill);
    console = nullptr;
    desk = nullptr;
    run();
  }

  template <class Message>
  void tell(const Message& message) {
    caf::anon_send(console, message);
    run();
  }

  instance& add(const instance_id& id, bool shared = false) {
    auto& made = instances[id];
    made.id = id;
    made.shared = shared;
    made.llumlet = system->spawn([this, id](caf::event_based_actor* self) -> caf::behavior {
      return {
        [this, id, self](const migrate_msg& msg) -> caf::result<moves_msg> {
          auto promise = self->make_response_promise<moves_msg>();
          auto& x = instances.at(id);
          x.told.push_back(msg);
          if (!x.silent && !x.keeps)
            promise.deliver(move(x, msg));
          return promise;
        },
        [this, id, self](const drain_msg& msg) -> caf::result<draining_msg> {
          auto promise = self->make_response_promise<draining_msg>();
          auto& x = instances.at(id);
          x.drained.push_back(msg.on);
          if (!x.silent)
            promise.deliver(draining_msg{x.shared ? 0 : at(id), std::exchange(x.departing, 0), 0});
          return promise;
        }};
    });
    tell(peer_up_msg{card(made)});
    return made;
  }
  /// Another node speaks for an engine behind HTTP that is there.
  void speak_for(const std::string& node, const instance_id& engine) {
    auto& made = add(node, true);
    auto spoken = card(made);
    spoken.instances.front().metadata.instance_id = engine;
    made.speaks_for = engine;
    tell(peer_up_msg{spoken});
  }
  static node_card card(const instance& x) {
    node_card made;
    made.self.life = {x.id, 1};
    instance_metadata metadata;
    metadata.instance_id = x.id;
    made.instances.push_back(
      {metadata, "modeled", caf::actor_cast<llumlet_actor>(x.llumlet), x.shared});
    return made;
  }
  void lose(const instance_id& id, bool stopped = false) {
    instances.at(id).connected = false;
    instances.at(id).state = stopped ? "stopped" : "lost";
    tell(peer_down_msg{{id, 1}, stopped});
  }
  void is_back(const instance_id& id, std::uint64_t incarnation) {
    auto& x = instances.at(id);
    x.connected = true;
    x.state = "ready";
    auto made = card(x);
    made.self.life.incarnation = incarnation;
    tell(peer_up_msg{made});
  }

  void begin(
    const std::string& request, const instance_id& at, const std::string& client = "c",
    std::uint32_t output_tokens = 0) {
    stream_info x;
    x.text_id = request;
    x.stream = {"head", 1, 0, ++last_stream};
    x.instance = at;
    x.state = "running";
    x.client = client;
    x.prompt_tokens = 10;
    x.output_tokens = output_tokens;
    streams.push_back(x);
  }
  void end(const std::string& request) {
    std::erase_if(streams, [&](const auto& x) { return x.text_id == request; });
  }
  std::uint32_t at(const instance_id& id) const {
    return static_cast<std::uint32_t>(std::ranges::count(streams, id, &stream_info::instance));
  }
  std::string place(const std::string& request) const {
    auto found = std::ranges::find(streams, request, &stream_info::text_id);
    return found == streams.end() ? "" : found->instance;
  }

  /// As a LLUMLET and its hand-overs would.
  moves_msg move(const instance& from, const migrate_msg& msg) {
    moves_msg answer;
    for (auto& stream : streams) {
      bool named = std::ranges::find(msg.requests, stream.stream) != msg.requests.end();
      bool chosen = msg.requests.empty()
                    && answer.moves.size() < static_cast<std::size_t>(msg.selection.value);
      bool here = stream.instance == (from.speaks_for.empty() ? from.id : from.speaks_for);
      if (!here || (!named && !chosen))
        continue;
      move_result result;
      result.stream = stream.stream;
      result.from = {{from.id, 1}, stream.instance};
      result.to = msg.to;
      result.policy = msg.policy;
      auto to = msg.to.instance.empty() ? "other" : msg.to.instance;
      result.outcome = instances.at(to).takes;
      result.lasting = result.outcome == "stays";
      if (result.lasting)
        result.outcome = "refused";
      if (result.outcome == "moved") {
        stream.instance = to;
        ++instances.at(from.id).departing;
        result.path = "kv";
        result.rounds = 2;
        result.bytes = 4096;
        result.downtime = std::chrono::microseconds{250};
        result.epoch = 1;
      } else {
        result.reason = "no blocks there";
      }
      answer.moves.push_back(result);
    }
    return answer;
  }

  json states() const {
    json all = json::array();
    for (const auto& [id, x] : instances)
      all.push_back({{"id", id}, {"state", x.state}});
    return all;
  }
  view_change_msg view() const {
    view_change_msg change;
    for (const auto& [id, x] : instances) {
      instance_metadata metadata;
      metadata.instance_id = id;
      change.put.push_back({metadata, {id, 1}, "modeled", instance_state::ready});
      instance_status status;
      status.instance_id = id;
      status.schedulable = x.state == "ready";
      status.timestamp_ms = 1;
      status.update_id = 1;
      status.num_total_gpu_tokens = 1600;
      change.statuses.push_back(status);
    }
    return change;
  }

  /// An order whose answer comes when it comes.
  using answer = std::shared_ptr<std::optional<result<ordered_msg>>>;
  answer order(order_msg wanted) {
    auto told = std::make_shared<std::optional<result<ordered_msg>>>();
    caf::anon_send(
      desk, admin_order{std::move(wanted), 10min, [told](result<ordered_msg> x) { *told = x; }});
    run();
    return told;
  }
  answer drain(const instance_id& id, std::chrono::milliseconds timeout = 60s) {
    return order({order_msg::drain{id, timeout}});
  }
  static json document(const answer& told) {
    REQUIRE(*told);
    REQUIRE(**told);
    return json::parse((***told).json);
  }
  static int status(const answer& told) {
    REQUIRE(*told);
    REQUIRE(**told);
    return (***told).status;
  }
  json moves(order_msg wanted) {
    auto told = order(std::move(wanted));
    CHECK(status(told) == 200);
    return document(told).at("moves");
  }
  void wait(std::chrono::milliseconds time) {
    for (; time > 0ms; time -= 10ms)
      pass(10ms);
  }
  /// Kinds of the events that CONSOLE has kept.
  std::string events() {
    std::string kinds;
    system->spawn([&, console = console](caf::event_based_actor* self) {
      self->request(console, caf::infinite, inspect_msg{"events", "1"})
        .then([&](const inspected_msg& all) {
          const auto document = json::parse(all.json);
          for (const auto& each : document.at("events"))
            if (auto kind = each["kind"].get<std::string>(); !kind.starts_with("node_"))
              kinds += (kinds.empty() ? "" : " ") + kind;
        });
    });
    run();
    return kinds;
  }

  std::map<instance_id, instance> instances;
  std::vector<stream_info> streams;
  std::uint64_t last_stream = 0;
  caf::actor hub;
  caf::actor cms;
  console_actor console;
  admin_desk_actor desk;
};

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
         {{rule::tokens, order::shortest_running, 75}, {"short", "far"}},
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
