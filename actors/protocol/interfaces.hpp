#pragma once

#include <caf/all.hpp>

/// Every typed actor of the system and what it hears: the table of contents. One message struct per
/// handler; the structs are in serving_messages, cluster_messages and console_messages.
namespace llumnix {

struct abort_msg;
struct actor_stats_msg;
struct arrival_event_msg;
struct arrival_order_msg;
struct arrived_msg;
struct begin_moves_msg;
struct claim_lease_msg;
struct decode_at_msg;
struct decode_here_msg;
struct decode_wanted_msg;
struct departed_msg;
struct departure_event_msg;
struct departure_order_msg;
struct dial_msg;
struct dialled_msg;
struct drain_msg;
struct drain_relays_msg;
struct draining_msg;
struct end_streams_msg;
struct engine_news_msg;
struct event_msg;
struct goodbye_msg;
struct grant_msg;
struct hello_msg;
struct holds_answer_msg;
struct holds_msg;
struct inspect_msg;
struct inspected_msg;
struct kv_changes_msg;
struct kv_heard_msg;
struct leader_msg;
struct lease_msg;
struct list_requests_msg;
struct listed_msg;
struct listening_msg;
struct migrate_msg;
struct move_relay_msg;
struct moved_msg;
struct moves_begun_msg;
struct moves_msg;
struct moving_msg;
struct name_taken_msg;
struct order_msg;
struct ordered_msg;
struct peer_down_msg;
struct peer_up_msg;
struct pinned_msg;
struct place_msg;
struct placed_msg;
struct placements_msg;
struct prefilled_msg;
struct prefixes_msg;
struct refused_msg;
struct remote_choice_msg;
struct relay_moved_msg;
struct release_lease_msg;
struct release_msg;
struct role_changes_msg;
struct running_msg;
struct stat_msg;
struct status_msg;
struct stop_node_msg;
struct store_metadata_msg;
struct store_statuses_msg;
struct stream_words_msg;
struct streams_msg;
struct submit_msg;
struct subscribe_view_msg;
struct tokens_msg;
struct unplaceable_msg;
struct view_change_msg;
struct watch_kv_msg;
struct watch_msg;

/// The words of a hand-over (spec/migration.md 12.2).
namespace handover {
struct abandon;
struct abandoned;
struct accept;
struct cancel;
struct cancelled;
struct claim;
struct claim_answer;
struct commit_failed;
struct committed;
struct copy_progress;
struct freeze_commit;
struct offer;
struct prepared;
struct reclaim;
struct reject;
struct release;
} // namespace handover

using tick_atom = caf::atom_constant<caf::atom("tick")>;
using step_atom = caf::atom_constant<caf::atom("step")>;
using start_atom = caf::atom_constant<caf::atom("start")>;
using flush_atom = caf::atom_constant<caf::atom("flush")>;
using dial_atom = caf::atom_constant<caf::atom("dial")>;
using metadata_atom = caf::atom_constant<caf::atom("metadata")>;
using lease_atom = caf::atom_constant<caf::atom("lease")>;
using statuses_atom = caf::atom_constant<caf::atom("statuses")>;

/// Hears which nodes come and go, its own included. NODE tells its local actors.
using peer_listener = caf::typed_actor<
  // A node is connected, or its card changed; handles in the card replace earlier ones.
  caf::reacts_to<peer_up_msg>,
  // A node life ended or cannot be reached any more.
  caf::reacts_to<peer_down_msg>>;

/// Hears every change of the view of instances. CMS tells its local actors.
using view_listener = caf::typed_actor<caf::reacts_to<view_change_msg>>;

/// Hears what the prefix caches of instances do, from their engines.
using kv_listener = caf::typed_actor<caf::reacts_to<kv_changes_msg>>;

/// STREAM HUB: speaks for all streams of one I/O loop; what it hears is done on the loop.
using stream_hub_actor = caf::typed_actor<
  // What one engine step produced for streams of this hub.
  caf::reacts_to<tokens_msg>,
  // An instance does not take a request it was sent.
  caf::reacts_to<refused_msg>,
  // GATEWAY sent a request to an instance, or found none. Where it knows the loop, it tells that.
  caf::reacts_to<placed_msg>, caf::reacts_to<unplaceable_msg>,
  // Whether an owner still holds a stream.
  caf::reacts_to<holds_answer_msg>,
  // Who may go on with a stream? Answered with `claim_answer`; `abandoned` for the last one.
  caf::reacts_to<handover::claim>, caf::reacts_to<handover::reclaim>,
  caf::reacts_to<handover::abandon>,
  // A stream's request is on its way to another instance, or stays after all.
  caf::reacts_to<moving_msg>,
  // Somebody wants requests ended.
  caf::reacts_to<end_streams_msg>,
  // A request at an engine behind HTTP is to go on at another; an engine gets nothing new.
  caf::replies_to<move_relay_msg>::with<relay_moved_msg>, caf::reacts_to<drain_relays_msg>,
  // A node life ended: its streams are replayed.
  caf::reacts_to<peer_down_msg>,
  // Our own card: who is GATEWAY now.
  caf::reacts_to<peer_up_msg>,
  // The loop's answers to questions of ours.
  caf::reacts_to<streams_msg>, caf::reacts_to<relay_moved_msg>,
  // What the streams are and where they stand.
  caf::replies_to<inspect_msg>::with<streams_msg>, caf::replies_to<stat_msg>::with<actor_stats_msg>,
  caf::reacts_to<tick_atom>>;

/// GATEWAY: admits requests, has them placed, and knows how to reach their owners.
using gateway_actor = caf::typed_actor<
  // What streams of this process ask for and tell, once per turn of their loop.
  caf::reacts_to<stream_words_msg>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  caf::reacts_to<view_change_msg>,
  // What an engine's prefix cache did, where placements look at prefixes; what an index said of
  // them.
  caf::reacts_to<kv_changes_msg>, caf::reacts_to<prefixes_msg>,
  // What a scheduler outside of the cluster chose.
  caf::reacts_to<remote_choice_msg>,
  // A request moved, or did not: for its record.
  caf::reacts_to<moved_msg>,
  // Where does a request decode that is prefilled at an instance?
  caf::replies_to<decode_wanted_msg>::with<decode_at_msg>,
  // Somebody follows events; flight records (`why`); the metric numbers of the role.
  caf::reacts_to<watch_msg>, caf::replies_to<inspect_msg>::with<inspected_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>, caf::reacts_to<tick_atom>>;

/// SCHEDULER: chooses an instance for each request, by one view.
using scheduler_actor = caf::typed_actor<
  // Which instances? One answer for each question, in order.
  caf::replies_to<place_msg>::with<placements_msg>,
  // Requests ended or were refused; a gateway tells what it had running before.
  caf::reacts_to<release_msg>, caf::reacts_to<running_msg>, caf::reacts_to<peer_up_msg>,
  caf::reacts_to<peer_down_msg>,
  // What a decision saw (`scene`).
  caf::reacts_to<view_change_msg>, caf::replies_to<inspect_msg>::with<inspected_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// RESCHEDULER: has running requests moved to where they run best, by one view. Of several one
/// leads.
using rescheduler_actor = caf::typed_actor<
  caf::reacts_to<view_change_msg>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  // Time to plan; to claim the lease.
  caf::replies_to<stat_msg>::with<actor_stats_msg>, caf::reacts_to<tick_atom>,
  caf::reacts_to<lease_atom>>;

/// CMS: this process's replica of what instances there are and how loaded they are.
using cms_actor = caf::typed_actor<
  // A llumlet's load changed.
  caf::reacts_to<status_msg>,
  // Tell the listener the whole view now and every change from now on; what was held back is due.
  caf::reacts_to<subscribe_view_msg>, caf::reacts_to<flush_atom>,
  // A reading of the store is due; what it found.
  caf::reacts_to<metadata_atom>, caf::reacts_to<statuses_atom>, caf::reacts_to<store_metadata_msg>,
  caf::reacts_to<store_statuses_msg>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  // Who leads RESCHEDULERs; one stops leading.
  caf::replies_to<claim_lease_msg>::with<lease_msg>, caf::reacts_to<release_lease_msg>,
  // The view, for inspection; who leads (`leaders`).
  caf::replies_to<inspect_msg>::with<inspected_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>, caf::reacts_to<tick_atom>>;

/// DEPARTURE: one hand-over at its source, next to the engine. LLUMLET passes it what D says.
using departure_actor = caf::typed_actor<
  caf::reacts_to<departure_event_msg>, caf::reacts_to<pinned_msg>,
  // STREAM HUB's answer to a RECLAIM; of a LLUMLET that knows nothing of it any more.
  caf::reacts_to<handover::claim_answer>, caf::reacts_to<handover::reject>,
  caf::reacts_to<handover::cancelled>,
  // Is the stream here, frozen or claimed back?
  caf::replies_to<holds_msg>::with<holds_answer_msg>,
  // It wants no more than it has asked for: time has passed.
  caf::reacts_to<tick_atom>>;

/// ARRIVAL: one hand-over at its destination. LLUMLET passes it what S says.
using arrival_actor = caf::typed_actor<
  caf::reacts_to<arrival_event_msg>,
  // STREAM HUB's answers to CLAIM and ABANDON.
  caf::reacts_to<handover::claim_answer>, caf::reacts_to<handover::abandoned>,
  // Of a LLUMLET that knows nothing of it any more.
  caf::reacts_to<handover::cancelled>, caf::replies_to<holds_msg>::with<holds_answer_msg>,
  caf::reacts_to<tick_atom>>;

/// LLUMLET: speaks for one engine instance.
using llumlet_actor = caf::typed_actor<
  // Run this request. Refused with a message to its hub. (Not for an engine behind HTTP.)
  caf::reacts_to<submit_msg>,
  // Forget it; go on with more credit; is it still here?
  caf::reacts_to<abort_msg>, caf::reacts_to<grant_msg>,
  caf::replies_to<holds_msg>::with<holds_answer_msg>,
  // Somebody wants to hear what the prefix cache does, and how far it has. (Not of an engine behind
  // HTTP.)
  caf::reacts_to<watch_kv_msg>, caf::reacts_to<kv_heard_msg>,
  // Let requests go to another instance; answered when each has moved or not.
  caf::replies_to<migrate_msg>::with<moves_msg>,
  // Who leads RESCHEDULERs now.
  caf::reacts_to<leader_msg>,
  // The same for callers of the RPC service, answered when it is known how each has begun, or time
  // is up for that order.
  caf::replies_to<begin_moves_msg>::with<moves_begun_msg>, caf::reacts_to<tick_atom, std::uint64_t>,
  // Take no new work, or take it again.
  caf::replies_to<drain_msg>::with<draining_msg>,
  // The words of hand-overs, as their source...
  caf::reacts_to<handover::accept>, caf::reacts_to<handover::reject>,
  caf::reacts_to<handover::prepared>, caf::reacts_to<handover::committed>,
  caf::reacts_to<handover::commit_failed>, caf::reacts_to<handover::release>,
  // ... as their destination, and as both.
  caf::reacts_to<handover::offer>, caf::reacts_to<handover::copy_progress>,
  caf::reacts_to<handover::freeze_commit>, caf::reacts_to<handover::cancel>,
  caf::reacts_to<handover::cancelled>,
  // ENGINE has prefilled a request that decodes elsewhere, and nobody hands it over yet.
  caf::reacts_to<prefilled_msg>,
  // Its DEPARTUREs and ARRIVALs end.
  caf::reacts_to<departed_msg>, caf::reacts_to<arrived_msg>,
  // What steps took (`profile`).
  caf::replies_to<inspect_msg>::with<inspected_msg>,
  // Its engine's load changed: ENGINE's word, or that of whoever checks an engine behind HTTP.
  caf::reacts_to<engine_news_msg>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  caf::replies_to<stat_msg>::with<actor_stats_msg>, caf::reacts_to<tick_atom>>;

/// ENGINE: steps one engine on its clock and sends each step's tokens to their hubs.
using engine_actor = caf::typed_actor<
  caf::reacts_to<submit_msg>, caf::reacts_to<abort_msg>, caf::reacts_to<grant_msg>,
  caf::replies_to<holds_msg>::with<holds_answer_msg>, caf::reacts_to<watch_kv_msg>,
  // What hand-overs want, done between two steps; what there is to choose from.
  caf::reacts_to<departure_order_msg>, caf::reacts_to<arrival_order_msg>,
  caf::replies_to<list_requests_msg>::with<listed_msg>, caf::reacts_to<kv_heard_msg>,
  // A request decodes here after all.
  caf::reacts_to<decode_here_msg>, caf::replies_to<inspect_msg>::with<inspected_msg>,
  // The running step ends; the news of the load are due.
  caf::reacts_to<step_atom, std::uint64_t>, caf::reacts_to<tick_atom>, caf::reacts_to<peer_up_msg>,
  caf::reacts_to<peer_down_msg>, caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// CONSOLE: answers what people ask about the cluster, as JSON, and does what they want done.
using console_actor = caf::typed_actor<
  // Something happened on this node; kept for a while.
  caf::reacts_to<event_msg>, caf::replies_to<inspect_msg>::with<inspected_msg>,
  // Move requests, drain an instance or take it back. From this process only.
  caf::replies_to<order_msg>::with<ordered_msg>, caf::reacts_to<peer_up_msg>,
  caf::reacts_to<peer_down_msg>, caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// DRAIN: empties one instance while somebody waits for that, and takes it back. CONSOLE starts it.
using drain_actor = caf::typed_actor<
  // Empty it, or join those who wait already; take it back.
  caf::replies_to<order_msg>::with<ordered_msg>,
  // Where requests may go; who speaks for the instance, and for streams.
  caf::reacts_to<view_change_msg>, caf::reacts_to<peer_up_msg>, caf::reacts_to<peer_down_msg>,
  // Time to look again.
  caf::reacts_to<tick_atom>, caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// NODE: supervises a process, keeps its links to other nodes, and tells local actors who is there.
using node_actor = caf::typed_actor<
  // Another node introduces itself; answered with our card. `stale` where another node has its
  // name, `draining` when we stop.
  caf::replies_to<hello_msg>::with<hello_msg>,
  // Another node stops; a newer node has our name.
  caf::reacts_to<goodbye_msg>, caf::reacts_to<name_taken_msg>,
  // The node links listen now: dialling may begin.
  caf::reacts_to<listening_msg>,
  // Roles that come and go while it runs; from this process only.
  caf::reacts_to<role_changes_msg>,
  // Start child number N again; dial whom we miss.
  caf::reacts_to<start_atom, std::uint64_t>, caf::reacts_to<dial_atom>,
  // Ends the children in reverse order, then the node.
  caf::replies_to<stop_node_msg>::with<caf::unit_t>,
  // The directory: this node's actors.
  caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// Any actor that tells how busy it is.
using stat_source = caf::typed_actor<caf::replies_to<stat_msg>::with<actor_stats_msg>>;

/// NODE CONNECTOR port: dials HOST:PORT and hands over the NODE published there, within its
/// deadline.
using connector_actor = caf::typed_actor<caf::replies_to<dial_msg>::with<dialled_msg>>;

} // namespace llumnix
