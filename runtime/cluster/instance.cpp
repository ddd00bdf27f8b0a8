#include "runtime/cluster/instance.hpp"

namespace llumnix {

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
