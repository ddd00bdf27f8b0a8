#pragma once

#include "transport/ucx/ucx_messages.hpp"

#include <string>
#include <string_view>

namespace llumnix::ucx {

/// Shows that somebody knows the cluster's key without telling it: HMAC-SHA256 over the role, the
/// nonces of both ends and the life of the server.
proof prove(
  const std::string& cluster_key, std::string_view role, const token& client_nonce,
  const token& server_nonce, const token& life);

/// Compared in constant time.
bool same(const proof& a, const proof& b);

inline constexpr std::string_view server_role = "llumnix kv server";
inline constexpr std::string_view client_role = "llumnix kv client";

} // namespace llumnix::ucx
