#pragma once

#include "transport/ucx/ucx_messages.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// What is said at the door of the KV plane, before UCX hears of a caller. Three messages of fixed
/// sizes, numbers little-endian; then the door closes the connection:
///
///     door    who I am, and a nonce
///     caller  proof of the cluster's key over both nonces and the door's life
///     door    UCX's port, and proof of the same
namespace llumnix::ucx {

struct door_greeting {
  static constexpr std::size_t bytes = 40; ///< "llumnix" and the version, first
  token nonce;
  token life; ///< of the process behind the door
};
struct door_call {
  static constexpr std::size_t bytes = 48;
  token nonce;
  proof of;
};
struct door_answer {
  static constexpr std::size_t bytes = 34;
  std::uint16_t port = 0;
  proof of;
};

std::vector<std::byte> encode(const door_greeting& x);
std::vector<std::byte> encode(const door_call& x);
std::vector<std::byte> encode(const door_answer& x);
/// Nothing for what is no such message of this version.
template <class T>
std::optional<T> decode_as(std::span<const std::byte> bytes);

proof proof_of_caller(
  const std::string& cluster_key, const token& caller_nonce, const door_greeting& door);
proof proof_of_door(
  const std::string& cluster_key, const token& caller_nonce, const door_greeting& door,
  std::uint16_t port);

} // namespace llumnix::ucx
