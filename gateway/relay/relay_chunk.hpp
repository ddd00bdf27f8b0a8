#pragma once

#include "gateway/openai/chunks.hpp"
#include "gateway/relay/relay_request.hpp"
#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

class json_cursor;

/// A choice within one event of an engine's stream.
struct chunk_choice {
  std::uint32_t index = 0;   ///< as said; whoever asked knows how many there are
  bool role_only = false;    ///< a chat's first chunk: the role, no text
  std::string text;          ///< decoded; of `delta.content` or `text`
  std::vector<token_id> ids; ///< empty where the engine tells none
  std::string finish_reason; ///< empty while it goes on
  bool other_delta = false;  ///< a chat's delta holds more than text: tool calls, reasoning
  bool bare = false;         ///< a chat's delta holds nothing
};

/// One event of an engine's stream (the text after `data: `), as far as the gateway must know it.
struct chunk_facts {
  enum class type : std::uint8_t { tokens, usage, error, done };
  type kind = type::tokens;
  std::vector<chunk_choice> choices;
  std::optional<std::vector<token_id>> prompt_ids; ///< told with the first chunk of a choice
  std::string id;                                  ///< of the reply, as the engine gave it
  std::optional<openai::usage> usage;
  int error_status = 500;    ///< of an error event (`error.code` where it is a number)
  std::string error_message; ///< of an error event
};

/// Reads events and writes them on. Hostile input is an error, never a crash; memory is bounded by
/// the event. Keeps its buffers: one for each I/O loop.
class chunk_reader {
public:
  /// Understands one event. `bad_message` for what is no JSON object or no chunk of chat and
  /// completions, or with `tokens` of /inference/v1/generate. The facts stay valid until the next
  /// call. `hide_usage`: it was not the client that asked for the usage on each chunk, so from here
  /// on the event is without it; one with nothing but a usage stays as it is.
  result<const chunk_facts*>
  read(std::string_view data, bool hide_usage = false, bool tokens = false);

  /// The event last read, as it was sent; empty if it was refused.
  std::string_view event() const { return event_; }

  /// Appends the event last read as the client of the engine that began is to see it,
  /// "data: {…}\n\n": the engine's bytes. `hide_ids`: it was not the client that asked for token
  /// ids, so there is a null in their place, as vLLM has it where nobody asks.
  void append_as_sent(std::string& out, bool hide_ids) const;
  const chunk_facts& facts() const { return facts_; }

  /// Bytes of the event, first and behind the last.
  struct part {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  /// What may have to be hidden, in order.
  struct parts {
    std::vector<part> ids;    ///< arrays
    std::vector<part> usages; ///< members, each with a comma
  };

private:
  void cut_usage();

  std::string event_;
  chunk_facts facts_;
  parts parts_;
};

/// Shows the stream of an engine that goes on (chunks of /v1/completions, or of
/// /inference/v1/generate) as the stream that began: same id, creation time, model and form;
/// everything else as the engine sends it.
class translator {
public:
  /// `first`: the first event of the stream that began, as its engine sent it.
  translator(const relay_request& request, std::string_view first);

  /// Appends the event `from` has just read, with `text` in place of its text (parts may have been
  /// shown before), and without the role. `counts`: what a usage in it is to say. A chat's
  /// log-probabilities are rebuilt from those of completions; offsets of completions' are moved by
  /// `text_offset` characters, and cached tokens told are at most those of the prompt. A [DONE]
  /// stays one. `repeated`: so many of its tokens were shown before, whose ids and
  /// log-probabilities are left out; null where that is all of them. Of token ids in and out the
  /// versions of weights are null, too: they count from where this engine began. `stop`: the output
  /// ends with this event, because of that stop string; empty where the engine says itself if it
  /// does.
  void append(
    std::string& out, const chunk_reader& from, std::string_view text, const openai::usage& counts,
    std::uint64_t text_offset, std::size_t repeated, std::string_view stop = {}) const;

  /// Appends an event with nothing but the usage, which no engine says.
  void append_usage(std::string& out, const openai::usage& counts) const;

  static constexpr std::size_t all = SIZE_MAX; ///< tokens of an event

private:
  /// How the id of a reply is called.
  std::string_view id_name() const {
    return kind_ == openai::endpoint::tokens ? "request_id" : "id";
  }
  bool is_of_the_prompt(std::string_view key) const;
  std::string_view as_first(std::string_view key, std::string_view value) const;
  void append_choices(
    std::string& out, json_cursor& at, const chunk_reader& from, std::string_view text,
    std::uint64_t text_offset, std::size_t repeated, std::string_view stop) const;
  void append_choice(
    std::string& out, json_cursor& at, const chunk_choice& facts, std::string_view text,
    std::uint64_t text_offset, std::size_t repeated, std::string_view stop) const;

  openai::endpoint kind_;
  bool wants_token_ids_;
  std::uint32_t top_logprobs_;
  bool tokens_as_ids_;
  /// What is said as the first event said it, as JSON; empty where it did not.
  std::string id_;
  std::string created_;
  std::string model_;
  std::string fingerprint_;
};

} // namespace llumnix::relay
