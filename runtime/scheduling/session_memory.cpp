#include "runtime/scheduling/session_memory.hpp"

namespace llumnix {

const instance_id* session_memory::last_of(std::string_view session) const {
  auto found = places_.find(session);
  return found == places_.end() ? nullptr : &found->second->instance;
}

void session_memory::remember(std::string_view session, const instance_id& instance) {
  if (auto found = places_.find(session); found != places_.end()) {
    found->second->instance = instance;
    known_.splice(known_.begin(), known_, found->second);
    return;
  }
  if (sessions_max_ == 0)
    return;
  if (known_.size() == sessions_max_) {
    places_.erase(known_.back().session);
    known_.pop_back();
  }
  known_.push_front({std::string{session}, instance});
  places_.emplace(known_.front().session, known_.begin());
}

} // namespace llumnix
