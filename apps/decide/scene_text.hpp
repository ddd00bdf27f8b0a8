#pragma once

#include "config/load_config.hpp"

#include <nlohmann/json.hpp>

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

/// The JSON document that a text is. Null and a problem where it is none, goes beyond these bounds,
/// or has a name twice in one object, which would quietly lose the first value.
nlohmann::json parse_scene_text(std::string_view text, std::optional<config_problem>& problem);

} // namespace llumnix
