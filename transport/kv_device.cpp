#include "transport/kv_device.hpp"

#include <thread>

namespace llumnix {

bool finish(kv_device::copy& one) {
  for (;;) {
    switch (one.look()) {
      case kv_device::copy::state::done: return true;
      case kv_device::copy::state::failed: return false;
      case kv_device::copy::state::under_way: std::this_thread::yield();
    }
  }
}

bool within(
  std::span<const kv_piece> pieces, std::uint64_t memory_bytes, std::uint64_t staging_bytes) {
  for (const auto& piece : pieces) {
    if (
      piece.bytes > memory_bytes || piece.at > memory_bytes - piece.bytes
      || piece.bytes > staging_bytes)
      return false;
    staging_bytes -= piece.bytes;
  }
  return true;
}

} // namespace llumnix
