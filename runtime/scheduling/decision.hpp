#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// What a placement is asked for.
struct placement_query {
  std::string request_id; ///< text id of the request (of this choice); key of the local account
  std::uint32_t prompt_tokens = 0; ///< load it adds: prompt and, for a replay, delivered tokens
  std::vector<instance_id>
    exclude; ///< instances that just refused or failed it; chosen only if nothing else is left
};

/// One candidate a filter rejected.
struct dropped_candidate {
  instance_id instance;
  std::uint32_t pass = 1; ///< 2: the fallback pass, without skippable filters; 3: the excluded too
  std::string filter;     ///< schedulability, staleness, metric, failover, state, excluded, ...
  std::string metric;     ///< for filter `metric`
  double value = 0;
  double threshold = 0;
};

/// Why an instance was chosen, or none (DESIGN.md 3.10; spec/surface.md 5).
struct placement_reasons {
  std::string policy; ///< name of the composition
  std::uint64_t view_version = 0;
  bool fallback = false;               ///< pass 2 or 3 chose
  std::vector<instance_id> considered; ///< bounded; `considered_total` counts all
  std::uint32_t considered_total = 0;
  std::vector<dropped_candidate> dropped; ///< bounded; `dropped_total` counts all
  std::uint32_t dropped_total = 0;
  std::vector<std::pair<instance_id, std::vector<std::pair<std::string, double>>>>
    metrics;        ///< best first, bounded
  std::string note; ///< a sentence for people
};

/// Outcome of one placement. `instance` is empty when nobody can take the request now.
struct placement {
  instance_id instance;
  placement_reasons reasons; ///< filled only where asked for
};

} // namespace llumnix
