#pragma once

#include "gateway/openai/api_error.hpp"
#include "gateway/openai/generation_request.hpp"
#include "gateway/relay/body_layout.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix::relay {

class request_fields;

/// What a completion gets that gives no `max_tokens`, by OpenAI's API and in vLLM. A chat then goes
/// on as far as the model's context reaches.
inline constexpr std::uint32_t default_max_tokens = 16;

/// What the gateway must know of a request it passes on to an engine over HTTP. The body stays the
/// client's bytes: fields not named here are the engine's business, at any depth.
struct relay_request {
  openai::endpoint kind = openai::endpoint::chat;
  std::string model; ///< empty where the client gave none
  bool stream = false;
  std::uint32_t choices = 1;     ///< `n` times the number of prompts; at least 1
  bool wants_token_ids = false;  ///< the client sees token ids: it asked for them itself
                                 ///< (`return_token_ids`), or nothing else is told
  bool include_usage = false;    ///< a last chunk with the usage; of `stream_options` the default
  bool continuous_usage = false; ///< the usage so far on every chunk
  /// As given, `max_completion_tokens` first in a chat; the engine's default where absent. None
  /// where it is 0 or less, too: the engine refuses that itself. Never above what 32 bits hold.
  std::optional<std::uint32_t> max_tokens;
  std::uint32_t min_tokens = 0;
  /// Characters an engine may hold back of a text because of stop strings: those of the longest,
  /// less one; 0 where there is none, or where stop strings are shown.
  std::uint32_t held_back = 0;
  /// Characters of the longest stop string, less one, also where stop strings are shown: as far
  /// back as one that ends in new text may begin.
  std::uint32_t stop_reach = 0;
  std::vector<std::string> stops; ///< stop strings, as given
  /// If the engine were asked to show stop strings (`include_stop_str_in_output`) it would show
  /// nothing else by it: no `stop_token_ids`, no special tokens.
  bool may_show_stops = false;
  bool without_text = false; ///< tokens only (`output_mode` of /inference/v1/generate)
  /// There are stop strings, in a text that is not told: where one may have begun is not known.
  bool unseen_stops = false;
  bool greedy = false; ///< temperature 0: what is asked for once more is the same
  bool logprobs = false;
  bool tokens_as_ids = false; ///< `return_tokens_as_token_ids`: log-probabilities name tokens so
  std::uint32_t top_logprobs = 0;  ///< alternatives asked for at each token; all at the highest
  std::uint32_t prompt_tokens = 0; ///< ids given, or an estimate: a quarter of the prompt's bytes
  /// What of it no second engine can go on with once tokens were delivered: "seed" (with
  /// temperature above 0 or absent), "frequency_penalty", "presence_penalty", "response_format",
  /// "structured_outputs", "guided_*", "regex", "ebnf", "json_schema", "tools", "functions", "n",
  /// "prompt" (several), "prompt_embeds", "messages" (not only text), "best_of", "echo", "suffix",
  /// "use_beam_search", "prompt_logprobs", "logits_processors", "custom_logit_processor",
  /// "bad_words" (one of several tokens may be split by the cut), "thinking_token_budget",
  /// "repetition_detection", "return_tokens_as_token_ids" (of a chat with alternatives: their ids
  /// and the token's own text come in no one form), and of /inference/v1/generate "features",
  /// "content_parts" (images), "trace_decode_token_ids", "stop" (of a text that is not told, where
  /// what is asked for once more is not the same), "kv_transfer_params": the first of them, in this
  /// order. Else a field whose value is of a type that only the engine can make something of. Empty: all carries over (guides/vllm.md 6 and 7).
  std::string_view single_use;
  std::optional<std::int32_t> priority; ///< lower goes first; none where it is not given
  body_layout layout;                   ///< of the body it was read from
  /// Where in it the prompt stands, if that is one list of token ids; else empty.
  body_range ids{};
};

/// Reads the bodies of requests that are passed on. Only what the gateway acts on is checked, and
/// JSON as a whole: an engine says itself what it thinks of the rest.
class request_reader {
public:
  /// 400 for a body that is no JSON object or whose known fields have impossible types. Scalars have
  /// none: they are read as lax as engines do, or left to them.
  std::variant<relay_request, openai::api_error> read(openai::endpoint kind, std::string_view body);

private:
  std::variant<relay_request, openai::api_error> read(
    openai::endpoint kind, std::string_view body, request_fields& fields, request_fields& sampling);
};

/// The prompt's token ids, where it is one list of them; else none.
std::vector<token_id> prompt_ids(std::string_view body, const relay_request& request);

/// A body for an engine as far as it is the client's, and what follows that.
struct engine_body {
  std::size_t kept = 0; ///< bytes of the client's body, from its first on
  std::string rest;
};

/// The body for the engine that begins: the client's bytes, and with `ask_ids` a last field
/// "return_token_ids":true (a later duplicate wins in every engine we know). Fields that would let
/// a client make an engine connect somewhere (`connects`) are cut out. `body`, here and below, is
/// the one that a `request_reader` took. It is not read again, and mostly not copied either.
engine_body first_body(std::string_view body, const relay_request& request, bool ask_ids);

/// The body for an engine that goes on, of /v1/completions, or of /inference/v1/generate if the
/// client's is: `ids` are prompt and delivered tokens; what limits the output is reduced by
/// `delivered`, of which the caller sees to it that something is left. Every other field of the
/// client's body is kept as it was sent, at any depth, but for what only a chat has (`messages`,
/// tools, templates), for the truncation of the prompt, and for what is said anew: stream, n,
/// prompt, token ids, and a chat's log-probabilities in the form of completions.
///
/// `context_tokens`: what the engine's model can hold, 0 if it is not known. A chat that gives no
/// limit needs it, because as a completion it would end after `default_max_tokens`; for token ids
/// in and out it is said, too. `show_stops`: the engine is to hold no text back, and to show stop
/// strings; not for token ids in and out.
std::string continuation_body(
  std::string_view body, const relay_request& request, std::span<const token_id> ids,
  std::uint32_t delivered, std::uint32_t context_tokens, bool show_stops = false);

} // namespace llumnix::relay
