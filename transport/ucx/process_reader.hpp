#pragma once

#include "transport/span_list.hpp"
#include "transport/ucx/ucx_address.hpp"

#include <cstdint>
#include <span>

namespace llumnix::ucx {

/// Whether the process has `secret` at that address: then it is who it says, and we may read it.
bool has_secret(std::uint32_t process, std::uint64_t at, const token& secret);

/// Copies `spans` out of another process's memory, which begins at `memory` there, in one system
/// call or few. False when it cannot all be read: the process is gone, foreign or its memory is.
bool read_process(
  std::uint32_t process, std::uint64_t memory, std::span<const kv_span> spans,
  std::span<std::byte> to);

/// Spans one call of `read_process` is good for.
inline constexpr std::size_t process_spans_max = 512;

} // namespace llumnix::ucx
