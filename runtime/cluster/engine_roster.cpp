#include "runtime/cluster/engine_roster.hpp"

#include <set>
#include <utility>

namespace llumnix {

discovered_engine engine_at(std::string address) {
  discovered_engine engine;
  engine.id = address;
  engine.address = std::move(address);
  return engine;
}

engine_changes engine_roster::take(const std::vector<discovered_engine>& list) {
  engine_changes changes;
  std::set<instance_id> unchanged;
  for (const auto& engine : list)
    if (auto known = engines_.find(engine.id); known != engines_.end() && known->second == engine)
      unchanged.insert(engine.id);
  for (const auto& [id, engine] : engines_)
    if (!unchanged.contains(id))
      changes.gone.push_back(id);
  for (const auto& id : changes.gone)
    engines_.erase(id);
  for (const auto& engine : list) {
    if (unchanged.contains(engine.id))
      continue;
    if (engines_.size() >= engines_max_)
      ++changes.left_out;
    else if (engines_.emplace(engine.id, engine).second)
      changes.came.push_back(engine);
  }
  return changes;
}

} // namespace llumnix
