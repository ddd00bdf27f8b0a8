#pragma once

#include "transport/kv_transport.hpp"

#include <atomic>
#include <cstdint>

namespace llumnix::ucx {

/// Counted on the UCX thread, read anywhere.
struct shared_counters {
  std::atomic<std::uint64_t> jobs{0}, failed{0}, cancelled{0}, bytes_in{0}, bytes_out{0},
    bad_checksums{0}, refused{0}, bytes_direct{0};

  kv_transport_counters read() const {
    return {jobs, failed, cancelled, bytes_in, bytes_out, bad_checksums, refused, bytes_direct};
  }
};

} // namespace llumnix::ucx
