#pragma once

#include "actors/protocol/interfaces.hpp"
#include "actors/protocol/serving_inspect.hpp"
#include "runtime/engine/kv_changes.hpp"

namespace llumnix {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_run& x) {
  return f(caf::meta::type_name("kv_run"), x.blocks, x.stored, x.parent);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_changes& x) {
  packed_numbers<std::uint64_t> hashes{&x.hashes};
  packed_ids tokens{&x.tokens};
  return f(caf::meta::type_name("kv_changes"), x.cleared, x.block_tokens, x.runs, hashes, tokens);
}

/// Tell the listener what the instance's prefix cache holds, then what it does (GATEWAY to LLUMLET,
/// LLUMLET to ENGINE). Asking again begins anew. Ends with the listener.
struct watch_kv_msg {
  kv_listener listener;
  std::uint64_t watch = 0; ///< the listener's number for this question; comes
                           ///< back with all answers
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, watch_kv_msg& x) {
  return f(caf::meta::type_name("watch_kv_msg"), x.listener, x.watch);
}

/// What the prefix cache of an instance did in a step; at first, in parts, what it holds.
struct kv_changes_msg {
  instance_id instance;
  std::uint64_t watch = 0;
  std::uint64_t number = 0; ///< of this message, from 0 for each watch; one is
                            ///< missing: all is void
  kv_changes changes;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_changes_msg& x) {
  return f(caf::meta::type_name("kv_changes_msg"), x.instance, x.watch, x.number, x.changes);
}

/// How far a listener has heard an instance (GATEWAY to LLUMLET, LLUMLET to ENGINE), told every
/// `every` messages. One that is too far behind is told nothing until it has caught up.
struct kv_heard_msg {
  kv_listener listener;
  std::uint64_t watch = 0;
  std::uint64_t heard = 0; ///< messages of this watch
  static constexpr std::uint64_t every = 16;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_heard_msg& x) {
  return f(caf::meta::type_name("kv_heard_msg"), x.listener, x.watch, x.heard);
}

} // namespace llumnix
