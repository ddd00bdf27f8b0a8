#include "runtime/migration/move_history.hpp"

#include <algorithm>

namespace llumnix {

move_history::move_history(nanoseconds cool_down, std::uint32_t moves_max)
  : cool_down_{cool_down}, moves_max_{moves_max} {}

bool move_history::may_move(const stream_ref& request, time_point now) const {
  auto found = known_.find(request);
  if (found == known_.end())
    return moves_max_ > 0;
  return found->second.moves < moves_max_ && now - found->second.last >= cool_down_;
}

std::uint32_t move_history::begin(const stream_ref& request, bool by_load, time_point now) {
  auto found = known_.find(request);
  if (!by_load)
    return found == known_.end() ? 0 : found->second.moves;
  if (found == known_.end()) {
    make_room();
    found = known_.try_emplace(request).first;
  }
  found->second.last = now;
  return ++found->second.moves;
}

void move_history::arrived(const stream_ref& request, std::uint32_t moves, time_point now) {
  if (!known_.contains(request))
    make_room();
  known_[request] = {moves, now};
}

void move_history::keep_only(std::vector<stream_ref> here) {
  std::sort(here.begin(), here.end());
  std::erase_if(known_, [&](const auto& entry) {
    return !std::binary_search(here.begin(), here.end(), entry.first);
  });
}

void move_history::make_room() {
  if (known_.size() < known_max)
    return;
  known_.erase(std::min_element(known_.begin(), known_.end(), [](const auto& a, const auto& b) {
    return a.second.last < b.second.last;
  }));
}

} // namespace llumnix
