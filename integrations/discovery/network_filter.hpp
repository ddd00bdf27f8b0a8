#pragma once

#include "integrations/discovery/host_text.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The networks and names that a record may point to: a record is written by anyone who can write
/// to the store, and an engine is dialled from inside.
struct network_filter {
  struct network {
    ip_number base{};
    std::uint8_t bits = 128; ///< of the prefix; an IPv4 network has at least 96
  };
  std::vector<network> networks;
  std::vector<std::string> names;    ///< in lower case
  std::vector<std::string> suffixes; ///< with their dot, in lower case

  /// Whether an address or name (no port) lies inside; nothing does by default. Names are compared
  /// as names: what they resolve to is not asked.
  bool inside(std::string_view host) const;
};

/// What came of a list of networks.
struct parsed_networks {
  network_filter filter;             ///< of the entries that were understood
  std::vector<std::string> problems; ///< with the others; each sentence names its entry
};

/// Reads entries like "10.0.0.0/8", "fd00::/8", "10.0.0.7", "engine-0.lan" and ".svc", which stands
/// for all names that end so. An IPv4 address counts the same when written as ::ffff:A.B.C.D.
parsed_networks parse_networks(const std::vector<std::string>& entries);

} // namespace llumnix
