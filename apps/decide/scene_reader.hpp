#pragma once

#include "apps/decide/scene.hpp"
#include "config/load_config.hpp"

#include <cstddef>
#include <optional>
#include <string_view>

namespace llumnix {

/// Bytes of one scene.
inline constexpr std::size_t scene_size_max = std::size_t{64} << 20;
/// Numbers, texts, lists and objects in one scene.
inline constexpr std::size_t scene_values_max = std::size_t{4} << 20;
/// Lists and objects within one another.
inline constexpr int scene_depth_max = 64;

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
