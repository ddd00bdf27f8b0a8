#pragma once

#include "apps/decide/scene.hpp"
#include "runtime/scheduling/decision_snapshot.hpp"

namespace llumnix {

/// A decision that was made, as a scene: `decide` gives the same answer again, or another if it is
/// edited. Bookings are laid down as accounts, so ids of other requests are not told. Instances
/// that were excluded, because they had just failed the request, are `draining` in it.
scene scene_of(const decision_snapshot& decision);

} // namespace llumnix
