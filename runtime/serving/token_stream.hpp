#pragma once

#include "runtime/serving/tokenizer.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Turns the tokens of one output into the text its client may see: bytes that end inside a UTF-8
/// sequence and bytes that may become a stop string are held back until it is clear what they are.
///
/// A stop string counts once it is completed by a token beyond `min_tokens`; of several completed
/// by one token the first in the client's list wins, as in vLLM. Its own text is shown only with
/// `include_stop`.
class token_stream {
public:
  token_stream(
    const tokenizer& words, std::vector<std::string> stop, bool include_stop,
    std::uint32_t min_tokens);

  /// Takes the next token. Returns true if it completed a stop string: the output ends with this
  /// token.
  bool take(token_id id);
  /// No token follows: whatever was held back may be shown (incomplete UTF-8 as U+FFFD).
  void end();
  /// The text that may be shown and was not yet; valid until the next call of any member.
  std::string_view ready() const { return std::string_view{pending_}.substr(0, ready_); }
  /// What `ready` returned has been shown.
  void shown();

  /// Tokens taken so far.
  std::uint32_t taken() const { return taken_; }
  /// The stop string that ended the output, or empty.
  const std::string& match() const { return match_; }

private:
  std::size_t held_back() const;

  const tokenizer* words_;
  std::vector<std::string> stop_;
  bool include_stop_;
  std::uint32_t min_tokens_;
  std::uint32_t taken_ = 0;
  std::string pending_; ///< text not shown yet
  std::size_t ready_ = 0;
  std::string match_;
};

} // namespace llumnix
