#include "transport/ucx/ucx_transport.hpp"

namespace llumnix {

bool ucx_built_in() {
  return false;
}

result<std::unique_ptr<kv_transport>> make_ucx_transport(const ucx_settings&) {
  return error{errc::unsupported, "this build has no UCX (libucx-dev)"};
}

} // namespace llumnix
