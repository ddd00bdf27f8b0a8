#pragma once

#include "runtime/scheduling/decision.hpp"

#include <array>
#include <span>
#include <string>

namespace llumnix {

/// Which roles instances have, by infer_type.
using roles_present = std::array<bool, 3>;

/// The roles a request wants, in the order in which they are chosen. A cluster of one role serves
/// nothing but neutral requests (spec/scheduling.md 4).
std::span<const infer_type>
roles_wanted(const placement_query& query, const roles_present& present);

/// Why none was tried.
std::string no_role(const placement_query& query, const roles_present& present);

} // namespace llumnix
