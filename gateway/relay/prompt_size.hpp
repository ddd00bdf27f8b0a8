#pragma once

#include <cstddef>
#include <cstdint>

namespace llumnix::relay {

class json_cursor;

/// What is in a request's prompt, as far as it can be told without a tokenizer.
struct prompt_size {
  std::size_t prompts = 0; ///< texts and lists of ids in a list; 0: the one prompt is no list
  std::size_t ids = 0;
  std::size_t text_bytes = 0; ///< as JSON writes them
  bool only_text = true;      ///< else a conversation holds images, sound and the like

  /// The ids, and a quarter of the bytes.
  std::uint32_t tokens() const;
};

/// Of `messages` or `prompt`, the value that comes next, which is passed over. What is neither a
/// conversation nor a prompt counts as nothing: the engine says itself what it thinks of it.
prompt_size measure_messages(json_cursor& at);
prompt_size measure_prompt(json_cursor& at);

} // namespace llumnix::relay
