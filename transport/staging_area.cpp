#include "transport/staging_area.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <iterator>

namespace llumnix {

namespace {

constexpr std::uint64_t step = 256; ///< parts begin where the widest accesses of a GPU may

} // namespace

bool has_share(std::uint64_t held, std::uint64_t wanted, std::uint64_t all) {
  return held == 0 || (held <= all / 2 && wanted <= all / 2 - held);
}

staging_area::staging_area(std::uint64_t bytes) {
  if (auto whole = bytes / step * step; whole > 0)
    free_.emplace(0, whole);
}

std::optional<std::uint64_t> staging_area::take(std::uint64_t bytes) {
  LLUMNIX_ASSERT(bytes > 0);
  auto found = std::ranges::find_if(free_, [&](const auto& x) { return x.second >= bytes; });
  if (found == free_.end())
    return std::nullopt;
  auto [at, size] = *found;
  auto used = (bytes + step - 1) / step * step;
  free_.erase(found);
  if (size > used)
    free_.emplace(at + used, size - used);
  taken_.emplace(at, used);
  return at;
}

void staging_area::give_back(std::uint64_t at) {
  auto taken = taken_.extract(at);
  LLUMNIX_ASSERT(taken);
  auto made = free_.emplace(at, taken.mapped()).first;
  if (auto next = std::next(made); next != free_.end() && at + made->second == next->first) {
    made->second += next->second;
    free_.erase(next);
  }
  if (made == free_.begin())
    return;
  if (auto before = std::prev(made); before->first + before->second == at) {
    before->second += made->second;
    free_.erase(made);
  }
}

} // namespace llumnix
