#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "runtime/scheduling/dispatcher.hpp"

#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>

namespace llumnix {

struct scheduler_actor_config {
  node_life life;
  scheduler_config knobs;
  wall_clock wall;
};

/// SCHEDULER: one view, one account, one decision at a time.
struct scheduler_state {
  scheduler_state() = default;
  static inline const char* name = "scheduler";
  using pointer = role_pointer<scheduler_actor, scheduler_state>;

  scheduler_actor::behavior_type make_behavior(pointer actor, scheduler_actor_config settings);

  unix_ms now() const { return config.wall.at(self->clock().now()); }
  placements_msg on_place(const place_msg& msg);
  /// One that nobody can take has no instance in its answer.
  placed_msg place(const placement_question& question);
  void release(const std::vector<std::string>& request_ids);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);

  pointer self = nullptr;
  scheduler_actor_config config;
  std::unique_ptr<dispatcher> decisions;
  /// What gateways on other nodes had placed and have not released, by their lives: in lite mode
  /// nothing else would end it if such a gateway dies.
  std::map<std::pair<std::string, std::uint64_t>, std::unordered_set<std::string>> booked;
  std::uint64_t placed = 0;
  std::uint64_t refused = 0;
};

scheduler_actor::behavior_type
make_scheduler(scheduler_state::pointer self, scheduler_actor_config config);

} // namespace llumnix
