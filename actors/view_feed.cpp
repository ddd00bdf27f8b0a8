#include "actors/view_feed.hpp"

namespace llumnix {

void apply(dispatcher& to, const view_change_msg& change, unix_ms now, bool foreign_too) {
  for (const auto& entry : change.put) {
    if (entry.life.node.empty() && !foreign_too)
      continue;
    to.put(entry.metadata, entry.life, entry.engine);
    to.set_state(entry.metadata.instance_id, entry.state);
  }
  for (const auto& status : change.statuses)
    to.update(status, now);
  for (const auto& life : change.lost)
    to.lose(life);
  for (const auto& id : change.removed)
    to.remove(id);
}

} // namespace llumnix
