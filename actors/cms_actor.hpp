#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/cms_store.hpp"
#include "runtime/cluster/foreign_instances.hpp"

#include <map>
#include <memory>
#include <set>

namespace llumnix {

/// What a reading of the store found, or why it found nothing.
struct store_metadata_msg {
  result<std::vector<instance_metadata>> found;
};
struct store_statuses_msg {
  result<stored_statuses> found;
};

struct cms_actor_config {
  node_life life;
  cms_config knobs;
  wall_clock wall;
  std::shared_ptr<node_counters> counters;
  std::shared_ptr<cms_store> store; ///< the mirror this process keeps; null: none
};

/// CMS: this process's replica of the view. Fed by llumlets, and by what others keep in the store,
/// which is read all the time; read by local listeners; mirrored to the store, as far as instances
/// are ours.
struct cms_state {
  cms_state() = default;
  static inline const char* name = "cms";
  using pointer = role_pointer<cms_actor, cms_state>;

  cms_actor::behavior_type make_behavior(pointer actor, cms_actor_config settings);

  void on_status(status_msg& msg);
  void on_subscribe(const subscribe_view_msg& msg);
  void read_metadata();
  void read_statuses();
  void on_metadata(store_metadata_msg& msg);
  void on_statuses(store_statuses_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  void on_tick();
  lease_msg on_claim_lease(const claim_lease_msg& msg);
  inspected_msg on_inspect(const inspect_msg& msg);
  inspected_msg leaders();
  actor_stats_msg on_stat();

  /// A node's word that it speaks for an engine behind HTTP.
  struct claim {
    node_life life;
    instance_metadata metadata;
    std::string engine;
    bool draining = false; ///< by its last status
  };

  std::vector<instance_id> missing_on(const node_card& card) const;
  bool reads_store() const;
  void read_statuses_in_time();
  void note_reading(const error* failure);
  void tell(const pull_changes& changes);
  void forget(const instance_id& id);
  void note_stopped(const instance_id& id, view_change_msg& change);
  void note_gone(const instance_id& id);
  bool put(const instance_metadata& metadata, const node_life& life, const std::string& engine);
  void take_claims(const node_card& card);
  void note_draining(const status_msg& msg);
  bool note_state(const instance_view& known, bool draining);
  bool spoken_for(const instance_card& instance, const node_life& by) const;
  bool pass_on(const instance_id& id, view_change_msg& change);
  bool mirrors(const instance_id& id) const;
  instance_state shown_state(const instance_view& x) const;
  void tell(view_change_msg change);
  void hold_back(const view_change_msg& change);
  void flush();
  void pass(const view_listener& listener, const caf::message& shared);
  void note_longest(const view_change_msg& change);
  unix_ms now_ms() const { return config.wall.at(self->clock().now()); }

  pointer self = nullptr;
  cms_actor_config config;
  cluster_view view;
  std::map<instance_id, time_point> gone_since; ///< lost or stopped
  foreign_instances foreign;
  store_news store = store_news::none; ///< of the last reading
  bool store_tried = false;
  bool metadata_readable = false; ///< by the last reading
  bool statuses_readable = true;  ///< likewise
  time_point metadata_read_at{};  ///< when the last reading began
  time_point statuses_read_at{};
  bool statuses_due = false; ///< a reading is under way, or will begin
  /// Of engines behind HTTP, by node. The view has the first that came; when that one goes, another
  /// takes its place (DESIGN.md 3.12).
  std::map<instance_id, std::map<std::string, claim>> claims;
  std::set<std::string> schedulers; ///< nodes that have one
  std::map<caf::actor_addr, subscribe_view_msg> listeners;
  std::map<instance_id, instance_status> held_back; ///< what paced listeners were not told yet
  bool flush_pending = false;
  leader_lease lease; ///< of RESCHEDULERs, should they ask us
};

cms_actor::behavior_type make_cms(cms_state::pointer self, cms_actor_config config);

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::store_metadata_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::store_statuses_msg)
