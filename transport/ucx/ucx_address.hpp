#pragma once

#include "transport/kv_transport.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/socket.h>

namespace llumnix::ucx {

/// 128 random bits: a life of a process, a nonce, a secret.
struct token {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend auto operator<=>(const token&, const token&) = default;
};
token random_token();

/// A listener in one life of its process.
struct peer {
  std::string ip;
  std::uint16_t port = 0;
  token life;
  std::uint64_t host = 0; ///< equal where processes can see each other (`host_tag`)
  friend auto operator<=>(const peer&, const peer&) = default;
};

struct address {
  peer at;
  kv_transport::region_id region = 0;
};

/// "ucx/2/<ip>/<port>/<life>/<host>/<region>"; at the port there is a `ucx_door`.
std::string to_string(const address& where);
std::optional<address> parse_address(std::string_view text);

/// The numbers as a socket address; nothing when they are none.
std::optional<sockaddr_storage> socket_address(const std::string& ip, std::uint16_t port);
std::uint16_t port_in(const sockaddr_storage& where);
socklen_t size_of(const sockaddr_storage& where);
bool is_loopback(const sockaddr_storage& where);
/// The network device that has this address; empty when none has.
std::string device_of(const sockaddr_storage& where);

/// Names the machine's boot and our process namespace.
std::uint64_t host_tag();

} // namespace llumnix::ucx
