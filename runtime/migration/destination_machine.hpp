#pragma once

#include "runtime/engine/moving.hpp"
#include "runtime/migration/handover.hpp"

#include <optional>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// Limits of a hand-over at its destination (spec/migration.md 8.5, 12.4).
struct destination_settings {
  nanoseconds lease = std::chrono::seconds{5}; ///< the offer's counts where it is shorter
  /// Until the first word after the offer: a source that does not hear of its acceptance gives up in
  /// a second, and one that does copies at once.
  nanoseconds first_word = std::chrono::milliseconds{2500};
  nanoseconds claim_every = std::chrono::milliseconds{400};
  nanoseconds claim_limit = std::chrono::seconds{2};
  nanoseconds abandon_every = std::chrono::milliseconds{200};
  nanoseconds remember = std::chrono::seconds{60}; ///< ABANDON unanswered; answers while running
};

/// Whether a request offered may come here as far as `mine` tells: model, and for path `kv` all of
/// the geometry; prompt and output with room for a token more below the length of the model.
/// `unsupported`, `too_long`, `invalid_argument` (no prompt, head and request differ).
result<void> compatible(const handover::offer& offer, const kv_geometry& mine);

/// How a hand-over ended, seen from its destination.
enum class destination_outcome : std::uint8_t {
  moved,     ///< it runs here
  refused,   ///< never accepted
  cancelled, ///< let go before a claim
  unclaimed, ///< claimed, and not granted
  abandoned, ///< claimed, and given up
};
/// "moved", "refused", "cancelled", "unclaimed", "abandoned".
std::string_view to_string(destination_outcome outcome);

/// What a destination machine hears beyond messages, and what it wants done beyond them.
namespace destination_side {

// --- events
// ---------------------------------------------------------------------------------------

/// An OFFER, and what came of it here: `compatible`, a slot, and `moving_requests::reserve`. Only
/// the first of a hand-over is reserved for; repeated ones come as `handover::offer`.
struct offered {
  handover::offer offer;
  result<arriving_room> room;
};
/// The pull asked for has ended, well or not, cancelled or not: no byte of it lands any more.
/// Exactly one for each `pull`.
struct pulled {
  error why; ///< `ok`: all of it landed
  std::uint64_t bytes = 0;
};
/// Answer to `verify`.
struct verified {
  error why; ///< `ok`: it is what it should be
};
/// Positions ready (`moving_requests::ready_tokens`), path `recompute`: told whenever they grew.
struct computed {
  std::uint32_t ready_tokens = 0;
};
/// Answer to `adopt`.
struct adopted {
  error why; ///< `ok`: it runs
};
/// The stream's owner wants nothing more of it under `epoch`. The engine hears it as well.
struct aborted {
  std::uint32_t epoch = 0;
};
/// The request that was adopted has ended. Optional: it only lets the machine forget sooner.
struct request_ended {};
/// The source's node, or this incarnation of the instance, is gone.
struct source_lost {};
/// The node of the stream's owner is gone for good.
struct owner_lost {};
/// `deadline` has come.
struct tick {};

// --- effects
// --------------------------------------------------------------------------------------

/// Pull the KV of positions [from, to) from the source's blocks into the room's. One at a time.
struct pull {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::vector<block_index> source_blocks; ///< of positions [0, to)
};
/// End the pull under way; its `pulled` still comes.
struct cancel_pull {};
/// Have the engine verify positions [from, to) (`moving_requests::landed`); answer with `verified`.
struct verify {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::vector<token_id> ids; ///< prompt and output, as known
};
/// Have the engine compute these (`moving_requests::compute_ahead`); `computed` tells how far.
struct compute_ahead {
  std::vector<token_id> ids; ///< prompt and output, as known
};
/// The room becomes a request (`moving_requests::adopt`), its epoch and credit set; answer with
/// `adopted`.
struct adopt {
  inference_request request;
  std::uint32_t sent = 0;
};
/// End the request just adopted, or about to be, as an abort does.
struct end_request {
  std::uint32_t epoch = 0;
};
/// Let go of the room. Nothing lands in it any more.
struct give_up {};
/// The room is accounted for, and the in-slot free. The machine may live on to answer for its id:
/// remember it as ended and keep the machine until it is `done`.
struct ended {
  destination_outcome outcome = destination_outcome::cancelled;
  error why;
  std::uint32_t epoch = 0; ///< when moved
  move_path path = move_path::kv;
  std::uint32_t ready_tokens = 0; ///< of prompt and output, when adopted
  std::uint64_t bytes = 0;        ///< KV that crossed the transport
};

} // namespace destination_side

/// Messages of the hand-over (from S; `claim_answer` and `abandoned` from A) and events of
/// `destination_side`.
using destination_event = std::variant<
  destination_side::offered, handover::offer, handover::copy_progress, handover::freeze_commit,
  handover::claim_answer, handover::cancel, handover::cancelled, handover::abandoned,
  destination_side::pulled, destination_side::verified, destination_side::computed,
  destination_side::adopted, destination_side::aborted, destination_side::request_ended,
  destination_side::source_lost, destination_side::owner_lost, destination_side::tick>;

/// Messages to send (to S; `claim` and `abandon` to A) and what else is to be done, in this order.
using destination_effect = std::variant<
  handover::accept, handover::reject, handover::prepared, handover::committed,
  handover::commit_failed, handover::cancel, handover::cancelled, handover::release,
  handover::claim, handover::abandon, destination_side::pull, destination_side::cancel_pull,
  destination_side::verify, destination_side::compute_ahead, destination_side::adopt,
  destination_side::end_request, destination_side::give_up, destination_side::ended>;

/// The destination of one hand-over as a value (spec/migration.md 12.4): feed it events, carry out
/// the effects it returns.
///
///     idle -> reserved -> claiming -> adopting -> running -> done
///
/// `freeing`: given up, but a pull is under way, so the room must stay: a block is never free
/// before the transport said that nothing lands in it. The 1 s of the spec is what the transport
/// owes, by cutting off whoever hangs; here no clock overrules it. `adopting`: granted, and the
/// engine is putting it in. `abandoning`: given up after a claim, A has not answered yet.
class destination_machine {
public:
  enum class state : std::uint8_t {
    idle, ///< not begun
    reserved,
    freeing,
    claiming,
    adopting,
    running,
    abandoning,
    done,
  };

  explicit destination_machine(const destination_settings& settings, stream_owner self);

  std::vector<destination_effect> on(const destination_event& event, time_point now);
  /// When it wants a `tick`; none: not at all. Ticks that come early or twice do no harm.
  std::optional<time_point> deadline() const;

  state at() const { return state_; }
  const handover::head& of() const { return of_; }
  const stream_owner& source() const { return source_; }
  /// Answers HOLDS: a CLAIM for that epoch is unanswered, or it is being adopted. Once `running`
  /// the engine is asked.
  bool holds(std::uint32_t epoch) const;

private:
  friend struct handover_fingerprint; ///< tests tell states apart by it
  using effects = std::vector<destination_effect>;

  // One for each event; messages of other hand-overs do not come here.
  void hear(const destination_side::offered& event);
  void hear(const handover::offer& message);
  void hear(const handover::copy_progress& message);
  void hear(const handover::freeze_commit& message);
  void hear(const handover::claim_answer& message);
  void hear(const handover::cancel& message);
  void hear(const handover::cancelled& message);
  void hear(const handover::abandoned& message);
  void hear(const destination_side::pulled& event);
  void hear(const destination_side::verified& event);
  void hear(const destination_side::computed& event);
  void hear(const destination_side::adopted& event);
  void hear(const destination_side::aborted& event);
  void hear(const destination_side::request_ended& event);
  void hear(const destination_side::source_lost& event);
  void hear(const destination_side::owner_lost& event);
  void hear(const destination_side::tick& event);

  template <class Effect>
  void make(Effect&& effect) {
    out_.push_back(std::forward<Effect>(effect));
  }
  void renew();
  result<void> learn(const handover::copy_progress& message);
  void pull_more();
  void say_prepared();
  result<void> check(const handover::freeze_commit& message);
  void send_claim();
  void let_go(error why);
  void free_room();
  void end(destination_outcome outcome, error why);
  void fail_claim(handover::commit_failure why, error detail);
  void abandon(error why);

  destination_settings settings_;
  stream_owner self_;
  state state_ = state::idle;
  effects out_; ///< of the event being heard
  time_point now_{};

  handover::head of_;
  stream_owner source_;
  move_path path_ = move_path::kv;
  inference_request request_; ///< `output`: as far as known
  std::uint32_t block_tokens_ = 0;
  arriving_room room_;       ///< what was reserved
  std::uint32_t ready_ = 0;  ///< positions present, verified or computed
  std::uint32_t target_ = 0; ///< positions offered so far
  std::uint32_t round_ = 0;  ///< that offered them
  std::vector<block_index> source_blocks_;
  std::uint32_t pulled_to_ = 0; ///< end of the pull or verification under way
  bool pulling_ = false;
  bool verifying_ = false;
  bool answer_cancel_ = false; ///< the source asked, and waits for CANCELLED
  bool source_told_ = false;   ///< freeing: the source knows
  bool abort_wanted_ = false;  ///< adopting: end it at once
  bool ran_here_ = false;
  std::uint32_t sent_ = 0;
  id_digest digest_; ///< of prompt and output as known
  std::uint64_t bytes_ = 0;

  nanoseconds lease_{0};
  time_point limit_{};    ///< of the state
  time_point again_at_{}; ///< the next CLAIM or ABANDON
  error why_;             ///< of the end
};

} // namespace llumnix
