#pragma once

#include "gateway/relay/hidden_text.hpp"
#include "gateway/relay/relay_chunk.hpp"
#include "gateway/relay/stop_seam.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::relay {

/// Output tokens that a request allows; none where the model's context is all that ends it.
std::optional<std::uint32_t> limit_of(const relay_request& request);

/// How an engine goes on with a stream another one began.
struct resumption {
  enum class from : std::uint8_t {
    scratch, ///< nothing was shown: with the client's own body
    ids,     ///< from the tokens, as a completion
    text     ///< from the text, by the API the client used
  };
  from where = from::scratch;
  std::vector<token_id> ids; ///< from ids: prompt, and output so far
  std::string text;          ///< from text: the output so far
  std::uint32_t kept = 0;    ///< tokens of the output in either
  bool shows_stops = false;  ///< from ids: with stop strings shown, so that no text is held back
};

/// A client's stream, put together from what one engine after the other sends: a plain value.
///
/// The first engine's events are passed on as they come. When it is lost, `resume` says from where
/// the next one is to go on, and what that one sends is shown as the same stream. The place to go
/// on from lies before what the client has seen if the text there cannot be cut cleanly: inside a
/// character, where stop strings let an engine hold text back, or where the limit left no token to
/// ask for. What is computed twice is compared with what was shown, and left out.
///
/// What is sampled would come otherwise when computed twice, and what is shown of tokens must not.
/// So where an engine told more tokens than text, because of stop strings, the next one goes on
/// behind all of them, and the text at this seam is the stream's own business (`stop_seam`). For
/// that the text that was held back must be known: `hidden` says how to find it out.
///
/// Where token ids are all that is told (/inference/v1/generate) every token is a place to go on
/// from; but with stop strings, which an engine looks for in a text of its own, only the beginning.
///
/// An engine that tells no token ids is gone on from by its text, where that is all there is to go
/// on from: no stop strings, no log-probabilities, and its tokens were counted if they must be.
class relay_stream {
public:
  explicit relay_stream(const relay_request& request);

  enum class verdict : std::uint8_t {
    go_on,    ///< more is to come
    complete, ///< that was the end, and `out` has it
    failed,   ///< this engine is of no use any more; `failure` says why
    broken,   ///< no engine can mend it: what came does not go with what the client has seen
    refused,  ///< an error where the first token belongs; `refusal_status` goes with it
  };
  /// Takes an event of the engine that speaks now, and appends what the client is to see.
  verdict on_event(chunk_reader& reader, std::string_view data, std::string& out);
  /// The engine has ended its answer in order, though without a [DONE]. Whether all was said; then
  /// that is the client's end too, and `out` has it.
  bool on_end(chunk_reader& reader, std::string& out);
  const error& failure() const { return failure_; }
  /// As an HTTP status.
  int refusal_status() const { return refusal_status_; }

  /// The engine is lost. Whether nothing is left to be asked for, as all of the output and its end
  /// were told; then `out` has the rest, a usage included.
  bool finish(std::string& out);
  /// The engine is lost. Where the next one goes on; `unsupported` says why none can.
  result<resumption> resume();
  /// After `resume` said from ids: text to be found out first, so that the next engine computes
  /// nothing again; null if there is none.
  const hidden_text* hidden() const { return hidden_ ? &*hidden_ : nullptr; }
  /// What it was found out to be, or nothing. How the next engine goes on then; nothing: as
  /// `resume` said.
  std::optional<resumption> resume_behind(std::optional<std::string> found);
  /// After `resume` said from ids: the next engine tells none, so from the text instead, now and for
  /// whoever follows; `unsupported` says why not, and then what `resume` said holds.
  result<resumption> resume_by_text();
  /// What a request holds that has its prompt as token ids, to be called before `resume` and
  /// `why_stays` where engines are not asked to tell it.
  void set_prompt(std::vector<token_id> ids) { prompt_ids_ = std::move(ids); }
  /// Why it is not to leave an engine that is well, however long one waits; empty: it may. Held to
  /// more than `resume`, which is for need: what the client gets must be as exact as if it stayed.
  std::string why_stays() const;
  /// Whether the next engine would go on right behind what the client has, if it left now.
  bool may_leave() const;
  /// Whether a stream of an engine that tells no ids could be gone on with by its text, as far as
  /// the request is concerned; it then wants to be told how many tokens the text has.
  static bool suits_text(const relay_request& request);
  /// The engine asked now is to tell the usage on every chunk, though the client did not ask: it is
  /// not to see it.
  void hide_usage(bool hidden) { hides_usage_ = hidden; }
  /// The same of token ids.
  void hide_ids(bool hidden) { hides_ids_ = hidden; }

  /// Whether the client has been sent anything.
  bool begun() const { return begun_; }
  /// Grows with every event that says something: text, tokens, an end. Engines that only keep the
  /// line warm do not move it.
  std::uint64_t progress() const { return progress_; }
  /// Why the output ended, in the engine's words, as the client was told; of several the last.
  const std::string& finish_reason() const { return finish_reason_; }
  /// Bytes that wait for the first token.
  std::size_t waiting() const { return pending_.size(); }
  std::uint32_t prompt_tokens() const { return prompt_tokens_; }
  /// Told by ids, else by usage, else one for each event with text.
  std::uint32_t output_tokens() const { return output_tokens_; }

private:
  /// After so many tokens the text shown ended with a whole character, and had so many bytes.
  struct point {
    std::uint32_t tokens = 0;
    std::uint32_t bytes = 0;
    bool whole = true; ///< no character may have been begun behind it
  };

  verdict fail(errc code, std::string why, verdict what = verdict::failed);
  verdict on_tokens(
    chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out);
  verdict begin_with(
    chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out);
  verdict continue_with(chunk_reader& reader, const chunk_facts& facts, std::string& out);
  verdict continue_by_ids(
    chunk_reader& reader, const chunk_facts& facts, std::string_view text, std::string& out);
  verdict continue_behind_seam(
    chunk_reader& reader, const chunk_facts& facts, std::size_t known, std::string& out);
  verdict continue_by_text(
    chunk_reader& reader, const chunk_facts& facts, std::string_view text, std::string& out);
  verdict
  on_usage(chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out);
  void show_held_usage(chunk_reader& reader, std::string& out);
  void note_tokens(const chunk_facts& facts);
  void note_progress(const chunk_facts& facts);
  void count_text(const chunk_facts& facts, const chunk_choice& choice);
  bool is_place(const chunk_choice& choice) const;
  void add_point(const chunk_choice& choice);
  void skip_prompt(std::string_view& text);
  bool exceeds_limit(const chunk_facts& facts) const;
  bool showed_some() const;
  bool begins(const chunk_choice& choice) const;
  std::size_t count_late(const chunk_facts& facts) const;
  bool has_ended(std::uint32_t choice) const;
  bool note_end(std::uint32_t choice, std::string_view reason);
  bool take_repeated(const chunk_choice& choice);
  bool skip_shown(std::string_view& text);
  bool shows_tokens() const { return request_->wants_token_ids || request_->logprobs; }
  bool by_ids() const { return ids_known_ && !prompt_ids_.empty(); }
  std::string why_no_other() const;
  std::string_view no_text_because() const;
  point place_to_go_on() const;
  point place_behind_all() const;
  point place_within_character() const;
  hidden_text hidden_before(const point& place, const std::optional<stop_seam>& seam) const;
  void append_usage(std::string& out);
  resumption go_on_behind(std::uint32_t tokens, std::string_view unseen);
  std::vector<token_id> told_so_far() const;
  openai::usage counts(const openai::usage& told) const;

  const relay_request* request_;
  error failure_;
  int refusal_status_ = 0;
  std::string engine_id_;  ///< of the reply of the engine that speaks now
  std::string pending_;    ///< events without a token: shown with the first that has one
  std::string first_;      ///< the first event, as sent
  std::string held_usage_; ///< an event with the usage that came before the output's end
  std::optional<translator> translator_; ///< once another engine goes on
  bool hides_usage_ = false;
  bool hides_ids_ = false;
  bool begun_ = false;
  bool ids_known_ = true;      ///< each token's id was told
  bool counted_ = true;        ///< each text came with the number of tokens so far
  bool other_delta_ = false;   ///< the engine parsed tools or thoughts out of the text
  std::vector<std::uint32_t> ended_; ///< choices whose output has, in order
  bool end_shown_ = false;           ///< the client has seen the end of one
  std::string finish_reason_;
  bool usage_shown_ = false;   ///< and the usage behind it
  std::uint64_t progress_ = 0;
  std::uint32_t idle_events_ = 0; ///< since then
  std::uint32_t prompt_tokens_ = 0;
  std::uint32_t output_tokens_ = 0;
  std::uint32_t text_tokens_ = 0; ///< of the text, where no ids are told
  std::vector<token_id> prompt_ids_;
  std::vector<token_id> ids_; ///< of the output
  std::string shown_;         ///< the text of the output
  std::vector<point> points_;
  std::optional<hidden_text> hidden_;
  // Of the engine that goes on:
  std::optional<stop_seam> seam_; ///< it computes nothing again
  std::uint32_t kept_ = 0; ///< output tokens its prompt held
  std::size_t open_text_
    = 0;                     ///< bytes delivered where it goes on, if a character may be open there
  std::uint32_t told_ = 0;   ///< tokens it has told
  std::size_t compared_ = 0; ///< bytes of `shown_` before which nothing of its text lies
  std::uint64_t offset_ = 0; ///< characters before its own
};

} // namespace llumnix::relay
