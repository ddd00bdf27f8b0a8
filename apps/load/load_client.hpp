#pragma once

#include "apps/load/load_connection.hpp"
#include "apps/load/load_stats.hpp"
#include "apps/load/patterns.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

namespace llumnix::load {

/// How a run goes, beside what it sends.
struct run_options {
  endpoint_url endpoint;
  std::string url; ///< as the user wrote it, for the report
  std::string key;
  std::size_t concurrency = 16;                      ///< requests under way at most
  std::optional<std::chrono::milliseconds> duration; ///< no request starts after it
  std::chrono::milliseconds timeout{300'000};        ///< a request that takes longer failed
  bool verify = false;
  bool progress = false; ///< a line on stderr once a second
};

/// How a run ended.
struct run_result {
  load_stats stats;
  load_stats::frame about;
};

/// Drives the endpoint with the requests of `pattern` and `trace` until they have ended, SIGINT or
/// SIGTERM.
///
/// An empty model name is asked from the endpoint. A timed request that finds no free slot waits
/// for one, and its times count from when it was due. `unreachable` when the endpoint does not
/// answer at the start; other errors when it answers but has no model.
result<run_result>
run_load(const run_options& options, pattern_options pattern, std::vector<trace_row> trace);

} // namespace llumnix::load
