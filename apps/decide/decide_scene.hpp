#pragma once

#include "apps/decide/scene.hpp"
#include "apps/decide/scene_answer.hpp"

#include <string_view>

namespace llumnix {

/// Answers a scene with the code that schedules and reschedules in production: a dispatcher, or a
/// rescheduling policy, fed with what the scene tells. Nothing else is looked at, no clock, file or
/// chance, so the same scene gets the same answer.
scene_answer decide(const scene& about);

/// The same from a scene's text, whatever it is.
scene_answer decide(std::string_view text);

} // namespace llumnix
