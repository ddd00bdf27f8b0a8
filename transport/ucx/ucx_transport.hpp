#pragma once

#include "transport/kv_transport.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace llumnix {

/// How a process takes part in the KV plane over UCX.
struct ucx_settings {
  std::string listen = "127.0.0.1"; ///< one address of this machine, as numbers, IPv4 or IPv6
  std::uint16_t port = 0;           ///< 0: a free one
  /// Shared by the cluster: peers prove to each other that they know it. May be empty on loopback.
  std::string cluster_key;
  bool insecure = false;  ///< an empty key will do off loopback too
  bool checksums = false; ///< what lands is compared with what was read (XXH3); always by UCX
  bool same_host = true;  ///< between processes of one machine and user, bytes are read directly

  std::uint32_t chunk_bytes = 1 << 20; ///< asked for at once
  std::uint32_t chunk_spans = 256;     ///< of which a chunk consists at most
  std::uint32_t chunks_in_flight = 16; ///< to one peer
  std::size_t peers_max = 256;         ///< connections out, and in
  std::size_t jobs_max = 4096;         ///< at once

  nanoseconds connect_within = std::chrono::seconds{1};
  nanoseconds heartbeat_every = std::chrono::milliseconds{500};
  nanoseconds silence_max = std::chrono::seconds{2}; ///< of a peer in the middle of something
  /// What a job that ends early waits for what it asked for, before its connection is cut; and what
  /// a closing window waits for its readers.
  nanoseconds quiesce_within = std::chrono::milliseconds{500};
  /// What is sent to a peer and it does not take, by then, is given up with its connection: it
  /// holds memory that others wait for, however alive the peer is.
  nanoseconds taken_within = std::chrono::seconds{10};
  nanoseconds idle_max = std::chrono::seconds{60}; ///< a connection without a job is closed then
  /// Without sleep while something is under way: worth it only where cores are to spare, as it
  /// saves some microseconds of a round trip and no bandwidth.
  nanoseconds spin{0};
};

/// Whether this build has UCX.
bool ucx_built_in();

/// KV over UCX (guides: active messages with rendezvous into the destination's blocks), and between
/// processes of one machine by reading the source's memory. `unsupported` without UCX in the build,
/// `invalid_argument` for settings that cannot be, `internal` when UCX refuses.
///
/// Sets UCX's variables in the environment where they are not set: call it before there are other
/// threads, which might begin to listen beside UCX. `port` is a door of our own in front of UCX's
/// ports, for UCX itself trusts whoever reaches them (docs/transport.md): off loopback it still wants
/// a network on which only the cluster is, whatever the key.
result<std::unique_ptr<kv_transport>> make_ucx_transport(const ucx_settings& settings);

} // namespace llumnix
