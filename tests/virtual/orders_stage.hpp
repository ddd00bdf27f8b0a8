#pragma once

#include "actors/admin_desk.hpp"
#include "actors/console_actor.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

/// ADMIN DESK and CONSOLE of a node "head", and stand-ins for all they talk to.
struct orders_stage : stage {
  using json = nlohmann::json;

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

} // namespace llumnix::testing
