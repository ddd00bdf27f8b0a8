#pragma once

#include "runtime/cluster/discovery.hpp"

#include <string>
#include <vector>

namespace llumnix {

/// One list made of several.
struct merged_list {
  std::vector<discovered_engine> engines; ///< ordered by id; ids and places once
  std::vector<std::string> clashes;       ///< ids that two lists give to different addresses
};

/// Where two lists name the same address (localhost is 127.0.0.1, `place_of`), the one that comes
/// first tells of it; likewise the same id.
merged_list merge_lists(const std::vector<std::vector<discovered_engine>>& lists);

} // namespace llumnix
