#include "runtime/cluster/told_address.hpp"

#include "config/load_config.hpp"

namespace llumnix {

namespace {

bool is_wildcard(const std::string& host) {
  return host == "0.0.0.0" || host == "::";
}

} // namespace

told_address address_to_tell(const std::string& node, const std::string& rpc) {
  told_address told{"127.0.0.1"};
  std::uint16_t node_port = 0;
  split_address(place_of(node), told.ip, node_port);
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(place_of(rpc), host, port))
    return told;
  if (is_wildcard(host))
    told.rpc_port = is_wildcard(told.ip) ? 0 : port; // nobody can dial "every address"
  else if (!is_loopback(rpc) || is_loopback(node))
    told = {host, port};
  return told;
}

} // namespace llumnix
