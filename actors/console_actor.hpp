#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/base/result.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

struct console_actor_config {
  node_life life;
  node_actor node; ///< our own: it keeps the directory of actors
  wall_clock wall;
  std::size_t events_kept = 4096;
};

/// CONSOLE: answers what people ask, from what the actors of every connected node say, and has done
/// what they want done: moves by their sources' LLUMLETs, drains by a DRAIN each.
struct console_state {
  console_state() = default;
  static inline const char* name = "console";
  using pointer = role_pointer<console_actor, console_state>;

  console_actor::behavior_type make_behavior(pointer actor, console_actor_config settings);

  caf::result<inspected_msg> on_inspect(const inspect_msg& msg);
  caf::result<inspected_msg> cluster();
  caf::result<inspected_msg> requests(const std::string& instance);
  /// Whoever answers questions of people.
  using source = caf::typed_actor<caf::replies_to<inspect_msg>::with<inspected_msg>>;
  std::vector<source> gateways() const;
  std::vector<source> schedulers() const;
  /// The first answer that says something, in the order of `sources`; else `not_found`.
  caf::result<inspected_msg>
  first_of(std::vector<source> sources, const inspect_msg& question, std::string unknown);
  caf::result<inspected_msg> why(const std::string& id);
  caf::result<inspected_msg> scene(const std::string& id);
  caf::result<inspected_msg> profile(const std::string& role);
  caf::result<inspected_msg> actors();
  caf::result<inspected_msg> local_actors();
  caf::result<inspected_msg> events(const std::string& after);
  void say_watched();

  // What people want done (console_orders.cpp).

  /// An instance of a connected node.
  struct place {
    stream_owner owner;
    llumlet_actor llumlet;
    bool shared = false; ///< an engine behind HTTP
    std::string role{};  ///< neutral, prefill, decode
  };
  /// What stands there now.
  struct sight {
    std::map<instance_id, std::string> states; ///< of all that are known, as `cluster` has them
    std::vector<stream_info> streams;
  };
  using moves_done = std::function<void(result<std::vector<move_result>>)>;
  caf::result<ordered_msg> on_order(const order_msg& msg);
  caf::result<ordered_msg> move_request(const order_msg::move_request& order);
  caf::result<ordered_msg> move_some(const order_msg::move_some& order);
  caf::result<ordered_msg> order_drain(const order_msg& msg, const instance_id& instance);
  void look(std::function<void(sight)> then);
  ordered_msg no_instance(const instance_id& id, const sight& seen) const;
  bool is_known(const instance_id& id, const sight& seen) const;
  std::string why_not(const instance_id& from, const instance_id& to, const sight& seen) const;
  void send_moves(const place& from, migrate_msg order, moves_done done);
  void settle(std::uint64_t number, result<std::vector<move_result>> outcome);
  std::optional<place> place_of(const instance_id& id) const;
  std::optional<place> source_of(const stream_info& stream) const;
  drain_actor start_drain(const instance_id& instance);

  void on_event(event_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  actor_stats_msg on_stat();

  pointer self = nullptr;
  console_actor_config config;
  std::map<std::string, node_card> nodes; ///< by name, our own included
  std::deque<event_msg> recent;           ///< oldest first
  std::uint64_t events_seen = 0;          ///< number of the newest event
  time_point said_watched{};              ///< GATEWAY was told that somebody watches

  /// Moves that a LLUMLET was asked for and has not answered.
  struct open_moves {
    node_life source;
    moves_done done;
  };
  std::map<std::uint64_t, open_moves> moves; ///< by number
  std::uint64_t move_orders = 0;
  std::map<instance_id, drain_actor> drains; ///< one for each instance that is drained
};

console_actor::behavior_type make_console(console_state::pointer self, console_actor_config config);

} // namespace llumnix
