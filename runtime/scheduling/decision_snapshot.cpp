#include "runtime/scheduling/decision_snapshot.hpp"

#include <algorithm>

namespace llumnix {

void decision_archive::keep(decision_snapshot decision) {
  kept_.push_back(std::move(decision));
  if (kept_.size() > most_)
    kept_.pop_front();
}

const decision_snapshot* decision_archive::find(const std::string& request_id) const {
  auto found = std::find_if(kept_.rbegin(), kept_.rend(), [&](const decision_snapshot& x) {
    return x.query.request_id == request_id;
  });
  return found == kept_.rend() ? nullptr : &*found;
}

} // namespace llumnix
