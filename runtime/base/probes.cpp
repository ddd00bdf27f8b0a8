#include "runtime/base/probes.hpp"

#include <algorithm>

namespace llumnix {

loop_histogram::loop_histogram(std::span<const double> bounds)
  : bounds_{bounds}, counts_(bounds.size() + 1) {}

void loop_histogram::observe(double value) {
  auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)].add(1);
  sum_.add(value);
}

} // namespace llumnix
