#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/leader_lease.hpp"
#include "runtime/migration/move_limits.hpp"
#include "runtime/migration/move_policies.hpp"
#include "runtime/scheduling/dispatcher.hpp"

#include <map>
#include <memory>
#include <string>

namespace llumnix {

struct rescheduler_actor_config {
  node_life life;
  rescheduler_config knobs;
  scheduler_config scheduling;
  wall_clock wall;
  latency_profile profile{};                 ///< measured times, for policies that predict
  std::shared_ptr<node_counters> counters{}; ///< null: its own
};

/// RESCHEDULER: plans moves by its view, every `rescheduler.interval`, and has the LLUMLETs of the
/// sources carry them out. It remembers what is under way and nothing else: whatever is lost is
/// planned again.
///
/// Of several, in any nodes, the one plans that leads: by a lease that CMS of the first node, by
/// name, keeps. A new leader tells every LLUMLET, so that orders of a former one, on their way or
/// given by a process that was held up, are not carried out.
struct rescheduler_state {
  rescheduler_state() = default;
  ~rescheduler_state();
  static inline const char* name = "rescheduler";
  using pointer = role_pointer<rescheduler_actor, rescheduler_state>;

  rescheduler_actor::behavior_type make_behavior(pointer actor, rescheduler_actor_config settings);

  void on_tick();
  void on_lease_time();
  void claim();
  void look_who_leads();
  void tell_llumlets(const node_card& card);
  void tell_people(const char* kind, const leader_term& term);
  void find_cms();
  void forget_view();
  void stop(const caf::exit_msg& msg);
  void order(const planned_move& move);
  void on_moves(const planned_move& move, const moves_msg& done);
  void on_nothing(const planned_move& move);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  llumlet_actor llumlet_of(const instance_view& instance) const;
  actor_stats_msg on_stat();
  unix_ms now() const { return config.wall.at(self->clock().now()); }

  pointer self = nullptr;
  rescheduler_actor_config config;
  std::unique_ptr<dispatcher> known; ///< its view alone; nothing is booked in it
  move_policies policies;
  std::map<std::string, node_card> peers; ///< by node
  cms_actor viewed;                       ///< tells us the view
  cms_actor keeper;                       ///< of the lease
  lease_holder lease;
  std::uint64_t claims = 0; ///< only the last one's answer counts
  time_point woken{};       ///< when the next `lease_atom` comes
  leader_term led;          ///< what others were told: our term, number 0 while we do not lead
  move_pairs under_way;
  std::uint64_t orders = 0;
  std::uint64_t empty = 0; ///< orders for which nothing fitted
  std::uint64_t moved = 0;
  std::uint64_t failed = 0;
};

rescheduler_actor::behavior_type
make_rescheduler(rescheduler_state::pointer self, rescheduler_actor_config config);

} // namespace llumnix
