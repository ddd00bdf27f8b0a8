#pragma once

#include "gateway/relay/json_cursor.hpp"
#include "runtime/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace llumnix::relay {

/// Appends the array that comes next without its first `skip` elements, counts grown by `grow`.
void append_column(std::string& out, json_cursor& at, std::uint64_t grow, std::size_t skip);

// Both take the value that comes next, the `logprobs` of a completion's chunk: an object with
// `tokens`, `token_logprobs`, `top_logprobs` and `text_offset`, or null.

/// Appends it as it is, but without its first `skip` tokens, and with offsets that grow by
/// `text_offset` characters.
void append_moved_logprobs(
  std::string& out, json_cursor& at, std::uint64_t text_offset, std::size_t skip);

/// Appends it in the form of a chat, {"content":[{token, logprob, bytes, top_logprobs}…]}, with the
/// first `top` alternatives of each token: a completion tells one more. Its first `skip` tokens are
/// left out. Null where it has another form. `ids`: of all its tokens, which are to go by them
/// (`return_tokens_as_token_ids`); empty where not. Of a token that the engine itself calls by its
/// id the bytes are not known: null.
void append_chat_logprobs(
  std::string& out, json_cursor& at, std::uint32_t top, std::size_t skip,
  std::span<const token_id> ids);

} // namespace llumnix::relay
