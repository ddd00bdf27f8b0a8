#pragma once

#include "runtime/base/error.hpp"
#include "runtime/serving/request.hpp"

#include <span>
#include <string_view>

namespace llumnix {

/// What a stream tells whoever shows its text, with each accepted delta.
struct stream_update {
  std::uint32_t choice = 0;
  std::string_view text;            ///< new text; stop strings and incomplete UTF-8 are held back
  std::span<const token_id> tokens; ///< the new tokens; their text may come with a later update
  std::span<const token_logprob> logprobs;    ///< one per token, or empty
  finish_reason finish = finish_reason::none; ///< told once, with the last update
  std::string_view stop_match;                ///< the stop string that ended it, or empty
  std::uint32_t prompt_tokens = 0;            ///< usage so far
  std::uint32_t output_tokens = 0;
  std::uint32_t cached_tokens = 0;
};

/// Shows a stream's text to its client. A port: `gateway/http_session` in production, a vector in
/// tests. Called on the stream's executor only. After `on_update` with a finish only `flush`
/// follows; after `on_failure` nothing does. A sink must live until then, or until
/// `stream_table::cancel` returned.
class response_sink {
public:
  virtual ~response_sink() = default;
  virtual void on_update(const stream_update& update) = 0;
  /// The stream cannot go on (or never began: then nothing was updated before).
  virtual void on_failure(std::uint32_t choice, const error& failure) = 0;
  /// Several updates may come in a row; after the last of them this is called once, so that they
  /// are written to the socket together.
  virtual void flush() = 0;

  bool flush_pending = false; ///< kept by `stream_table`, so that a sink is flushed once a batch
};

} // namespace llumnix
