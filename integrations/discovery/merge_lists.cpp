#include "integrations/discovery/merge_lists.hpp"

#include "config/load_config.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace llumnix {

merged_list merge_lists(const std::vector<std::vector<discovered_engine>>& lists) {
  merged_list merged;
  std::set<std::string_view> ids;
  std::set<std::string> places;
  for (const auto& list : lists)
    for (const auto& engine : list) {
      auto place = place_of(engine.address);
      if (places.contains(place))
        continue;
      if (!ids.insert(engine.id).second) {
        merged.clashes.push_back(engine.id);
        continue;
      }
      places.insert(std::move(place));
      merged.engines.push_back(engine);
    }
  std::sort(merged.engines.begin(), merged.engines.end(), [](const auto& left, const auto& right) {
    return left.id < right.id;
  });
  return merged;
}

} // namespace llumnix
