#pragma once

#include "transport/span_list.hpp"
#include "transport/ucx/ucx_address.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

/// What the two ends of a connection say. The client is the destination: it connects, asks and
/// decides when its blocks may be reused. All numbers are little-endian; each message begins with
/// its kind and the version.
namespace llumnix::ucx {

using proof = std::array<std::byte, 32>;

/// Bounds of a request, agreed with the version.
inline constexpr std::uint32_t pieces_max = 512;
inline constexpr std::uint64_t chunk_bytes_max = 16 << 20;

/// Client: who are you?
struct hello {
  std::uint64_t client_link = 0; ///< in every message to the client
  token nonce;
  token wanted; ///< the life of the server
};
/// Server: I know the key; do you?
struct challenge {
  std::uint64_t client_link = 0;
  std::uint64_t server_link = 0; ///< in every further message to the server
  token nonce;
  proof of;
};
struct answer {
  std::uint64_t server_link = 0;
  proof of;
};
struct welcome {
  std::uint64_t client_link = 0;
};
/// Server: go away. `why` is an errc.
struct refusal {
  std::uint64_t client_link = 0;
  errc why = errc::unreachable;
};

/// Client: send me these pieces of a region, as one chunk.
struct read_request {
  std::uint64_t server_link = 0;
  std::uint64_t request = 0;
  handover_id key;
  kv_transport::region_id region = 0;
  bool checksum = false;
  std::vector<kv_piece> pieces;
};
/// Server, as the header of a chunk's bytes.
struct chunk_header {
  std::uint64_t client_link = 0;
  std::uint64_t request = 0;
  std::uint64_t checksum = 0;
};
/// Server: no. To a lease, `unsupported` means none of any region, `invalid_argument` none of this
/// one.
struct denial {
  std::uint64_t client_link = 0;
  std::uint64_t request = 0;
  errc why = errc::stale;
};

/// Client: I want to read the region's memory myself.
struct lease_request {
  std::uint64_t server_link = 0;
  std::uint64_t request = 0;
  handover_id key;
  kv_transport::region_id region = 0;
};
/// Server: do, until you give it back.
struct lease_grant {
  std::uint64_t client_link = 0;
  std::uint64_t request = 0;
  std::uint32_t process = 0;
  std::uint64_t memory = 0; ///< address in that process
  std::uint64_t bytes = 0;
  std::uint64_t secret_at = 0; ///< where `secret` stands in that process, to know it by
  token secret;
};
/// Client: finished, having read so much.
struct lease_return {
  std::uint64_t server_link = 0;
  std::uint64_t request = 0;
  std::uint64_t bytes = 0;
};
/// Server: it was yours all the time.
struct lease_end {
  std::uint64_t client_link = 0;
  std::uint64_t request = 0;
};

/// Either, while something is under way.
struct ping {
  std::uint64_t server_link = 0;
};
struct pong {
  std::uint64_t client_link = 0;
};

using message = std::variant<
  hello, challenge, answer, welcome, refusal, read_request, chunk_header, denial, lease_request,
  lease_grant, lease_return, lease_end, ping, pong>;

std::vector<std::byte> encode(const message& x);
/// Nothing for what is no message of this version, too long, or beyond the bounds.
std::optional<message> decode(std::span<const std::byte> bytes);

} // namespace llumnix::ucx
