#pragma once

#include "runtime/base/error.hpp"
#include "runtime/base/time.hpp"
#include "runtime/engine/kv_pool.hpp"
#include "runtime/serving/stream_table.hpp"

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Names one hand-over: 128 random bits, drawn at the source. Never used twice.
struct handover_id {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend auto operator<=>(const handover_id&, const handover_id&) = default;
};
/// 32 hexadecimal digits.
std::string to_string(const handover_id& id);

struct handover_id_hash {
  std::size_t operator()(const handover_id& x) const {
    return x.high ^ (x.low * 0x9E3779B97F4A7C15ull);
  }
};

/// How a request's KV comes to its destination, best first (DESIGN.md 3.6).
enum class move_path : std::uint8_t {
  kv,        ///< copied over the KV transport
  recompute, ///< computed anew there from the token ids, while the source goes on
};
/// "kv", "recompute".
std::string_view to_string(move_path path);

/// What KV blocks look like; two engines exchange them only where all of it is equal, but
/// `max_model_len`, which bounds what the destination takes.
struct kv_geometry {
  std::string model;
  std::string layout; ///< names order and type of the bytes of a position, e.g. "modeled-u64"
  std::uint32_t block_tokens = 0;
  std::uint32_t bytes_per_token = 0;
  std::uint32_t max_model_len = 0; ///< tokens
  friend bool operator==(const kv_geometry&, const kv_geometry&) = default;
};

/// The messages of a hand-over (spec/migration.md 12.2), S the source, D the destination, A the
/// stream's owner (the hub where the client is). `epoch` is always the one of the offer; CLAIM,
/// RECLAIM and ABANDON speak for `epoch` + 1.
namespace handover {

/// What every message of a hand-over carries.
struct head {
  handover_id id;
  stream_ref stream;
  std::uint32_t epoch = 0;
  friend bool operator==(const head&, const head&) = default;
};

/// S to D: will you take this request?
struct offer {
  head of;
  stream_owner source;
  stream_owner destination;
  inference_request request; ///< as it stood: prompt, output so far, sampling, epoch
  move_path path = move_path::kv;
  kv_geometry geometry;
  std::string kv_address;  ///< where its KV can be pulled from (`kv_transport`); empty: nowhere
  nanoseconds lease{0};    ///< D lets go when nothing was heard for so long
  std::uint32_t moves = 0; ///< by load, of this request so far (`move_history`)
  bool to_decode = false;  ///< S only prefills it: D is where it decodes, and no slot counts it
};

/// D to S: blocks are reserved.
struct accept {
  head of;
  stream_owner destination;
  std::uint32_t present_tokens = 0;  ///< positions it holds already: nothing of them is sent
  std::uint32_t reserved_tokens = 0; ///< room, prompt and output
};

/// D to S: not now, or never.
struct reject {
  head of;
  error why; ///< queue_full (no slot), out_of_blocks, unsupported, stale, too_long, ...
};

/// S to D: KV up to `watermark` may be pulled (path `kv`), or is yours to compute (`recompute`).
struct copy_progress {
  head of;
  std::uint32_t round = 0;         ///< counted from 1; 0: only renews the lease
  std::uint32_t watermark = 0;     ///< positions written by completed steps
  std::vector<block_index> blocks; ///< S's block table over [0, watermark); path `kv` alone
  std::vector<token_id> ids;      ///< output ids since the offer, all of them: progress may be lost
  std::uint32_t first_output = 0; ///< output index of `ids.front()`
};

/// D to S: everything up to `watermark` has landed and was verified. Also the answer to a progress
/// of round 0, with what there is.
struct prepared {
  head of;
  std::uint32_t round = 0;
  std::uint32_t watermark = 0;
  std::uint64_t bytes = 0; ///< KV bytes that crossed the transport so far
};

/// S to D: frozen; here is the rest; claim the stream.
struct freeze_commit {
  head of;
  std::uint32_t watermark = 0;  ///< W': positions whose KV D has
  std::uint32_t sent = 0;       ///< output tokens S has told the stream: D's first has this index
  std::vector<token_id> output; ///< all output ids, told or not
  std::uint64_t digest = 0;     ///< of prompt and output (`digest_of`)
  std::uint32_t credit = 0;     ///< as last granted
};

/// D to S: the stream is mine under `epoch` + 1.
struct committed {
  head of;
};

enum class commit_failure : std::uint8_t {
  refused, ///< no CLAIM was sent
  aborted, ///< A answered ABORTED, or sent an abort
  unknown, ///< a claim may have been granted
};
std::string_view to_string(commit_failure why);

/// D to S: no commit.
struct commit_failed {
  head of;
  commit_failure why = commit_failure::refused;
  error detail;
};

/// D to A: give me the stream under `epoch` + 1.
struct claim {
  head of;
  stream_owner claimant;
  std::uint32_t start = 0; ///< output index of the first token to come
};

/// S to A: D did not answer; give it back to me under `epoch` + 1.
struct reclaim {
  head of;
  stream_owner claimant;
  std::uint32_t start = 0; ///< output tokens told
};

enum class claim_verdict : std::uint8_t { granted, aborted, superseded };
std::string_view to_string(claim_verdict verdict);

/// A to whoever claimed. Final: asked again, the same answer.
struct claim_answer {
  head of;
  bool reclaimed = false; ///< answers a RECLAIM
  claim_verdict verdict = claim_verdict::superseded;
  std::uint32_t credit = 0; ///< with granted: the credit of the new owner
  /// Of a RECLAIM, with superseded: who got the stream by this hand-over and has it still; no
  /// instance: nobody.
  stream_owner owner{};
};

/// S to D or D to S: this hand-over is over.
struct cancel {
  head of;
  error why;
};

/// Answer to CANCEL, once no byte can land and none can be read any more.
struct cancelled {
  head of;
};

/// D to S: the commit stands, blocks may be freed.
struct release {
  head of;
};

/// D to A: freed, never emitted and never will under `epoch` + 1. Repeated until answered.
struct abandon {
  head of;
  stream_owner claimant;
};

/// A to D.
struct abandoned {
  head of;
};

} // namespace handover

/// The hand-over that a message belongs to; null for what is no message.
template <class Event>
const handover_id* id_of(const Event& event) {
  if constexpr (requires { event.of.id; })
    return &event.of.id;
  else
    return nullptr;
}

/// FNV-1a over token ids, 4 bytes each, little-endian. Grows with the ids, so that little is left
/// to do while a request is frozen.
class id_digest {
public:
  void add(std::span<const token_id> ids);
  std::uint64_t value() const { return value_; }

private:
  std::uint64_t value_ = 0xCBF29CE484222325ull;
};

/// The digest of prompt and output ids, one after the other.
std::uint64_t digest_of(const std::vector<token_id>& prompt, const std::vector<token_id>& output);

} // namespace llumnix
