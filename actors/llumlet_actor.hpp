#pragma once

#include "actors/kv_region.hpp"
#include "actors/measured.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/recent_waiting.hpp"
#include "runtime/engine/engine.hpp"
#include "runtime/migration/ended_handovers.hpp"
#include "runtime/migration/move_admission.hpp"
#include "runtime/migration/move_history.hpp"
#include "runtime/migration/move_slots.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

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
  migration_config migration{};
  std::shared_ptr<kv_transport> transport{}; ///< null: KV is not copied, but computed anew
  std::uint64_t handover_seed = 0;           ///< of hand-over ids; drawn by chance in production
  std::shared_ptr<node_counters> counters{}; ///< null: its own
};

/// LLUMLET: speaks for one engine instance. Gates what comes in, passes it to its ENGINE (its
/// child: they live and die together), and tells every CMS how loaded the instance is.
///
/// Without an ENGINE of its own it tells the news it is sent, and nothing when none come, so that
/// an engine nobody checks any more grows stale; and it has the loops of its node move what they
/// relay.
struct llumlet_state {
  llumlet_state() = default;
  ~llumlet_state();
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
  caf::result<holds_answer_msg> on_holds(holds_msg& msg);
  void on_abort(abort_msg& msg);
  draining_msg on_drain(const drain_msg& msg);

  // llumlet_calls.cpp: what callers of the RPC service want.
  struct move_order;
  caf::result<moves_begun_msg> on_begin_moves(begin_moves_msg& msg);
  void begin_moves(std::uint64_t order, const begin_moves_msg& msg, listed_msg& listed);
  void on_due(std::uint64_t order);
  void give_up_order(std::uint64_t order, error why);

  // llumlet_departures.cpp and llumlet_moves.cpp: requests that leave and arrive.
  /// A request on its way out, or waiting for a slot.
  struct departure {
    std::uint64_t order = 0; ///< of `orders`
    stream_ref stream;
    stream_owner to;
    std::string policy;
    bool by_load = false;
    std::optional<std::uint32_t> moves{}; ///< by load, this one included; none: it never began
    move_path path = move_path::kv;
    std::string no_kv{};   ///< why it goes by another path; empty: it goes by `kv`
    time_point due{};      ///< it has left the queue by then, or nobody waits for it any more
    departure_actor actor; ///< null while it waits
    bool accepted = false; ///< the destination made room for it
    std::optional<std::uint32_t> told_moving{}; ///< its hub was, under this epoch
    /// It is prefilled here to decode there: that starts at once, and takes no slot.
    std::optional<decode_wanted_msg> decode{};
  };
  struct arrival {
    stream_ref stream;
    stream_owner source;
    arrival_actor actor;
    std::uint32_t moves = 0; ///< by load, so far
    bool to_decode = false;  ///< it takes no slot
  };
  /// A `migrate_msg` or `begin_moves_msg` some of whose requests have not moved yet.
  struct move_order {
    caf::typed_response_promise<moves_msg> promise; ///< of a `migrate_msg`
    std::vector<move_result> results;
    std::size_t open = 0;
    // Of a `begin_moves_msg`.
    caf::typed_response_promise<moves_begun_msg> begun{};
    moves_begun so_far{};
    bool by_call = false;
    bool listing = false; ///< nothing is chosen yet
    bool told = false;

    void note_accepted();
    void note_settled(const move_result& result, bool was_accepted);
    void tell_if_known();
    void tell();
  };
  /// Why no request of an order can leave; `ok` if they can.
  error why_stuck(const migrate_msg& order) const;
  std::set<stream_ref> leaving() const;
  caf::result<moves_msg> on_migrate(migrate_msg& msg);
  void tell_stale(const migrate_msg& msg, const std::string& why);
  request_lists movable(const migrate_msg& msg, const listed_msg& listed);
  void on_listed(std::uint64_t order, const migrate_msg& msg, const listed_msg& listed);
  void queue_departures(
    std::uint64_t order, const migrate_msg& msg, const std::vector<stream_ref>& streams);
  void note_accepted(departure& leaving);
  void tell_moving(departure& leaving, std::uint32_t epoch);
  void tell_stays(const departure& leaving);
  void start_departures();
  void start(departure next);
  void on_departed(departed_msg& msg);
  // llumlet_decodes.cpp: requests that are prefilled here and decode elsewhere.
  void hand_over(
    decode_wanted_msg wanted, const stream_owner& to, move_path path, std::string no_kv);
  void on_prefilled(const prefilled_msg& msg);
  void on_handed_over(departure leaving, departed_msg& msg);
  void ask_decode(decode_wanted_msg wanted);
  void on_decode_at(decode_wanted_msg wanted, const stream_owner& to);
  void decode_here(const decode_wanted_msg& wanted);
  // llumlet_relays.cpp: requests that loops relay to an engine behind HTTP.
  error why_not_replayed(const migrate_msg& order) const;
  void start_replay(departure next);
  void tell_relays() const;
  void count(const move_result& result);
  std::string why_none_copied() const;
  void tell_no_kv(const departed_msg& msg, const stream_owner& to);
  void settle(std::uint64_t order, move_result result, bool accepted = false);
  void on_offer(handover::offer& msg);
  arrival_facts facts_for(const handover::offer& offer) const;
  void on_arrived(const arrived_msg& msg);
  template <class Word>
  void to_departure(Word& word);
  template <class Word>
  void to_arrival(Word& word);
  /// For words that both sides say.
  template <class Word>
  void to_either(Word& word);
  template <class Word>
  void on_stray(const Word& word);
  void tell_lost(const node_life& life);
  arrival* arrival_of(const handover_id& id);
  void refuse(const departure& asked, std::string why);
  const node_card* peer(const node_life& life) const;
  llumlet_actor llumlet_of(const stream_owner& owner) const;
  stream_hub_actor hub_of(const stream_ref& stream) const;
  stream_owner own() const { return {config.life, config.metadata.instance_id}; }
  void slots_changed();
  std::uint32_t moving() const;
  std::uint32_t slots_taken_in() const;
  instance_status told_status() const;

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

  std::map<std::string, node_card> peers; ///< by node, our own included
  kv_geometry geometry;
  std::shared_ptr<kv_region> kv; ///< null: no KV leaves or comes
  std::mt19937_64 chance;
  bool draining = false;
  std::uint32_t slot_changes = 0; ///< beside what ENGINE counts as changes of the status
  std::map<handover_id, departure> departures;
  move_slots slots; ///< taken by `departures`
  move_history history;
  leader_fence fence;
  std::uint32_t counted_out = 0; ///< of `departures` and `arrivals`, by our process's gauges
  std::uint32_t counted_in = 0;
  /// Streams, and their epochs, of which GATEWAY is asked where they decode.
  std::set<std::pair<stream_ref, std::uint32_t>> decode_asked;
  std::deque<departure> queued; ///< at most `queued_max`
  static constexpr std::size_t queued_max = 16384;
  std::map<handover_id, arrival> arrivals; ///< those that take a slot
  std::map<handover_id, arrival> settled;  ///< that do no more, and still answer for their ids
  static constexpr std::chrono::seconds queue_patience{60};
  std::map<std::uint64_t, move_order> orders;
  std::uint64_t orders_made = 0;
  ended_handovers ended;
};

llumlet_actor::behavior_type make_llumlet(llumlet_state::pointer self, llumlet_actor_config config);

} // namespace llumnix
