#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"

#include <deque>
#include <map>

namespace llumnix {

struct console_actor_config {
  node_life life;
  node_actor node; ///< our own: it keeps the directory of actors
  wall_clock wall;
  std::size_t events_kept = 4096;
};

/// CONSOLE: answers what people ask, from what the actors of every connected node say.
struct console_state {
  console_state() = default;
  static inline const char* name = "console";
  using pointer = role_pointer<console_actor, console_state>;

  console_actor::behavior_type make_behavior(pointer actor, console_actor_config settings);

  caf::result<inspected_msg> on_inspect(const inspect_msg& msg);
  caf::result<inspected_msg> cluster();
  caf::result<inspected_msg> requests(const std::string& instance);
  caf::result<inspected_msg> why(const std::string& id);
  caf::result<inspected_msg> scene(const std::string& id);
  caf::result<inspected_msg> actors();
  caf::result<inspected_msg> local_actors();
  caf::result<inspected_msg> events(const std::string& after);
  void say_watched();
  void on_event(event_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);

  pointer self = nullptr;
  console_actor_config config;
  std::map<std::string, node_card> nodes; ///< by name, our own included
  std::deque<event_msg> recent;           ///< oldest first
  std::uint64_t events_seen = 0;          ///< number of the newest event
  time_point said_watched{};              ///< GATEWAY was told that somebody watches
};

console_actor::behavior_type make_console(console_state::pointer self, console_actor_config config);

} // namespace llumnix
