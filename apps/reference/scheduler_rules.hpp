#pragma once

#include "apps/reference/scheduler_flags.hpp"

namespace llumnix {

/// Verifies the values and coerces them (spec/scheduling.md 1.2): what the reference replaces is
/// replaced, with a warning where it was no preset; what it aborts on is a problem.
void apply_scheduler_rules(scheduler_flags_read& flags);

/// The names in a list with commas, untrimmed: the reference takes blanks for letters.
std::vector<std::string> split_list(std::string_view list);

} // namespace llumnix
