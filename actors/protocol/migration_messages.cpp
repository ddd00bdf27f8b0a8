#include "actors/protocol/migration_messages.hpp"

#include <fmt/format.h>

namespace llumnix {

std::string describe(const move_result& result) {
  if (result.outcome != "moved")
    return fmt::format(
      "to {} for {}: {}: {}", result.to.instance.empty() ? "another engine" : result.to.instance,
      result.policy, result.outcome, result.reason);
  auto ms = std::chrono::duration<double, std::milli>{result.downtime}.count();
  if (result.path == "replay")
    return fmt::format(
      "from {} for {} by replay: an engine behind HTTP has no KV to hand over; {} tokens computed "
      "anew, {:.2f} ms without one{}{}",
      result.from.instance, result.policy, result.tail_tokens, ms,
      result.reason.empty() ? "" : "; ", result.reason);
  return fmt::format(
    "from {} for {} by {}: {} rounds, {} KiB, {:.2f} ms down{}{}", result.from.instance,
    result.policy, result.path, result.rounds, (result.bytes + 1023) / 1024, ms,
    result.reason.empty() ? "" : "; ", result.reason);
}

decode_wanted_msg decode_wanted(const inference_request& request, const stream_owner& at) {
  decode_wanted_msg wanted;
  wanted.stream = request.stream;
  wanted.epoch = request.epoch;
  wanted.request = request.text_id;
  wanted.tokens = static_cast<std::uint32_t>(request.prompt.size() + request.output.size());
  wanted.wishes = request.wishes;
  wanted.at = at;
  return wanted;
}

} // namespace llumnix
