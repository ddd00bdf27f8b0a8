#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// `llumnix load`: drives an OpenAI endpoint and checks what comes back.
namespace llumnix::load {

/// What decides the tokens of one choice of one request to a modeled engine.
struct expected_output {
  std::uint64_t digest = 0; ///< of the prompt's last position
  std::uint64_t length = 0; ///< tokens of the prompt
  std::uint64_t key = 0;    ///< see `sampling_key`
  std::uint32_t max_tokens = 1;
  std::uint32_t min_tokens = 0;
  bool ignore_eos = false;
};

/// Digest and length of a prompt; the other fields are left for the caller to fill.
///
/// Completions: the bytes of the text. Chat: one user message with that content.
expected_output expect_completion(std::string_view prompt);
expected_output expect_chat(std::string_view content);

/// The key that `choice` of a request is sampled with; greedy where no seed is given.
std::uint64_t sampling_key(std::optional<std::uint64_t> seed, std::uint32_t choice);

/// Where an output left what a modeled engine must answer.
struct mismatch {
  std::uint32_t position = 0; ///< output token, from 0
  std::string expected;       ///< its text, or "end (stop)"
  std::string got;            ///< what came instead
  friend bool operator==(const mismatch&, const mismatch&) = default;
};

/// Recomputes one choice token by token while its text arrives, in constant memory.
///
/// An implementation of its own of the arithmetic in the modeled engine's specification: it shares
/// no code with the engine, so a mistake there cannot hide here.
class output_checker {
public:
  explicit output_checker(const expected_output& expected);

  /// Compares the next piece of text, cut anywhere. After a mismatch the checker must not be used.
  std::optional<mismatch> feed(std::string_view text);
  /// The output ended with this `finish_reason`; nothing may be missing and the reason must be the
  /// right one.
  std::optional<mismatch> finish(std::string_view reason);

  /// Output tokens so far, end-of-sequence included; counts a token once its text has begun to
  /// arrive.
  std::uint32_t tokens() const { return produced_; }

private:
  /// Makes `word_` the next token's text; empty when the output ends, and `reason_` says how.
  void advance();

  expected_output expected_;
  std::uint64_t digest_;
  std::uint32_t produced_ = 0;
  std::string word_;        ///< text of the token at hand
  std::size_t matched_ = 0; ///< bytes of it that have arrived
  std::string_view reason_; ///< set at the end
};

} // namespace llumnix::load
