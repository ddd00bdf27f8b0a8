#pragma once

#include "apps/reference/gateway_flags.hpp"
#include "apps/reference/scheduler_flags.hpp"

namespace llumnix {

/// Makes of a configuration that of a scheduler with these flags of the reference's: its listener,
/// its roles, how it places, and where it finds statuses or engines.
flag_effects set_up_scheduler(const given_flags& given, cluster_config& config);

/// What such a start refuses of numbers that the reference would take, each a problem whose path is
/// the flag's name without dashes. `placing` is what the flags came to, or other settings made of
/// it.
std::vector<config_problem>
refused_numbers(const scheduler_flag_values& values, const scheduler_config& placing);

/// What such a start refuses for want of a part that this build does not have, as warnings: plain
/// decisions do without it.
std::vector<std::string> missing_parts(const scheduler_flag_values& values);

/// Of what flags said, the knobs that other settings said otherwise: `by_flags` became `now`. As
/// warnings; none is of a flag with its preset.
std::vector<std::string> overruled_flags(
  const scheduler_flag_values& values, const scheduler_config& by_flags,
  const scheduler_config& now);

/// Names problems by these flags (flag_names.hpp).
void name_scheduler_flags(given_flags given, std::vector<config_problem>& problems);

} // namespace llumnix
