#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/migration_messages.hpp"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace llumnix {

struct leave_actor_config {
  node_life life;                        ///< of our own node
  std::chrono::milliseconds patience{0}; ///< that requests get
  wall_clock wall;
  std::function<void()> done; ///< nothing more is to be waited for; on an actor thread, once
};

/// LEAVE: a node that stops, and has engines, wants them empty first (spec/migration.md 11): it
/// starts a DRAIN for each instance of its own. Where no other node has an instance, what runs can
/// only end by itself; where none has streams either nobody waits for it, and it is done at once.
/// NODE has it among its roles from the moment the node is to end.
using leave_actor = caf::typed_actor<
  caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>>;

struct leave_state {
  leave_state() = default;
  static inline const char* name = "leave";
  using pointer = role_pointer<leave_actor, leave_state>;

  leave_actor::behavior_type make_behavior(pointer actor, leave_actor_config settings);

  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  actor_stats_msg on_stat();

  bool anybody_concerned() const;
  void empty_all();
  void drain(const instance_id& instance);
  void on_drained();
  void finish();

  pointer self = nullptr;
  leave_actor_config config;
  std::map<std::string, node_card> nodes; ///< by name
  bool begun = false;
  bool finished = false;
  std::map<instance_id, drain_actor> drains;
  std::size_t under_way = 0; ///< drains that have not ended
};

leave_actor::behavior_type make_leave(leave_state::pointer self, leave_actor_config config);

} // namespace llumnix
