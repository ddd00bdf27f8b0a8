#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "runtime/migration/destination_machine.hpp"
#include "runtime/migration/migrate_call.hpp"
#include "runtime/migration/request_selection.hpp"
#include "runtime/migration/source_machine.hpp"
#include "runtime/serving/relay_desk.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// Live migration between actors: orders and their outcome, the words of a hand-over
/// (`runtime/migration/handover.hpp`) as they travel, and what its two actors tell ENGINE.
namespace llumnix {

/// What became of one request that was to move.
struct move_result {
  std::string request; ///< its text id
  stream_ref stream;
  stream_owner from;
  stream_owner to;
  std::string outcome; ///< moved, finished (meanwhile), refused (nothing was tried), failed
  std::string reason;  ///< unless moved; of a move by `recompute`: why no KV was copied
  std::string policy;  ///< who wanted it: "by hand", "drain", "decode" (its prefill was here), or
                       ///< the rescheduler's policy
  std::string path;    ///< kv, recompute, replay (between engines behind HTTP)
  std::uint32_t rounds = 0;
  std::uint64_t bytes = 0;       ///< KV that crossed the transport
  nanoseconds downtime{0};       ///< from the source's last step until it could be stepped there
  std::uint32_t tail_tokens = 0; ///< positions left when it froze
  std::uint32_t epoch = 0;       ///< of the stream, when it ended
  bool lasting = false; ///< refused, and nobody else could take it either: it ends where it is
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, move_result& x) {
  return f(
    caf::meta::type_name("move_result"), x.request, x.stream, x.from, x.to, x.outcome, x.reason,
    x.policy, x.path, x.rounds, x.bytes, x.downtime, x.tail_tokens, x.epoch, x.lasting);
}

/// "from engine-0 by kv: 3 rounds, 1296 KiB, 0.41 ms down", why by no better path, or why not.
std::string describe(const move_result& result);

/// Move requests to another instance (to the LLUMLET that has them). Answered with `moves_msg` once
/// each has moved or not.
struct migrate_msg {
  stream_owner to;
  std::vector<stream_ref> requests; ///< these; empty: as `selection` says
  request_selection selection;
  std::string policy;   ///< who wants it, for people
  leader_term term;     ///< of the RESCHEDULER that wants it; number 0: an operator or a drain does
  bool by_load = false; ///< requests moved lately, or often, stay

  /// Refused where somebody drains the instance, and once a later leader is known of.
  bool rescheduled() const { return static_cast<bool>(term); }
};

/// One for each request chosen; none: nothing fitted the selection.
struct moves_msg {
  std::vector<move_result> moves;
  leader_term overtaken_by{}; ///< the order was stale: of the later leader; else number 0
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, moves_msg& x) {
  return f(caf::meta::type_name("moves_msg"), x.moves, x.overtaken_by);
}

/// A request has moved, or has not (source LLUMLET to GATEWAY, for the flight record).
struct moved_msg {
  move_result result;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, moved_msg& x) {
  return f(caf::meta::type_name("moved_msg"), x.result);
}

/// A hand-over of the stream's request is under way, or came to nothing (source LLUMLET to the
/// stream's hub, for people). Of one that succeeds the hub knows by the CLAIM.
struct moving_msg {
  stream_ref stream;
  std::uint32_t epoch = 0; ///< of the stream when it was offered
  bool on = true;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, moving_msg& x) {
  return f(caf::meta::type_name("moving_msg"), x.stream, x.epoch, x.on);
}

/// Take no new work from now on, or take it again (to LLUMLET). What runs goes on until it is moved
/// or ends. Asked again it changes nothing and tells how far it is.
struct drain_msg {
  bool on = true;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, drain_msg& x) {
  return f(caf::meta::type_name("drain_msg"), x.on);
}

/// What is still at the instance.
struct draining_msg {
  std::uint32_t requests = 0;  ///< running and waiting
  std::uint32_t departing = 0; ///< hand-overs under way, outwards
  std::uint32_t arriving = 0;  ///< and inwards
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, draining_msg& x) {
  return f(caf::meta::type_name("draining_msg"), x.requests, x.departing, x.arriving);
}

// --- within a process ----------------------------------------------------------------------------

/// Something DEPARTURE hears: a word of D's, an answer of ENGINE's, news of the world.
struct departure_event_msg {
  source_event event;
};

/// Something ARRIVAL hears.
struct arrival_event_msg {
  destination_event event;
};

/// What DEPARTURE wants of ENGINE, to be done between two steps. `pin` is answered with
/// `pinned_msg`, `look` and `freeze` with `departure_event_msg`.
struct departure_order_msg {
  /// Under whatever epoch it runs. One that is prefilled here and decodes elsewhere is pinned
  /// `to_decode` only, and that is answered when its prefill begins.
  struct pin {
    bool to_decode = false;
  };
  using order = std::variant<
    pin, source_side::look, source_side::freeze, source_side::thaw, source_side::drop,
    source_side::unpin>;
  departure_actor from;
  handover::head of; ///< its epoch means nothing here
  order what;
};

/// What `pin` found.
struct pinned_msg {
  result<leaving_request> request;
};

/// What ARRIVAL wants of ENGINE, to be done between two steps. `reserve` is answered with
/// `destination_side::offered`, `verify` and `adopt` with theirs; `compute_ahead` with
/// `destination_side::computed` whenever it grew.
struct arrival_order_msg {
  struct reserve {
    handover::offer offer;
    std::uint32_t headroom = 0;
  };
  using order = std::variant<
    reserve, destination_side::verify, destination_side::compute_ahead, destination_side::adopt,
    destination_side::end_request, destination_side::give_up>;
  arrival_actor from;
  handover::head of;
  order what;
};

/// DEPARTURE has ended (to its LLUMLET).
struct departed_msg {
  handover_id id;
  move_result result;
  error why; ///< as `result.reason` says it; `ok` when moved
};

/// ARRIVAL no longer counts (`slot_free`), or has ended (to its LLUMLET).
struct arrived_msg {
  handover::head of;
  destination_outcome outcome = destination_outcome::cancelled;
  bool done = false; ///< it has ended; nothing more comes
};

/// Begin to move requests (LLUMLET DESK to LLUMLET). Answered when the destination has taken or
/// refused each of them, or at `due` with what is known by then; they go on all the same. Nothing
/// is begun once `due` is over or the caller is gone.
struct begin_moves_msg {
  migrate_msg order; ///< with a selection
  time_point due{};
  std::shared_ptr<const std::atomic<bool>> withdrawn{}; ///< null: the caller stays
  bool planned = false; ///< a scheduler's wish: refused where somebody drains the instance
};

/// How that went. `queue_full`: fewer may leave at a time than the selection wants slots for; what
/// is chosen and the slots it takes are one decision.
struct moves_begun_msg {
  result<moves_begun> outcome;
};

/// A request that a loop relays to an engine behind HTTP is to go on at another one (LLUMLET to the
/// hub it belongs to).
struct move_relay_msg {
  stream_ref stream;
  instance_id from;
  instance_id to;
  std::string policy;
};
struct relay_moved_msg {
  std::uint64_t ticket = 0; ///< the hub's, of its question to the loop
  relay_moved what;
};

/// An engine behind HTTP gets nothing new from now on, or gets it again (its LLUMLET to the hubs of
/// its own node).
struct drain_relays_msg {
  instance_id engine;
  bool on = true;
};

/// What ENGINE runs and what waits, for a selection (LLUMLET to ENGINE).
struct list_requests_msg {};
struct listed_msg {
  request_lists lists; ///< their ids are places in `streams`, as numbers
  std::vector<stream_ref> streams;
  std::int64_t kv_capacity_tokens = 0;
};

/// What operators want done (ADMIN DESK to CONSOLE; `drain` and `undrain` go on to a DRAIN).
/// Answered with `ordered_msg`.
struct order_msg {
  /// One request goes to another instance, with all its choices.
  struct move_request {
    std::string request; ///< its text id, or that of one choice
    instance_id to;
  };
  /// Requests of an instance go to another.
  struct move_some {
    instance_id from;
    instance_id to;
    request_selection selection;
  };
  /// Take no new work; what there is moves, or ends by itself. Answered once nothing is left or
  /// after `timeout`.
  struct drain {
    instance_id instance;
    std::chrono::milliseconds timeout{0};
  };
  struct undrain {
    instance_id instance;
  };
  std::variant<move_request, move_some, drain, undrain> order;
};

/// What came of it, as operators are told over HTTP (spec/surface.md 3).
struct ordered_msg {
  int status = 200;
  std::string json;
};

// --- how the words of a hand-over travel ---------------------------------------------------------

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, handover_id& x) {
  return f(caf::meta::type_name("handover_id"), x.high, x.low);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_geometry& x) {
  return f(
    caf::meta::type_name("kv_geometry"), x.model, x.layout, x.block_tokens, x.bytes_per_token,
    x.max_model_len);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, request_selection& x) {
  return f(caf::meta::type_name("request_selection"), x.rule, x.order, x.value, x.balance);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, migrate_msg& x) {
  return f(
    caf::meta::type_name("migrate_msg"), x.to, x.requests, x.selection, x.policy, x.term,
    x.by_load);
}

namespace handover {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, head& x) {
  return f(caf::meta::type_name("head"), x.id, x.stream, x.epoch);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, offer& x) {
  return f(
    caf::meta::type_name("offer"), x.of, x.source, x.destination, x.request, x.path, x.geometry,
    x.kv_address, x.lease, x.moves, x.to_decode);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, accept& x) {
  return f(
    caf::meta::type_name("accept"), x.of, x.destination, x.present_tokens, x.reserved_tokens);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, reject& x) {
  return f(caf::meta::type_name("reject"), x.of, x.why);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, copy_progress& x) {
  packed_numbers<block_index> blocks{&x.blocks};
  packed_ids ids{&x.ids};
  return f(
    caf::meta::type_name("copy_progress"), x.of, x.round, x.watermark, blocks, ids, x.first_output);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, prepared& x) {
  return f(caf::meta::type_name("prepared"), x.of, x.round, x.watermark, x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, freeze_commit& x) {
  packed_ids output{&x.output};
  return f(
    caf::meta::type_name("freeze_commit"), x.of, x.watermark, x.sent, output, x.digest, x.credit);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, committed& x) {
  return f(caf::meta::type_name("committed"), x.of);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, commit_failed& x) {
  return f(caf::meta::type_name("commit_failed"), x.of, x.why, x.detail);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, claim& x) {
  return f(caf::meta::type_name("claim"), x.of, x.claimant, x.start);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, reclaim& x) {
  return f(caf::meta::type_name("reclaim"), x.of, x.claimant, x.start);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, claim_answer& x) {
  return f(caf::meta::type_name("claim_answer"), x.of, x.reclaimed, x.verdict, x.credit, x.owner);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, cancel& x) {
  return f(caf::meta::type_name("cancel"), x.of, x.why);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, cancelled& x) {
  return f(caf::meta::type_name("cancelled"), x.of);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, release& x) {
  return f(caf::meta::type_name("release"), x.of);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, abandon& x) {
  return f(caf::meta::type_name("abandon"), x.of, x.claimant);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, abandoned& x) {
  return f(caf::meta::type_name("abandoned"), x.of);
}

} // namespace handover
} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::departure_event_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::arrival_event_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::departure_order_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::pinned_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::arrival_order_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::departed_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::arrived_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::begin_moves_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::moves_begun_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::move_relay_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::relay_moved_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::drain_relays_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::list_requests_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::listed_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::order_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::ordered_msg)
