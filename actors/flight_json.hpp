#pragma once

#include "runtime/serving/flight_recorder.hpp"

#include <string>
#include <vector>

namespace llumnix {

/// The flight record of a request as `why` tells it (spec/surface.md 3); an empty string when there
/// is none.
std::string flight_json(const std::vector<flight_record>& records);

} // namespace llumnix
