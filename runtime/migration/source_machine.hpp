#pragma once

#include "runtime/engine/moving.hpp"
#include "runtime/migration/handover.hpp"

#include <optional>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// Limits of a hand-over at its source (spec/migration.md 8.5, 10, 12.3).
struct source_settings {
  nanoseconds offer_limit = std::chrono::seconds{1};
  nanoseconds copy_limit_min = std::chrono::seconds{2}; ///< and 4 times what the copy should take
  nanoseconds tail_limit = std::chrono::milliseconds{500};
  nanoseconds decide_limit = std::chrono::milliseconds{500}; ///< until RECLAIM, and between two
  nanoseconds owner_limit = std::chrono::seconds{2};         ///< no answer to any RECLAIM: give up
  nanoseconds cancel_every = std::chrono::milliseconds{200};
  nanoseconds cancel_limit = std::chrono::seconds{2}; ///< then the window alone guards the blocks
  nanoseconds release_limit = std::chrono::seconds{1};
  nanoseconds renew_every = std::chrono::seconds{1}; ///< an empty progress keeps the lease
  nanoseconds lease = std::chrono::seconds{5};       ///< told to the destination
  std::uint32_t rounds_max = 8;
  std::uint32_t step_tokens = 1;    ///< a request yields in a step
  double bytes_per_second = 1.2e9;  ///< expected of the transport
  double prefill_per_second = 10e3; ///< tokens, expected of the destination
  /// Of a round of copying: two messages, a pull, and the engine's look at what landed. With it
  /// fewer than twenty tokens are computed, which comes with the next step there.
  nanoseconds round_trip = std::chrono::milliseconds{2};
};

enum class tail_choice : std::uint8_t { copy, recompute };
/// "copy", "recompute".
std::string_view to_string(tail_choice choice);
/// How the last `tokens` positions come to the destination, whichever is faster (12.6). No tokens:
/// recompute, as there is nothing to wait for.
tail_choice
choose_tail(const source_settings& settings, std::uint32_t tokens, std::uint32_t bytes_per_token);

/// What does not change in a hand-over.
struct source_plan {
  handover::head of; ///< the epoch is filled in by `begin`
  stream_owner source;
  stream_owner destination;
  move_path path = move_path::kv;
  kv_geometry geometry;
  std::string kv_address;  ///< path `kv` alone
  std::uint32_t moves = 0; ///< told to the destination
  /// S only prefills it, and it stands after that (`moving_requests::decode_elsewhere`): what is
  /// computed is copied while the rest is being computed, and nothing waits for a round to be
  /// small.
  bool to_decode = false;
};

/// How a hand-over ended, seen from its source.
enum class source_outcome : std::uint8_t {
  moved,  ///< the destination said that it has it, or the stream's owner did
  kept,   ///< it runs on here, under the epoch given
  gone,   ///< it ended or was aborted meanwhile
  let_go, ///< dropped here: the stream belongs to somebody else, or cannot be reached
};
/// "moved", "kept", "gone", "let_go".
std::string_view to_string(source_outcome outcome);

/// What a source machine hears beyond messages, and what it wants done beyond them.
namespace source_side {

// --- events: answers of the engine and the transport, news of the world
// ---------------------------

/// Answer to `look`: how it stands between two steps, or `not_found`.
struct looked {
  result<leaving_request> now;
};
/// Answer to `freeze`. `told`: output tokens told to the stream so far, none is told after this.
struct frozen {
  result<leaving_request> now;
  std::uint32_t told = 0;
};
/// The engine has ended the request by itself. Optional: `looked` and `frozen` say so too.
struct request_ended {};
/// The stream's owner wants nothing more of it under `epoch`. The engine hears it as well.
struct aborted {
  std::uint32_t epoch = 0;
};
/// Answer to `close_window`: no byte is read through it any more.
struct window_closed {};
/// The destination's node, or this incarnation of the instance, is gone.
struct destination_lost {};
/// The node of the stream's owner is gone for good.
struct owner_lost {};
/// `deadline` has come.
struct tick {};

// --- effects
// --------------------------------------------------------------------------------------

/// Look at the request between two steps; answer with `looked`, once for each. One that is being
/// prefilled to decode elsewhere is looked at when more than `beyond` of it is written.
struct look {
  std::uint32_t beyond = 0; ///< positions
};
/// Freeze it at the next boundary of steps, and one that is to decode elsewhere as soon as it has
/// been prefilled; answer with `frozen`, once.
struct freeze {};
/// Put the frozen request back in front. A `freeze` not carried out yet is not wanted any more.
struct thaw {
  std::uint32_t epoch = 0;
  std::optional<std::uint32_t> credit; ///< as A says with a new epoch; none: as it was
};
/// Forget the frozen request. It may be gone already.
struct drop {};
/// Close the window of this hand-over; answer with `window_closed`. Path `kv` alone.
struct close_window {};
/// Let go of the pin.
struct unpin {};
/// The last effect of all: blocks are free, the out-slot is.
struct ended {
  source_outcome outcome = source_outcome::kept;
  error why;                ///< `ok` when moved
  std::uint32_t epoch = 0;  ///< when kept: its epoch now
  std::uint32_t rounds = 0; ///< of copy, the one of the tail included
  move_path path = move_path::kv;
  tail_choice tail = tail_choice::recompute;
  std::uint32_t tail_tokens = 0; ///< positions not prepared when it froze
  std::uint64_t bytes = 0;       ///< KV that crossed the transport, as the destination tells
  nanoseconds paused{0};         ///< from frozen to thawed, dropped or moved; 0: never frozen
};

} // namespace source_side

/// The end in the words of the admin API (spec/surface.md 3): "moved"; "finished" meanwhile;
/// "refused" before anything was copied; "failed".
std::string_view outcome_word(const source_side::ended& end);

/// Messages of the hand-over (from D; `claim_answer` from A) and events of `source_side`.
using source_event = std::variant<
  handover::accept, handover::reject, handover::prepared, handover::committed,
  handover::commit_failed, handover::claim_answer, handover::cancel, handover::cancelled,
  handover::release, source_side::looked, source_side::frozen, source_side::request_ended,
  source_side::aborted, source_side::window_closed, source_side::destination_lost,
  source_side::owner_lost, source_side::tick>;

/// Messages to send (to D; `reclaim` to A) and what else is to be done, in this order.
using source_effect = std::variant<
  handover::offer, handover::copy_progress, handover::freeze_commit, handover::reclaim,
  handover::cancel, handover::cancelled, source_side::look, source_side::freeze, source_side::thaw,
  source_side::drop, source_side::close_window, source_side::unpin, source_side::ended>;

/// The source of one hand-over as a value (spec/migration.md 12.3): feed it events, carry out the
/// effects it returns.
///
///     idle -> offered -> copying -> freezing -> deciding -> releasing -> done
///
/// A hand-over `to_decode` asks for the freeze with the offer: it is frozen once it is prefilled,
/// whether an answer has come by then or not, and its blocks are copied as they are written.
///
/// Whatever goes wrong before `deciding` leads through `cancelling`, where the request runs on
/// while its blocks stay pinned, to `done`. `releasing` is the spec's DONE with blocks still
/// pinned.
///
/// The request is pinned, and its window open, before `begin`. No block is unpinned before the
/// window has closed, so nobody reads what is somebody else's. Messages of other hand-overs, late
/// and repeated ones are ignored.
class source_machine {
public:
  enum class state : std::uint8_t {
    idle, ///< not begun
    offered,
    copying,
    freezing,
    deciding,
    cancelling,
    releasing,
    done,
  };

  source_machine(const source_settings& settings, source_plan plan);

  /// Offers the request, as it was pinned. Once.
  std::vector<source_effect> begin(const leaving_request& request, time_point now);
  std::vector<source_effect> on(const source_event& event, time_point now);
  /// When it wants a `tick`; none: not at all. Ticks that come early or twice do no harm.
  std::optional<time_point> deadline() const;

  state at() const { return state_; }
  const source_plan& plan() const { return plan_; }
  /// Answers HOLDS: the request is here under that epoch, or a RECLAIM for it is unanswered. Once
  /// `done`, and before, the engine is asked as well.
  bool holds(std::uint32_t epoch) const;

private:
  friend struct handover_fingerprint; ///< tests tell states apart by it
  using effects = std::vector<source_effect>;

  // One for each event; messages of other hand-overs do not come here.
  void hear(const handover::accept& message);
  void hear(const handover::reject& message);
  void hear(const handover::prepared& message);
  void hear(const handover::committed& message);
  void hear(const handover::commit_failed& message);
  void hear(const handover::claim_answer& message);
  void hear(const handover::cancel& message);
  void hear(const handover::cancelled& message);
  void hear(const handover::release& message);
  void hear(const source_side::looked& event);
  void hear(const source_side::frozen& event);
  void hear(const source_side::request_ended& event);
  void hear(const source_side::aborted& event);
  void hear(const source_side::window_closed& event);
  void hear(const source_side::destination_lost& event);
  void hear(const source_side::owner_lost& event);
  void hear(const source_side::tick& event);

  template <class Effect>
  void make(Effect&& effect) {
    out_.push_back(std::forward<Effect>(effect));
  }
  void ask_look();
  void offer_round(const leaving_request& request);
  void limit_round(std::uint32_t tokens, nanoseconds least);
  void begin_tail();
  void commit();
  void send_reclaim();
  void stop(source_outcome outcome, error why, bool tell_destination);
  void put_back(std::uint32_t epoch, std::optional<std::uint32_t> credit);
  void forget();
  bool no_freeze_any_more();
  void renew();
  bool preempted(const leaving_request& request) const;
  bool fits(const leaving_request& request) const;
  void shut();
  void finish_if_over();

  source_settings settings_;
  source_plan plan_;
  state state_ = state::idle;
  effects out_; ///< of the event being heard
  time_point now_{};

  std::uint32_t preemptions_ = 0;  ///< at the start
  std::uint32_t first_output_ = 0; ///< output tokens that the offer told
  std::uint32_t written_ = 0;      ///< at the start
  std::uint32_t reserved_ = 0;     ///< room there
  std::uint32_t prepared_ = 0;     ///< positions the destination has
  std::uint32_t round_ = 0;        ///< of copy, the last one offered
  std::uint32_t offered_to_ = 0;   ///< its watermark
  bool look_asked_ = false;
  bool freeze_asked_ = false; ///< its `frozen` is still to come
  bool tail_under_way_ = false;
  std::optional<leaving_request> frozen_; ///< while it is frozen
  std::uint32_t told_ = 0;
  bool pinned_ = false;
  bool window_open_ = false;
  bool window_closing_ = false;
  bool awaiting_cancelled_ = false; ///< CANCEL is repeated
  bool answer_cancel_ = false;      ///< once the window has closed
  id_digest digest_;                ///< of the prompt and the first `digested_` output tokens
  std::size_t digested_ = 0;

  time_point limit_{};                      ///< of the state
  time_point renew_at_{};                   ///< while it copies
  time_point cancel_at_{};                  ///< the next CANCEL
  std::optional<time_point> first_reclaim_; ///< since when the owner did not answer
  time_point frozen_at_{};
  source_side::ended end_;
};

} // namespace llumnix
