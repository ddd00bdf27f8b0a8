#pragma once

#include <cstdint>
#include <string>

namespace llumnix {

/// Where a node's instances are, as others are told.
struct told_address {
  std::string ip;
  std::uint16_t rpc_port = 0; ///< of their RPC service at `ip`; 0: none that others reach
  friend bool operator==(const told_address&, const told_address&) = default;
};

/// `node`: HOST:PORT that the node tells other nodes. `rpc`: HOST:PORT its RPC service listens on;
/// empty without one.
///
/// A service on every address of the machine is reached at the node's; one on an address of its own
/// at that. One on loopback is told only by a node that is on loopback itself: anywhere else the
/// address would lead to another machine's.
told_address address_to_tell(const std::string& node, const std::string& rpc);

} // namespace llumnix
