#include "integrations/discovery/merge_lists.hpp"

#include <algorithm>
#include <set>
#include <string_view>

namespace llumnix {

merged_list merge_lists(const std::vector<std::vector<discovered_engine>>& lists) {
  merged_list merged;
  std::set<std::string_view> ids, addresses;
  for (const auto& list : lists)
    for (const auto& engine : list) {
      if (addresses.contains(engine.address))
        continue;
      if (!ids.insert(engine.id).second) {
        merged.clashes.push_back(engine.id);
        continue;
      }
      addresses.insert(engine.address);
      merged.engines.push_back(engine);
    }
  std::sort(merged.engines.begin(), merged.engines.end(), [](const auto& left, const auto& right) {
    return left.id < right.id;
  });
  return merged;
}

} // namespace llumnix
