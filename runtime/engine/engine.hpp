#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/engine/kv_changes.hpp"
#include "runtime/serving/request.hpp"

#include <string>
#include <vector>

namespace llumnix {

/// What an engine can do. Asked, never assumed.
struct engine_capabilities {
  bool exports_kv = false;      ///< its KV blocks can be read and written from outside
  bool pauses = false;          ///< a request can be taken out of the running batch and put back
  bool status_per_step = false; ///< its status is known after each step
  bool token_ids = false;       ///< speaks token ids, both ways
  bool tells_kv = false;        ///< says which prefixes it caches
};

/// One stream's share of a step.
struct step_output {
  stream_ref stream;
  token_delta delta;
};

/// A request that is to decode elsewhere computed a part of its prompt.
struct prefill_share {
  stream_ref stream;
  std::uint32_t epoch = 0;
  bool done = false; ///< all of it: it has made its token, and stands or has ended
};

/// What one step did.
struct step_result {
  bool worked = false;     ///< false: nothing could run
  nanoseconds duration{0}; ///< from the step's start until its outputs may be told
  std::vector<step_output>
    outputs; ///< to be delivered at start + duration, unless aborted meanwhile
  std::uint32_t prefill_tokens = 0; ///< prompt tokens computed
  std::uint32_t decode_tokens = 0;  ///< output positions computed
  std::uint64_t decode_context = 0; ///< tokens that the requests of these held, together
  std::uint32_t preemptions = 0;
  std::vector<prefill_share> prefills; ///< of those that `moving_requests::decode_elsewhere` named
};

class moving_requests;

/// ENGINE port, first shape: an engine stepped from outside, a plain value without a clock or a
/// thread. (The second shape, an engine that runs by itself behind HTTP, comes with
/// `integrations/vllm`.)
class stepped_engine {
public:
  virtual ~stepped_engine() = default;
  virtual engine_capabilities capabilities() const = 0;
  /// Queues a request. Fails with `invalid_argument` (ids outside the vocabulary, max_tokens 0),
  /// `too_long` (can never fit), `queue_full`, or `stale` (the stream is already here under the
  /// same or a higher epoch). The same stream under a lower epoch is aborted first.
  virtual result<void> submit(inference_request request) = 0;
  /// Forgets the stream if it runs under `epoch` or a lower one; its blocks, but for pinned ones,
  /// are free when this returns. True if there was something to forget.
  virtual bool abort(const stream_ref& stream, std::uint32_t epoch) = 0;
  /// Raises the credit of a stream (`inference_request::credit`); a lower value than known is
  /// ignored.
  virtual void grant(const stream_ref& stream, std::uint32_t epoch, std::uint32_t credit) = 0;
  /// Whether the stream is here under exactly this epoch.
  virtual bool holds(const stream_ref& stream, std::uint32_t epoch) const = 0;
  /// Runs one step that starts at `now`. Must not be called before the previous step's end.
  virtual step_result step(time_point now) = 0;
  /// Whether a step would do anything.
  virtual bool has_work() const = 0;
  /// The instance's load in the reference's terms; identity and time fields are left to the
  /// llumlet.
  virtual instance_status status() const = 0;
  /// Ids, as its status has them, of the requests seen waiting at a step's start since this was
  /// last asked.
  virtual std::vector<std::string> take_seen_waiting() = 0;
  /// Whether somebody will ask for the changes of its prefix cache, from now on.
  virtual void note_kv_changes(bool) {}
  /// What its prefix cache did since this was last asked. Only `cleared`: too much to be told;
  /// `cached_kv` says what there is.
  virtual kv_changes take_kv_changes() { return {}; }
  /// What its prefix cache holds, in parts that fit into messages, to be heard in this order; the
  /// first is `cleared`. Empty where an engine does not tell.
  virtual std::vector<kv_changes> cached_kv() const { return {}; }
  /// How its requests are moved out and in; null where it cannot (`pauses` is false).
  virtual moving_requests* moving() { return nullptr; }
};

} // namespace llumnix
