#pragma once

#include "runtime/base/result.hpp"
#include "runtime/migration/migrate_call.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace llumnix {

struct llumlet_server_options {
  std::string listen;                         ///< HOST:PORT; port 0 picks a free one
  std::string key;                            ///< bearer key that callers must send; empty: none
  std::chrono::milliseconds call_limit{5000}; ///< for a call, whatever its own deadline
  std::size_t calls_max = 256;                ///< under way at a time; above it RESOURCE_EXHAUSTED
  std::size_t message_bytes_max = 256 * 1024; ///< likewise
};

/// How the service fares.
struct llumlet_server_counters {
  std::uint64_t migrate_calls = 0;
  std::uint64_t abort_calls = 0;
  std::array<std::uint64_t, 17> ended{}; ///< calls, by their code
  std::uint64_t open = 0;                ///< under way
};

/// The gRPC service `llumlet.Llumlet` (llumlet.proto) of a node. Knows how calls come and go, and
/// not what they do. Safe from any thread; has threads of its own.
class llumlet_server {
public:
  using answer = std::function<void(call_reply)>;
  /// Does a call, and answers it once, from any thread. One whose `answer` is dropped is answered
  /// with UNAVAILABLE. Must not block.
  using handler = std::function<void(incoming_call, answer)>;

  /// Listens and takes calls from now on. `invalid_argument`: the address cannot be had.
  static result<std::unique_ptr<llumlet_server>>
  make(const llumlet_server_options& options, handler handle);
  virtual ~llumlet_server() = default;

  /// HOST:PORT it listens on.
  virtual const std::string& address() const = 0;
  virtual llumlet_server_counters counters() const = 0;
  /// Calls that come from now on are refused: UNAVAILABLE.
  virtual void refuse() = 0;
  /// Refuses, answers what is under way likewise, and closes the connections; calls that do not end
  /// by themselves within `grace` are broken off. Returns when nothing runs any more.
  virtual void stop(std::chrono::milliseconds grace) = 0;
};

} // namespace llumnix
