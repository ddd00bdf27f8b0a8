#pragma once

#include "apps/reference/gateway_flags.hpp"
#include "apps/reference/scheduler_flags.hpp"

namespace llumnix {

/// Makes of a configuration that of a scheduler with these flags of the reference's: its listener,
/// its roles, how it places, and where it finds statuses or engines.
flag_effects set_up_scheduler(const given_flags& given, cluster_config& config);

/// Names problems by these flags (flag_names.hpp).
void name_scheduler_flags(given_flags given, std::vector<config_problem>& problems);

} // namespace llumnix
