#pragma once

#include "apps/reference/flag_table.hpp"

#include <string>
#include <vector>

namespace llumnix {

/// Command line words in the manner of Go (`-flag value`, `--flag=value`, a lone `-toggle`) as
/// words that our own parser takes: each flag of the table becomes `--flag NAME=VALUE`. Other
/// words stay, but that a single dash in front of a long name becomes two.
std::vector<std::string> without_go_style(flag_table table, const std::vector<std::string>& words);

} // namespace llumnix
