#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/migration/call_record.hpp"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace llumnix {

/// A call of this node's RPC service, and what to do with the answer (from an actor thread).
struct llumlet_call {
  incoming_call call;
  std::function<void(call_reply)> answer;
};

/// LLUMLET DESK: takes the calls of this process's RPC service to the LLUMLETs they are for
/// (spec/llumlet.md 8). Stays in its process.
using llumlet_desk_actor = caf::typed_actor<
  caf::reacts_to<llumlet_call>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>>;

struct llumlet_desk_state {
  llumlet_desk_state() = default;
  static inline const char* name = "llumlet_desk";
  using pointer = role_pointer<llumlet_desk_actor, llumlet_desk_state>;

  llumlet_desk_actor::behavior_type make_behavior(pointer actor, node_life own);

  /// The instances of this node; null before it is known.
  const node_card* own_card() const;
  void on_migrate(const migrate_call& call, const llumlet_call& msg);
  void begin(const migrate_call& call, const llumlet_call& msg);
  void on_abort(const abort_call& call, const llumlet_call& msg);
  void tell(const llumlet_call& msg, const call_reply& reply, bool begun = true);

  pointer self = nullptr;
  node_life life;
  std::map<std::string, node_card> nodes; ///< by name
  call_record record;
  std::map<std::string, std::vector<llumlet_call>> joined; ///< by the key of what they wait for
};

llumlet_desk_actor::behavior_type
make_llumlet_desk(llumlet_desk_state::pointer self, node_life life);

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::llumlet_call)
