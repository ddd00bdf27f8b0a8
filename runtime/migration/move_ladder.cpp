#include "runtime/migration/move_ladder.hpp"

namespace llumnix {

std::optional<move_path> next_path(move_path tried, errc why) {
  if (tried != move_path::kv)
    return std::nullopt;
  switch (why) {
    case errc::unsupported: // other blocks, or no transport there
    case errc::unreachable: // by the transport; where the node is gone, so is the next path
    case errc::timeout:
    case errc::disconnected:
    case errc::bad_message: // what landed is not what it should be
      return move_path::recompute;
    default: return std::nullopt;
  }
}

std::optional<move_path> next_decode_path(move_path tried, errc why) {
  bool no_kv = why == errc::unsupported || why == errc::bad_message;
  return tried == move_path::kv && no_kv ? std::optional{move_path::recompute} : std::nullopt;
}

std::string why_no_kv(std::string_view why) {
  return "no kv: " + std::string{why};
}

std::string told_reason(const std::string& no_kv, std::string reason) {
  if (no_kv.empty() || reason.empty())
    return no_kv + reason;
  return no_kv + "; then: " + reason;
}

bool outlives_prefill(const inference_request& request) {
  return request.sampling.max_tokens > request.output.size() + 1;
}

} // namespace llumnix
