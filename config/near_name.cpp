#include "config/near_name.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace llumnix {

std::size_t edit_distance(std::string_view from, std::string_view to) {
  // Rows of the usual table: distances from the first i (now), i - 1 and i - 2 letters of `from`.
  std::vector<std::size_t> now(to.size() + 1), before(to.size() + 1), earlier(to.size() + 1);
  std::iota(now.begin(), now.end(), std::size_t{0});
  for (std::size_t i = 1; i <= from.size(); ++i) {
    earlier.swap(before);
    before.swap(now);
    now[0] = i;
    for (std::size_t j = 1; j <= to.size(); ++j) {
      bool same = from[i - 1] == to[j - 1];
      now[j] = std::min({before[j] + 1, now[j - 1] + 1, before[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1])
        now[j] = std::min(now[j], earlier[j - 2] + 1);
    }
  }
  return now[to.size()];
}

namespace {

/// How many letters two names begin with together.
std::size_t common(std::string_view x, std::string_view y) {
  return static_cast<std::size_t>(std::ranges::mismatch(x, y).in1 - x.begin());
}

} // namespace

std::string_view nearest_name(std::string_view wanted, std::span<const std::string_view> known) {
  auto best = std::max<std::size_t>(1, wanted.size() / 3) + 1; // one more than is near enough
  std::string_view nearest;
  for (auto name : known) {
    auto distance = edit_distance(wanted, name);
    bool as_near = distance == best && !nearest.empty();
    if (distance < best || (as_near && common(wanted, name) > common(wanted, nearest))) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

} // namespace llumnix
