#pragma once

#include "gateway/openai/chunks.hpp"
#include "runtime/base/result.hpp"

#include <optional>
#include <string_view>

namespace llumnix::relay {

/// What the gateway must know of an engine's reply that is not streamed; its bytes are passed on.
struct whole_reply {
  std::optional<openai::usage> usage;
};

/// Fails with `bad_message` for what is no JSON object, and with `disconnected` where the engine
/// gave a choice up (`finish_reason` "abort"): then another engine may answer.
result<whole_reply> read_whole_reply(std::string_view body);

} // namespace llumnix::relay
