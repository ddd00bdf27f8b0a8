#pragma once

#include "gateway/openai/chunks.hpp"
#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llumnix::relay {

/// What the gateway must know of an engine's reply that is not streamed; its bytes are passed on.
struct whole_reply {
  std::uint32_t choices = 0;
  std::optional<openai::usage> usage;
  std::string finish_reason; ///< of the last choice, as the engine wrote it in JSON
  /// From the question to the first token, as the engine measured it, which alone can know. vLLM
  /// tells where it is started with `--enable-per-request-metrics` and the request says
  /// `include_metrics`.
  std::optional<nanoseconds> first_token;
};

/// Reads the reply of either generating endpoint to its status 200. Another engine may answer where
/// it fails: with `bad_message` for what is no JSON object, has no choices, or has one that did not
/// come to its end (no `finish_reason`); with `disconnected` where the engine gave one up
/// ("abort").
result<whole_reply> read_whole_reply(std::string_view body);

} // namespace llumnix::relay
