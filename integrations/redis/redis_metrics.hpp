#pragma once

#include "runtime/base/metric_bounds.hpp"
#include "runtime/base/probes.hpp"

#include <atomic>
#include <cstdint>

namespace llumnix {

/// How the Redis mirror fares. Written by its thread, read by anyone at any time.
struct redis_metrics {
  std::atomic<bool> connected = false;       ///< the server answers us now
  std::atomic<std::uint64_t> writes = 0;     ///< SET and DEL commands the server confirmed
  std::atomic<std::uint64_t> failures = 0;   ///< SET and DEL commands refused, or lost with a link
  std::atomic<std::uint64_t> reconnects = 0; ///< times the link came back after it was up before
  std::atomic<std::uint64_t> readings = 0;   ///< of what others keep there, all records of a kind
  std::atomic<std::uint64_t> reading_failures = 0; ///< readings that found nobody, or no sense
  std::atomic<bool> readable = false;              ///< what the last reading found out
  std::atomic<std::uint64_t> odd_records = 0;      ///< records left out of readings, each time
  /// 0 once the server has confirmed everything. Otherwise changed instances and commands without
  /// an answer: a small multiple of the instances at most, however often they change.
  std::atomic<std::uint64_t> pending = 0;
  // How long readings took, answered or not, milliseconds; the wait for a link counts.
  loop_histogram metadata_ms{metric_bounds::stage_ms};
  loop_histogram statuses_ms{metric_bounds::stage_ms};
};

} // namespace llumnix
