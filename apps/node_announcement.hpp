#pragma once

#include "apps/node_setup.hpp"

namespace llumnix {

/// Tells whoever started this node where it listens: one JSON line to `fd`, then the end of the
/// file. Nothing for a negative `fd`.
void announce(int fd, const node_ready& ready);

} // namespace llumnix
