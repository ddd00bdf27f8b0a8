#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/cluster/recent_waiting.hpp"
#include "runtime/engine/engine.hpp"

#include <functional>
#include <map>
#include <memory>

namespace llumnix {

struct llumlet_actor_config {
  llumlet_config knobs;
  node_life life;
  instance_metadata metadata;
  wall_clock wall;
  /// Makes the engine; called when the llumlet starts, again after each restart of it. Empty: the
  /// engine is behind HTTP, where the loops of this process speak to it, and whoever checks it
  /// there sends its news.
  std::function<std::shared_ptr<stepped_engine>()> make_engine;
};

/// LLUMLET: speaks for one engine instance. Gates what comes in, passes it to its ENGINE (its
/// child: they live and die together), and tells every CMS how loaded the instance is.
///
/// Without an ENGINE of its own it only tells: the news it is sent, and nothing when none come, so
/// that an engine nobody checks any more grows stale.
struct llumlet_state {
  llumlet_state() = default;
  static inline const char* name = "llumlet";
  using pointer = role_pointer<llumlet_actor, llumlet_state>;

  llumlet_actor::behavior_type make_behavior(pointer actor, llumlet_actor_config settings);

  bool meant(const stream_owner& owner) const;
  template <class Message>
  void pass_on(Message& msg);
  void on_submit(submit_msg& msg);
  void on_news(engine_news_msg& msg);
  void publish();
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  void on_tick();
  caf::result<actor_stats_msg> on_stat();

  pointer self = nullptr;
  llumlet_actor_config config;
  engine_actor engine;    ///< null: behind HTTP
  instance_status status; ///< its `recent_waiting_requests`: those not sent yet
  bool has_status = false;
  std::string kind;      ///< of the engine, for people; empty: as it was described at the start
  recent_waiting recent; ///< for a CMS that is new to us
  time_point last_publish{};
  unix_ms stamped = 0;                        ///< time stamp of the last status
  std::map<std::string, cms_actor> listeners; ///< by node
};

llumlet_actor::behavior_type make_llumlet(llumlet_state::pointer self, llumlet_actor_config config);

} // namespace llumnix
