#pragma once

#include "runtime/base/error.hpp"
#include "runtime/migration/handover.hpp"

#include <optional>

namespace llumnix {

/// The path to try after one has failed for that reason (DESIGN.md 3.6); none: another path would
/// fail as well. KV that cannot be had, or came wrong, is computed at the destination instead.
std::optional<move_path> next_path(move_path tried, errc why);

} // namespace llumnix
