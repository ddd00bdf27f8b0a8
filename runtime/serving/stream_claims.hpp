#pragma once

#include "runtime/base/time.hpp"
#include "runtime/migration/handover.hpp"
#include "runtime/serving/request.hpp"
#include "runtime/serving/stream_table.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace llumnix {

/// Limits of the claim rule (spec/migration.md 9.3 T-2, 12.2).
struct claim_settings {
  nanoseconds reclaim_wait = std::chrono::milliseconds{500}; ///< after the owner's ABANDON
  nanoseconds hold_limit = std::chrono::seconds{2}; ///< of a batch that waits for those before it
  std::size_t held_batches_max = 64;
};

/// What a claim did to the stream.
struct claim_result {
  handover::claim_answer answer; ///< to whoever claimed; `credit` is left to the caller
  bool took_over = false;        ///< the claimant owns the stream under `of.epoch` + 1 from now on
};

/// A claim for a stream that ended, is unknown, or whose client is gone. Nothing need be remembered
/// of such streams: D is told `aborted`, S `superseded`, however often they ask.
handover::claim_answer answer_when_gone(const handover::claim& claim);
handover::claim_answer answer_when_gone(const handover::reclaim& claim);

/// What becomes of one batch of a stream. Its tokens are, in this order: skipped, taken, the rest.
struct batch_verdict {
  std::uint32_t skip = 0; ///< the client has them
  std::uint32_t take = 0; ///< to be delivered, in order
  bool finish = false;    ///< the finish reason counts, after them
  bool hold = false;      ///< there is a gap before it: `stream_claims::hold` keeps it
  bool abort = false;     ///< tell the sender to end the batch's epoch
  friend bool operator==(const batch_verdict&, const batch_verdict&) = default;
};

/// The batch rule for a stream without `stream_claims`: no hand-over was ever claimed. `epoch`,
/// `delivered`: of the stream.
batch_verdict judge(const token_delta& batch, std::uint32_t epoch, std::uint32_t delivered);

/// Whether a NO to HOLDS means that the stream must be replayed: it is the present owner's, for the
/// present epoch. Any other NO is ignored.
bool no_counts(
  const stream_owner& from, std::uint32_t asked, const std::optional<stream_owner>& owner,
  std::uint32_t epoch);

/// A batch that waits for those before it.
struct held_batch {
  stream_owner sender;
  token_delta batch;
  time_point since;
};

/// The claim rule for one stream at its owner A (spec/migration.md 12.2): who may generate it, and
/// whose tokens count.
///
/// Exists for streams of which a claim or an ABANDON was heard; all others need none: their tokens
/// come from one sender, in order, and a gap is never filled. Epoch, owner and delivered count stay
/// with the stream and come as arguments; the caller writes them as told.
/// Answers are final because of how they are found: epochs only grow, so a claim once refused is
/// refused for ever, and one granted is granted again only while its claimant owns the epoch.
class stream_claims {
public:
  /// `epoch`: of the stream now. Epochs before it are over: A raised them.
  stream_claims(const claim_settings& settings, std::uint32_t epoch)
    : settings_{settings}, first_epoch_{epoch} {}

  /// `epoch`: of the stream. With `took_over` the stream's epoch and owner are those of the claim.
  ///
  /// `claimant_lost`: A knows that this life of the claimant is over. It gets nothing: its claim
  /// may come after the news of its end, and nothing would ever take the stream from it again. (A
  /// rule that spec/migration.md 12.2 lacks; the model found it.)
  claim_result
  on_claim(const handover::claim& claim, std::uint32_t epoch, bool claimant_lost = false);
  /// Refused, it says whether the hand-over came about: the source may not have heard of it.
  claim_result
  on_reclaim(const handover::reclaim& claim, std::uint32_t epoch, bool claimant_lost = false);
  /// Always answered with `abandoned`. True: replay at once.
  bool on_abandon(const handover::abandon& what, std::uint32_t epoch, time_point now);
  /// A raised the epoch by itself, to `epoch`: a replay begins.
  void raised(std::uint32_t epoch, std::uint32_t delivered);

  /// The batch rule. `epoch`, `delivered`: of the stream. Held batches are judged anew when
  /// `next_held` gives them back.
  batch_verdict judge(const token_delta& batch, std::uint32_t epoch, std::uint32_t delivered) const;
  /// Keeps a batch that `judge` wants held. False: that is one too many, replay.
  bool hold(const stream_owner& sender, const token_delta& batch, time_point now);
  /// Takes out a held batch whose turn has come; call until there is none.
  std::optional<held_batch> next_held(std::uint32_t delivered);

  /// Nobody took the stream after its owner's ABANDON, or a batch waited too long for those before
  /// it: raise the epoch and place the stream anew. True until `raised`, or what was missing comes.
  bool replay_due(time_point now) const;
  /// When `replay_due` turns true, if nothing comes before; none: nothing waits. For tests, whose
  /// clocks jump there.
  std::optional<time_point> deadline() const;

private:
  friend struct handover_fingerprint; ///< tests tell states apart by it

  /// Who won the present epoch.
  struct winner {
    handover_id id;
    stream_owner who;
    bool by_reclaim = false;
    bool gave_up = false;          ///< by ABANDON
    bool reclaim_answered = false; ///< of this hand-over, with superseded
  };
  struct won_epoch {
    std::uint32_t epoch = 0;
    std::uint32_t claim_index = 0;
  };
  struct barred {
    handover_id id;
    stream_owner claimant;
    friend bool operator==(const barred&, const barred&) = default;
  };
  void grant(
    const handover_id& id, const stream_owner& who, bool by_reclaim, std::uint32_t epoch,
    std::uint32_t start);
  void note(std::uint32_t epoch, std::uint32_t claim_index);
  void bar(const handover_id& id, const stream_owner& claimant);
  bool is_barred(const handover_id& id, const stream_owner& claimant) const;
  bool owns(const handover_id& id, const stream_owner& who) const;

  claim_settings settings_;
  std::uint32_t first_epoch_ = 0;
  std::optional<winner> winner_;        ///< none: placed by A
  std::vector<won_epoch> won_;          ///< since the first one; epochs and indexes ascend
  std::vector<barred> barred_;          ///< gave up before their claim came; few
  std::vector<held_batch> held_;        ///< ascending by start
  std::optional<time_point> replay_at_; ///< no RECLAIM after the owner's ABANDON
};

} // namespace llumnix
