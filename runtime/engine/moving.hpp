#pragma once

#include "runtime/base/result.hpp"
#include "runtime/engine/kv_pool.hpp"
#include "runtime/migration/handover.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llumnix {

/// A request on its way out, as it stands between two steps.
struct leaving_request {
  inference_request
    request; ///< `output`: all ids generated, told or not; `epoch`, `credit` current
  std::uint32_t written = 0; ///< positions whose KV completed steps wrote; below prompt + output
  std::vector<block_index> blocks; ///< its table over those positions; empty while it waits
  bool running = false; ///< in the batch, or taken out of it; false: in the queue, without KV
  std::uint32_t preemptions = 0; ///< since it came: one more means that its KV was lost meanwhile
  bool prefilling = false; ///< it is to decode elsewhere, and not all of its prompt is computed
};

/// Room for a request on its way in.
struct arriving_room {
  std::vector<block_index> blocks;   ///< its table; the first ones are shared with the prefix cache
  std::uint32_t present_tokens = 0;  ///< positions at the front that are here already, whole blocks
  std::uint32_t reserved_tokens = 0; ///< positions its blocks have, within the model's length
};

/// A request that may leave, for those who choose.
struct movable_request {
  stream_ref stream;
  std::uint32_t tokens = 0;        ///< prompt and output
  std::uint32_t output_tokens = 0; ///< of them, generated
  std::int32_t priority = 0;       ///< lower runs first
  bool running = false;            ///< false: it waits
  bool moving = false;             ///< a hand-over has it, or will have it after its prefill
};

/// Moving requests out of and into an engine, for engines that can (`engine_capabilities`:
/// `pauses`, and `exports_kv` for the KV of `kv_*`). Called between steps only: after a step's
/// outputs were told, before the next begins.
///
/// Blocks of a hand-over have one owner at any time: the request, a pin, or a room
/// (spec/migration.md I-3). Calls for a hand-over that is not known, or that is over, do nothing.
/// What frees blocks or brings work (`thaw`, `drop`, `unpin`, `compute_ahead`, `adopt`, `give_up`)
/// may make a step possible where none was: ask `has_work` afterwards. A step may then still find
/// nothing to do (`worked` false) while pins and rooms hold the blocks that others wait for.
class moving_requests {
public:
  virtual ~moving_requests() = default;

  virtual kv_geometry geometry() const = 0;
  /// The memory of all KV blocks, block after block; empty where KV is not exported. Stays where it
  /// is as long as the engine lives.
  virtual std::span<std::byte> kv_memory() = 0;
  /// All its requests: the running ones in the order they began to run, then the waiting ones, front
  /// first.
  virtual std::vector<movable_request> movable() const = 0;

  // --- prefill here, decode elsewhere -----------------------------------------------------------

  /// The request computes its prompt (and the output it came with) and makes one token; then it
  /// stands, with its KV: no step touches it, and it is preempted last. `step_result::prefills`
  /// tells how far it is. To be said before it makes a token. False: no such stream under this
  /// epoch, or nothing is left to be made after that token.
  virtual bool decode_elsewhere(const stream_ref& stream, std::uint32_t epoch) = 0;
  /// It decodes here after all.
  virtual void decode_here(const stream_ref& stream, std::uint32_t epoch) = 0;

  // --- out: the source --------------------------------------------------------------------------

  /// Holds the blocks told by this and by each later `look` and `freeze` until `unpin`: they stay
  /// readable though the request be preempted, ends, or is aborted. `not_found`: no such stream
  /// under this epoch, or its end is all that is left to tell. `queue_full`: another hand-over pins
  /// it. `invalid_argument`: the id is in use.
  virtual result<leaving_request>
  pin(const handover_id& id, const stream_ref& stream, std::uint32_t epoch) = 0;
  /// How it stands now. `not_found`: it ended or was aborted.
  virtual result<leaving_request> look(const handover_id& id) = 0;
  /// Takes it out of the running batch, or the queue: no step touches it until `thaw`. It stays
  /// known: `holds`, `grant` and `abort` go on as ever. As `look`; again: the same answer.
  virtual result<leaving_request> freeze(const handover_id& id) = 0;
  /// Puts a frozen request back in front of those of its priority, into the batch or the queue,
  /// wherever it was, under `epoch`. In the batch it takes a seat beyond `max_num_seqs` if need be.
  virtual void thaw(const handover_id& id, std::uint32_t epoch) = 0;
  /// Forgets a frozen request; its blocks stay pinned.
  virtual void drop(const handover_id& id) = 0;
  /// Lets go of the blocks. The request, should it still be here, keeps its own hold; one that is
  /// frozen stays so until `thaw`, `drop` or an abort, in either order.
  virtual void unpin(const handover_id& id) = 0;

  // --- in: the destination ----------------------------------------------------------------------

  /// Takes blocks for prompt, output and `headroom` tokens more, but not beyond the model's length,
  /// as long as it leaves 1 % of all blocks free. `out_of_blocks`, `too_long`; `invalid_argument`:
  /// as `submit` has it, or the id is in use; `stale`: the stream is here under this or a higher
  /// epoch.
  ///
  /// A room is no request yet: `holds` says no, `grant` and `abort` pass it by, and it lasts until
  /// `adopt` or `give_up`, since bytes may be landing in it. The same stream may be submitted
  /// meanwhile (the room's hand-over was overtaken): then `adopt` says `stale`.
  virtual result<arriving_room>
  reserve(const handover_id& id, const inference_request& request, std::uint32_t headroom) = 0;
  /// The KV of positions [from, to) of what `ids` (all of prompt and output so far) say has landed
  /// in the blocks of the room. Verifies every word of it: `bad_message` names the first bad block
  /// and position, or says that `ids` contradict earlier ones. What lies before a bad position
  /// counts. `invalid_argument`: `from` leaves a gap behind `ready_tokens`, or lies in shared
  /// blocks; `to` is beyond `ids` or the room. `not_found`: no such room.
  virtual result<void>
  landed(const handover_id& id, std::span<const token_id> ids, std::uint32_t from, std::uint32_t to)
    = 0;
  /// Computes the KV of all of `ids` but the last in the room, in the engine's own steps, and emits
  /// nothing (path `recompute`). It stands in line with those that wait, behind the running ones,
  /// and needs no seat. May be called again with more ids. What is beyond the room is left to
  /// `adopt`, and ids that contradict earlier ones are ignored: `adopt` will say so.
  virtual void compute_ahead(const handover_id& id, std::span<const token_id> ids) = 0;
  /// Positions at the front whose KV is in the room, shared, landed or computed. 0 without a room.
  virtual std::uint32_t ready_tokens(const handover_id& id) const = 0;
  /// The room becomes a request of the running batch, in front of those of its priority and beyond
  /// `max_num_seqs` if need be; what is not ready is computed. For the next second whoever else the
  /// same step does not serve already is preempted rather than it. Its first delta starts at output
  /// index `sent`; ids from there on that it came with are told in its next step, whatever the
  /// credit.
  ///
  /// `request.output` holds all ids; that, `epoch` and `credit` may differ from what was reserved.
  /// A request of the same stream under a lower epoch is aborted first. Whatever fails leaves the
  /// room: `not_found` (no such room), `invalid_argument` (`sent` above the output, another stream,
  /// ids outside the vocabulary), `bad_message` (the ids contradict what landed or was computed),
  /// `too_long`, `stale` (the stream is here under this or a higher epoch).
  virtual result<void>
  adopt(const handover_id& id, inference_request request, std::uint32_t sent, time_point now) = 0;
  /// Lets go of a room that was not adopted, once nothing can land in it any more.
  virtual void give_up(const handover_id& id) = 0;

  /// Blocks held by pins alone, and by rooms (those shared with others included): for
  /// `kv_blocks.reserved` and leak checks.
  virtual std::uint32_t pinned_blocks() const = 0;
  virtual std::uint32_t reserved_blocks() const = 0;
};

} // namespace llumnix
