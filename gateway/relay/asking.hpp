#pragma once

#include "gateway/relay/engine_directory.hpp"
#include "gateway/relay/relay_request.hpp"
#include "gateway/relay/relay_stream.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::relay {

/// What an engine is asked for a request that is relayed.
struct asked_body {
  engine_body body;         ///< after `kept` bytes of the client's
  bool hides_usage = false; ///< it counts for the gateway: what it says of usage is not passed on
  bool hides_ids = false;   ///< it tells token ids to the gateway: they are not passed on
};

/// Tokens that a whole reply may have, as far as is known before it comes: `max_tokens`, else 4096,
/// and no more than a context of `context_tokens` (0: not known) leaves behind the prompt.
std::uint32_t whole_reply_tokens(const relay_request& request, std::uint32_t context_tokens);

/// Why an engine cannot go on from there; empty where it can, and where it begins.
std::string_view
cannot_go_on(const relay_request& request, const resumption& from, const engine_endpoint& engine);

/// The error for token ids in and out where no engine has a way for them.
openai::api_error no_engine_takes_tokens();

/// What to ask an engine that begins, or goes on from where another stopped. `body`: the client's,
/// which `request` was read from. An engine that tells no token ids is asked to count them, so that
/// another may go on by the text. `unsupported` where no engine can go on.
result<asked_body> ask_for(
  std::string_view body, const relay_request& request, const resumption& from,
  const engine_endpoint& engine);

} // namespace llumnix::relay
