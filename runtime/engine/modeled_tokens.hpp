#pragma once

#include "runtime/serving/request.hpp"

/// The arithmetic of the modeled engine (spec/modeled_engine.md 1): from ids to digests to the next
/// token. All of it is 64-bit unsigned; whoever repeats it knows what a client should have
/// received.
namespace llumnix::modeled {

/// splitmix64.
constexpr std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// `mix` turned around.
constexpr std::uint64_t unmix(std::uint64_t z) {
  z ^= (z >> 31) ^ (z >> 62);
  z *= 0x319642B2D24D8EC3ull; // inverse of the second factor, modulo 2^64
  z ^= (z >> 27) ^ (z >> 54);
  z *= 0x96DE1B173F119089ull; // of the first
  z ^= (z >> 30) ^ (z >> 60);
  return z - 0x9E3779B97F4A7C15ull;
}

/// Digest of a position: of its id and, through the digest of the position before (0 at the start),
/// of everything earlier. Equal prefixes have equal digests.
constexpr std::uint64_t next_digest(std::uint64_t previous, token_id id) {
  return mix(previous ^ mix(id));
}

/// The id that leads from one digest to the next; above 32 bits, most likely, where none does.
constexpr std::uint64_t id_between(std::uint64_t previous, std::uint64_t digest) {
  return unmix(unmix(digest) ^ previous);
}

/// Word `index` of the KV bytes of a position with that digest.
constexpr std::uint64_t kv_word(std::uint64_t digest, std::uint64_t index) {
  return index == 0 ? digest : mix(digest + index);
}

/// What sets one choice's tokens apart from another's over the same prefix.
std::uint64_t sampling_key(const sampling_params& sampling);

/// The number that decides the token after `position`.
constexpr std::uint64_t draw(std::uint64_t digest, std::uint64_t key, std::uint64_t position) {
  return mix(digest ^ mix(key + position + 1));
}

/// The token of a draw, for output index `index`: end-of-sequence or a word.
token_id token_of(std::uint64_t drawn, const sampling_params& sampling, std::uint32_t index);

/// Log-probability of the token taken and `alternatives` others, best first.
token_logprob logprob_of(std::uint64_t drawn, std::uint32_t alternatives);

/// How an output ends whose newest token, at index `index`, is `token`; `none` if it goes on.
/// `room`: whether the model's length allows another token.
finish_reason
finish_of(token_id token, const sampling_params& sampling, std::uint32_t index, bool room);

} // namespace llumnix::modeled
