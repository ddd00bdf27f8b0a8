#pragma once

#include "gateway/openai/api_error.hpp"
#include "gateway/openai/generation_request.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace llumnix::openai {

/// A prompt ready to be generated from.
struct tokenized_prompt {
  std::vector<token_id> ids;
  std::uint32_t max_tokens = 0; ///< what was asked for, or what fits into the model's length
  std::string echo;             ///< its text, where the request wants it shown
};

/// The prompts of a checked request as token ids: one for a chat, as many as were given for a
/// completion. `max_model_len`: tokens of prompt and output together; 0: unknown, then nothing is
/// clamped. Fails with 400: ids outside the vocabulary, nothing to go on from, or no room left for
/// an output.
std::variant<std::vector<tokenized_prompt>, api_error>
tokenize(const generation_request& request, const tokenizer& words, std::uint32_t max_model_len);

} // namespace llumnix::openai
