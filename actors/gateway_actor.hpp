#pragma once

#include "actors/measured.hpp"
#include "actors/prefix_watch.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "actors/stream_hub_actor.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/scheduling/dispatcher.hpp"
#include "runtime/scheduling/prefix_probes.hpp"
#include "runtime/scheduling/relayed_latency.hpp"
#include "runtime/scheduling/remote_scheduler.hpp"
#include "runtime/serving/flight_recorder.hpp"

#include <map>
#include <memory>
#include <optional>

namespace llumnix {

struct gateway_actor_config {
  node_life life;
  gateway_config knobs;
  scheduler_config scheduling; ///< of the gateway's own view, for the time without SCHEDULER
  wall_clock wall;
  std::shared_ptr<node_counters> counters;
  latency_profile profile{}; ///< measured times, for policies that predict
  scene_writer write_scene{};
  std::uint64_t prefix_seed = 0; ///< of the prefix index; drawn by chance in production
  /// Whom to ask about prefixes; null: engines of our own tell of theirs. Outlives the actor.
  kv_index* index = nullptr;
  /// A scheduler outside of the cluster that places what engines behind HTTP get; null: none.
  /// Outlives the actor.
  remote_scheduler* remote = nullptr;
  milliseconds remote_busy_pause{1000}; ///< before it is asked again where nobody could be had
  milliseconds retry_every{20};        ///< between two attempts to place what waits for an instance
  milliseconds schedule_timeout{1000}; ///< for a SCHEDULER on another node
  milliseconds answer_patience{5000};  ///< beyond `wait_for_instance`, where somebody is asked
  /// The loops of this process by hub index: they are told of placements without a detour through
  /// their hubs. Where one is missing its hub is told.
  std::vector<std::shared_ptr<hub_loop>> loops{};
  std::shared_ptr<prefix_probes> prefixes = std::make_shared<prefix_probes>();
};

/// GATEWAY: admits the requests of this process's streams, has each placed (by SCHEDULER, else by
/// its own last view), sends it to its instance, and keeps the flight records. What a loop relays
/// to its engine itself it places only.
struct gateway_state {
  gateway_state() = default;
  static inline const char* name = "gateway";
  using pointer = role_pointer<gateway_actor, gateway_state>;

  gateway_actor::behavior_type make_behavior(pointer actor, gateway_actor_config settings);

  /// A request that has no instance yet.
  struct waiting_request {
    admission admit;
    time_point deadline;
    std::optional<prefix_hits> hits{}; ///< once looked up
    bool looking = false;              ///< an index is asked for them
    time_point looked_at{};            ///< when it was
    bool alone = false;                ///< what a remote scheduler chose is of no use for it
    time_point ask_remote_at{};        ///< not before
    std::optional<std::string> asked{}; ///< SCHEDULER of this node has the question; empty: a
                                        ///< remote one
    bool stuck = false;                ///< nobody could take it when last asked; the record says so
    placement_reasons refusal{};       ///< then: why
    std::string told{};                ///< the sentence of the refusal in the record
  };
  /// A SCHEDULER, and what it is still to be told of and asked.
  struct known_scheduler {
    node_life life;
    scheduler_actor actor;
    std::vector<std::string> released;
    std::vector<placement_question> questions; ///< none between two messages of ours

    /// Whether it is a new one, who has never heard of anything.
    bool is(const node_life& now_life, const scheduler_actor& now_actor) {
      bool fresh = actor != now_actor;
      if (fresh)
        released.clear();
      life = now_life;
      actor = now_actor;
      return fresh;
    }
  };
  /// A connected node that runs instances.
  struct instance_node {
    node_life life;
    std::map<instance_id, llumlet_actor> llumlets;
  };

  void on_words(stream_words_msg& msg);
  void hear(admission& word);
  void hear(const withdrawal& word);
  void hear(abort_msg& word);
  void hear(grant_msg& word);
  void hear(holds_msg& word);
  void hear(const stream_end& word);
  flight_times note_times(const stream_end& end);
  void on_peer_up(const peer_up_msg& msg);
  void on_peer_down(const peer_down_msg& msg);
  void on_view_change(const view_change_msg& msg);
  void on_kv_changes(const kv_changes_msg& msg);
  void on_moved(const moved_msg& msg);
  void on_prefixes(prefixes_msg& msg);
  void on_remote_choice(remote_choice_msg& msg);
  void on_watch();
  void on_tick();
  inspected_msg on_inspect(const inspect_msg& msg);
  actor_stats_msg on_stat();

  const prefix_hits& hits_of(waiting_request& request, const placement_query& query);
  template <class Match>
  prefix_hits timed_match(Match match);
  /// False while an index has the question.
  bool looked_up(waiting_request& request);
  void ask_engines();
  void try_place(waiting_request& request);
  bool wants_remote(const waiting_request& request) const;
  void ask_remote(waiting_request& request);
  const instance_view* instance_at(const std::string& address) const;
  void place_by_view(waiting_request& request);
  void on_choice(const stream_ref& stream, std::uint32_t epoch, placed_msg& choice);
  /// `reasons`: of the decision, where there was one.
  void on_no_choice(
    const stream_ref& stream, std::uint32_t epoch, errc why, placement_reasons reasons = {});
  bool is_hopeless(const std::optional<std::string>& asked) const;
  void note_refusal(waiting_request& request);
  void send_to(waiting_request request, placed_msg& choice);
  placement_query query_of(const waiting_request& request) const;
  void note_decode(
    const std::string& text_id, std::uint32_t epoch, const instance_id& chosen,
    placement_reasons reasons);
  caf::result<decode_at_msg> on_decode_wanted(const decode_wanted_msg& msg);
  decode_at_msg
  choose_decode_by_view(const decode_wanted_msg& wanted, const placement_question& question);
  decode_at_msg take_decode(const decode_wanted_msg& wanted, placed_msg& choice);
  void ask_schedulers();
  void ask(
    const std::string& node, known_scheduler& scheduler,
    std::vector<placement_question> questions);
  void stop_waiting_for(const std::string& node);
  std::pair<const std::string, known_scheduler>& nearest_scheduler();
  caf::duration time_to_answer(const std::string& node) const;
  void tell_placed(const stream_ref& stream, std::uint32_t epoch, const stream_owner& owner);
  void give_up(const stream_ref& stream, std::uint32_t epoch, const error& why);
  void give_up_waiting(waiting_request request, std::string why);
  waiting_request take_out(std::map<stream_ref, waiting_request>::iterator at);
  waiting_request* waiting_for(const stream_ref& stream, std::uint32_t epoch);
  bool can_reach(const stream_owner& owner, const admission& request) const;
  infer_type role_of(const instance_id& instance) const;
  llumlet_actor llumlet_of(const stream_owner& owner) const;
  void tell_loops();
  const stream_hub_actor* hub_of(const stream_ref& stream) const;
  /// What was gathered while a message was handled goes out.
  void flush();
  void release(const std::string& text_id);
  void flush_releases();
  void count_here(const waiting_request& request, const placed_msg& choice);
  void tell_running(const scheduler_actor& scheduler);
  void subscribe();
  /// Beside a remote scheduler the account of what was sent is here alone.
  bool asks_scheduler() const {
    return !schedulers.empty() && config.knobs.forward_scheduler && !config.remote;
  }
  /// Whether it is a loss that there is no SCHEDULER to ask.
  bool wants_scheduler() const {
    return config.remote
           || (config.knobs.forward_scheduler && (config.scheduling.full_mode || had_scheduler));
  }
  void tell(std::string kind, std::vector<std::pair<std::string, std::string>> facts);
  bool watched() const;
  void count();
  unix_ms now_ms() const { return config.wall.at(self->clock().now()); }

  pointer self = nullptr;
  gateway_actor_config config;
  serving_mode mode = serving_mode::neutral;
  bool cache_aware = false; ///< the policy
  std::unique_ptr<dispatcher> own_view;
  decision_archive archive; ///< of decisions by `own_view`
  std::unique_ptr<flight_recorder> records;
  relayed_latency relayed;                           ///< of requests that loops relay
  std::unique_ptr<prefix_watch> prefixes;            ///< null: placements do not look at prefixes
  std::map<std::string, instance_node> nodes;        ///< by name
  std::map<std::string, known_scheduler> schedulers; ///< by node name
  std::vector<stream_hub_actor> hubs;
  std::vector<std::vector<placement_news>> news; ///< by hub; none between two messages of ours
  cms_actor cms;                                 ///< our own node's
  std::optional<bool> paced;  ///< how it tells us the view; nothing: it was not asked yet
  console_actor console;      ///< our own node's
  time_point watched_until{}; ///< CONSOLE wants to hear of events
  std::map<stream_ref, waiting_request> waiting;
  std::size_t stuck = 0; ///< of `waiting`: those nobody could take; what is only being decided is
                         ///< not bounded by the queue
  bool had_scheduler = false;
  std::uint64_t streams_open = 0;
  bool view_changed = false;
};

/// Output that the client of `word`'s stream has already, of earlier placements.
std::size_t delivered_tokens(const admission& word);

gateway_actor::behavior_type make_gateway(gateway_state::pointer self, gateway_actor_config config);

} // namespace llumnix
