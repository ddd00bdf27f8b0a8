#pragma once

#include "runtime/migration/destination_machine.hpp"
#include "runtime/migration/ended_handovers.hpp"
#include "runtime/migration/source_machine.hpp"
#include "runtime/serving/stream_claims.hpp"

#include <array>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace llumnix::model {

inline constexpr std::uint32_t prompt_tokens = 2;
inline constexpr token_id first_id = 100; ///< of the output; each further one is one more
std::vector<token_id> output_ids(std::uint32_t count);

/// Rules broken on purpose, to see that the search notices.
enum class broken_rule : std::uint8_t {
  none,
  destination_frees_before_quiesce,
  source_unpins_with_open_window,
  owner_grants_the_dead,
  owner_grants_twice,
  owner_takes_old_tokens,
  source_resumes_by_itself,
  source_never_thaws,
  destination_emits_unclaimed,
  destination_keeps_room,
};

/// How often each thing may go wrong in one run.
struct budgets {
  int drops = 0;
  int duplicates = 0;
  int ticks = 0; ///< limits that pass at a time of their own choosing
  int crashes = 0;
  int client_leaves = 0;
  int refusals = 0; ///< no room at the destination; the engine takes no adopted request
  int pull_failures = 0;
  int preemptions = 0;
  int holds_asked = 0;
  int false_deaths = 0; ///< the owner is taken for dead
  int handovers = 1;
  friend bool operator==(const budgets&, const budgets&) = default;
};

struct scene {
  budgets may;
  move_path path = move_path::kv;
  bool copy_tail = false;
  bool waiting = false;   ///< it has no KV at first, nor a token
  bool to_decode = false; ///< node 0 only prefills it, one position a step; it decodes at node 1
  std::uint32_t tokens = 4;
  broken_rule broken = broken_rule::none;
};

// --- what travels
// ---------------------------------------------------------------------------------

struct tokens_told {
  stream_owner sender;
  token_delta batch;
};
struct abort_epoch {
  std::uint32_t epoch = 0;
};
struct ask_holds {
  std::uint32_t epoch = 0;
};
struct holds_answer {
  stream_owner from;
  std::uint32_t epoch = 0;
  bool holds = false;
};
struct place {
  std::uint32_t epoch = 0;
  std::uint32_t output = 0;
};
/// That incarnation of a node is gone.
struct lost {
  stream_owner who;
};

using payload = std::variant<
  handover::offer, handover::accept, handover::reject, handover::copy_progress, handover::prepared,
  handover::freeze_commit, handover::committed, handover::commit_failed, handover::claim,
  handover::reclaim, handover::claim_answer, handover::cancel, handover::cancelled,
  handover::release, handover::abandon, handover::abandoned, tokens_told, abort_epoch, ask_holds,
  holds_answer, place, lost>;

inline constexpr int owner_node = 2;

struct letter {
  int to = 0;
  std::uint64_t incarnation = 0; ///< of the addressee
  std::uint64_t sender = 0;      ///< incarnation of the sender, if that is a node
  bool sure = false;             ///< never dropped nor doubled: news, placements
  std::shared_ptr<const payload> what;
  std::uint64_t hash = 0;
};

// --- the three parties
// ----------------------------------------------------------------------------

/// The one request, in an engine.
struct engine_request_state {
  bool here = false;
  bool frozen = false;
  std::uint32_t epoch = 0;
  std::uint32_t made = 0;
  std::uint32_t told = 0;
  std::uint32_t written = 0;
  std::uint32_t preemptions = 0;
  bool prefilling = false; ///< to decode elsewhere
  bool stands = false;     ///< prefilled, with a hand-over
};

/// One side of one hand-over at one node.
struct side {
  handover_id id;
  std::optional<source_machine> source;
  std::optional<destination_machine> destination;
  time_point clock{}; ///< its own: limits of different sides pass in any order
  bool pinned = false;
  bool window_open = false;
  bool window_closing = false;
  bool freeze_wanted = false;
  std::optional<std::uint32_t> look_beyond; ///< a look that waits for more to be written
  bool room = false;
  bool pulling = false;
  bool pull_cancelled = false;
  bool pull_cut = false; ///< the window was closed under it: it can only fail
  std::uint32_t pull_to = 0;
  std::uint32_t computing_to = 0;
  int ends = 0; ///< `ended` effects
};

struct node {
  std::uint64_t incarnation = 1;
  engine_request_state engine;
  std::uint32_t finished_epoch = 0; ///< + 1, under which its engine made the last token
  std::vector<side> sides;
  ended_handovers ended;
};

/// The stream and its owner A.
struct owner_state {
  std::uint32_t epoch = 0;
  std::optional<stream_owner> owner;
  std::uint32_t delivered = 0;
  std::uint32_t last_epoch = 0; ///< of the token delivered last
  bool ended = false;
  bool client_gone = false;
  std::optional<stream_claims> claims;
  std::vector<stream_owner> lost; ///< as it has heard
  time_point clock{};
  int replays = 0;
  std::vector<bool> raised; ///< by epoch: A raised it, nobody claimed it
  std::map<std::uint32_t, stream_owner> speakers;
};

/// Causes for which a replay is allowed (12.2), beside the owner's death.
struct excuses {
  bool gave_up_claiming = false;
  bool gave_up_deciding = false;
  bool taken_for_dead = false;
  bool last_batch_lost = false;
  bool gap_lasted = false; ///< tokens that their engine told never came
  bool any() const {
    return gave_up_claiming || gave_up_deciding || taken_for_dead || last_batch_lost || gap_lasted;
  }
};

/// A choice the world has.
struct action {
  enum class kind : std::uint8_t {
    deliver,
    deliver_refused,
    drop,
    duplicate,
    step,
    freeze,
    pull_done,
    pull_failed,
    computed,
    window_closed,
    begin,
    tick,
    long_tick, ///< so late that every limit has passed
    owner_tick,
    owner_long_tick,
    ask_holds,
    preempt,
    client_leaves,
    crash,
    take_for_dead,
  };
  /// Something that goes wrong, beside limits that pass.
  bool fault() const {
    return what >= kind::preempt || what == kind::deliver_refused || what == kind::drop
           || what == kind::duplicate || what == kind::pull_failed;
  }
  kind what = kind::deliver;
  int node = 0;
  std::size_t index = 0; ///< of a letter or a side
};

/// Source, destination and stream owner with the shipped machines, and a network between them that
/// loses, doubles and reorders. One request of one stream; two engines that may both be source.
class world {
public:
  explicit world(const scene& what);

  /// All that can happen next. `calm`: nothing that needs a budget.
  std::vector<action> choices(bool calm = false) const;
  void take(const action& choice);
  /// Lets everything that is under way come to its end, without further faults; then judges.
  void settle();

  /// The first rule found broken; empty: none so far.
  const std::string& broken() const { return broken_; }
  /// A number that differs for worlds that differ in anything that matters.
  std::uint64_t fingerprint() const;
  const std::vector<std::string>& story() const { return story_; }
  void keep_story() { telling_ = true; }
  int replays() const { return owner_.replays; }
  bool moved() const { return moved_; }
  static std::string name(const action& choice, const world& in);

private:
  stream_owner owner_of(int node) const;
  int node_of(const stream_owner& who) const;
  bool alive(const stream_owner& who) const;
  void fail(const std::string& what);
  void check();
  void judge_rest();

  void send(int to, std::uint64_t incarnation, payload what, bool sure = false);
  void send(const stream_owner& to, payload what, bool sure = false);
  void deliver(const letter& what, bool refused);
  void at_node(int node, const letter& what, bool refused);
  void at_owner(const payload& what);
  side* side_of(int node, const handover_id& id);

  void begin(int node);
  void hear(int node, std::size_t index, const source_event& event);
  void hear(int node, std::size_t index, const destination_event& event, bool refused = false);
  void carry_out(int node, std::size_t index, const source_effect& effect);
  void carry_out(int node, std::size_t index, const destination_effect& effect, bool refused);
  void receive_offer(int node, const handover::offer& offer, bool refused);
  void forget_done(int node);

  leaving_request leaving(const node& at) const;
  void step(int node);
  void answer_looks();
  void tell(int node, std::uint32_t from);
  void abort(int node, std::uint32_t epoch);
  void crash(int node);

  void take_batch(const stream_owner& sender, const token_delta& batch);
  void took_over(const handover::head& of, const stream_owner& by);
  void replay();
  stream_claims& claims();

  scene scene_;
  budgets left_;
  std::array<node, 2> nodes_;
  owner_state owner_;
  std::vector<letter> post_;
  excuses excuses_;
  std::uint64_t next_id_ = 0;
  bool moved_ = false;
  std::string broken_;
  bool telling_ = false;
  std::vector<std::string> story_;
};

} // namespace llumnix::model
