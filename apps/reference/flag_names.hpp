#pragma once

#include "apps/reference/flag_table.hpp"
#include "config/load_config.hpp"

#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// A flag and a knob it sets.
using flag_and_knob = std::pair<std::string_view, std::string_view>;

/// Whoever writes flags is told of flags: problems with knobs that given ones set, `extra-args`
/// included, are named "--dispatch-top-k (scheduler.dispatch_top_k)". Others stay as they are.
/// `own`: flags that set a knob by code of their own, beside those that `table` says it of.
void name_flags(
  flag_table table, std::span<const flag_and_knob> own, given_flags given,
  std::vector<config_problem>& problems);

} // namespace llumnix
