#pragma once

#include "gateway/openai/chunks.hpp"
#include "gateway/openai/logprobs.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::openai {

/// One choice of a reply that is sent whole.
struct whole_choice {
  std::string text; ///< with the prompt in front where that was echoed
  std::vector<token_id>
    tokens; ///< of the output, where log-probabilities were asked for; else empty
  std::vector<token_logprob> logprobs; ///< one per token
  finish_reason finish = finish_reason::none;
  std::string stop_match;
};

/// The body of a reply to a request without `stream`. `top`: alternatives per token;
/// log-probabilities are written if `logprobs`.
std::string render_reply(
  const reply_head& head, std::span<const whole_choice> choices, const usage& counts, bool logprobs,
  std::uint32_t top, logprob_writer& writer);

/// {"id":…,"object":"model",…}: the model served, created when the process started.
std::string render_model(std::string_view model, std::int64_t created, std::uint32_t max_model_len);

/// {"object":"list","data":[the model]}.
std::string
render_models(std::string_view model, std::int64_t created, std::uint32_t max_model_len);

} // namespace llumnix::openai
