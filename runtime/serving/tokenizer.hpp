#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// One message of a chat, its text parts already joined.
struct chat_message {
  std::string role;
  std::string content;
};

/// Text to token ids and back, for one model. A port: `byte_tokenizer` serves the modeled engine.
/// All functions are const and safe to call from several threads.
class tokenizer {
public:
  virtual ~tokenizer() = default;
  /// Ids of a completion's prompt.
  virtual result<std::vector<token_id>> encode(std::string_view text) const = 0;
  /// Ids of a chat, template applied, ready for the assistant's answer. `invalid_argument` for
  /// unknown roles.
  virtual result<std::vector<token_id>>
  encode_chat(std::span<const chat_message> messages) const = 0;
  /// Whether the id may appear in a token-id prompt.
  virtual bool valid(token_id id) const = 0;
  /// Appends the bytes that `id` adds to a text. They may end inside a UTF-8 sequence; whoever
  /// shows text holds back the incomplete bytes (`utf8_complete_prefix`).
  virtual void append_text(token_id id, std::string& text) const = 0;
};

/// Length of the longest prefix of `text` that does not end inside a UTF-8 sequence.
std::size_t utf8_complete_prefix(std::string_view text);

} // namespace llumnix
