#include "transport/ucx/patience.hpp"

#include <algorithm>

namespace llumnix::ucx {

time_point cut_off_at(const peer_times& x, const ucx_settings& settings) {
  auto at = time_point::max();
  if (x.closing)
    return at;
  if (!x.proven)
    at = std::min(at, x.opened + settings.connect_within);
  if (x.reads)
    at = std::min({at, x.heard + settings.silence_max, x.cut_at});
  return at;
}

} // namespace llumnix::ucx
