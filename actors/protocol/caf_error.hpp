#pragma once

#include "runtime/base/error.hpp"

#include <caf/error.hpp>

namespace llumnix {

/// Our error as CAF carries it in responses, and back. A CAF error of its own (timeout, receiver
/// down) becomes `timeout`, `unreachable` or `internal`.
caf::error to_caf(const error& failure);
error from_caf(const caf::error& failure);

} // namespace llumnix
