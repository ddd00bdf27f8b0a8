#pragma once

#include "runtime/base/node_counters.hpp"

#include <string>

namespace llumnix {

/// The process's own numbers as Prometheus text 0.0.4: its actors' counters, and `process_*` as the
/// usual client libraries name them. `uptime_s`: seconds since the process began.
std::string node_metrics_text(const node_counters& counters, double uptime_s);

} // namespace llumnix
