#include "tests/transport/test_device.hpp"
#include "transport/cuda/host_device.hpp"

namespace llumnix::testing {

std::shared_ptr<kv_device> make_device() {
  return make_host_device();
}

const char* peer_program() {
  return "transport_peer";
}

} // namespace llumnix::testing
