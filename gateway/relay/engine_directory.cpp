#include "gateway/relay/engine_directory.hpp"

namespace llumnix::relay {

std::vector<instance_id> engine_directory::unsuited(
  const engine_wish& wish, const std::vector<instance_id>& failed, time_point now) {
  auto left = failed;
  std::vector<std::pair<time_point, instance_id>> resting; // by the end of the rest
  bool some_awake = false;
  for (auto& [id, engine] : engines_) {
    if (std::find(failed.begin(), failed.end(), id) != failed.end())
      continue;
    if (!engine.suits(wish) || engine.draining)
      left.push_back(id);
    else if (!engine.ready)
      continue; // nobody chooses it
    else if (engine.common->trouble.offer(now))
      some_awake = true;
    else
      resting.emplace_back(engine.rest_end(), id);
  }
  if (!some_awake && !resting.empty())
    resting.erase(std::min_element(resting.begin(), resting.end()));
  for (auto& [until, id] : resting)
    left.push_back(std::move(id));
  return left;
}

} // namespace llumnix::relay
