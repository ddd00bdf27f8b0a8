#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/desk_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "runtime/cluster/reported_requests.hpp"
#include "runtime/scheduling/dispatcher.hpp"
#include "runtime/scheduling/latency_observer.hpp"
#include "runtime/scheduling/scheduler_probes.hpp"
#include "runtime/serving/flight_recorder.hpp"

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
  /// Gateways of other makes are served: instances that only a store tells of are placed on for
  /// them.
  bool foreign = false;
  latency_profile profile{}; ///< measured times, for policies that predict
  scene_writer write_scene{};
  std::shared_ptr<scheduler_probes> probes = std::make_shared<scheduler_probes>();
  /// Of how many requests of foreign gateways a flight record is kept. Requests of gateways of ours
  /// are in theirs.
  std::size_t recorded_requests = 0;
};

/// SCHEDULER as its own process knows it: gateways of other makes ask and tell by way of its
/// `scheduler_desk`. These messages cross no node link.
using deciding_actor = scheduler_actor::extend<
  // Which instances? What is told of a request's end and of its progress, and which gateways are
  // connected.
  caf::reacts_to<schedule_msg>, caf::reacts_to<end_request_msg>, caf::reacts_to<progress_msg>,
  caf::reacts_to<gateways_msg>,
  // In lite mode, from time to time: what instances have is shown. Sent by itself.
  caf::reacts_to<tick_atom>>;

/// SCHEDULER: one view, one account, one decision at a time.
struct scheduler_state {
  scheduler_state() = default;
  static inline const char* name = "scheduler";
  using pointer = role_pointer<deciding_actor, scheduler_state>;

  deciding_actor::behavior_type make_behavior(pointer actor, scheduler_actor_config settings);

  unix_ms now() const { return config.wall.at(self->clock().now()); }
  placements_msg on_place(const place_msg& msg);
  /// One that nobody can take has no instance in its answer.
  placed_msg place(const placement_question& question);
  inspected_msg on_inspect(const inspect_msg& msg) const;
  void release(const std::vector<std::string>& request_ids);
  void on_running(const running_msg& msg);
  void note_booked(const node_life& gateway, const std::string& request);
  void on_schedule(const schedule_msg& msg);
  void observe(const instance_status& status);
  void show(const view_change_msg& msg);
  void forget_gauges(const instance_id& id);
  void show_requests();
  void note_choice(infer_type stage, const instance_id& chosen, const placement_reasons& reasons);
  void count_reported(const schedule_msg& msg, const scheduled& choice);
  void count_anew(const std::string& request);
  void note_placed(const std::string& request, const std::string& gateway, scheduled& choice);
  void note_refused(const schedule_msg& msg, scheduled choice);
  void note_released(const std::string& request, std::string note = {});
  void on_end_request(const end_request_msg& msg);
  void on_progress(const progress_msg& msg);
  void on_gateways(const gateways_msg& msg);
  void on_view(const view_change_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);

  pointer self = nullptr;
  scheduler_actor_config config;
  bool cache_aware = false; ///< the policy
  std::unique_ptr<dispatcher> decisions;
  decision_archive archive;
  /// What gateways on other nodes had placed and have not released, by their lives: in lite mode
  /// nothing else would end it if such a gateway dies.
  std::map<std::pair<std::string, std::uint64_t>, std::unordered_set<std::string>> booked;
  store_news store = store_news::none;
  /// The requests of foreign gateways, in lite mode.
  reported_requests reported;
  recent_flights records{0};         ///< of them
  latency_observer foreign_prefills; ///< what steps of foreign prefill instances took
  std::uint64_t placed = 0;
  std::uint64_t refused = 0;
};

deciding_actor::behavior_type
make_scheduler(scheduler_state::pointer self, scheduler_actor_config config);

} // namespace llumnix
