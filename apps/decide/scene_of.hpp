#pragma once

#include "apps/decide/scene.hpp"
#include "runtime/scheduling/decision_snapshot.hpp"

namespace llumnix {

/// A decision that was made, as a scene: `decide` gives the same answer again, or another if it is
/// edited. Bookings are laid down as accounts, so ids of other requests are not told. Instances
/// that whoever asked cannot reach are `draining` in it; so are, in lite mode, which does not look
/// at statuses in scenes, those whose status says that they are unfit or is stale.
scene scene_of(const decision_snapshot& decision);

} // namespace llumnix
