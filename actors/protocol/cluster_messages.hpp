#pragma once

#include "actors/protocol/interfaces.hpp"
#include "actors/protocol/serving_inspect.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/leader_lease.hpp"

namespace llumnix {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, instance_metadata& x) {
  return f(
    caf::meta::type_name("instance_metadata"), x.instance_id, x.instance_type, x.backend_type, x.ip,
    x.ip_kvs, x.api_server_port, x.llumlet_port, x.kvt_port, x.node_id, x.data_parallel_size,
    x.tensor_parallel_size, x.unit_id, x.dp_rank, x.ep_rank, x.dp_local_rank, x.utc_create,
    x.utc_update, x.ip_kvt, x.block_size, x.max_num_batched_tokens);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, instance_status& x) {
  return f(
    caf::meta::type_name("instance_status"), x.instance_id, x.schedulable, x.timestamp_ms,
    x.step_id, x.update_id, x.recent_waiting_requests, x.waiting_requests,
    x.hybrid_scheduler_waiting_to_decode_requests_num, x.scheduler_waiting_to_decode_requests_num,
    x.num_waiting_requests, x.scheduler_running_to_decode_requests_num, x.num_running_requests,
    x.num_loading_requests, x.num_total_gpu_tokens, x.num_used_gpu_tokens,
    x.num_uncomputed_tokens_hybrid_scheduler_waiting_prefills,
    x.num_unallocated_tokens_hybrid_scheduler_waiting_decodes,
    x.hybrid_scheduler_waiting_to_decode_tokens_num,
    x.num_uncomputed_tokens_scheduler_waiting_prefills, x.scheduler_waiting_to_decode_tokens_num,
    x.num_uncomputed_tokens_scheduler_running_prefills,
    x.num_unallocated_tokens_scheduler_running_prefills, x.scheduler_running_to_decode_tokens_num,
    x.num_tokens_loading_requests, x.num_uncomputed_tokens_all_waiting_prefills,
    x.num_migrate_in_reqs, x.num_migrate_out_reqs, x.num_available_migrate_in_slots,
    x.num_available_migrate_out_slots, x.num_migrate_in_tokens, x.num_migrate_out_tokens,
    x.num_available_migrate_in_tokens, x.num_available_migrate_out_tokens,
    x.kv_cache_usage_ratio_migrate_in, x.kv_cache_usage_ratio_migrate_out,
    x.available_kv_cache_usage_ratio_migrate_in, x.available_kv_cache_usage_ratio_migrate_out,
    x.profiling_id, x.step_duration, x.num_scheduled_prefill_tokens, x.adapters);
}

/// An instance of a node, and who speaks for it.
struct instance_card {
  instance_metadata metadata;
  std::string engine; ///< what runs it, for people
  llumlet_actor llumlet;
  bool shared = false; ///< an engine behind HTTP: other nodes may speak for it, too
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, instance_card& x) {
  return f(caf::meta::type_name("instance_card"), x.metadata, x.engine, x.llumlet, x.shared);
}

/// A node another node knows of.
struct node_member {
  node_life life;
  std::string address; ///< HOST:PORT of its node links
  std::vector<std::string> roles;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, node_member& x) {
  return f(caf::meta::type_name("node_member"), x.life, x.address, x.roles);
}

/// What a node is and whom to talk to there. A role the node does not have is an empty list.
/// Handles travel only over a direct connection to the node they live on: one passed on by a third
/// node would give no DOWN.
struct node_card {
  node_member self;
  std::int64_t pid = 0;
  std::vector<instance_card> instances;
  std::vector<instance_id> starting;  ///< that it has too, while their llumlets are started again
  std::vector<stream_hub_actor> hubs; ///< by hub index
  std::vector<gateway_actor> gateway;
  std::vector<scheduler_actor> scheduler;
  std::vector<cms_actor> cms;
  std::vector<console_actor> console;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, node_card& x) {
  return f(
    caf::meta::type_name("node_card"), x.self, x.pid, x.instances, x.starting, x.hubs, x.gateway,
    x.scheduler, x.cms, x.console);
}

/// A node introduces itself, or tells that its card changed; and whom else it knows.
struct hello_msg {
  node_card card;
  node_actor node;
  std::vector<node_member> members;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, hello_msg& x) {
  return f(caf::meta::type_name("hello_msg"), x.card, x.node, x.members);
}

/// A node stops in order. It counts as lost at once, and nobody need be alarmed.
struct goodbye_msg {
  node_life from;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, goodbye_msg& x) {
  return f(caf::meta::type_name("goodbye_msg"), x.from);
}

/// Told to a node whose name a newer one has taken: it counts no more where this comes from.
struct name_taken_msg {
  node_life from;
  node_member by;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, name_taken_msg& x) {
  return f(caf::meta::type_name("name_taken_msg"), x.from, x.by);
}

struct peer_up_msg {
  node_card card;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, peer_up_msg& x) {
  return f(caf::meta::type_name("peer_up_msg"), x.card);
}

struct peer_down_msg {
  node_life life;
  bool stopped = false; ///< in order: this life does not come back
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, peer_down_msg& x) {
  return f(caf::meta::type_name("peer_down_msg"), x.life, x.stopped);
}

struct dial_msg {
  std::string address; ///< HOST:PORT
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, dial_msg& x) {
  return f(caf::meta::type_name("dial_msg"), x.address);
}

struct dialled_msg {
  node_actor node;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, dialled_msg& x) {
  return f(caf::meta::type_name("dialled_msg"), x.node);
}

/// A llumlet's word on its instance.
struct status_msg {
  node_life from;
  instance_status status;
  std::string engine{};  ///< what runs it, for people; empty: what its card says
  bool draining = false; ///< it is not schedulable because somebody drains it
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, status_msg& x) {
  return f(caf::meta::type_name("status_msg"), x.from, x.status, x.engine, x.draining);
}

/// ENGINE tells its LLUMLET that its load changed (one a step at most); whoever checks an engine
/// behind HTTP tells what each check found. `schedulable` and `update_id`, which grows with every
/// change of the body, are the sender's; identity and time are the llumlet's.
struct engine_news_msg {
  instance_status status;
  std::string engine{}; ///< what it turned out to be, for people; empty: not known better
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, engine_news_msg& x) {
  return f(caf::meta::type_name("engine_news_msg"), x.status, x.engine);
}

/// An instance as a view holds it, towards those who keep a view of their own.
struct view_entry {
  instance_metadata metadata;
  node_life life;
  std::string engine;
  instance_state state = instance_state::ready;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, view_entry& x) {
  return f(caf::meta::type_name("view_entry"), x.metadata, x.life, x.engine, x.state);
}

/// Whether the store of a CMS can be read: while it cannot, what is known of foreign instances
/// ages.
enum class store_news : std::uint8_t {
  none,        ///< nothing new; at the start: there is no store to be read
  unreachable, ///< or not read yet
  reachable,
};

/// What changed in the view, to be applied in this order.
struct view_change_msg {
  std::vector<view_entry> put;
  std::vector<instance_status> statuses;
  std::vector<node_life> lost;
  std::vector<instance_id> removed;
  store_news store = store_news::none;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, view_change_msg& x) {
  return f(caf::meta::type_name("view_change_msg"), x.put, x.statuses, x.lost, x.removed, x.store);
}

/// Tell the listener the view: all of it now, then what changes. A `paced` one hears of new loads
/// some milliseconds later, of many at once; of instances that come and go at once. Asking again
/// changes the pace.
struct subscribe_view_msg {
  view_listener listener;
  bool paced = false;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, subscribe_view_msg& x) {
  return f(caf::meta::type_name("subscribe_view_msg"), x.listener, x.paced);
}

/// The node links listen on this address, HOST:PORT as other nodes are told it.
struct listening_msg {
  std::string address;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, listening_msg& x) {
  return f(caf::meta::type_name("listening_msg"), x.address);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, leader_term& x) {
  return f(caf::meta::type_name("leader_term"), x.number, x.leader);
}

/// RESCHEDULER would lead, or lead on (to the CMS that keeps the lease: of the first node, by name,
/// that has one). Answered with `lease_msg`.
struct claim_lease_msg {
  lease_claim claim;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, claim_lease_msg& x) {
  return f(
    caf::meta::type_name("claim_lease_msg"), x.claim.by, x.claim.holds, x.claim.seen,
    x.claim.length);
}
struct lease_msg {
  lease_answer answer;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease_msg& x) {
  return f(caf::meta::type_name("lease_msg"), x.answer.leader, x.answer.wait);
}

/// It stops in order: another may lead at once.
struct release_lease_msg {
  leader_term term;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, release_lease_msg& x) {
  return f(caf::meta::type_name("release_lease_msg"), x.term);
}

/// RESCHEDULER leads: orders of earlier terms are stale from now on (to every LLUMLET).
struct leader_msg {
  leader_term term;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, leader_msg& x) {
  return f(caf::meta::type_name("leader_msg"), x.term);
}

struct stop_node_msg {};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stop_node_msg&) {
  return f(caf::meta::type_name("stop_node_msg"));
}

} // namespace llumnix
