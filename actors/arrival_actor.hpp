#pragma once

#include "actors/alarm.hpp"
#include "actors/kv_region.hpp"
#include "actors/measured.hpp"
#include "actors/protocol/migration_messages.hpp"

#include <memory>
#include <optional>

namespace llumnix {

struct arrival_actor_config {
  destination_settings limits;
  handover::offer offer;
  std::uint32_t headroom_tokens = 64;
  kv_geometry geometry;  ///< of our engine
  llumlet_actor llumlet; ///< our own
  engine_actor engine;
  llumlet_actor source;
  stream_hub_actor hub;          ///< where the stream is
  std::shared_ptr<kv_region> kv; ///< with path `kv`
};

/// ARRIVAL: one hand-over at its destination (spec/migration.md 12.4): has room reserved, then does
/// what `destination_machine` says.
struct arrival_state {
  arrival_state() = default;
  static inline const char* name = "arrival";
  using pointer = role_pointer<arrival_actor, arrival_state>;

  arrival_actor::behavior_type make_behavior(pointer actor, arrival_actor_config settings);

  void hear(const destination_event& event);
  caf::result<holds_answer_msg> on_holds(const holds_msg& msg);
  void on_tick();

  void carry_out(std::vector<destination_effect> effects);
  void order(arrival_order_msg::order what);
  void pull(const destination_side::pull& what);

  pointer self = nullptr;
  arrival_actor_config config;
  std::unique_ptr<destination_machine> machine;
  std::vector<block_index> room; ///< blocks reserved here
  kv_transport::job_id job = 0;  ///< the last pull
  alarm ticks;                   ///< what the machine wants
};

arrival_actor::behavior_type make_arrival(arrival_state::pointer self, arrival_actor_config config);

} // namespace llumnix
