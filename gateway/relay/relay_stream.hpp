#pragma once

#include "gateway/relay/relay_chunk.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

/// How an engine goes on with a stream another one began.
struct resumption {
  bool from_scratch = true;  ///< nothing was shown: with the client's own body
  std::vector<token_id> ids; ///< else: prompt, and output so far
  std::uint32_t kept = 0;    ///< of the output, those in `ids`
};

/// A client's stream, put together from what one engine after the other sends: a plain value.
///
/// The first engine's events are passed on as they come. When it is lost, `resume` says from where
/// the next one is to go on, and what that one sends is shown as the same stream. The place to go
/// on from lies before what the client has seen if the text there cannot be cut cleanly: inside a
/// character, where stop strings let an engine hold text back, or where the limit left no token to
/// ask for. What is computed twice is compared with what was shown, and left out.
class relay_stream {
public:
  explicit relay_stream(const relay_request& request);

  enum class verdict : std::uint8_t {
    go_on,    ///< more is to come
    complete, ///< that was the end, and `out` has it
    failed,   ///< this engine is of no use any more; `failure` says why
    broken,   ///< no engine can mend it: what came does not go with what the client has seen
  };
  /// Takes an event of the engine that speaks now, and appends what the client is to see.
  verdict on_event(chunk_reader& reader, std::string_view data, std::string& out);
  const error& failure() const { return failure_; }

  /// The engine is lost. Where the next one goes on; `unsupported` says why none can.
  result<resumption> resume();

  /// Whether the client has been sent anything.
  bool begun() const { return begun_; }
  std::uint32_t prompt_tokens() const { return prompt_tokens_; }
  /// Told by ids, else by usage, else one for each event with text.
  std::uint32_t output_tokens() const { return output_tokens_; }

private:
  /// After so many tokens the text shown ended with a whole character, and had so many bytes.
  struct point {
    std::uint32_t tokens = 0;
    std::uint32_t bytes = 0;
  };

  verdict fail(errc code, std::string why, verdict what = verdict::failed);
  verdict on_tokens(
    chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out);
  verdict begin_with(
    chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out);
  verdict continue_with(chunk_reader& reader, const chunk_facts& facts, std::string& out);
  void note_tokens(const chunk_facts& facts);
  bool take_repeated(const chunk_choice& choice);
  bool skip_shown(std::string_view& text);
  point place_to_go_on() const;
  openai::usage counts(const openai::usage& told) const;

  const relay_request* request_;
  error failure_;
  std::string engine_id_; ///< of the reply of the engine that speaks now
  std::string pending_;   ///< events without a token: shown with the first that has one
  std::string first_;     ///< the first event, as sent
  std::optional<translator> translator_; ///< once another engine goes on
  bool begun_ = false;
  bool ids_known_ = true;      ///< each token's id was told
  bool other_delta_ = false;   ///< the engine parsed tools or thoughts out of the text
  std::uint32_t finished_ = 0; ///< choices that have ended
  bool end_shown_ = false;     ///< the client has seen the end of one
  std::uint32_t prompt_tokens_ = 0;
  std::uint32_t output_tokens_ = 0;
  std::vector<token_id> prompt_ids_;
  std::vector<token_id> ids_; ///< of the output
  std::string shown_;         ///< the text of the output
  std::vector<point> points_;
  // Of the engine that goes on:
  std::uint32_t kept_ = 0;   ///< output tokens its prompt held
  std::uint32_t told_ = 0;   ///< tokens it has told
  std::size_t compared_ = 0; ///< bytes of `shown_` before which nothing of its text lies
};

} // namespace llumnix::relay
