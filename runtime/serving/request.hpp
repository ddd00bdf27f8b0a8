#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/serving/placement_wishes.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// What `logit_bias` of the end-of-sequence token asks for: at or below -100 `forbid`, at or above
/// 100 `force`.
enum class eos_rule : std::uint8_t { free, forbid, force };

/// How a request's tokens are chosen and when they end, engine-side. Stop *strings* are not here:
/// they are matched where text is, by the stream (`token_stream`). Meanings as in vLLM.
struct sampling_params {
  double temperature = 1.0; ///< 0: greedy
  std::uint64_t seed
    = 0; ///< drawn once at admission where the client gave none; travels with replays and moves
  std::uint32_t choice = 0; ///< index among the `n` choices of the client's request
  std::uint32_t max_tokens
    = 16; ///< output tokens at most, those of earlier placements included; >= 1
  std::uint32_t min_tokens = 0; ///< no end-of-sequence before this many output tokens
  bool ignore_eos = false;      ///< go on past end-of-sequence to `max_tokens`
  eos_rule eos = eos_rule::free;
  std::vector<token_id> stop_token_ids; ///< end the output like end-of-sequence does
  bool logprobs = false;                ///< report log-probabilities with each token
  std::uint32_t top_logprobs = 0;       ///< alternatives beside the token taken, 0 to 20
  friend bool operator==(const sampling_params&, const sampling_params&) = default;
};

/// One output sequence to be generated: what a gateway sends to an instance. A client's request
/// with n choices is n of these. After a loss it is sent again with `output` holding what the
/// client already has: the engine computes prompt and output as a prompt and goes on at position
/// prompt + output.
struct inference_request {
  stream_ref stream;       ///< where its tokens go; its identity
  std::uint32_t epoch = 0; ///< of the stream, when this was placed; tokens carry it back
  std::string text_id;     ///< the client-visible id, for people and for `engine.corrupt`
  std::string model;
  std::vector<token_id> prompt;
  std::vector<token_id> output; ///< tokens already delivered; the next one has index output.size()
  sampling_params sampling;
  std::int32_t priority = 0; ///< lower runs first; 0 is normal, as in vLLM
  /// The engine may produce output tokens with index below this; beyond it the request skips steps
  /// until more is granted. `no_limit`: never skips.
  std::uint32_t credit = no_limit;
  placement_wishes wishes{};
  static constexpr std::uint32_t no_limit = std::numeric_limits<std::uint32_t>::max();
  friend bool operator==(const inference_request&, const inference_request&) = default;
};

/// How an output ended. `none`: it goes on.
enum class finish_reason : std::uint8_t {
  none,
  stop,   ///< end-of-sequence, a stop token id or a stop string
  length, ///< `max_tokens` or the model's length
  abort,  ///< ended by the engine without completing; the stream replays or fails
};

/// One token's log-probabilities: its own, then the alternatives, best first.
struct token_logprob {
  float logprob = 0;
  std::vector<std::pair<token_id, float>> alternatives;
  friend bool operator==(const token_logprob&, const token_logprob&) = default;
};

/// What one engine step produced for one stream.
struct token_delta {
  std::uint64_t stream = 0; ///< `stream_ref::stream` at the hub the batch is for
  std::uint32_t epoch = 0;
  std::uint32_t start = 0;             ///< output index of the first token
  std::vector<token_id> tokens;        ///< usually one; may be empty when only `finish` is told
  std::vector<token_logprob> logprobs; ///< one per token when the request asked, else empty
  finish_reason finish = finish_reason::none;
  std::uint32_t cached_tokens
    = 0; ///< prompt tokens found in the prefix cache; told with the first token
  friend bool operator==(const token_delta&, const token_delta&) = default;
};

} // namespace llumnix
