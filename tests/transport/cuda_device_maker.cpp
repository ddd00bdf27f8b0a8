#include "tests/transport/test_device.hpp"
#include "transport/cuda/cuda_device.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

std::shared_ptr<kv_device> make_device() {
  auto made = make_cuda_device();
  REQUIRE_MESSAGE(made.has_value(), (made ? "" : to_string(made.error())));
  return std::move(*made);
}

const char* peer_program() {
  return "transport_peer_cuda";
}

} // namespace llumnix::testing
