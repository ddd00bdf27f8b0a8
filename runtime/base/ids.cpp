#include "runtime/base/ids.hpp"

namespace llumnix {

std::string to_string(const stream_ref& x) {
  return x.node + '/' + std::to_string(x.incarnation) + '/' + std::to_string(x.hub) + '/'
         + std::to_string(x.stream);
}

} // namespace llumnix
