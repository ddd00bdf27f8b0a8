#pragma once

#include "runtime/serving/request.hpp"
#include "runtime/serving/tokenizer.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llumnix::openai {

/// Writes log-probabilities in the forms of both endpoints. A token's text that is no UTF-8 by
/// itself shows as U+FFFD; in the chat form `bytes` has it exactly. Keeps a buffer; one for each
/// I/O loop.
class logprob_writer {
public:
  explicit logprob_writer(const tokenizer& words) : words_{&words} {}

  /// Appends {"content":[{token, logprob, bytes, top_logprobs}…]}: the `top` likeliest tokens each.
  void chat(
    std::string& out, std::span<const token_id> tokens, std::span<const token_logprob> logprobs,
    std::uint32_t top);

  /// Appends {"text_offset":[…],"token_logprobs":[…],"tokens":[…],"top_logprobs":[{…}…]};
  /// `top_logprobs` is null when `top` is 0. `offset`: characters of the choice's text before the
  /// first token; advanced past the last.
  void completion(
    std::string& out, std::span<const token_id> tokens, std::span<const token_logprob> logprobs,
    std::uint32_t top, std::uint64_t& offset);

private:
  const std::string& text_of(token_id id);
  void chat_entry(std::string& out, token_id id, float logprob);
  /// The `top` likeliest of a position, the token taken among them, best first.
  void rank(token_id taken, const token_logprob& logprob, std::uint32_t top);

  const tokenizer* words_;
  std::string text_;
  std::vector<std::pair<token_id, float>> ranked_;
};

} // namespace llumnix::openai
