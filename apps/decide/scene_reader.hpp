#pragma once

#include "apps/decide/scene.hpp"
#include "apps/decide/scene_text.hpp"
#include "config/load_config.hpp"

#include <optional>
#include <string_view>

namespace llumnix {

/// A text as a scene.
struct scene_read {
  scene value; ///< with a problem: nothing but its `name` holds
  /// The first thing wrong with it; its path is empty where it is the whole text.
  std::optional<config_problem> problem;
};

/// Reads one scene. Names and values that nothing knows are problems, so that a typo cannot pass
/// for an answer; so are numbers out of range, blocks of another `ask`, and ids that stand twice.
/// Whether flags and knobs make sense together is for `scene_setup` to say.
scene_read read_scene(std::string_view text);

} // namespace llumnix
