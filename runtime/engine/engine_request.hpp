#pragma once

#include "runtime/base/time.hpp"
#include "runtime/engine/kv_pool.hpp"
#include "runtime/serving/request.hpp"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llumnix {

/// A request inside the modeled engine: what it is, what it should contain, and how far it got.
class engine_request {
public:
  /// `arrival` counts submissions; `block_tokens` is the engine's block size.
  engine_request(inference_request request, std::uint64_t arrival, std::uint32_t block_tokens);

  /// Appends a generated token.
  void append(token_id id);
  /// Makes `ids` those of `all`, where one begins with the other; else false, and nothing changes.
  bool follow(std::span<const token_id> all);
  /// Itself as others know it, with all output there is.
  inference_request as_request() const;
  /// Keys of the blocks at its front that may be shared. At least the last position is computed:
  /// the next token is read off it.
  std::span<const std::uint64_t> reusable_keys() const;
  /// Prompt and output, tokens.
  std::uint32_t tokens() const { return static_cast<std::uint32_t>(ids.size()); }
  /// Output tokens there are; the index of the next one.
  std::uint32_t output_tokens() const { return tokens() - prompt_tokens; }
  /// Whether credit allows the next output token, and nobody wants it to stand.
  bool may_run() const { return output_tokens() < credit && !stands(); }
  /// It is to decode elsewhere, and its prefill is done: no step touches it.
  bool stands() const { return stand_at && output_tokens() >= *stand_at; }
  /// Whether it computes output positions one by one, its prompt being done.
  bool decoding() const { return computed >= prefill_tokens; }

  stream_ref stream;
  std::uint32_t epoch;
  std::string text_id;
  std::string model;
  placement_wishes wishes;
  std::string status_id; ///< as vLLM names the first choice of a completion: "cmpl-" text_id "-0"
  sampling_params sampling;
  std::uint64_t key; ///< sampling key
  std::int32_t priority;
  std::uint32_t credit;
  std::uint64_t arrival;
  std::uint64_t admitted = 0; ///< counts admissions to the batch, its last one; 0: none yet
  std::uint32_t prompt_tokens;
  std::uint32_t submitted_tokens; ///< prompt, and the output it came with

  std::vector<token_id> ids;          ///< prompt and output
  std::vector<std::uint64_t> digests; ///< what the KV of each position must say
  std::vector<std::uint64_t> keys;    ///< of each full block: the digest of its last position

  std::vector<block_index> blocks;  ///< its block table
  std::uint32_t computed = 0;       ///< positions whose KV is in `blocks`
  std::uint32_t prefill_tokens = 0; ///< positions computed as a prompt since it last began to run
  std::uint32_t written = 0;        ///< most positions it ever had computed itself or found cached
  std::optional<std::uint32_t> cached_tokens; ///< prompt tokens found cached when it first ran
  std::uint32_t preemptions = 0;
  std::optional<std::uint32_t>
    stand_at;                ///< output tokens with which it stands, to decode elsewhere
  std::uint32_t untold = 0;  ///< ids at the end that it came with and nobody was told yet
  time_point spared_until{}; ///< until then others are preempted rather than it
  bool running = false;
  bool frozen = false;                  ///< out of batch or queue until it goes back or goes away
  bool pinned = false;                  ///< a hand-over holds its blocks too
  bool told_cached = false;             ///< `cached_tokens` went out with a delta
  bool broken = false;                  ///< its KV was found bad; stays so
  std::optional<std::uint32_t> corrupt; ///< `engine.corrupt`: spoil this block of its table
  finish_reason over
    = finish_reason::none; ///< had ended before it came: only its end is left to tell

private:
  void append_digest(token_id id);
  std::uint32_t block_tokens_;
};

/// Order of service: lower priority values first, then first come first served.
struct served_before {
  bool operator()(const engine_request* a, const engine_request* b) const {
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
  }
};

} // namespace llumnix
