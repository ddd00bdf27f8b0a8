#pragma once

#include "actors/alarm.hpp"
#include "actors/kv_region.hpp"
#include "actors/measured.hpp"
#include "actors/protocol/migration_messages.hpp"

#include <memory>
#include <optional>

namespace llumnix {

struct departure_actor_config {
  source_settings limits;
  source_plan plan;      ///< all of it but the epoch
  std::string policy;    ///< who wants it
  llumlet_actor llumlet; ///< our own
  engine_actor engine;
  llumlet_actor destination;
  stream_hub_actor hub;          ///< where the stream is
  std::shared_ptr<kv_region> kv; ///< with path `kv`
};

/// DEPARTURE: one hand-over at its source (spec/migration.md 12.3): pins the request, then does
/// what `source_machine` says. Ends with a `departed_msg` to its LLUMLET.
struct departure_state {
  departure_state() = default;
  static inline const char* name = "departure";
  using pointer = role_pointer<departure_actor, departure_state>;

  departure_actor::behavior_type make_behavior(pointer actor, departure_actor_config settings);

  void on_pinned(pinned_msg& msg);
  void hear(const source_event& event);
  caf::result<holds_answer_msg> on_holds(const holds_msg& msg);
  void on_tick();

  void carry_out(std::vector<source_effect> effects);
  void order(departure_order_msg::order what);
  void close_window();
  void report(const source_side::ended& end);
  void finish(std::string_view outcome, error why);

  pointer self = nullptr;
  departure_actor_config config;
  std::unique_ptr<source_machine> machine; ///< once the request is pinned
  bool destination_lost = false;           ///< before that
  move_result result;
  alarm ticks; ///< what the machine wants
};

departure_actor::behavior_type
make_departure(departure_state::pointer self, departure_actor_config config);

} // namespace llumnix
