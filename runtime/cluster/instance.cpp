#include "runtime/cluster/instance.hpp"

#include <iterator>
#include <utility>

namespace llumnix {

void follow(instance_status& older, const instance_status& newer) {
  auto seen = std::move(older.recent_waiting_requests);
  older = newer;
  auto& all = older.recent_waiting_requests;
  all.insert(
    all.begin(), std::make_move_iterator(seen.begin()), std::make_move_iterator(seen.end()));
}

std::string_view to_string(instance_state state) {
  switch (state) {
    case instance_state::ready: return "ready";
    case instance_state::draining: return "draining";
    case instance_state::lost: return "lost";
    case instance_state::stopped: return "stopped";
  }
  return "lost";
}

} // namespace llumnix
