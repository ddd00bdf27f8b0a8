#include "tests/transport/transport_kinds.hpp"
#include "transport/loopback_transport.hpp"

namespace llumnix::testing {

std::vector<transport_kind> transport_kinds() {
  loopback_network network;
  return {{"loopback", [network] { return network.make_transport(); }}};
}

} // namespace llumnix::testing
