#include "runtime/engine/modeled_tokens.hpp"

#include "runtime/serving/byte_tokenizer.hpp"

#include <algorithm>

namespace llumnix::modeled {

namespace {

constexpr token_id first_word = 512;
constexpr std::uint64_t words = 512;

} // namespace

std::uint64_t sampling_key(const sampling_params& sampling) {
  if (sampling.temperature > 0)
    return mix(sampling.seed ^ mix(sampling.choice));
  return sampling.choice == 0 ? 0 : mix(sampling.choice);
}

token_id token_of(std::uint64_t drawn, const sampling_params& sampling, std::uint32_t index) {
  auto forbidden
    = sampling.ignore_eos || sampling.eos == eos_rule::forbid || index < sampling.min_tokens;
  if (!forbidden && (drawn % 256 == 0 || sampling.eos == eos_rule::force))
    return byte_tokenizer::eos;
  return first_word + static_cast<token_id>((drawn >> 8) % words);
}

token_logprob logprob_of(std::uint64_t drawn, std::uint32_t alternatives) {
  token_logprob told;
  told.logprob = -static_cast<float>((drawn >> 32) & 1023) / 256;
  told.alternatives.reserve(alternatives);
  for (std::uint32_t j = 1; j <= alternatives; ++j)
    told.alternatives.emplace_back(
      first_word + static_cast<token_id>(((drawn >> 8) + j) % words),
      told.logprob - 0.5f * static_cast<float>(j));
  return told;
}

finish_reason
finish_of(token_id token, const sampling_params& sampling, std::uint32_t index, bool room) {
  const auto& stops = sampling.stop_token_ids;
  auto is_eos = token == byte_tokenizer::eos && !sampling.ignore_eos;
  if (
    index >= sampling.min_tokens
    && (is_eos || std::find(stops.begin(), stops.end(), token) != stops.end()))
    return finish_reason::stop;
  return index + 1 >= sampling.max_tokens || !room ? finish_reason::length : finish_reason::none;
}

} // namespace llumnix::modeled
