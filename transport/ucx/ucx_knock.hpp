#pragma once

#include "transport/ucx/door_socket.hpp"
#include "transport/ucx/ucx_address.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace llumnix::ucx {

/// The caller's side of a `ucx_door`: asks a peer for the port that UCX listens on.
class ucx_knock {
public:
  static result<ucx_knock> begin(const peer& at, socket_watch& watch);
  /// The port once it was told; an error when it will not be. Called whenever the watch stirs.
  result<std::optional<std::uint16_t>> work(const std::string& cluster_key, const token& life);

private:
  explicit ucx_knock(door_socket socket) : socket_{std::move(socket)} {}

  door_socket socket_;
  const token nonce_ = random_token();
  std::optional<door_greeting> door_;
};

} // namespace llumnix::ucx
