#pragma once

#include "gateway/relay/relay_request.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::relay {

// Bodies for engines that tell no token ids. Their arguments are bodies that a `request_reader`
// took, and for them a second engine may go on by the text of the first.

/// The body for the engine that begins, `first` being what it would get else: with the wish for the
/// usage on every chunk, by which its tokens are counted.
std::string counted_body(std::string_view first);

/// The body for an engine that goes on, of the API that the client used: a completion's prompt is
/// followed by `text`, a chat's messages by one of the assistant with it, which the engine is told
/// to continue. What limits the output is reduced by `delivered` tokens. Every other field is kept
/// as it was sent. `counted`: with the wish for the usage on every chunk.
///
/// `unsupported` where the engine's prompt is not made of prompt or messages alone.
result<std::string> text_continuation_body(
  std::string_view body, const relay_request& request, std::string_view text,
  std::uint32_t delivered, bool counted);

} // namespace llumnix::relay
