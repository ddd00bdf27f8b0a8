#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "runtime/engine/engine.hpp"
#include "runtime/engine/moving.hpp"
#include "runtime/scheduling/latency_observer.hpp"

#include <map>
#include <memory>

namespace llumnix {

struct engine_actor_config {
  node_life life;
  instance_id instance;
  nanoseconds news_min_interval{2'000'000}; ///< at most one status to the llumlet in this time
};

/// ENGINE: steps one engine on its actor clock. Outputs of a step are told when the step ends, one
/// message per hub; what was aborted meanwhile is not told.
struct engine_state {
  engine_state() = default;
  static inline const char* name = "engine";
  using pointer = role_pointer<engine_actor, engine_state>;

  engine_actor::behavior_type make_behavior(
    pointer actor, engine_actor_config settings, std::shared_ptr<stepped_engine> value,
    llumlet_actor parent);

  void on_submit(submit_msg& msg);
  void on_abort(const abort_msg& msg);
  void on_grant(const grant_msg& msg);
  holds_answer_msg on_holds(const holds_msg& msg);
  void on_watch_kv(const watch_kv_msg& msg);
  void on_kv_heard(const kv_heard_msg& msg);
  inspected_msg on_inspect(const inspect_msg& msg) const;
  void on_down(const caf::down_msg& msg);
  void on_step(std::uint64_t generation);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  actor_stats_msg on_stat();

  // engine_moves.cpp: what hand-overs want, done between two steps.
  using order = std::variant<departure_order_msg, arrival_order_msg, decode_here_msg>;
  void on_order(order what);
  listed_msg on_list() const;
  void carry_out(departure_order_msg& msg);
  void carry_out(arrival_order_msg& msg);
  void carry_out(decode_here_msg& msg);
  void pin(departure_order_msg& msg, bool to_decode);
  void carry_out_orders();
  void on_prefills_begun();
  void on_prefills_ended();
  void end_prefill(const stream_ref& stream);
  void end_arrival(const stream_ref& stream);
  void tell_computed();

  void note_left(const stream_ref& stream);
  bool forget(const stream_ref& stream, std::uint32_t epoch);
  void begin_step();
  void deliver();
  void tell_news();
  void observe_step();
  void tell_kv_of_step();
  stream_hub_actor hub_of(const stream_ref& stream) const;

  /// Who hears of the prefix cache.
  struct kv_watcher {
    kv_listener listener;
    std::uint64_t watch = 0;
    std::uint64_t told = 0;   ///< messages
    std::uint64_t heard = 0;  ///< of those, as it says itself
    std::uint64_t synced = 0; ///< of those, when it had been told all that the cache held
    bool behind = false;      ///< is told nothing until it has caught up, and then all anew

    std::uint64_t unheard() const { return told - heard; }
  };
  void tell_kv(kv_watcher& watcher, const std::vector<kv_changes>& parts);
  void tell_all_kv(kv_watcher& watcher);
  /// Messages on steps, beyond those on all that the cache held, that a watcher may not have heard.
  static constexpr std::uint64_t kv_unheard_max = 64;

  pointer self = nullptr;
  engine_actor_config config;
  std::shared_ptr<stepped_engine> engine;
  llumlet_actor llumlet;
  std::map<node_life, std::vector<stream_hub_actor>> hubs;
  std::map<stream_ref, std::uint32_t> streams; ///< what runs here, with its epoch
  std::map<stream_ref, arrival_actor> came;    ///< of those, the ones that a hand-over brought
  std::vector<submit_msg> early;               ///< requests of gateways not known here yet
  static constexpr std::size_t early_max = 1024;
  std::vector<kv_watcher> kv_watchers;
  /// A request that is prefilled here to decode elsewhere, and what its DEPARTURE waits for.
  struct prefill {
    decode_wanted_msg wanted;
    departure_actor departure{};                ///< null: nobody hands it over yet
    handover_id id{};                           ///< of that hand-over
    std::optional<leaving_request> pinned{};    ///< to be told when it begins
    std::optional<std::uint32_t> look_beyond{}; ///< to be looked at when more is written
    bool freeze = false;                        ///< to be frozen when it is done
    bool done = false;                          ///< it stands
  };
  std::map<stream_ref, prefill> prefills;
  std::vector<order> orders; ///< for the end of the running step
  /// A room whose KV is computed ahead, and what its ARRIVAL was told of it.
  struct computed_room {
    arrival_actor arrival;
    std::uint32_t told = 0; ///< positions
  };
  std::map<handover_id, computed_room> being_computed;
  step_result running;
  bool stepping = false;
  std::uint64_t generation = 0;
  time_point last_news{};
  bool news_pending = false;
  std::size_t queue_told = 0;                     ///< requests waiting as of the last news
  static constexpr std::size_t news_ids_max = 64; ///< told within `news_min_interval`
  latency_observer observed;                      ///< what steps take
  /// The last step that computed prompts, for the next status (spec/llumlet.md 6.7).
  struct profiled_step {
    std::int32_t number = 0;
    double ms = 0;
    std::int32_t prefill_tokens = 0;
    bool told = true;
  };
  profiled_step profiled;
  std::uint64_t steps = 0;
  std::uint64_t tokens = 0;
};

engine_actor::behavior_type make_engine(
  engine_state::pointer self, engine_actor_config config, std::shared_ptr<stepped_engine> engine,
  llumlet_actor llumlet);

} // namespace llumnix
