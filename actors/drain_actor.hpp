#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/migration/drain_plan.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace llumnix {

struct drain_actor_config {
  node_life life; ///< of our own node
  instance_id instance;
  console_actor console; ///< is told how it goes; null: nobody
  wall_clock wall;
};

/// DRAIN: empties one instance (spec/migration.md 11). Its LLUMLET takes no new work; what there is
/// is offered to others, again and again, or ends by itself. It works while somebody waits for the
/// end; after that the instance stays as it is until it is taken back. Ends with that, or with the
/// instance: while somebody waits, one whose link broke may come back in the same life.
struct drain_state {
  drain_state() = default;
  static inline const char* name = "drain";
  using pointer = role_pointer<drain_actor, drain_state>;

  /// Who waits, and for how long.
  struct waiter {
    caf::typed_response_promise<ordered_msg> promise;
    time_point deadline;
    std::chrono::milliseconds timeout{0};
  };

  /// A move that has not been answered.
  struct sent_move {
    stream_ref stream;
    llumlet_actor from;
  };

  drain_actor::behavior_type make_behavior(pointer actor, drain_actor_config settings);

  caf::result<ordered_msg> on_order(const order_msg& msg);
  caf::result<ordered_msg> drain(const order_msg::drain& order);
  caf::result<ordered_msg> undrain();
  void on_view_change(const view_change_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  void on_tick();
  void tick_after(std::chrono::milliseconds pause);
  actor_stats_msg on_stat();

  void look();
  void on_look(const std::vector<draining_msg>& still, std::vector<stream_info> streams);
  void send(const drain_move& move);
  void on_moved(std::uint64_t number, const std::vector<move_result>& results);
  void forget_unanswered();
  bool has_it(const node_card& card) const;
  bool still_there() const;
  void end_if_gone();
  std::string how_gone(std::optional<std::chrono::milliseconds> waited) const;
  std::vector<llumlet_actor> llumlets() const;
  llumlet_actor llumlet_for(const stream_ref& stream) const;
  void tell_newcomers();
  bool shared() const;
  void subscribe();
  void answer_late();
  ordered_msg late(const waiter& each) const;
  void answer_all(const ordered_msg& answer);
  ordered_msg outcome(const std::string& reason) const;
  std::uint32_t finished() const;
  void tell(std::string kind, std::vector<std::pair<std::string, std::string>> facts);
  void tell_progress();

  pointer self = nullptr;
  drain_actor_config config;
  std::map<std::string, node_card> nodes; ///< by name
  bool seen = false;                      ///< some card had the instance
  std::optional<node_life> life;          ///< the instance's; none: an engine behind HTTP
  std::set<std::string> away;             ///< nodes that had it, and whose link is lost
  time_point lost_at{};                   ///< the first of them
  bool stopped = false;                   ///< a node that had it stopped in order
  cms_actor cms;
  cluster_view view;
  drain_plan plan{{}};
  std::map<std::uint64_t, sent_move> moves; ///< by number
  std::uint64_t moves_ever = 0;
  std::vector<waiter> waiters;
  bool ticking = false;
  bool looking = false;
  std::uint64_t looks = 0;
  bool wanted = false;               ///< from the first `drain` to `undrain`
  std::vector<llumlet_actor> asked;  ///< to take nothing new
  std::optional<std::uint32_t> left; ///< requests there, as last heard; none: nothing heard yet
  std::uint32_t total = 0;           ///< requests there when the drain began
  std::uint32_t moved = 0;
  std::string told; ///< progress, the last that was told
  time_point told_at{};
};

drain_actor::behavior_type make_drain(drain_state::pointer self, drain_actor_config config);

} // namespace llumnix
