#pragma once

#include "runtime/serving/request.hpp"
#include "runtime/serving/tokenizer.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace llumnix::openai {

/// Which of the generating endpoints was called; they differ in their prompts and in how the output
/// is shown. `tokens` is vLLM's /inference/v1/generate, token ids in and out, which is only passed
/// on to engines that have it.
enum class endpoint : std::uint8_t { chat, completions, tokens };

/// A completion's prompt: text to be tokenized, or token ids taken as they are.
using prompt = std::variant<std::string, std::vector<token_id>>;

/// What a client asked for, checked field by field but not yet tokenized. Defaults are OpenAI's.
struct generation_request {
  endpoint kind = endpoint::chat;
  std::string model;
  std::vector<chat_message> messages; ///< of a chat, text parts joined
  std::vector<prompt> prompts;        ///< of a completion; at least one
  sampling_params sampling;           ///< `choice` is set per stream
  bool seeded = false;                ///< the client gave `seed`
  bool limited = false;               ///< the client gave `max_tokens` or `max_completion_tokens`
  std::uint32_t n = 1;                ///< choices per prompt
  std::vector<std::string> stop;
  bool include_stop = false; ///< show the stop string that ended a choice
  bool stream = false;
  bool include_usage = false;    ///< a last chunk with the usage
  bool continuous_usage = false; ///< the usage so far on every chunk
  bool echo = false;             ///< completions: the text begins with the prompt
};

} // namespace llumnix::openai
