#pragma once

#include "runtime/base/result.hpp"
#include "transport/span_list.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace llumnix {

/// A device whose memory the CPU may not touch, such as a GPU. Bytes get out of it and into it
/// through staging: memory of the host that both reach. Every function may be called from any
/// thread.
class kv_device {
public:
  virtual ~kv_device() = default;

  /// A copy on its way; it ends by itself, and the memory on both of its sides stays until then.
  class copy {
  public:
    enum class state : std::uint8_t {
      under_way,
      done,   ///< all of it is there
      failed, ///< nothing of it happens any more; what it has written is open
    };
    /// Waits until it is over.
    virtual ~copy() = default;
    /// Never waits.
    virtual state look() = 0;
  };

  /// Whether all of it is this device's memory.
  virtual bool holds(std::span<const std::byte> memory) const = 0;
  /// Memory of the device, all zeros; `invalid_argument` for no bytes. It goes with the last
  /// pointer.
  virtual result<std::shared_ptr<std::byte>> make_memory(std::uint64_t bytes) = 0;
  /// Staging. It goes with the last pointer.
  virtual result<std::shared_ptr<std::byte>> make_staging(std::uint64_t bytes) = 0;

  /// Begins to copy the pieces of `memory` into `staging`, one after the other. Gathers happen in
  /// their order, and so do scatters, but not one with the other.
  virtual std::unique_ptr<copy> gather(
    std::span<const std::byte> memory, std::span<const kv_piece> pieces,
    std::span<std::byte> staging)
    = 0;
  /// And back, where they belong in `memory`.
  virtual std::unique_ptr<copy> scatter(
    std::span<std::byte> memory, std::span<const kv_piece> pieces,
    std::span<const std::byte> staging)
    = 0;
};

/// Waits for a copy, without sleep: it is a matter of microseconds. False when it failed.
bool finish(kv_device::copy& one);

} // namespace llumnix
