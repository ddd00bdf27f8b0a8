#pragma once

#include "apps/decide/scene.hpp"

#include <nlohmann/json_fwd.hpp>

namespace llumnix {

/// The JSON form of a scene, which `read_scene` reads back as the same value. What stands at its
/// default is left out.
nlohmann::ordered_json write_scene(const scene& what);

/// A number as scenes and answers have it: infinities are "inf" and "-inf".
nlohmann::ordered_json write_number(double number);

} // namespace llumnix
