#pragma once

#include <cstddef>

namespace llumnix {

/// The largest message a node link carries, in bytes. What could be larger is refused before it is
/// sent: a message above it costs the link.
inline constexpr std::size_t link_message_bytes_max = 32u << 20;

/// The longest prompt and output, in tokens, that one message holds beside everything else in it.
inline constexpr std::size_t link_request_tokens_max = (link_message_bytes_max - (1u << 20)) / 4;

/// Ends the process unless CAF calls the functions that `caf_guards.cpp` puts before its own. Call
/// it before an actor system is made; the call also keeps them in the program.
void require_caf_guards();

} // namespace llumnix
