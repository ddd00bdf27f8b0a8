#pragma once

#include "config/knobs.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

/// A knob's value between a `cluster_config` and what people write. The readers return what is
/// wrong, as the end of a sentence that begins with the path, or an empty string; in the first case
/// nothing has changed.
namespace llumnix {

std::string read_text(const knob& which, std::string_view text, cluster_config& config);
std::string read_json(const knob& which, const nlohmann::json& value, cluster_config& config);

enum class secrets { hidden, shown };

/// As `read_json` takes it: durations and round sizes as strings. A hidden secret that is set is
/// "***".
nlohmann::ordered_json
write_json(const knob& which, const cluster_config& config, secrets how = secrets::hidden);
/// As `read_text` takes it; a secret that is set is "***".
std::string write_text(const knob& which, const cluster_config& config);

} // namespace llumnix
