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

} // namespace llumnix
