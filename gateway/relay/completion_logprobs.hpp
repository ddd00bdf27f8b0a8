#pragma once

#include "gateway/relay/json_cursor.hpp"

#include <cstdint>
#include <string>

namespace llumnix::relay {

// Both take the value that comes next, the `logprobs` of a completion's chunk: an object with
// `tokens`, `token_logprobs`, `top_logprobs` and `text_offset`, or null.

/// Appends it as it is, but for its offsets, which grow by `text_offset` characters.
void append_moved_logprobs(std::string& out, json_cursor& at, std::uint64_t text_offset);

/// Appends it in the form of a chat, {"content":[{token, logprob, bytes, top_logprobs}…]}, with the
/// first `top` alternatives of each token: a completion tells one more. Null where it has another
/// form. Of a token that goes by its id (`return_tokens_as_token_ids`) the bytes are not known:
/// null.
void append_chat_logprobs(std::string& out, json_cursor& at, std::uint32_t top);

} // namespace llumnix::relay
