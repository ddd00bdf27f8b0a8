#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/base/result.hpp"

#include <chrono>
#include <functional>

namespace llumnix {

/// A question from outside the actors, and what to do with the answer (from an actor thread; it
/// posts).
struct admin_question {
  inspect_msg question;
  std::function<void(result<std::string>)> answer;
};

/// The same for something that is to be done. `patience`: how long the answer may take.
struct admin_order {
  order_msg order;
  std::chrono::milliseconds patience{0};
  std::function<void(result<ordered_msg>)> answer;
};

/// ADMIN DESK: takes the questions and orders of this process's admin listener to its CONSOLE.
/// Stays in its process.
using admin_desk_actor = caf::typed_actor<
  caf::reacts_to<admin_question>, caf::reacts_to<admin_order>, caf::reacts_to<peer_up_msg>,
  caf::reacts_to<peer_down_msg>, caf::replies_to<stat_msg>::with<actor_stats_msg>>;

struct admin_desk_state {
  admin_desk_state() = default;
  static inline const char* name = "admin_desk";
  using pointer = role_pointer<admin_desk_actor, admin_desk_state>;

  admin_desk_actor::behavior_type make_behavior(pointer actor, node_life own);
  void on_question(const admin_question& msg);
  void on_order(const admin_order& msg);

  pointer self = nullptr;
  node_life life;
  console_actor console;
};

admin_desk_actor::behavior_type make_admin_desk(admin_desk_state::pointer self, node_life life);

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::admin_question)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::admin_order)
